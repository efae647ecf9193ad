"""Images and labels of every kind become RGB and class ids."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import read_image, read_label, read_picture, read_size, require_size

CLASSES = Classes(("ground", "cat", "dog"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
TWO = Classes(CLASSES.names[:2], CLASSES.colours[:2])


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits(bits: int, tmp_path: Path) -> None:
    """Pillow, which reads them, cannot write them."""
    ids = np.random.default_rng(0).integers(0, 2 if bits == 1 else 3, (6, 8), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(6, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, bits, 0, 0, 0, 0))
    path = tmp_path / "label.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.array_equal(read_label(path, TWO if bits == 1 else CLASSES), ids)
    if bits == 1:  # programs that save space write masks of 0 and 255 like this, others those of 0 and 1
        with pytest.raises(UserError, match="white could be id 1 or 255"):
            read_label(path, CLASSES)


def test_labels_with_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    Image.fromarray(np.array([[0, 10, 20, 30]], np.uint8)).save(path)
    classes = Classes(CLASSES.names, CLASSES.colours, ignore_ids=(0,), file_ids=(10, 20, 30))
    assert read_label(path, classes).tolist() == [[255, 0, 1, 2]]
    with pytest.raises(UserError, match=r"label\.png has ids \[10, 20, 30\] outside 0\.\.2 and the ignored \[255\]"):
        read_label(path, CLASSES)
    Image.fromarray(np.array([[1, 2, 3]], np.uint8)).save(path)
    with pytest.raises(UserError, match=r'if ids begin with 1, write "ids": \[1, 2, \.\.\.\] into classes\.json'):
        read_label(path, CLASSES)


def test_labels_in_colours(tmp_path: Path) -> None:
    white = (255, 255, 255)
    classes = Classes(CLASSES.names, CLASSES.colours, label_format="colours", ignore_colours=(white,))
    ids = np.random.default_rng(0).integers(0, 4, (6, 8))
    Image.fromarray(np.array([*CLASSES.colours, white], np.uint8)[ids]).save(tmp_path / "label.png")
    label = read_label(tmp_path / "label.png", classes)
    assert np.array_equal(label, np.where(ids == 3, 255, ids)) and label.dtype == np.uint8
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match=r"other\.png has 1 colours that are no class, first \[\[7, 7, 7\]\]"):
        read_label(tmp_path / "other.png", classes)


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOURED = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def with_tag(path: Path, array: np.ndarray, tag: int, value: int) -> Path:
    """Save an array as a TIFF, then set a tag: photometric 262, orientation 274, extra samples 338."""
    Image.fromarray(array).save(path, tiffinfo={274: 1})
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    (entry,) = (
        at for at in range(start + 2, start + 2 + 12 * count, 12) if data[at : at + 2] == struct.pack("<H", tag)
    )
    struct.pack_into("<H", data, entry + 8, value)
    path.write_bytes(data)
    return path


def save(path: Path, array: np.ndarray) -> None:
    """Save an array; Pillow cannot write colours of 16 bits."""
    if array.dtype == np.uint16 and array.ndim == 3:
        assert cv2.imwrite(str(path), array[..., ::-1])
    else:
        Image.fromarray(array).save(path)


def deep(array: np.ndarray, factor: int = 16) -> np.ndarray:
    return array.astype(np.uint16) * factor


PICTURES: dict[str, tuple[Any, np.ndarray, dict[str, int], tuple[float, float] | None]] = {
    "grey.png": (GREY, GREY, {}, None),
    "16 bits.png": (deep(GREY, 256) + 77, GREY, {}, None),
    "near infrared as alpha.png": (np.dstack([COLOURED, GREY]), COLOURED, {"alpha": 1}, None),
    "alpha 0 everywhere.png": (np.dstack([COLOURED, 0 * GREY]), COLOURED, {"alpha": 1}, None),
    "opaque.png": (np.dstack([COLOURED, 0 * GREY + 255]), COLOURED, {}, None),
    "12 of 16 bits.png": (deep(GREY), GREY // 16, {"dark": 235 * 16}, None),
    "12 bits, range.png": (deep(GREY), GREY, {}, (0, 4095)),
    "8 of 16 bits, range.png": (deep(GREY, 1), GREY, {}, (0, 255)),
    "above the range.png": (deep(GREY, 256), np.minimum(GREY.astype(int) * 16, 255), {"beyond": 1}, (0, 4095)),
    "colours of 12 bits.png": (deep(COLOURED), COLOURED // 16, {"dark": 4095}, None),
    "colours of 12 bits.tif": (deep(COLOURED), COLOURED, {}, (0, 4095)),
    "float.tif": (GREY.astype(np.float32) / 256, GREY, {}, (0.0, 1.0)),
    "8 bits keep theirs.png": (COLOURED, COLOURED, {}, (0, 4095)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_bits_and_bands(name: str, tmp_path: Path) -> None:
    stored, expected, notes, value_range = PICTURES[name]
    save(tmp_path / name, stored)
    image, found = read_picture(tmp_path / name, value_range)
    wanted = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert image.dtype == np.uint8 and np.array_equal(image, wanted)
    assert found == notes or (
        "dark" in notes and found.keys() == notes.keys() and found["dark"] >> 8 == notes["dark"] >> 8
    )


def test_floating_point_numbers_need_a_range(tmp_path: Path) -> None:
    save(tmp_path / "float.tif", GREY.astype(np.float32))
    with pytest.raises(UserError, match=r"float\.tif cannot be read \(its pixels are floating-point"):
        read_image(tmp_path / "float.tif")


def test_ids_under_an_associated_alpha_are_taken_as_they_are(tmp_path: Path) -> None:
    ids = GREY // 5 % 3
    path = with_tag(tmp_path / "label.tif", np.dstack([ids, ids, ids, np.full_like(ids, 100)]), 338, 1)
    assert np.array_equal(read_label(path, CLASSES), ids)


def test_tiffs_of_many_kinds(tmp_path: Path) -> None:
    four = np.dstack([COLOURED, GREY])
    for extra in (0, 1, 2):  # unspecified, associated and unassociated alpha: the colours are taken as they are
        image, notes = read_picture(with_tag(tmp_path / "four.tif", four, 338, extra))
        assert np.array_equal(image, COLOURED) and list(notes) == ["alpha" if extra else "bands"]
    for array in (GREY, deep(GREY, 257)):  # white is zero
        image = read_image(with_tag(tmp_path / "white.tif", array, 262, 0))
        assert np.array_equal(image[..., 0], 255 - GREY)
    for array in (GREY, deep(GREY, 257), COLOURED):
        image, notes = read_picture(with_tag(tmp_path / "turned.tif", array, 274, 6))
        wanted = np.rot90(array if array is COLOURED else np.dstack([GREY] * 3), -1)
        assert np.array_equal(image, wanted) and notes == {"turned": 1}
        assert read_size(tmp_path / "turned.tif") == (8, 6)
    assert np.array_equal(read_label(with_tag(tmp_path / "turned.tif", IDS, 274, 6), CLASSES), np.rot90(IDS, -1))
    deeper, path, turned = deep(COLOURED, 257), tmp_path / "deep.tif", [(274, "H", 1, 3, True)]
    tifffile.imwrite(path, deeper, photometric="rgb", extratags=turned)
    assert np.array_equal(read_image(path, (0, 65535)), np.rot90(COLOURED, 2))
    tifffile.imwrite(path, GREY / np.float32(255), byteorder=">", compression="zlib", photometric="minisblack")
    assert np.array_equal(read_image(path, (0, 1))[..., 0], GREY)
    tifffile.imwrite(path, deeper.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    for read in (lambda: read_image(path), lambda: read_label(path, CLASSES)):
        with pytest.raises(UserError, match="16 bits in separate planes; save its channels interleaved"):
            read()
    pages = [Image.fromarray(COLOURED), Image.fromarray(255 - COLOURED), Image.fromarray(COLOURED[::2, ::2])]
    for further, expected in ((pages[1:], {"several": 1}), (pages[2:], {})):  # smaller ones are previews
        pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=further)
        image, notes = read_picture(tmp_path / "pages.tif")
        assert np.array_equal(image, COLOURED) and notes == expected
    pages[2].save(tmp_path / "pages.tif", save_all=True, append_images=pages[:1])  # the preview comes first
    assert read_picture(tmp_path / "pages.tif")[1] == {"several": 1}


def test_pictures_of_which_pillow_gives_other_values(tmp_path: Path) -> None:
    two = Image.fromarray((IDS > 0).astype(np.uint8))
    two.putpalette([0, 0, 0, 255, 255, 255])
    two.save(tmp_path / "two.bmp")  # with 8 bits each, which Pillow reads as 1
    for read in (read_image, lambda path: read_label(path, TWO)):
        with pytest.raises(UserError, match="two colours of 4 or 8 bits; save it as PNG"):
            read(tmp_path / "two.bmp")
    Image.fromarray(IDS > 0).save(tmp_path / "two.bmp")
    assert np.array_equal(read_label(tmp_path / "two.bmp", TWO), IDS > 0)
    (tmp_path / "12.pgm").write_bytes(b"P5 8 6 4095\n" + deep(GREY).astype(">u2").tobytes())
    (tmp_path / "16.pgm").write_bytes(b"P5 8 6 65535\n" + deep(GREY, 257).astype(">u2").tobytes())
    numbers = " ".join(map(str, deep(GREY).ravel()))
    (tmp_path / "plain.pgm").write_text(f"P2 8 6 4095\n{numbers}\n")
    for name, top in (("12", 4095), ("plain", 4095), ("16", 65535)):
        for value_range in ((0, top), None):
            assert np.array_equal(read_image(tmp_path / f"{name}.pgm", value_range)[..., 0], GREY), name
    (tmp_path / "16.ppm").write_bytes(b"P6 8 6 65535\n" + deep(COLOURED).astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / "16.ppm", (0, 4095)), COLOURED)
    image, notes = read_picture(tmp_path / "16.ppm")
    assert np.array_equal(image, COLOURED // 16) and list(notes) == ["dark"]
    large = np.kron(COLOURED, np.ones((16, 16, 1), np.uint8))
    cv2.imwrite(str(tmp_path / "16.jp2"), deep(large, 257)[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    for value_range in ((0, 65535), None):
        assert np.array_equal(read_image(tmp_path / "16.jp2", value_range), large)


def test_more_pixels_than_pillow_allows(tmp_path: Path) -> None:
    Image.new("1", (20_000, 9_000)).save(tmp_path / "large.png")
    assert read_size(tmp_path / "large.png") == (9_000, 20_000)
    assert read_image(tmp_path / "large.png").shape == (9_000, 20_000, 3)


IDS = np.random.default_rng(1).integers(0, 3, (6, 8), dtype=np.uint8)
ALPHA = np.full((6, 8), 255, np.uint8)
HALF = np.where(IDS == 1, 255, 0).astype(np.uint8)
READ_AS_IDS = {
    "equal channels": np.dstack([IDS] * 3),
    "with alpha": np.dstack([IDS] * 3 + [ALPHA]),
    "grey with alpha": np.dstack([IDS, ALPHA]),
    "16 bits": deep(IDS, 1),
    "32 bits": IDS.astype(np.int32),
    "whole numbers": IDS.astype(np.float32),
    "equal channels of 16 bits": np.dstack([deep(IDS, 1)] * 3),
}
NO_IDS = {
    "different channels": (np.dstack([IDS, 0 * IDS, 0 * IDS]), "with different channels"),
    "transparent in places": (np.dstack([IDS] * 3 + [HALF]), "transparent in places"),
    "above the classes": (deep(IDS, 257), r"has ids \[257, 514\]"),
    "below 0": (IDS.astype(np.int32) - 1, r"has ids \[-1\]"),
    "parts": (IDS / np.float32(2), "no whole numbers"),
    "infinite": (np.where(IDS == 1, np.inf, IDS).astype(np.float32), "no whole numbers"),
}


@pytest.mark.parametrize("ending", [".tif", ".png", ".bmp", ".gif"])
def test_ids_in_any_form_that_keeps_them(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"label{ending}"
    for name, array in {"grey": IDS, **READ_AS_IDS}.items():
        grey = array.dtype == np.uint8 and array.ndim == 2
        if grey or ending == ".tif" or (ending == ".png" and array.dtype.kind == "u"):  # what such a file can hold
            save(path, array)
            assert np.array_equal(read_label(path, CLASSES), IDS), name
    if ending == ".tif":
        for name, (array, message) in NO_IDS.items():
            save(path, array)
            with pytest.raises(UserError, match=message):
                assert read_label(path, CLASSES) is name


def test_labels_that_lost_their_ids_are_refused(tmp_path: Path) -> None:
    picture, path = Image.fromarray(IDS), tmp_path / "label.png"
    for format_, options, message in (
        ("JPEG", {}, "is a JPEG picture, which may change ids"),
        ("WEBP", {}, "is a WEBP picture"),
        ("TIFF", {"compression": "jpeg"}, "is a TIFF with JPEG compression picture"),
        ("TIFF", {"save_all": True, "append_images": [picture]}, "holds several pictures"),
    ):
        picture.save(path, format=format_, **options)
        with pytest.raises(UserError, match=message):
            read_label(path, CLASSES)
    with pytest.raises(UserError, match="white is zero"):
        read_label(with_tag(tmp_path / "label.tif", IDS, 262, 0), CLASSES)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    for read in (lambda: read_label(path, CLASSES), lambda: read_image(path)):
        with pytest.raises(UserError, match=r"label\.png is a pointer of Git LFS; `git lfs pull` fetches the file"):
            read()


@pytest.mark.parametrize(
    ("ending", "palette", "values", "message"),
    [
        ("gif", None, [0, 2, 255], "shows the greys"),
        ("gif", CLASSES.palette().ravel().tolist(), [0, 2, 2], "is a GIF, whose ids change"),
        ("png", [0, 0, 0, 2, 2, 2, 255, 255, 255], [0, 1, 2], r"greys \[0, 2, 255\].* as ids \[0, 1, 2\]"),
        ("png", [0, 0, 0, 255, 255, 255], [0, 1, 1], None),  # black and white
        ("png", [0, 0, 0, 128, 128, 128, 255, 255, 255], [0, 1, 2], None),  # greys that are no ids
    ],
)
def test_palettes_that_show_other_ids_are_refused(
    ending: str, palette: list[int] | None, values: list[int], message: str | None, tmp_path: Path
) -> None:
    path, picture = tmp_path / f"label.{ending}", Image.fromarray(np.array([values], dtype=np.uint8))
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    if message:
        with pytest.raises(UserError, match=message):
            read_label(path, CLASSES)
    else:
        assert read_label(path, CLASSES).tolist() == [values]


def test_exif_of_labels_and_of_colours_of_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IDS).save(tmp_path / "label.png", exif=exif)
    label = read_label(tmp_path / "label.png", CLASSES)
    assert np.array_equal(label, np.rot90(IDS, -1))
    with pytest.raises(UserError, match=r"is 8x6, its image 6x8 .*If EXIF turns the image, turn the label too"):
        require_size(label, (6, 8), tmp_path / "label.png")
    save(tmp_path / "deep.png", deep(COLOURED, 257))
    before, found, after = (tmp_path / "deep.png").read_bytes().partition(b"IDAT")
    turn = chunk(b"eXIf", exif.tobytes()[6:])
    (tmp_path / "deep.png").write_bytes(before[:-4] + turn + before[-4:] + found + after)
    assert np.array_equal(read_image(tmp_path / "deep.png", (0, 65535)), np.rot90(COLOURED, -1))


BLACK_WHITE = Classes(("a", "b", "c"), ((0, 0, 0), (255, 255, 255), (128, 128, 128)), label_format="colours")
GREYS = np.array([0, 255, 128], np.uint8)[IDS]
COLOURS = {
    "grey": (GREYS, None),
    "grey with alpha": (np.dstack([GREYS, ALPHA]), None),
    "16 bits": (deep(GREYS, 257), None),
    "8 of 16 bits": (deep(GREYS, 1), None),
    "colours of 16 bits": (np.dstack([deep(GREYS, 257)] * 3), None),
    "transparent where black": (np.dstack([GREYS] * 3 + [GREYS]), None),
    "alpha 0 everywhere": (np.dstack([GREYS] * 3 + [0 * GREYS]), None),
    "transparent where white": (np.dstack([GREYS] * 3 + [255 - GREYS]), "colours under transparent pixels"),
    "other 16 bits": (deep(GREYS, 4), "colours of 16 bits"),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_in_other_forms(name: str, tmp_path: Path) -> None:
    (array, message), path = COLOURS[name], tmp_path / "label.png"
    save(path, array)
    if message is None:
        assert np.array_equal(read_label(path, BLACK_WHITE), IDS)
    else:
        with pytest.raises(UserError, match=message):
            read_label(path, BLACK_WHITE)


def test_masks_of_one_bit_stand_for_0_and_255_or_for_black_and_white(tmp_path: Path) -> None:
    save(tmp_path / "label.png", HALF > 0)
    for classes in (Classes(TWO.names, TWO.colours, ignore_ids=(), file_ids=(0, 255)), BLACK_WHITE):
        assert np.array_equal(read_label(tmp_path / "label.png", classes), HALF // 255)


@pytest.mark.parametrize(
    ("order", "refused"), [((0, 1, 2), False), ((0, 2, 1), True), ((0, 1, 9), False), ((0, 9, 9), False)]
)
def test_a_palette_of_the_classes_in_another_order_is_refused(
    order: tuple[int, ...], refused: bool, tmp_path: Path
) -> None:
    """What an editor that sorts colours leaves; other palettes mean nothing."""
    colours = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    classes = Classes(("ground", "cat", "dog"), colours, file_ids=(0, 3, 7))
    palette = np.full((8, 3), 99, dtype=np.uint8)
    for id_, place in zip((0, 3, 7), order, strict=True):
        palette[id_] = colours[place] if place < 3 else (1, 2, 3)
    for name, ids in (("all", [[0, 3, 7]]), ("one", [[3, 3]])):
        image = Image.fromarray(np.array(ids, dtype=np.uint8))
        image.putpalette(palette.tobytes())
        image.save(tmp_path / f"{name}.png")
    assert read_label(tmp_path / "one.png", classes).tolist() == [[1, 1]]  # too little to tell
    if refused:
        with pytest.raises(UserError, match="id 3 is cat, but has the colour of dog in its palette"):
            read_label(tmp_path / "all.png", classes)
    else:
        assert read_label(tmp_path / "all.png", classes).tolist() == [[0, 1, 2]]
