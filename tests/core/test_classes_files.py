"""Class colours in label files, and files that are there whole or not at all."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsemi.core.classes import Classes, colourise, write_label_png
from segsemi.core.files import file_hash, write_bytes, write_text
from segsemi.datasets.voc import VOC

CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)), ignore_ids=(11, 255))


def test_label_png_keeps_ids_and_shows_colours(tmp_path: Path) -> None:
    path = tmp_path / "new" / "label.png"
    label = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (21, 34))[::-1, ::2]  # not contiguous
    write_label_png(path, label, CLASSES)
    with Image.open(path) as image:
        assert (image.mode, image.format, image.size) == ("P", "PNG", (17, 21))
        np.testing.assert_array_equal(np.asarray(image), label)
        shown = np.asarray(image.convert("RGB"))
    for index, colour in enumerate(CLASSES.colours):
        assert (shown[label == index] == colour).all()
    assert (shown[label == 255] == 0).all()
    np.testing.assert_array_equal(shown, colourise(label, CLASSES))
    data = path.read_bytes()
    assert data[24] == 8  # bits a pixel, in the PNG's header
    write_label_png(path, label, CLASSES)
    assert path.read_bytes() == data


@pytest.mark.parametrize("number", [1, 2, 16, 255])
def test_label_png_of_any_number_of_classes(number: int, tmp_path: Path) -> None:
    """Pillow packs few colours into fewer bits unless told otherwise; ids come back whatever their number."""
    classes = Classes(tuple(map(str, range(number))), tuple((i, 255 - i, 7) for i in range(number)))
    label = (np.arange(300) % number).astype(np.uint8).reshape(15, 20)
    write_label_png(tmp_path / "label.png", label, classes)
    with Image.open(tmp_path / "label.png") as image:
        np.testing.assert_array_equal(np.asarray(image), label)
        assert (np.asarray(image.convert("RGB")) == np.array(classes.colours)[label]).all()


def test_classes_go_through_a_file(tmp_path: Path) -> None:
    CLASSES.save(tmp_path / "folder" / "classes.json")
    loaded = Classes.load(tmp_path / "folder" / "classes.json")
    assert loaded == CLASSES and hash(loaded) == hash(CLASSES) and len(loaded) == 3


@pytest.mark.parametrize(("file_ids", "ignored"), [((), ()), ((), (11, 255)), ((7, 0, 254), (255, 1))])
def test_lookup_gives_class_ids_and_ignores_the_rest(file_ids: tuple[int, ...], ignored: tuple[int, ...]) -> None:
    table = Classes(CLASSES.names, CLASSES.colours, ignored, file_ids).lookup()
    assert table.dtype == np.uint8 and table.shape == (256,)
    ids = list(file_ids or (0, 1, 2))
    assert [int(new) for new in table] == [ids.index(old) if old in ids else 255 for old in range(256)]


def test_ids_without_a_class_have_a_colour_of_their_own() -> None:
    """VOC's background is black, and its borders, of no class, are those of its own label files."""
    assert {tuple(colour) for colour in VOC.palette()[len(VOC) :].tolist()} == {(224, 224, 192)}


def test_an_id_cannot_be_a_class_and_ignored() -> None:
    with pytest.raises(ValueError, match="all different and not ignored"):
        Classes(CLASSES.names, CLASSES.colours, (0,))


def test_written_file_replaces_the_old_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"old")
    os.link(path, tmp_path / "cache")  # as dvc's cache may be
    write_bytes(path, b"new")
    assert (tmp_path / "cache").read_bytes() == b"old" and path.read_bytes() == b"new"
    write_text(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_failed_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_bytes(tmp_path / "taken", b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new data")
    assert path.read_bytes() == b"old" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_file_hash_is_md5(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    assert file_hash(tmp_path / "file") == hashlib.md5(data).hexdigest()
