"""Label pictures with a trained model: what `python -m segsemi predict` does."""

from __future__ import annotations

import glob
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segsemi.core.classes import colourise, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import visible_files, write_bytes
from segsemi.core.pictures import save_png
from segsemi.core.progress import progress_bar
from segsemi.data.images import IMAGE_ENDINGS, read_image
from segsemi.inference import predict_image
from segsemi.models.build import SegmentationModel, most_probable


def find_images(sources: Sequence[str], out: Path) -> dict[str, Path]:
    """The images that files, folders (searched through) and glob patterns name: name of the output -> path.

    The name is the path below the given folder, or the file's name, without its ending. What lies in `out`, where the output
    goes, is none of a folder's images.

    Raises:
        UserError: a source matches nothing, or two images would be written under one name.
    """
    found: dict[str, Path] = {}
    target = out.resolve()
    for source in sources:
        base = Path(source)
        if base.is_dir():
            below = visible_files(base, IMAGE_ENDINGS)
            if target != base.resolve():
                below = [path for path in below if target not in path.resolve().parents]
            paths = {path.relative_to(base): path for path in below}
        elif base.is_file():
            paths = {Path(base.name): base}
        else:
            matches = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207  # an absolute pattern too
            paths = {Path(path.name): path for path in matches if _is_image(path)}
        if not paths:
            raise UserError(f"{source}: no image there; give files, folders or patterns of {', '.join(IMAGE_ENDINGS)}")
        for short, path in paths.items():
            name = short.with_suffix("").as_posix()
            if name in found and found[name] != path:
                raise UserError(f"{found[name]} and {path} would both become {name}.png; predict them into two folders")
            found[name] = path
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def predict_files(
    model: SegmentationModel,
    images: dict[str, Path],
    out: Path,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
    overlay: bool = False,
    probabilities: bool = False,
) -> int:
    """Write out/NAME.png, an 8-bit palette PNG of class ids, for every image; a broken one is reported and passed over.

    Args:
        images: name -> path, as `find_images` gives them.
        window: side of sliding windows in pixels; None: whole images.
        overlay: also out/NAME_overlay.png, the classes' colours laid over the image.
        probabilities: also out/NAME.npz, `probabilities` (C, H, W) float16 and `classes`, their names.

    Returns:
        The number of images that could not be read.

    Raises:
        UserError: a file would be written over one of the images, or over another one.
    """
    taken = {path.resolve() for path in images.values()}
    for name, path in images.items():
        for target in (out / f"{name}.png", out / f"{name}_overlay.png"):
            if target.resolve() in taken:
                raise UserError(
                    f"{target} is one of the images, and would be written over; give another folder with -o"
                )
        if overlay and (other := images.get(f"{name}_overlay")):
            raise UserError(
                f"the overlay of {path} and the label of {other} would be one file; predict them into two folders"
            )
    failed = 0
    for name, path in progress_bar(images.items(), desc="predict", unit="image"):
        try:
            image = read_image(path)
        except UserError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        shares = predict_image(model, image, scales, flip, window)
        label = most_probable(shares)
        if probabilities:
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer, probabilities=shares.half().cpu().numpy(), classes=np.array(model.classes.names)
            )
            write_bytes(out / f"{name}.npz", buffer.getvalue())
        if overlay:
            save_png(out / f"{name}_overlay.png", laid_over(image, colourise(label, model.classes)))
        write_label_png(out / f"{name}.png", label, model.classes)
    return failed


def laid_over(image: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Half the image, half the colours: (H, W, 3) uint8."""
    return ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)
