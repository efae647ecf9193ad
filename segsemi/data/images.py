"""Reading images and labels from disk, with errors that name the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

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
IMAGE_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".gif", ".jp2", ".ppm", ".pgm", ".avif"),
)
LABEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")  # formats that keep every value
_LOSSLESS = ("PNG", "TIFF", "BMP", "DIB", "GIF")
_WHITE_IS_ZERO, _COMPRESSED = 0, ("jpeg", "tiff_jpeg", "webp")  # of TIFF
_CHANNELS = ("LA", "RGB", "RGBA")  # modes in which Pillow cuts 16 bits to 8
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # libtiff has swapped the bytes already
MAX_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = None  # its limit, 179 million pixels, is below what satellites and scanners deliver

# What `read_picture` may note, and how `note_lines` says it of a number of pictures.
NOTES = {
    "alpha": "have an alpha channel, which is ignored: the colours are taken as they are",
    "bands": "have further bands beside red, green and blue, which are ignored",
    "several": "hold several pictures each, of which the first is taken",
    "turned": "are turned upright by their EXIF orientation; check with doctor --picture that their labels fit",
    "dark": "have 16 bits but no value above {top}, so they look nearly black; "
    'if that is their range, write "range": [0, {top}] into classes.json',
    "beyond": 'have values above the "range" of classes.json, which become white',
}


def note_lines(notes: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield a warning, with a number of pictures and the first, for each thing that is odd; path -> notes of `read_picture`."""
    for note, text in NOTES.items():
        having = [path for path, own in notes.items() if note in own]
        if having:
            top = (1 << max(notes[path][note] for path in having).bit_length()) - 1
            yield f"warning: {len(having)} of {len(notes)} images (first {having[0]}) {text.replace('{top}', str(top))}"


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    """Open a picture of at most MAX_PIXELS; raise a UserError that calls it `kind` for all that can be wrong with it."""
    try:
        # a stream: Pillow maps a file that it opens by name, and takes the width of a turned TIFF for that of its rows
        with path.open("rb") as stream, Image.open(stream) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"its {file.width}x{file.height} pixels could be a decompression bomb")
            yield file
    except FileNotFoundError:
        raise UserError(f"{kind} {path} not found") from None
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        if _starts_with(path, b"version https://git-lfs"):
            raise UserError(f"{kind} {path} is a pointer of Git LFS; `git lfs pull` fetches the file") from None
        reason = "no picture, or of an unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{kind} {path} cannot be read ({reason}); replace or remove it") from None


def _correct(file: Any) -> None:
    """Correct, or refuse with ValueError, what Pillow would read wrong without an error; before it loads the pixels."""
    if file.format in ("BMP", "DIB") and file.mode == "1" and file.tile[0].args[1] != (file.width + 31) // 32 * 4:
        raise ValueError("a BMP with two colours of 4 or 8 bits; save it as PNG")
    if file.format == "TIFF":
        bits, samples, planes = (file.tag_v2.get(tag) for tag in (258, 277, 284))
        if planes == 2 and samples and samples > 1 and bits and max(bits) > 8:
            raise ValueError("16 bits in separate planes; save its channels interleaved")
        if planes == 2 and 1 in (file.tag_v2.get(338) or ()):
            raise ValueError("colours multiplied by their alpha, in separate planes; save it without alpha")
        file.tile = [tile._replace(args=(_stored_mode(tile), *tile.args[1:])) for tile in file.tile]


def _stored_mode(tile: Any) -> str:
    """Return a TIFF tile's raw mode, with neither a division by an associated alpha nor bytes swapped twice."""
    mode = tile.args[0].replace("RGBa", "RGBA")
    return _NATIVE.get(mode, mode) if tile.codec_name == "libtiff" else mode


