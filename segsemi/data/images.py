"""Reading images and labels from disk, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segsemi.data.manifest import Row
from segsemi.errors import UserError
from segsemi.palette import Classes


def read_image(path: Path) -> np.ndarray:
    """Any image Pillow reads -> (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises:
        UserError: if the file is missing, cut short or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {path} not found") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} cannot be read ({error}); replace or remove it") from None


def read_label(path: Path, classes: Classes) -> np.ndarray:
    """8-bit PNG of class ids (grey or palette) -> (H, W) uint8; ids in classes.ignore_ids become ignore_index.

    Raises:
        UserError: if the file is missing, broken, not 8-bit ids, or has ids that are neither a class nor ignored.
    """
    try:
        with Image.open(path) as image:
            mode, raw = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise UserError(f"label {path} not found") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"label {path} cannot be read ({error}); replace or remove it") from None
    if mode not in ("L", "P"):
        raise UserError(f"label {path} has mode {mode}; expected an 8-bit PNG of class ids (mode L or P), one channel")
    known = np.zeros(256, dtype=bool)
    known[: len(classes)] = True
    known[list(classes.ignore_ids)] = True
    present = np.bincount(raw.ravel(), minlength=256) > 0
    wrong = np.flatnonzero(present & ~known)
    if wrong.size:
        raise UserError(
            f"label {path} has ids {wrong[:5].tolist()} outside 0..{len(classes) - 1} and the ignored "
            f"{list(classes.ignore_ids)}; fix the file, or the list of classes"
        )
    return classes.lookup()[raw]


class LabelledPairs(Sequence[tuple[np.ndarray, np.ndarray]]):
    """(image, label) of every row, read from disk when asked for."""

    def __init__(self, rows: Sequence[Row], root: Path, classes: Classes) -> None:
        self.rows, self.root, self.classes = rows, root, classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        row = self.rows[index]
        return read_image(self.root / row.image), read_label(self.root / row.label, self.classes)
