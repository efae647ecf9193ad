"""Images and labels of every kind become RGB and class ids."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import read_image, read_label

CLASSES = Classes(("ground", "cat", "dog"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    rgb = np.repeat(grey[..., None], 3, axis=2)
    files = {
        "grey": Image.fromarray(grey),
        "sixteen": Image.fromarray(grey.astype(np.uint16) * 256 + 77),
        "half": Image.fromarray(np.dstack([rgb, np.full((6, 8), 128, np.uint8)])),
        "opaque": Image.fromarray(np.dstack([rgb, np.full((6, 8), 255, np.uint8)])),
    }
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), rgb), name
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float\.tif cannot be read \(its pixels are floating-point"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits(bits: int, tmp_path: Path) -> None:
    """Pillow, which reads them, cannot write them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ids = np.random.default_rng(0).integers(0, 2 if bits == 1 else 3, (6, 8), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(6, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, bits, 0, 0, 0, 0))
    path = tmp_path / "label.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.array_equal(read_label(path, CLASSES), ids)


def test_labels_with_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    Image.fromarray(np.array([[0, 10, 20, 30]], np.uint8)).save(path)
    classes = Classes(CLASSES.names, CLASSES.colours, ignore_ids=(0,), file_ids=(10, 20, 30))
    assert read_label(path, classes).tolist() == [[255, 0, 1, 2]]
    with pytest.raises(UserError, match=r"label\.png has ids \[10, 20, 30\] outside 0\.\.2 and the ignored \[255\]"):
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