def _starts_with(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def read_image(path: Path, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Read any image Pillow knows as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Grey becomes RGB, and alpha is ignored. More than 8 bits become 8: `value_range`, as classes.json has it, is spread over
    0..255; without it, the upper 8 of 16 bits are taken.

    Raises:
        UserError: the file is missing, cut short or no image.
    """
    return read_picture(path, value_range)[0]


def read_picture(path: Path, value_range: tuple[float, float] | None = None) -> tuple[np.ndarray, dict[str, int]]:
    """Return the image as `read_image`, and what is odd about the file: keys of NOTES; `dark` has the largest value."""
    with _opened(path, "image") as file:
        notes = {"several": 1} if _holds_several(file) else {}
        _correct(file)
        if file.format == "TIFF":
            tags = file.tag_v2
            if tags.get(277, 1) > 3 and len(file.getbands()) == 3:  # samples per pixel
                notes["bands"] = 1
            if tags.get(274, 1) != 1:  # Pillow turns it
                notes["turned"] = 1
        top = _top(file, path)
        many = ";16" in _raw_mode(file) or (file.format in ("PPM", "JPEG2000") and 255 < top < 65536)
        deep = many and file.mode in _CHANNELS
        image, turn = _upright(file)
        if turn is not None:
            notes["turned"] = 1
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            notes["alpha"] = 1
        if image.mode[0] in "IF":
            values = np.asarray(image)
            if value_range is not None and top < 65535:
                values = (
                    values >> 16 - top.bit_length() if file.format == "JPEG2000" else np.rint(values * (top / 65535))
                )
            inverted = file.format == "TIFF" and tags.get(262) == _WHITE_IS_ZERO
            return np.repeat(_to_bytes(values, value_range, notes, inverted)[..., None], 3, axis=2), notes
        if deep:
            return _to_bytes(_all_bits(path, turn)[..., :3], value_range, notes), notes
        return np.asarray(image.convert("RGB")), notes


def _top(file: Any, path: Path) -> int:
    """Return the highest value that a PGM, PPM or JPEG 2000 file can hold, which Pillow makes 255 or 65535; else 65535."""
    if file.format == "PPM" and isinstance(args := file.tile[0].args, tuple):
        return int(args[1])
    if file.format == "JPEG2000":
        data = path.read_bytes()
        bits = (data[data.find(b"\xff\x4f\xff\x51") + 42] & 127) + 1  # of the first channel
        return (1 << bits) - 1
    return 65535


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture once it is turned upright; raise a UserError as `read_image`."""
    with _opened(path, "image") as file:
        # a TIFF is upright already
        turned = file.format != "TIFF" and file.getexif().get(ExifTags.Base.Orientation, 1) > 4
        return (file.width, file.height) if turned else (file.height, file.width)


def _raw_mode(file: Any) -> str:
    """Return how the values of an open, but not yet loaded picture are stored, such as L;4 or RGB;16B."""
    args = file.tile[0].args if getattr(file, "tile", ()) else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _holds_several(file: Image.Image) -> bool:
    """Return whether a second picture follows that is no smaller; smaller ones are previews."""
    if getattr(file, "n_frames", 1) < 2:
        return False
    size = file.size
    file.seek(1)
    second = file.size
    file.seek(0)
    return second[0] >= size[0] and second[1] >= size[1]


def _upright(file: Image.Image) -> tuple[Image.Image, Image.Transpose | None]:
    """Load a picture; return it turned by its EXIF orientation, and the turn. Pillow turns a TIFF while it loads it."""
    file.load()
    turn = _UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation))
    return file if turn is None else file.transpose(turn), turn


def _all_bits(path: Path, turn: Image.Transpose | None) -> np.ndarray:
    """Return a picture whose 16 bits Pillow would cut to 8, (H, W, 3 or 4) uint16 or uint8, turned as `_upright` says."""
    import cv2  # slow to import, and rarely needed

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)  # upright only if a TIFF
    if array is None or array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError("its 16 bits cannot be decoded")
    array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    if turn is None:
        return array
    return np.dstack([np.asarray(Image.fromarray(channel).transpose(turn)) for channel in np.moveaxis(array, 2, 0)])


