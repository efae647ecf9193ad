"""Label pictures with a trained model. `python -m segsemi predict`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segsemi.core.classes import Classes, colourise, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import visible_files
from segsemi.core.pictures import save_png
from segsemi.core.progress import progress_bar
from segsemi.data.images import IMAGE_ENDINGS, read_image
from segsemi.inference import predict_label
from segsemi.models.saving import load_model
from segsemi.runtime.device import choose_device


def run(args: argparse.Namespace) -> int:
    """Write OUT/NAME.png, an 8-bit palette PNG of class ids, for every image; return the exit code.

    With `overlay` also OUT/NAME_overlay.png, the classes' colours laid over the image. A broken image is reported and skipped;
    then the exit code is 1.

    Raises:
        UserError: a file would be written over one of the images, or over another one.
    """
    window = args.sliding_window
    if not all(0 < scale < math.inf for scale in args.scales) or (window is not None and window < 32):
        raise UserError("--scales must be above 0 and --sliding-window at least 32 pixels")
    images = find_images(args.images, args.out)
    taken = {path.resolve() for _, path in images}
    for name, path in images:
        for target in [args.out / f"{name}.png", *([args.out / f"{name}_overlay.png"] if args.overlay else [])]:
            if target.resolve() in taken:
                raise UserError(f"{path}: its {target} would be written over another image; use other folders")
            taken.add(target.resolve())
    model, failed = load_model(args.model).to(choose_device(args.device)), 0
    for name, path in progress_bar(images, desc="predict", unit="image"):
        try:
            image = read_image(path)
        except UserError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        label = predict_label(model, image, args.scales, args.flip, window)
        if args.overlay:
            save_png(args.out / f"{name}_overlay.png", laid_over(image, label, model.classes))
        write_label_png(args.out / f"{name}.png", label, model.classes)
    print(f"{len(images) - failed} label images in {args.out}" + (f", {failed} images failed" if failed else ""))
    return 1 if failed else 0


def find_images(sources: Sequence[Path], out: Path) -> list[tuple[str, Path]]:
    """Return the images that files and folders (searched through) name: (name of the output, path).

    The name is the path below the given folder, or the file's name, without its ending. What lies in `out`, where the output
    goes, is not one of a folder's images, unless `out` is that folder.

    Raises:
        UserError: a source has no image.
    """
    found: dict[Path, str] = {}
    for source in sources:
        base, paths = source.parent, [source] if source.is_file() else []
        if source.is_dir():
            base, paths = source, visible_files(source, IMAGE_ENDINGS)
            if out.resolve() != source.resolve():
                paths = [path for path in paths if out.resolve() not in path.resolve().parents]
        if not paths:
            raise UserError(f"{source}: no image there; give files, or folders with {', '.join(IMAGE_ENDINGS)}")
        found.update((path, path.relative_to(base).with_suffix("").as_posix()) for path in paths)
    return [(name, path) for path, name in found.items()]


def laid_over(image: np.ndarray, label: np.ndarray, classes: Classes) -> np.ndarray:
    """Return (H, W, 3) uint8, half the image, (H, W, 3) uint8, and half the colours of its label, (H, W) class ids."""
    return ((image.astype(np.uint16) + colourise(label, classes)) // 2).astype(np.uint8)
