"""Every known layout, written in miniature with its real file names and encodings."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import read_label
from segsemi.data.manifest import Row, read_rows
from segsemi.datasets import check_entries, find_dataset
from segsemi.datasets.cityscapes import CITYSCAPES, CITYSCAPES_TRAIN_IDS
from segsemi.datasets.entry import read_ids
from segsemi.datasets.folder import read_classes
from segsemi.datasets.split import split_rows, write_split
from segsemi.datasets.voc import VOC

RNG = np.random.default_rng(0)


def write(path: Path, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path)


def write_image(path: Path) -> None:
    write(path, RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8))


def rows_of(name: str, root: Path) -> tuple[Classes, list[Row]]:
    found = find_dataset(name, root, val_fraction=0.25, seed=0)
    return found.classes, check_entries(root, found.entries, found.classes, warn=lambda _: None)


def subsets(rows: list[Row]) -> dict[str, str]:
    return {row.id: row.subset for row in rows}


# Cityscapes


def cityscapes(root: Path, kind: str = "labelIds") -> np.ndarray:
    """Two train, one val, one test and one train_extra image; the label of all ids, 255 (licence plate) among them."""
    ids = np.resize(np.array([*range(34), 255], dtype=np.uint8), (6, 8))
    for subset, city, number in (
        ("train", "aachen", 0),
        ("train", "ulm", 1),
        ("val", "munster", 0),
        ("test", "bonn", 0),
    ):
        name = f"{city}_{number:06d}_000019"
        write_image(root / f"leftImg8bit/{subset}/{city}/{name}_leftImg8bit.png")
        write(root / f"gtFine/{subset}/{city}/{name}_gtFine_labelIds.png", ids)
        if kind != "labelIds":
            write(root / f"gtFine/{subset}/{city}/{name}_gtFine_{kind}.png", CITYSCAPES.lookup()[ids])
    write_image(root / "leftImg8bit/train_extra/augsburg/augsburg_000000_000000_leftImg8bit.png")
    return ids


def test_cityscapes_ids_are_those_of_the_official_scripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    evaluated = sorted((label for label in labels if 0 <= label.trainId < 255), key=lambda label: label.trainId)
    assert CITYSCAPES.names == tuple(label.name for label in evaluated)
    assert CITYSCAPES.colours == tuple(label.color for label in evaluated)
    assert CITYSCAPES.file_ids == tuple(label.id for label in evaluated)
    table = CITYSCAPES.lookup()
    for label in labels:
        assert table[label.id % 256] == (label.trainId if 0 <= label.trainId < 255 else 255), label.name


def test_cityscapes_layout(tmp_path: Path) -> None:
    ids = cityscapes(tmp_path)
    classes, rows = rows_of("cityscapes", tmp_path)
    assert subsets(rows) == {
        "aachen_000000_000019": "train",
        "ulm_000001_000019": "train",
        "munster_000000_000019": "val",
        "augsburg_000000_000000": "extra",
    }
    label = read_label(tmp_path / rows[0].label, classes)
    assert np.array_equal(label, CITYSCAPES.lookup()[ids])
    assert label.ravel()[7] == 0 and label.ravel()[33] == 18 and label.ravel()[34] == 255
    assert rows[-1].label == "" and rows[-1].image_hash


def test_cityscapes_train_ids_are_used_where_they_are(tmp_path: Path) -> None:
    ids = cityscapes(tmp_path, "labelTrainIds")
    classes, rows = rows_of("cityscapes", tmp_path)
    assert classes == CITYSCAPES_TRAIN_IDS and "labelTrainIds" in rows[0].label
    assert np.array_equal(read_label(tmp_path / rows[0].label, classes), CITYSCAPES.lookup()[ids])


def test_cityscapes_coarse_labels_measure_the_extra_images(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    coarse = tmp_path / "gtCoarse/train_extra/augsburg/augsburg_000000_000000_gtCoarse_labelIds.png"
    write(coarse, np.full((6, 8), 7, np.uint8))
    _, rows = rows_of("cityscapes", tmp_path)
    assert rows[-1].label.startswith("gtCoarse/")
    split = split_rows(rows, fraction=1.0, seed=0)
    assert [row.id for row in split.unlabelled] == ["augsburg_000000_000000"]


def test_cityscapes_without_labels_names_the_archive_and_an_image_that_has_none(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    for path in sorted(tmp_path.glob("gtFine/*/*/*_labelIds.png")):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    missing = sorted(tmp_path.glob("gtFine/train/*/*_labelTrainIds.png"))[-1]
    missing.unlink()
    name = missing.name.removesuffix("_gtFine_labelTrainIds.png")
    with pytest.raises(UserError, match=rf"{name}_leftImg8bit\.png has no label"):
        rows_of("cityscapes", tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"gtFine not found; unpack gtFine_trainvaltest\.zip beside leftImg8bit/"):
        rows_of("cityscapes", tmp_path)
    (tmp_path / "archive").mkdir()
    (tmp_path / "leftImg8bit").rename(tmp_path / "archive/leftImg8bit")
    with pytest.raises(
        UserError, match=r"leftImg8bit/train not found \(.*archive/leftImg8bit/train is there: each archive"
    ):
        rows_of("cityscapes", tmp_path)


def test_cityscapes_image_without_label(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    missing = tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"
    missing.unlink()
    with pytest.raises(UserError, match=r"ulm_000001_000019_leftImg8bit\.png has no label .*labelIds\.png"):
        rows_of("cityscapes", tmp_path)


# Pascal VOC 2012 and SBD


def voc(root: Path) -> np.ndarray:
    base = root / "VOCdevkit/VOC2012"
    ids = np.resize(np.array([*range(21), 255], dtype=np.uint8), (6, 8))
    for subset, names in (("train", ["2007_000001", "2007_000002"]), ("val", ["2007_000003"])):
        (base / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (base / f"ImageSets/Segmentation/{subset}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write_image(base / f"JPEGImages/{name}.jpg")
            write(base / f"SegmentationClass/{name}.png", ids, VOC.palette())
    return ids


def test_voc_palette_and_ids_are_those_of_torchvision(tmp_path: Path) -> None:
    from segsemi.models.torchvision_ops import import_torchvision

    import_torchvision()
    from torchvision.datasets import VOCSegmentation

    ids = voc(tmp_path)
    classes, rows = rows_of("voc", tmp_path)
    assert subsets(rows) == {"2007_000001": "train", "2007_000002": "train", "2007_000003": "val"}
    reference = VOCSegmentation(str(tmp_path), image_set="train")
    for row, (image, label) in zip(rows, reference, strict=False):
        assert np.array_equal(np.asarray(Image.open(tmp_path / row.image)), np.asarray(image))
        assert np.array_equal(read_label(tmp_path / row.label, classes), np.asarray(label))
        assert np.array_equal(np.asarray(label), ids)
    # the colours that VOC publishes
    assert classes.colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert classes.colours[15] == (192, 128, 128) and classes.colours[20] == (0, 64, 128)


@pytest.mark.parametrize("root", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_root_may_be_any_of_its_folders(root: str, tmp_path: Path) -> None:
    voc(tmp_path)
    assert len(rows_of("voc", tmp_path / root)[1]) == 3


@pytest.mark.parametrize("root", ["VOCdevkit", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset/cls", "sbd/cls"])
def test_sbd_outside_of_the_root_is_named(root: str, place: str, tmp_path: Path) -> None:
    """As the archives unpack side by side: without it no image would be unlabelled."""
    voc(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(
        UserError, match=rf"SBD is in {tmp_path / place}, outside of data.root, .*set data.root to {tmp_path}$"
    ):
        rows_of("voc", tmp_path / root)


def test_published_lists_of_paths_name_ids(tmp_path: Path) -> None:
    path = tmp_path / "trainaug.txt"
    path.write_text("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n2008_000001\n")
    assert read_ids(path) == ["2007_000032", "2008_000001"]


def test_extra_images_that_are_to_be_labelled_must_be_there(tmp_path: Path) -> None:
    voc(tmp_path)
    with pytest.raises(UserError, match=r"split\.extra is labelled, but the data set has no images beside"):
        split_rows(rows_of("voc", tmp_path)[1], fraction=1.0, extra="labelled", seed=0)


def test_sbd_as_png_is_extra_and_may_be_labelled(tmp_path: Path) -> None:
    ids = voc(tmp_path)
    base = tmp_path / "VOCdevkit/VOC2012"
    for name in ("2007_000001", "2007_000003", "2008_000001", "2008_000002"):  # SBD holds images of VOC's val too
        if name.startswith("2008"):
            write_image(base / f"JPEGImages/{name}.jpg")
        write(base / f"SegmentationClassAug/{name}.png", ids)
    _, rows = rows_of("voc", tmp_path)
    assert subsets(rows) | {"2007_000003": "val", "2008_000001": "extra", "2008_000002": "extra"} == subsets(rows)
    few = split_rows(rows, fraction=1.0, seed=0)
    assert len(few.labelled) == 2 and len(few.unlabelled) == 2
    every = split_rows(rows, fraction=1.0, extra="labelled", seed=0)
    assert len(every.labelled) == 4 and not every.unlabelled
    assert not split_rows(rows, fraction=1.0, extra="unused", seed=0).unlabelled

    (base / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000001\n2008_000002\n")
    assert "2008_000001" not in subsets(rows_of("voc", tmp_path)[1])


def test_sbd_mat_files(tmp_path: Path) -> None:
    ids = voc(tmp_path)
    ids = np.where(ids == 255, 0, ids)
    write_image(tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_000001.jpg")
    mat = tmp_path / "benchmark_RELEASE/dataset/cls/2008_000001.mat"
    mat.parent.mkdir(parents=True)
    savemat(mat, {"GTcls": {"Segmentation": ids, "Boundaries": np.zeros(3)}})
    classes, rows = rows_of("voc", tmp_path)
    (row,) = [row for row in rows if row.subset == "extra"]
    assert np.array_equal(read_label(tmp_path / row.label, classes), ids)
    mat.write_bytes(mat.read_bytes()[:50])
    with pytest.raises(UserError, match=r"2008_000001\.mat cannot be read"):
        read_label(mat, classes)


# a folder of one's own

THREE = {"names": ["ground", "cat", "dog"], "colours": [[0, 0, 0], [255, 0, 0], [0, 0, 255]]}


def folder(root: Path, classes: dict | None = None, labelled: int = 8, unlabelled: int = 3) -> None:
    for index in range(labelled + 1):  # the last one has no label
        write_image(root / f"images/a/{index}.png")
    for index in range(unlabelled):
        write_image(root / f"unlabelled/u{index}.jpg")
    for index in range(labelled):
        write(root / f"labels/a/{index}.png", RNG.integers(0, 3, (6, 8), dtype=np.uint8))
    (root / "classes.json").write_text(json.dumps(classes or THREE))


def test_folder_holds_out_a_validation_set(tmp_path: Path) -> None:
    folder(tmp_path)
    classes, rows = rows_of("folder", tmp_path)
    assert classes.names == ("ground", "cat", "dog")
    count = {name: sum(row.subset == name for row in rows) for name in ("train", "val", "extra", "test")}
    assert count == {"train": 6, "val": 2, "extra": 4, "test": 0}
    assert subsets(rows)["a__8"] == "extra" and subsets(rows)["u0"] == "extra"
    assert subsets(rows_of("folder", tmp_path)[1]) == subsets(rows)


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    """What notebooks and macOS leave behind."""
    folder(tmp_path)
    for path in ("images/a/._0.png", "images/.ipynb_checkpoints/0-checkpoint.png", "unlabelled/.thumbs/u0.jpg"):
        write_image(tmp_path / path)
    assert set(subsets(rows_of("folder", tmp_path)[1])) == {*(f"a__{index}" for index in range(9)), "u0", "u1", "u2"}


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    folder(tmp_path / "own")
    write_image(tmp_path / "elsewhere/9.png")
    (tmp_path / "own/images/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own/images/loop").symlink_to(tmp_path / "own/images")
    found = find_dataset("folder", tmp_path / "own", val_fraction=0.25, seed=0)
    said: list[str] = []
    rows = check_entries(tmp_path / "own", found.entries, found.classes, warn=said.append)
    assert [row.id for row in rows if not row.id.startswith(("a__", "u"))] == ["b__9"]
    assert any("images/b is a link to a folder, in which dvc sees no change" in line for line in said)


def test_folder_with_its_own_lists(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "val.txt").write_text("a/0\na/1.png\n")
    (tmp_path / "test.txt").write_text("a/2\n")
    count = subsets(rows_of("folder", tmp_path)[1])
    assert {id_ for id_, subset in count.items() if subset == "val"} == {"a__0", "a__1"}
    assert count["a__2"] == "test" and count["a__3"] == "train"
    (tmp_path / "train.txt").write_text("a/3\n")
    rows = rows_of("folder", tmp_path)[1]
    assert "a__4" not in subsets(rows)  # labelled, but in no list
    split = split_rows(rows, fraction=1.0, seed=0)
    assert [row.id for row in split.labelled] == ["a__3"] and [row.id for row in split.test] == ["a__2"]
    assert {row.id for row in split.unlabelled} == {"a__8", "u0", "u1", "u2"}


def test_names_in_lists_may_have_spaces(tmp_path: Path) -> None:
    folder(tmp_path)
    for kind in ("images", "labels"):
        for path in (tmp_path / kind / "a").glob("[01].*"):
            path.rename(path.with_name(f"2 {path.name}"))
    (tmp_path / "val.txt").write_text("a/2 0\na/2 1.png\n")
    (tmp_path / "test.txt").write_text("a/3.png labels/a/3.png\n")  # as other lists have it
    found = subsets(rows_of("folder", tmp_path)[1])
    assert {id_ for id_, subset in found.items() if subset == "val"} == {"a__2 0", "a__2 1"}
    assert found["a__2"] == "train" and found["a__3"] == "test"


def test_a_path_in_a_list_is_the_longest_that_there_is(tmp_path: Path) -> None:
    """The same name twice: at the top and in a folder, of which the list names the one or the other."""
    folder(tmp_path)
    for kind in ("images", "labels"):
        shutil.copy(tmp_path / kind / "a/0.png", tmp_path / kind / "0.png")
    write_image(tmp_path / "images/0.png")
    (tmp_path / "val.txt").write_text("\ufeffimages/a/0.png\na/1\n", encoding="utf-8")  # with an editor's mark
    (tmp_path / "test.txt").write_text("/elsewhere/0.png\n")
    found = subsets(rows_of("folder", tmp_path)[1])
    assert (found["a__0"], found["a__1"], found["0"]) == ("val", "val", "test")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"names": ["cat"], "colours": [[255, 0, 0]]})
    for path in (tmp_path / "labels/a").iterdir():
        write(path, np.resize(np.array([0, 255], np.uint8), (6, 8)))
    with pytest.raises(UserError, match="hold cat and ignored pixels alone; there is nothing to tell apart"):
        rows_of("folder", tmp_path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits(bits: int, tmp_path: Path) -> None:
    """Pillow, which reads them, cannot write them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ids = RNG.integers(0, 2 if bits == 1 else 3, (6, 8), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(6, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, bits, 0, 0, 0, 0))
    path = tmp_path / "label.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.array_equal(read_label(path, Classes(tuple(THREE["names"]), tuple(map(tuple, THREE["colours"])))), ids)


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    shutil.copy(next((tmp_path / "unlabelled").iterdir()), tmp_path / "unlabelled" / "a__0.png")
    with pytest.raises(UserError, match=r"images/a/0\.\w+ and .*unlabelled/a__0.png have the same id, a__0"):
        rows_of("folder", tmp_path)


