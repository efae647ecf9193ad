"""Reading images and labels from disk, with errors that name the file."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.manifest import Row

# Orientation -> its inverse. Pillow's exif_transpose would also rewrite the other fields, and fail on odd ones.
_UPRIGHT: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> np.ndarray:
    """Read any image Pillow knows as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Grey becomes RGB, 16 bits become 8, and what is transparent shows white.

    Raises:
        UserError: if the file is missing, cut short or no image.
    """
    try:
        with Image.open(path) as file:
            file.load()
            turn = _UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation))
            image = file if turn is None else file.transpose(turn)
            if image.mode.startswith("I"):  # Pillow's conversion would clip 16 bits at 255
                grey = np.asarray(image)
                if grey.min() < 0 or grey.max() > 65535:
                    raise ValueError("its pixels have more than 16 bits")
                return np.repeat((grey // 256).astype(np.uint8)[..., None], 3, axis=2)  # as Pillow reads RGB of 16 bits
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers")
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {path} not found") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} cannot be read ({error}); replace or remove it") from None


def read_label(path: Path, classes: Classes) -> np.ndarray:
    """Read a label file, as classes.label_format says, as (H, W) uint8 class ids; other ids become ignore_index.

    Ids are read from PNGs of at most 8 bits (grey or palette) and from SBD's .mat files, colours from RGB pictures.

    Raises:
        UserError: the file is missing, broken, of another kind, or has ids or colours that are neither a class nor ignored.
    """
    if path.suffix.lower() == ".mat":
        return _from_ids(_read_mat(path), path, classes)
    try:
        with Image.open(path) as image:
            mode, depth = image.mode, _bit_depth(image)
            if classes.label_format == "colours" and mode in ("RGB", "RGBA", "P"):
                return _from_colours(np.asarray(image.convert("RGB")), path, classes)
            raw = np.asarray(image)
            if mode == "1":
                raw = raw.astype(np.uint8)
            elif mode == "L" and depth < 8:
                raw = raw // (255 // (2**depth - 1))  # Pillow spreads what few bits hold over 0..255
    except FileNotFoundError:
        raise UserError(f"label {path} not found") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"label {path} cannot be read ({error}); replace or remove it") from None
    if classes.label_format == "colours":
        raise UserError(f"label {path} has mode {mode}; expected the classes' colours in RGB, as classes.json says")
    if mode not in ("1", "L", "P"):
        raise UserError(f"label {path} has mode {mode}; expected an 8-bit PNG of class ids (mode L or P), one channel")
    return _from_ids(raw, path, classes)


def _bit_depth(image: Image.Image) -> int:
    """Return the bits per value of a grey PNG that is open, but not yet read; 8 for others."""
    tile = getattr(image, "tile", ()) if image.format == "PNG" else ()
    return {"L;2": 2, "L;4": 4}.get(str(tile[0][3]) if tile else "", 8)


def require_size(label: np.ndarray, size: tuple[int, int], path: Path) -> None:
    """Refuse a label, read from `path`, of another size than its image's (height, width)."""
    if label.shape != size:
        sizes = f"{label.shape[0]}x{label.shape[1]}, its image {size[0]}x{size[1]}"
        raise UserError(f"label {path} is {sizes} (height x width); they must be equal")


def _from_ids(raw: np.ndarray, path: Path, classes: Classes) -> np.ndarray:
    known = np.zeros(256, dtype=bool)
    known[[*classes.label_ids, *classes.ignore_ids]] = True
    present = np.bincount(raw.ravel(), minlength=256) > 0
    wrong = np.flatnonzero(present & ~known)
    if wrong.size:
        expected = f"0..{len(classes) - 1}" if not classes.file_ids else f"{list(classes.file_ids)}"
        found = f"has ids {wrong[:5].tolist()} outside {expected} and the ignored {list(classes.ignore_ids)}"
        raise UserError(f"label {path} {found}; fix the file, or the list of classes")
    return classes.lookup()[raw]


def _from_colours(raw: np.ndarray, path: Path, classes: Classes) -> np.ndarray:
    codes = raw.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)  # (H, W, 3) -> (H, W)
    present, inverse = np.unique(codes, return_inverse=True)
    table = classes.colour_lookup()
    wrong = [int(code) for code in present if int(code) not in table]
    if wrong:
        colours = [[code >> 16, code >> 8 & 255, code & 255] for code in wrong[:3]]
        many = f"has {len(wrong)} colours that are no class, first {colours}"
        raise UserError(f"label {path} {many}; fix it, or name them under ignore_colours in classes.json")
    return np.array([table[int(code)] for code in present], dtype=np.uint8)[inverse].reshape(codes.shape)


def _read_mat(path: Path) -> np.ndarray:
    """Return the (H, W) uint8 ids of SBD's GTcls.Segmentation."""
    from scipy.io import loadmat  # slow to import, and needed only by SBD

    try:
        return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # a broken file fails in many ways
        raise UserError(f"label {path} cannot be read as SBD's .mat ({error}); replace or remove it") from None


class LabelledPairs(Sequence[tuple[np.ndarray, np.ndarray]]):
    """The (image, label) pair of every row, read from disk when asked for."""

    def __init__(self, rows: Sequence[Row], root: Path, classes: Classes) -> None:
        self.rows, self.root, self.classes = rows, root, classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        row = self.rows[index]
        return read_image(self.root / row.image), read_label(self.root / row.label, self.classes)


class Images(Sequence[np.ndarray]):
    """The image of every row, read from disk when asked for; paths start at `root`."""

    def __init__(self, rows: Sequence[Row], root: Path) -> None:
        self.rows, self.root = rows, root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return read_image(self.root / self.rows[index].image)
