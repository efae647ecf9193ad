"""The split: which images are labelled, which labels are hidden, which lists name what."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_training import chosen

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash
from segsemi.data.manifest import COLUMNS, Row, read_rows
from segsemi.datasets.entries import read_lines
from segsemi.datasets.split import read_corrected, write_split

CLASSES = Classes(("ground", "cat", "dog"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))


def rows_of(count: int, extra: int = 1) -> list[Row]:
    def row(id_: str, subset: str) -> Row:
        label = "" if subset == "extra" else f"{subset}annot/{id_}.png"
        return Row(id_, subset, f"{subset}/{id_}.png", label, height=6, width=8)

    train, others = [f"t{index:04d}" for index in range(count)], [f"e{index}" for index in range(extra)]
    subsets = {"train": train, "extra": others, "val": ["v"], "test": ["x"]}
    return [row(id_, subset) for subset, listed in subsets.items() for id_ in listed]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


@pytest.mark.parametrize(("fraction", "expected"), [(1 / 8, 46), (1 / 4, 92), (1 / 2, 184), (1.0, 367), (0.01, 4)])
def test_fraction_of_camvid_gives_as_many_labels(fraction: float, expected: int) -> None:
    split = chosen(rows_of(367), fraction=fraction, seed=0)
    assert len(split.labelled) == expected and len(split.unlabelled) == 368 - expected
    assert "e0" in ids(split.unlabelled) and ids(split.val) == ["v"] and ids(split.test) == ["x"]


def test_split_depends_on_the_seed_and_smaller_ones_lie_within_larger() -> None:
    def labelled(count: int, seed: int) -> set[str]:
        return set(ids(chosen(rows_of(100), count=count, seed=seed).labelled))

    assert labelled(10, 1) == labelled(10, 1) != labelled(10, 2)
    assert labelled(10, 1) < labelled(20, 1) < labelled(50, 1)


def test_ratio_of_unlabelled_images() -> None:
    rows = rows_of(10, extra=20)

    def unlabelled(ratio: float, seed: int = 3) -> list[str]:
        return ids(chosen(rows, count=2, unlabelled_ratio=ratio, seed=seed).unlabelled)

    one, two, five = (set(unlabelled(ratio)) for ratio in (1.0, 2.0, 5.0))
    assert (len(one), len(two), len(five)) == (2, 4, 10) and one < two < five
    assert unlabelled(5.0) == [row.id for row in rows if row.id in five]
    assert set(unlabelled(2.0, seed=4)) != two
    (corrected, *_) = one  # counts as a labelled image
    split = chosen(rows, count=2, unlabelled_ratio=2.0, seed=3, corrected=[corrected])
    assert ids(split.corrected) == [corrected] and len(split.unlabelled) == 6


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"fraction": 0.001}, r"split\.fraction 0\.001 of 100 training images leaves no labelled one"),
        ({"count": 101}, r"split\.count 101 is more than the 100"),
        ({"ids": ["nobody"]}, r"split\.labelled_list names 'nobody', which is no training image"),
        ({"count": 2, "unlabelled_ratio": 50.0}, r"split\.unlabelled_ratio 50\.0 asks for 100"),
        ({"extra": "labelled"}, r"split\.extra is labelled, but there are no extra images"),
    ],
)
def test_impossible_split_is_refused(choice: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(rows_of(100, extra=0), seed=0, **choice)


def test_lists_that_leave_nothing_to_train_on_are_named() -> None:
    rows = [Row(str(index), "val", "a.png", "b.png") for index in range(3)]
    with pytest.raises(UserError, match="no labelled image is left .*: lists, split.exclude or split.val take all"):
        chosen(rows, fraction=1.0, seed=0)


def test_list_file_chooses_the_labelled_images(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# comment only\n\n")
    assert len(chosen(rows_of(5), ids=read_lines(path, may_be_empty=True), seed=0).labelled) == 5
    path.write_text("# two\nt0003\ntrain/t0001.png trainannot/t0001.png\n")
    assert ids(chosen(rows_of(5), ids=read_lines(path), seed=0).labelled) == ["t0001", "t0003"]
    with pytest.raises(UserError, match="missing.txt"):
        read_lines(tmp_path / "missing.txt")


LISTED = [
    Row("ulm_0_1", "train", "leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png", "label.png"),
    Row("2007_000032", "train", "VOC2012/JPEGImages/2007_000032.jpg", "label.png"),
    Row("day 1__a cat", "train", "images/day 1/a cat.jpg", "label.png"),
    Row("day 2__a cat", "train", "images/day 2/a cat.jpg", "label.png"),
    Row("x", "train", "x.png", "label.png"),
    Row("sub__x", "train", "sub/x.png", "label.png"),
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [  # lines of the lists that the field shares
        ("leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png", "ulm_0_1"),
        ("/data/cityscapes/leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png\t/data/gt.png", "ulm_0_1"),
        ("leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png,gtFine/train/ulm/x.png", "ulm_0_1"),
        ("ulm_0_1_leftImg8bit", "ulm_0_1"),
        ("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png", "2007_000032"),
        ("2007_000032", "2007_000032"),
        ("day 1/a cat.jpg", "day 1__a cat"),
        ("day 1/a cat", "day 1__a cat"),
        ("images/day 2/a cat.jpg labels/day 2/a cat.png", "day 2__a cat"),
        ("x", "x"),  # a whole id is never ambiguous
        ("2007_000032.jpg,x,1", "2007_000032"),  # further columns
        ("VOC2012/JPEGImages/2007_000032.jpg labels/ulm_0_1_leftImg8bit.png", "2007_000032"),  # the first column counts
    ],
)
def test_lists_as_the_field_shares_them(line: str, expected: str) -> None:
    assert ids(chosen(LISTED, ids=[line], seed=0).labelled) == [expected]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a cat.jpg", "may mean day 1__a cat, day 2__a cat"),
        ("x.png", "may mean sub__x, x"),
        *((line, "is no training image") for line in ("/", ".", "other/2007_000033.jpg", "x.v2")),
        ("x,2007_000032.jpg", "is no training image"),  # row x of a table
        ("x 2007_000032 ulm_0_1", "is no training image"),  # a list on one line
        ("images/x.png,images/2007_000032.jpg", "is no training image"),
    ],
)
def test_list_line_of_two_or_no_images_is_refused(line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"split\.labelled_list.*{message}"):
        chosen(LISTED, ids=[line], seed=0)


def test_unlabelled_list_has_no_trace_of_labels(tmp_path: Path) -> None:
    split = chosen(rows_of(8), count=2, seed=0)
    write_split(split, tmp_path)
    assert "label" not in (tmp_path / "unlabelled.csv").read_text().splitlines()[0]
    assert "annot" not in (tmp_path / "unlabelled.csv").read_text()
    assert ids(read_rows(tmp_path / "unlabelled.csv")) == ids(split.unlabelled) and len(split.unlabelled) == 7
    assert (tmp_path / "labelled.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(read_rows(tmp_path / "hidden.csv")) == 6  # the extra image has no label to hide
    assert (read_rows(tmp_path / "val.csv"), read_rows(tmp_path / "test.csv")) == (split.val, split.test)


def test_corrected_labels_count_as_labelled(tmp_path: Path) -> None:
    rows = rows_of(4, extra=0)
    for name in ("t0001", "t0003"):
        write_label_png(tmp_path / f"mine/{name}.png", np.full((6, 8), 2, dtype=np.uint8), CLASSES)
    (tmp_path / "mine/README.md").write_text("no label")
    files = read_corrected(tmp_path / "mine", rows, CLASSES)
    write_split(chosen(rows, ids=["t0000", "t0003"], corrected=files, seed=0), tmp_path, files)
    found = {name: read_rows(tmp_path / f"{name}.csv") for name in ("labelled", "corrected", "unlabelled", "hidden")}
    assert {name: ids(part) for name, part in found.items()} == {
        "labelled": ["t0000", "t0003"],  # its own label wins
        "corrected": ["t0001"],
        "unlabelled": ["t0002"],
        "hidden": ["t0002"],
    }
    (row,) = found["corrected"]
    assert row.label_hash == file_hash(tmp_path / "mine/t0001.png") == file_hash(tmp_path / row.label)


@pytest.mark.parametrize(
    ("name", "width", "value", "message"),
    [
        ("t9999", 8, 1, r"t9999\.png: no training image has the id"),
        ("v", 8, 1, r"v\.png: no training image has the id"),
        ("t0001", 7, 1, r"t0001\.png is 6x7, its image 6x8"),
        ("t0001", 8, 3, r"t0001\.png has ids \[3\] outside 0\.\.2"),
    ],
)
def test_wrong_corrected_label_is_refused(tmp_path: Path, name: str, width: int, value: int, message: str) -> None:
    write_label_png(tmp_path / f"{name}.png", np.full((6, width), value, dtype=np.uint8), CLASSES)
    with pytest.raises(UserError, match=message):
        read_corrected(tmp_path, rows_of(4), CLASSES)


FILE_IDS = Classes(CLASSES.names, CLASSES.colours, ignore_ids=(0,), file_ids=(1, 2, 3))
MASKS = Classes(("a", "b"), ((0, 0, 0), (255, 255, 255)), ignore_ids=(), file_ids=(0, 255))
BLACK_WHITE = Classes(("a", "b"), ((0, 0, 0), (255, 255, 255)), label_format="colours")


@pytest.mark.parametrize(
    ("classes", "ids", "message"),
    [
        (FILE_IDS, [1, 2], "could hold the ids 0..2 of pseudo labels or what classes.json says"),
        (FILE_IDS, [0, 1], "could hold"),
        (FILE_IDS, [2, 3], r"has ids \[3\] outside"),
        (MASKS, [0, 255], "could hold"),
        (BLACK_WHITE, [0, 255], "could hold"),
        (BLACK_WHITE, [0, 1], None),
        (CLASSES, [0, 2, 255], None),
    ],
)
def test_corrected_ids_that_could_be_two_things(
    classes: Classes, ids: list[int], message: str | None, tmp_path: Path
) -> None:
    label = np.resize(np.array(ids, np.uint8), (6, 8))
    Image.fromarray(label).save(tmp_path / "t0001.png")
    if message is None:
        assert read_corrected(tmp_path, rows_of(4), classes)
    else:
        with pytest.raises(UserError, match=message):
            read_corrected(tmp_path, rows_of(4), classes)
    written = np.minimum(label, len(classes) - 1)
    write_label_png(tmp_path / "t0001.png", written, classes)  # the palette says what they mean
    assert read_corrected(tmp_path, rows_of(4), classes)


@pytest.mark.parametrize("name", ["t0001.tif", "sub/t0001.png"])
def test_corrected_label_that_would_be_ignored_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name} is no corrected label"):
        read_corrected(tmp_path, rows_of(4), CLASSES)


def test_missing_folder_and_two_corrected_labels_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.corrected: there is no folder"):
        read_corrected(tmp_path / "nowhere", [], CLASSES)
    for ending in ("png", "PNG"):
        (tmp_path / f"t0001.{ending}").touch()
    with pytest.raises(UserError, match=r"t0001\.PNG and .*t0001\.png are labels of the same image"):
        read_corrected(tmp_path, rows_of(4), CLASSES)


def test_patterns_leave_training_images_out_and_choose_another_validation_set() -> None:
    """As for frames of another drive; the data set's own validation images are then in no part."""
    rows = [
        Row(f"{drive}_{i}", "train", f"{drive}_{i}.png", "l.png", image_hash=f"{drive}{i}")
        for drive in "abc"
        for i in range(4)
    ]
    rows += [Row(f"a_{i}", "val", f"v{i}.png", "l.png") for i in range(7, 9)]
    split = chosen(rows, count=2, exclude=["b_*", "a_3"], val=["c_[01]"], seed=0)
    assert ids(split.val) == ["c_0", "c_1"]
    assert sorted(ids(split.labelled) + ids(split.unlabelled)) == ["a_0", "a_1", "a_2", "c_2", "c_3"]
    rows[9] = replace(rows[9], image_hash="a0")  # c_1 is a copy of a_0
    with pytest.raises(UserError, match=r"c_1.png \(val\) and a_0.png \(train\) are the same image"):
        chosen(rows, seed=0, val=["c_[01]"])
    for key in ("exclude", "val"):
        with pytest.raises(UserError, match=rf"split.{key}: no training image has an id like 'z\*'; see"):
            chosen(rows, seed=0, **{key: ["z*"]})