def test_linked_folders_are_named(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    (tmp_path / "data/images").rename(tmp_path / "away")
    (tmp_path / "data/images").symlink_to(tmp_path / "away")
    (tmp_path / "root").symlink_to(tmp_path / "data")
    found = find_dataset("folder", tmp_path / "root", val_fraction=0.2, seed=0)
    said: list[str] = []
    check_entries(tmp_path / "root", found.entries, found.classes, warn=said.append)
    (line,) = [line for line in said if "link" in line]
    assert f"{tmp_path / 'root/images'} is a link to a folder" in line


def test_validation_is_what_a_list_of_training_images_leaves_out(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"a/{index}\n" for index in range(5)))
    found = subsets(rows_of("folder", tmp_path)[1])
    assert {id_ for id_, subset in found.items() if subset == "train"} == {f"a__{index}" for index in range(5)}
    assert {id_ for id_, subset in found.items() if subset == "val"} == {"a__5", "a__6", "a__7"}
    (tmp_path / "train.txt").write_text("".join(f"a/{index}\n" for index in range(8)))
    with pytest.raises(UserError, match=r"train\.txt leaves no labelled image for validation; name them in .*val\.txt"):
        rows_of("folder", tmp_path)


def test_folder_with_rgb_labels(tmp_path: Path) -> None:
    folder(tmp_path, {**THREE, "labels": "colours", "ignore_colours": [[255, 255, 255]]})
    colours = np.array([*THREE["colours"], [255, 255, 255]], dtype=np.uint8)
    ids = RNG.integers(0, 4, (6, 8))
    for index in range(8):
        write(tmp_path / f"labels/a/{index}.png", colours[ids])
    classes, rows = rows_of("folder", tmp_path)
    label = read_label(tmp_path / rows[0].label, classes)
    assert np.array_equal(label, np.where(ids == 3, 255, ids)) and label.dtype == np.uint8
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes
    write(tmp_path / "labels/a/0.png", np.full((6, 8, 3), 7, np.uint8))
    with pytest.raises(UserError, match=r"labels/a/0\.png has 1 colours that are no class, first \[\[7, 7, 7\]\]"):
        rows_of("folder", tmp_path)