def _to_bytes(
    values: np.ndarray, value_range: tuple[float, float] | None, notes: dict[str, int], inverted: bool = False
) -> np.ndarray:
    """Return values of any type as uint8: those of `value_range`, or of 16 bits, spread over 0..255."""
    low, high = value_range or (0, 65535)
    if value_range is None and values.dtype.kind == "f":
        raise ValueError('its pixels are floating-point numbers; write their "range": [low, high] into classes.json')
    if value_range is None and (values.min() < 0 or values.max() > high):
        raise ValueError('its pixels have more than 16 bits; write their "range": [low, high] into classes.json')
    if value_range is None:
        if values.max() < 1 << 14:
            notes["dark"] = int(values.max())
        if not inverted:
            return (values // 256).astype(np.uint8)
    elif values.max() > high:
        notes["beyond"] = 1
    offset = np.nan_to_num(high - values if inverted else values - np.float64(low))
    # of whole numbers each is as wide as the others
    levels = high - low + (values.dtype.kind != "f")
    return np.clip(np.floor(offset * (256 / levels)), 0, 255).astype(np.uint8)


def read_label(path: Path, classes: Classes) -> np.ndarray:
    """Read a label file, as classes.label_format says, as (H, W) uint8 class ids; other ids become ignore_index.

    Ids are read from PNG, TIFF, BMP or GIF: of one channel, or of equal channels with an alpha of one value. SBD's are .mat
    files. Colours may also be grey g, for (g, g, g). The label's own EXIF orientation is applied.

    Raises:
        UserError: the file is missing, broken, of a format or kind that does not keep ids, ambiguous, or has ids or colours
            that are neither a class nor ignored.
    """
    if path.suffix.lower() == ".mat":
        return _from_ids(_read_mat(path), path, classes)
    with _opened(path, "label") as file:
        if file.format not in _LOSSLESS or file.info.get("compression") in _COMPRESSED:
            kind = file.format if file.format not in _LOSSLESS else f"{file.format} with JPEG compression"
            raise UserError(f"label {path} is a {kind} picture, which may change ids at edges; save it as PNG")
        if _holds_several(file):
            raise UserError(f"label {path} holds several pictures; keep one")
        _correct(file)
        raw_mode, mode = _raw_mode(file), file.mode
        inverted = file.format == "TIFF" and file.tag_v2.get(262) == _WHITE_IS_ZERO
        image, turn = _upright(file)
        deep = ";16" in raw_mode
        values = _all_bits(path, turn) if deep and mode in _CHANNELS else np.asarray(image)
        if classes.label_format == "colours":
            return _from_colours(_colours(image, values, deep, path), path, classes)
        if inverted:
            raise UserError(f"label {path} is a TIFF in which white is zero, so its ids are ambiguous; save it as PNG")
        if mode == "1":
            known = (*classes.label_ids, *classes.ignore_ids)
            if {1, 255}.issubset(known) and len(classes) > 2 and values.any():
                raise UserError(f"label {path} has 1 bit, so its white could be id 1 or 255; save it with 8 bits")
            values = values.astype(np.uint8) * (1 if 1 in known or 255 not in known else 255)
        elif mode == "P":
            _check_palette(image, values, path, classes, renumbered=file.format == "GIF")
        elif mode == "L" and raw_mode[:3] in ("L;2", "L;4"):
            values = values // {"2": 85, "4": 17}[raw_mode[2]]  # Pillow spreads what few bits hold over 0..255
        elif values.ndim == 3:
            values = _one_channel(values, mode, path)
        elif mode[0] in "IF" and not (np.isfinite(values) & (values == np.rint(values))).all():
            raise UserError(f"label {path} has values that are no whole numbers; save class ids as an 8-bit PNG")
    return _from_ids(values, path, classes)


def _check_palette(image: Image.Image, values: np.ndarray, path: Path, classes: Classes, *, renumbered: bool) -> None:
    """Refuse a palette that shows the classes' colours or ids at other places, as editors that sort colours leave it.

    Args:
        renumbered: the file's format drops unused colours, so ids count only where the colours are the classes'.
    """
    palette = np.reshape(image.getpalette("RGB") or [], (-1, 3)).tolist()
    shown = {id_: tuple(palette[id_]) for id_ in _present(values).tolist() if id_ < len(palette)}
    named = {id_: shown[id_] for id_ in classes.label_ids if id_ in shown}
    greys = {id_: colour[0] for id_, colour in shown.items() if len(set(colour)) == 1}
    known = {*classes.label_ids, *classes.ignore_ids}
    moved = len(greys) == len(shown) and [*greys] != [*greys.values()] != [0, 255]
    if moved and known.issuperset(greys.values()) and len(known) < 256:  # else any grey is an id
        raise UserError(
            f"label {path} shows the greys {[*greys.values()]}, which are ids, as ids {[*greys]}; save 8-bit grey"
        )
    wrong = [id_ for id_, colour in named.items() if classes.colours[classes.label_ids.index(id_)] != colour]
    if wrong and renumbered and (moved or len(greys) < len(shown)):
        raise UserError(f"label {path} is a GIF, whose ids change where colours are unused; save it as PNG")
    if wrong and len(named) > 1 and set(named.values()) <= set(classes.colours):
        meant, is_ = classes.colours.index(named[wrong[0]]), classes.label_ids.index(wrong[0])
        raise UserError(
            f"label {path}: id {wrong[0]} is {classes.names[is_]}, but has the colour of {classes.names[meant]} in its "
            "palette; if an editor sorted the palette, save the label as it was, else correct the colours in classes.json"
        )


def _one_channel(values: np.ndarray, mode: str, path: Path) -> np.ndarray:
    """Return the ids, (H, W), of a label of several channels; refuse it if they could be something else."""
    channels, alpha = (values[..., :-1], values[..., -1]) if mode in ("LA", "PA", "RGBA") else (values, np.zeros(1))
    if mode not in ("LA", "PA", "RGB", "RGBA") or (channels != channels[..., :1]).any():
        raise UserError(
            f"label {path} has mode {mode} with different channels; expected class ids in one channel or in equal ones. "
            'If it holds colours, write "labels": "colours" into classes.json'
        )
    if alpha.min() != alpha.max():
        raise UserError(f"label {path} is transparent in places, so its ids are ambiguous; save it without alpha")
    return channels[..., 0]


def _colours(image: Image.Image, values: np.ndarray, deep: bool, path: Path) -> np.ndarray:
    """Return the colours of a label, (H, W, 3) uint8, grey and palettes as RGB; `values` are its raw ones."""
    if deep:  # 8 bits stretched to 16, or stored in them
        if values.max() > 255:
            if (values % 257).any():
                raise UserError(f"label {path} has colours of 16 bits; save it with 8 bits per channel")
            values = values // 257
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UserError(
            f"label {path} has mode {image.mode}; expected the classes' colours in RGB, as classes.json says"
        )
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    hidden = rgba[..., 3] == 0
    if not hidden.all() and rgba[hidden][:, :3].any():  # black is what editors put under transparency
        raise UserError(
            f"label {path} has colours under transparent pixels, which are ambiguous; save it without alpha"
        )
    return rgba[..., :3]


def require_size(label: np.ndarray, size: tuple[int, int], path: Path) -> None:
    """Refuse a label, read from `path`, of another size than its image's (height, width)."""
    if label.shape != size:
        sizes = f"{label.shape[0]}x{label.shape[1]}, its image {size[0]}x{size[1]}"
        swapped = ". If EXIF turns the image, turn the label too: images are read upright, as viewers show them"
        raise UserError(
            f"label {path} is {sizes} (height x width); they must be equal{swapped if label.shape == size[::-1] else ''}"
        )


def _present(raw: np.ndarray) -> np.ndarray:
    """Return the different values, in order; np.unique would sort all pixels."""
    return np.flatnonzero(np.bincount(raw.ravel())) if raw.dtype == np.uint8 else np.unique(raw)


def _from_ids(raw: np.ndarray, path: Path, classes: Classes) -> np.ndarray:
    known = {*classes.label_ids, *classes.ignore_ids}
    wrong = [int(id_) for id_ in _present(raw) if id_ not in known]
    if wrong:
        expected = f"0..{len(classes) - 1}" if not classes.file_ids else f"{list(classes.file_ids)}"
        found = f"has ids {wrong[:5]} outside {expected} and the ignored {list(classes.ignore_ids)}"
        from_one = wrong == [len(classes)] and not classes.file_ids and not (raw == 0).any()
        counted = ', or, if ids begin with 1, write "ids": [1, 2, ...] into classes.json' if from_one else ""
        raise UserError(f"label {path} {found}; fix the file, or the list of classes{counted}")
    return classes.lookup()[raw.astype(np.uint8)]


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
        image = read_image(self.root / row.image, self.classes.value_range)
        return image, read_label(self.root / row.label, self.classes)


class Images(Sequence[np.ndarray]):
    """The image of every row, read from disk when asked for; paths start at `root`."""

    def __init__(self, rows: Sequence[Row], root: Path, value_range: tuple[float, float] | None = None) -> None:
        self.rows, self.root, self.value_range = rows, root, value_range

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return read_image(self.root / self.rows[index].image, self.value_range)
