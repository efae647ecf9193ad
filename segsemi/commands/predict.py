"""Label pictures with a trained model. `python -m segsemi predict`."""

import argparse
import glob
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segsemi.core.classes import Classes, colourise, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import dead_links, visible_files, walk
from segsemi.core.pictures import save_png
from segsemi.core.progress import progress_bar
from segsemi.data.images import IMAGE_ENDINGS, note_lines, read_picture
from segsemi.inference import predict_label
from segsemi.models.saving import load_model
from segsemi.runtime.device import choose_device

WHOLE = 1 << 26  # pixels; larger images, for which the network needs tens of GB, are predicted in windows
WINDOW = 1024


def run(args: argparse.Namespace) -> int:
    """Write OUT/NAME.png, an 8-bit palette PNG of class ids, for every image; return the exit code.

    With `overlay` also OUT/NAME_overlay.png, the classes' colours laid over the image. A broken image is reported and skipped;
    then the exit code is 1.

    Raises:
        UserError: a file would be written over one of the images, or two results into one file.
    """
    window = args.sliding_window
    if not all(0 < scale < math.inf for scale in args.scales) or (window is not None and window < 32):
        raise UserError("--scales must be above 0 and --sliding-window at least 32 pixels")
    images = find_images(args.images, args.out)
    taken = {path.resolve(): path for _, path in images}
    for name, path in images:
        for target in [args.out / f"{name}.png", *([args.out / f"{name}_overlay.png"] if args.overlay else [])]:
            other = taken.setdefault(target.resolve(), path)
            if other.resolve() == target.resolve():
                raise UserError(f"{path}: its {target} would be written over another image; use another folder for -o")
            if other is not path:
                raise UserError(f"{path} and {other}: both results would be {target}; rename one, or give their folder")
    model, failed, notes = load_model(args.model).to(choose_device(args.device)), 0, dict[str, dict[str, int]]()
    if dead := dead_links(path for source in args.images for path in walk(source)):
        print(f"error: {dead}", file=sys.stderr)
    for name, path in progress_bar(images, desc="predict", unit="image"):
        try:
            image, found = read_picture(path, model.classes.value_range)
            notes[str(path)] = {note: top for note, top in found.items() if note != "turned"}  # as it is meant
        except UserError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        side = window
        if window is None and model.architecture.short_side is None and image[..., 0].size > WHOLE:
            side, size = WINDOW, f"{image.shape[0]}x{image.shape[1]} pixels"
            tqdm.write(
                f"{path}: {size}, predicted in windows of {side}; --sliding-window sets their side", file=sys.stderr
            )
        label, _ = predict_label(model, image, args.scales, args.flip, side)
        if args.overlay:
            save_png(args.out / f"{name}_overlay.png", laid_over(image, label, model.classes))
        write_label_png(args.out / f"{name}.png", label, model.classes)
    for line in note_lines(notes):
        print(line, file=sys.stderr)
    print(f"{len(images) - failed} label images in {args.out}" + (f", {failed} images failed" if failed else ""))
    return 1 if failed or dead else 0


def find_images(sources: Sequence[Path], out: Path) -> list[tuple[str, Path]]:
    """Return the images that files, folders (searched through) and patterns (`a/*/1.png`) name: (name of the output, path).

    The name is the path below the given folder, or the file's name, without its ending; of a pattern's files, the path below
    its last folder without a wildcard. What lies in `out`, where the output goes, is not one of a folder's images, unless
    `out` is that folder.

    Raises:
        UserError: a source has no image.
    """
    found: dict[Path, str] = {}
    for source in sources:
        base, paths = source.parent, [source] if source.is_file() else []
        if not source.exists() and glob.has_magic(str(source)):
            while glob.has_magic(str(base)):
                base = base.parent
            paths = sorted(path for path in base.glob(source.relative_to(base).as_posix()) if path.is_file())
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