def test_folder_with_other_ids(tmp_path: Path) -> None:
    folder(tmp_path, {**THREE, "ids": [10, 20, 30], "ignore_ids": [0]})
    for index in range(8):
        write(tmp_path / f"labels/a/{index}.png", np.resize(np.array([0, 10, 20, 30], np.uint8), (6, 8)))
    classes, rows = rows_of("folder", tmp_path)
    assert read_label(tmp_path / rows[0].label, classes).ravel()[:4].tolist() == [255, 0, 1, 2]
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


BAD_FOLDERS = {
    "no classes.json": (
        lambda root: (root / "classes.json").unlink(),
        r"classes\.json not found; it names the classes",
    ),
    "no colours": (lambda root: (root / "classes.json").write_text('{"names": ["a"]}'), r"no key 'colours'"),
    "too few colours": (
        lambda root: (root / "classes.json").write_text(json.dumps({**THREE, "colours": [[0, 0, 0]]})),
        r"colours must be 3",
    ),
    "unknown key": (
        lambda root: (root / "classes.json").write_text(json.dumps({**THREE, "color": 1})),
        r"unknown key color",
    ),
    "label without image": (lambda root: (root / "images/a/3.png").unlink(), r"labels/a/3\.png has no image"),
    "no labels": (lambda root: (root / "labels").rename(root / "other"), r"folder .*labels not found"),
    "unknown name": (lambda root: (root / "val.txt").write_text("zebra\n"), r"val\.txt names 'zebra'"),
    "list of an unlabelled image": (lambda root: (root / "val.txt").write_text("a/8\n"), r"names 'a/8', which has no"),
    "in two lists": (
        lambda root: [(root / f"{name}.txt").write_text("a/1\n") for name in ("train", "val")],
        r"'a/1' is in val\.txt and in train\.txt",
    ),
    "empty list": (lambda root: (root / "val.txt").write_text("\n"), r"val\.txt is empty"),
    "one name twice": (lambda root: write_image(root / "unlabelled/a/1.png"), r"have one name"),
    "ids beyond the classes": (
        lambda root: write(root / "labels/a/2.png", np.full((6, 8), 3, np.uint8)),
        r"labels/a/2\.png has ids \[3\] outside 0\.\.2",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder_gets_one_clear_error(case: str, tmp_path: Path) -> None:
    folder(tmp_path)
    spoil, message = BAD_FOLDERS[case]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        rows_of("folder", tmp_path)


def test_too_few_labels_to_hold_any_out(tmp_path: Path) -> None:
    folder(tmp_path, labelled=1)
    with pytest.raises(UserError, match=r"data\.val_fraction 0\.25 of 1 labelled images leaves none for validation"):
        rows_of("folder", tmp_path)


def test_equal_colours_cannot_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({**THREE, "colours": [[0, 0, 0]] * 3}))
    read_classes(path)  # ids: the colours are for pictures alone
    path.write_text(json.dumps({**THREE, "colours": [[0, 0, 0]] * 3, "labels": "colours"}))
    with pytest.raises(UserError, match="must all differ"):
        read_classes(path)


# the split of any of them


def test_ratio_of_unlabelled_images(tmp_path: Path) -> None:
    folder(tmp_path, unlabelled=20)
    _, rows = rows_of("folder", tmp_path)
    chosen = {ratio: split_rows(rows, count=2, unlabelled_ratio=ratio, seed=3).unlabelled for ratio in (1.0, 2.0, 5.0)}
    assert {ratio: len(part) for ratio, part in chosen.items()} == {1.0: 2, 2.0: 4, 5.0: 10}
    ids = {ratio: {row.id for row in part} for ratio, part in chosen.items()}
    assert ids[1.0] < ids[2.0] < ids[5.0]
    assert [row.id for row in chosen[5.0]] == [row.id for row in rows if row.id in ids[5.0]]
    other = split_rows(rows, count=2, unlabelled_ratio=2.0, seed=4).unlabelled
    assert len(other) == 4 and {row.id for row in other} != ids[2.0]
    mended = next(iter(ids[1.0]))  # counts as a label
    with_mended = split_rows(rows, count=2, unlabelled_ratio=2.0, seed=3, corrected=[mended])
    assert [row.id for row in with_mended.corrected] == [mended] and len(with_mended.unlabelled) == 6
    with pytest.raises(UserError, match=r"unlabelled_ratio 50\.0 asks for 100"):
        split_rows(rows, count=2, unlabelled_ratio=50.0, seed=3)


def test_camvid_test_images_are_a_subset_of_their_own(tmp_path: Path) -> None:
    for subset in ("train", "val", "test"):
        write_image(tmp_path / f"{subset}/{subset}.png")
        write(tmp_path / f"{subset}annot/{subset}.png", np.resize(np.arange(12, dtype=np.uint8), (6, 8)))
    _, rows = rows_of("camvid", tmp_path)
    split = split_rows(rows, fraction=1.0, seed=0)
    assert [[row.id for row in part] for part in (split.labelled, split.val, split.test)] == [
        ["train"],
        ["val"],
        ["test"],
    ]
    assert not split.unlabelled
    write_split(split, tmp_path / "lists")
    assert [row.id for row in read_rows(tmp_path / "lists/test.csv")] == ["test"]


@pytest.mark.parametrize("subset", ["val", "test"])
def test_image_that_is_learnt_and_measured_on(subset: str, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_image(tmp_path / f"{name}/{name}.png")
        write(tmp_path / f"{name}annot/{name}.png", np.zeros((6, 8), np.uint8))
    (tmp_path / f"{subset}/{subset}.png").write_bytes((tmp_path / "train/train.png").read_bytes())
    with pytest.raises(UserError, match=rf"{subset}\.png \({subset}\) and .*train\.png \(train\) are the same image"):
        rows_of("camvid", tmp_path)
