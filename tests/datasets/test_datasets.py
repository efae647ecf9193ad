"""Every known layout, written in miniature with its real file names and encodings."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from small_training import chosen

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, write_text
from segsemi.data.images import read_label
from segsemi.data.manifest import Row
from segsemi.datasets import check_entries, find_dataset
from segsemi.datasets.camvid import CAMVID
from segsemi.datasets.cityscapes import CITYSCAPES, CITYSCAPES_TRAIN_IDS
from segsemi.datasets.entries import id_of
from segsemi.datasets.folder import read_classes
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


def rows_of(name: str, root: Path, warn: Callable[[str], None] = lambda _: None) -> tuple[Classes, list[Row]]:
    found = find_dataset(name, root, val_fraction=0.25, seed=0)
    return found.classes, check_entries(root, found.entries, found.classes, warn=warn)


def subsets(rows: list[Row]) -> dict[str, str]:
    return {row.id: row.subset for row in rows}


# CamVid


def camvid(root: Path, stems: dict[str, str]) -> None:
    for subset, stem in stems.items():
        write_image(root / f"{subset}/{stem}.png")
        write(root / f"{subset}annot/{stem}.png", np.resize(np.arange(12, dtype=np.uint8), (6, 8)))


def test_camvid_layout(tmp_path: Path) -> None:
    camvid(tmp_path, {"train": "a", "val": "b", "test": "c"})
    classes, rows = rows_of("camvid", tmp_path)
    assert subsets(rows) == {"a": "train", "b": "val", "c": "test"}
    assert (rows[0].image, rows[0].label, rows[0].height, rows[0].width) == ("train/a.png", "trainannot/a.png", 6, 8)
    label = read_label(tmp_path / rows[0].label, classes)
    assert classes == CAMVID and label.ravel()[:12].tolist() == [*range(11), 255]  # 11 is void
    camvid(tmp_path, {"val": "a"})  # a stem that occurs twice
    assert set(subsets(rows_of("camvid", tmp_path)[1])) == {"train_a", "val_a", "val_b", "test_c"}


@pytest.mark.parametrize("subset", ["val", "test"])
def test_image_that_is_learnt_and_measured_on(subset: str, tmp_path: Path) -> None:
    camvid(tmp_path, {name: name for name in ("train", "val", "test")})
    (tmp_path / f"{subset}/{subset}.png").write_bytes((tmp_path / "train/train.png").read_bytes())
    with pytest.raises(UserError, match=rf"{subset}\.png \({subset}\) and .*train\.png \(train\) are the same image"):
        rows_of("camvid", tmp_path)


# Cityscapes


def cityscapes(root: Path, kind: str = "labelIds") -> np.ndarray:
    """Two train, one val, one test and one train_extra image; the label of all ids, 255 (licence plate) among them."""
    ids = np.resize(np.array([*range(34), 255], dtype=np.uint8), (6, 8))
    label = ids if kind == "labelIds" else CITYSCAPES.lookup()[ids]
    for city in ("train/aachen/aachen", "train/ulm/ulm", "val/munster/munster", "test/bonn/bonn"):
        write_image(root / f"leftImg8bit/{city}_000000_000019_leftImg8bit.png")
        write(root / f"gtFine/{city}_000000_000019_gtFine_{kind}.png", label)
    write_image(root / "leftImg8bit/train_extra/augsburg/augsburg_000000_000000_leftImg8bit.png")
    return ids


def test_cityscapes_ids_are_those_of_the_official_scripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    evaluated = sorted((label.trainId, label) for label in labels if 0 <= label.trainId < 255)
    expected = [(label.name, label.color, label.id) for _, label in evaluated]
    assert list(zip(CITYSCAPES.names, CITYSCAPES.colours, CITYSCAPES.file_ids, strict=True)) == expected
    table = CITYSCAPES.lookup()
    for label in labels:
        assert table[label.id % 256] == (label.trainId if 0 <= label.trainId < 255 else 255), label.name


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["labelIds"], CITYSCAPES),
        (["labelTrainIds"], CITYSCAPES_TRAIN_IDS),
        (["labelIds", "labelTrainIds"], CITYSCAPES_TRAIN_IDS),  # which are used where they are complete
    ],
)
def test_cityscapes_layout(kinds: list[str], expected: Classes, tmp_path: Path) -> None:
    for kind in kinds:
        ids = cityscapes(tmp_path, kind)
    classes, rows = rows_of("cityscapes", tmp_path)
    assert subsets(rows) == {
        "aachen_000000_000019": "train",
        "ulm_000000_000019": "train",
        "munster_000000_000019": "val",
        "augsburg_000000_000000": "extra",
    }
    assert classes == expected and kinds[-1] in rows[0].label and rows[-1].label == ""
    assert np.array_equal(read_label(tmp_path / rows[0].label, classes), CITYSCAPES.lookup()[ids])


def test_cityscapes_coarse_labels_measure_the_extra_images(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    coarse = tmp_path / "gtCoarse/train_extra/augsburg/augsburg_000000_000000_gtCoarse_labelIds.png"
    write(coarse, np.full((6, 8), 7, np.uint8))
    _, rows = rows_of("cityscapes", tmp_path)
    assert rows[-1].label.startswith("gtCoarse/")
    split = chosen(rows, fraction=1.0, seed=0)
    assert [row.id for row in split.unlabelled] == ["augsburg_000000_000000"]


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_image_without_label(kind: str, tmp_path: Path) -> None:
    cityscapes(tmp_path, kind)
    (tmp_path / f"gtFine/train/ulm/ulm_000000_000019_gtFine_{kind}.png").unlink()
    with pytest.raises(UserError, match=rf"ulm_000000_000019_leftImg8bit\.png has no label .*_{kind}\.png"):
        rows_of("cityscapes", tmp_path)


def test_cityscapes_without_an_archive(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"gtFine not found; unpack gtFine_trainvaltest\.zip beside leftImg8bit/"):
        rows_of("cityscapes", tmp_path)
    (tmp_path / "archive").mkdir()
    (tmp_path / "leftImg8bit").rename(tmp_path / "archive/leftImg8bit")
    with pytest.raises(UserError, match=r"leftImg8bit/train not found \(.*archive/leftImg8bit/train is there: each"):
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
    with pytest.raises(UserError, match=rf"SBD is in {tmp_path / place}, outside .*; set data.root to {tmp_path}$"):
        rows_of("voc", tmp_path / root)


def test_sbd_as_png_is_extra_and_may_be_labelled(tmp_path: Path) -> None:
    ids = voc(tmp_path)
    base = tmp_path / "VOCdevkit/VOC2012"
    for name in ("2007_000001", "2007_000003", "2008_000001", "2008_000002"):  # SBD holds images of VOC's val too
        if name.startswith("2008"):
            write_image(base / f"JPEGImages/{name}.jpg")
        write(base / f"SegmentationClassAug/{name}.png", ids)
    _, rows = rows_of("voc", tmp_path)
    assert subsets(rows) | {"2007_000003": "val", "2008_000001": "extra", "2008_000002": "extra"} == subsets(rows)
    for extra, labelled, unlabelled in (("unlabelled", 2, 2), ("labelled", 4, 0), ("unused", 2, 0)):
        split = chosen(rows, fraction=1.0, extra=extra, seed=0)
        assert (len(split.labelled), len(split.unlabelled)) == (labelled, unlabelled)
    lines = "2007_000001\n/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n"  # as it is published
    (base / "ImageSets/Segmentation/trainaug.txt").write_text(lines)
    assert [row.id for row in rows_of("voc", tmp_path)[1] if row.subset == "extra"] == ["2008_000002"]


def test_sbd_mat_files_are_extra(tmp_path: Path) -> None:
    ids = np.where(voc(tmp_path) == 255, 0, 1).astype(np.uint8)
    write_image(tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_000001.jpg")
    label = tmp_path / "benchmark_RELEASE/dataset/cls/2008_000001.mat"
    label.parent.mkdir(parents=True)
    savemat(label, {"GTcls": {"Segmentation": ids, "Boundaries": np.zeros(3)}})
    classes, rows = rows_of("voc", tmp_path)
    assert [tmp_path / row.label for row in rows if row.subset == "extra"] == [label]
    assert np.array_equal(read_label(label, classes), ids)
    label.write_bytes(label.read_bytes()[:50])
    with pytest.raises(UserError, match=r"2008_000001\.mat cannot be read"):
        read_label(label, classes)


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
    _, rows = rows_of("folder", tmp_path)
    assert Counter(row.subset for row in rows) == {"train": 6, "val": 2, "extra": 4}
    assert subsets(rows)["a__8"] == "extra" and subsets(rows)["u0"] == "extra"
    assert subsets(rows_of("folder", tmp_path)[1]) == subsets(rows)


def test_hidden_files_are_no_images_and_linked_folders_are_searched_once(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    for path in ("images/a/._0.png", "images/.ipynb_checkpoints/0-checkpoint.png", "unlabelled/.thumbs/u0.jpg"):
        write_image(tmp_path / "data" / path)  # what notebooks and macOS leave behind
    write_image(tmp_path / "elsewhere/9.png")
    (tmp_path / "data/images/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/images/loop").symlink_to(tmp_path / "data/images")
    (tmp_path / "root").symlink_to(tmp_path / "data")  # may be a link itself
    said: list[str] = []
    found = subsets(rows_of("folder", tmp_path / "root", warn=said.append)[1])
    assert set(found) == {*(f"a__{index}" for index in range(9)), "b__9", "u0", "u1", "u2"}
    (line,) = (line for line in said if "link" in line)
    assert line.startswith(f"warning: {tmp_path}/root/images/b is a link")


def test_a_folder_of_another_name_is_named(tmp_path: Path) -> None:
    folder(tmp_path, unlabelled=0)
    (tmp_path / "unlabelled").mkdir()  # empty: there is none
    for path in ("unlabeled/u.png", ".thumbs/u.png", "@eaDir/u.png"):  # what programs leave behind is no folder
        write_image(tmp_path / path)
    (line,) = find_dataset("folder", tmp_path, val_fraction=0.25, seed=0).notes
    assert line == f"warning: folder {tmp_path}/unlabeled is skipped; folders are named images, labels, unlabelled"


def test_leftovers_of_file_servers_are_no_images_and_other_files_are_counted(tmp_path: Path) -> None:
    folder(tmp_path)
    leftovers = "@eaDir/0.png/THUMB_M.jpg $RECYCLE.BIN/R.png __MACOSX/1.png #recycle/2.png lost+found/3.png"
    for path in leftovers.split():
        write_image(tmp_path / "images" / path)
    for path in ("images/Thumbs.db", "images/.DS_Store", "labels/desktop.ini"):
        (tmp_path / path).touch()
    assert find_dataset("folder", tmp_path, val_fraction=0.25, seed=0).notes == []
    for path in ("images/a/x.heic", "images/y.HEIC", "images/z.xml", "labels/a/8.jpg", "unlabelled/notes"):
        (tmp_path / path).touch()
    write_image(tmp_path / "images/a/1_mask.png")
    found = find_dataset("folder", tmp_path, val_fraction=0.25, seed=0)
    assert len(found.entries) == 13
    expected = (
        r"3 files in .*images are skipped: 2 \.heic, 1 \.xml \(first x\.heic\)$",
        r"1 files in .*labels are skipped: 1 \.jpg \(first 8\.jpg\); labels must be PNG, TIFF, BMP or GIF",
        r"1 files in .*unlabelled are skipped: 1 without ending",
        r"1 images look like labels \(first images/a/1_mask\.png\)",
    )
    assert all(re.search(*pair) for pair in zip(expected, found.notes, strict=True))


def test_names_in_composed_and_decomposed_unicode_are_the_same(tmp_path: Path) -> None:
    folder(tmp_path)
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_image(tmp_path / f"images/{decomposed}.png")
    shutil.copy(tmp_path / "labels/a/0.png", tmp_path / f"labels/{composed}.png")
    (tmp_path / "val.txt").write_text(f"{composed}\na/1\n", encoding="utf-16")
    rows = {row.id: row for row in rows_of("folder", tmp_path)[1]}
    assert rows[composed].subset == "val" and rows[composed].image == f"images/{decomposed}.png"
    assert [row.id for row in chosen([*rows.values()], ids=["a/2", "a/3.png"], seed=0).labelled] == ["a__2", "a__3"]
    write_image(tmp_path / f"images/{composed}.png")
    with pytest.raises(UserError, match="are the same image twice"):
        rows_of("folder", tmp_path)


@pytest.mark.parametrize("stem", ["a" * 245, "/".join(["b" * 62] * 4), "\u732b" * 80])
def test_long_names_have_ids_that_fit_a_file_name(stem: str, tmp_path: Path) -> None:
    folder(tmp_path)
    write_image(tmp_path / f"unlabelled/{stem}.jpg")
    (row,) = (row for row in rows_of("folder", tmp_path)[1] if stem in row.image)
    assert len(row.id.encode()) <= 200 and row.id.startswith(stem[:60]) and row.id == id_of(stem) != id_of(stem + "c")
    write_text(tmp_path / f"{'x' * 251}.txt", "as long as allowed")


def test_labels_of_other_endings_and_of_images_in_unlabelled(tmp_path: Path) -> None:
    folder(tmp_path)
    with Image.open(tmp_path / "labels/a/0.png") as label:
        for number, ending in ((0, "tif"), (1, "bmp"), (2, "gif")):
            label.save(tmp_path / f"labels/a/{number}.{ending}")
            (tmp_path / f"labels/a/{number}.png").unlink()
        label.save(tmp_path / "labels/u0.png")
    rows = {row.id: row for row in rows_of("folder", tmp_path)[1]}
    assert [Path(rows[f"a__{number}"].label).suffix for number in range(4)] == [".tif", ".bmp", ".gif", ".png"]
    row = rows["u0"]
    assert (row.image, row.label) == ("unlabelled/u0.jpg", "labels/u0.png") and row.subset != "extra"


def test_suffix_of_labels(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "labels/a").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    hint = r'labels/a/0_mask\.png has no image .*\(8 labels have none\); .* write "label_suffix": "_mask" into classes\.json'
    with pytest.raises(UserError, match=hint):
        rows_of("folder", tmp_path)
    before = {path.name: path for path in (tmp_path / "labels/a").iterdir()}
    shutil.copy(before["0_mask.png"], tmp_path / "labels/a/8.png")  # not a label then
    (tmp_path / "classes.json").write_text(json.dumps({**THREE, "label_suffix": "_mask"}))
    rows = {row.id: row.label for row in rows_of("folder", tmp_path)[1]}
    assert rows["a__0"] == "labels/a/0_mask.png" and rows["a__8"] == ""


def test_copies_go_into_one_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in NEU_Seg: images that occur several times, one of them among the unlabelled ones."""
    folder(tmp_path, labelled=40)
    for copy, original in ((1, 0), (2, 0), (4, 3), (6, 5), (8, 7)):
        shutil.copy(tmp_path / f"images/a/{original}.png", tmp_path / f"images/a/{copy}.png")
    shutil.copy(tmp_path / "images/a/9.png", tmp_path / "unlabelled/9.png")
    for seed in range(10):
        found = find_dataset("folder", tmp_path, val_fraction=0.25, seed=seed)
        subset = subsets(check_entries(tmp_path, found.entries, found.classes, warn=lambda _: None))
        assert subset["a__0"] == subset["a__1"] == subset["a__2"] and subset["a__9"] == "train"
        assert 9 <= Counter(subset.values())["val"] <= 10
    hashed: Counter[str] = Counter()
    for module in ("folder", "entries"):
        count = lambda path: hashed.update([str(path)]) or file_hash(path)  # type: ignore[func-returns-value]  # noqa: E731
        monkeypatch.setattr(f"segsemi.datasets.{module}.file_hash", count)
    assert rows_of("folder", tmp_path)[1] and set(hashed.values()) == {1}  # no file is read twice for its hash
    (tmp_path / "val.txt").write_text("a/0\na/3\na/9\n")
    pairs = r"0\.png \(val\) and .*2\.png \(train\); .*3\.png .*; .*9\.png \(val\) and unlabelled/9"
    with pytest.raises(UserError, match=pairs):
        rows_of("folder", tmp_path)


def test_too_many_copies_are_named(tmp_path: Path) -> None:
    folder(tmp_path, labelled=4)
    shutil.copytree(tmp_path / "images", tmp_path / "unlabelled/again")
    with pytest.raises(UserError, match=r"identical to others, such as images/a/0\.png and unlabelled/again/a/0\.png"):
        rows_of("folder", tmp_path)


def test_copies_within_a_subset_are_said(tmp_path: Path) -> None:
    """A copy without a label, which comes first, hides no difference between the labels of two others."""
    folder(tmp_path)
    copies = {"images/A.png": "0", "images/a/9.png": "0", "images/a/10.png": "0", "unlabelled/u9.png": "8"}
    for copy, original in copies.items():
        shutil.copy(tmp_path / f"images/a/{original}.png", tmp_path / copy)
    shutil.copy(tmp_path / "labels/a/0.png", tmp_path / "labels/a/9.png")
    write(tmp_path / "labels/a/10.png", np.full((6, 8), 2, np.uint8))
    said: list[str] = []
    rows_of("folder", tmp_path, warn=said.append)
    assert said == [
        "warning: 4 images are copies of others (first images/a/0.png and images/a/10.png)",
        "warning: 1 images of these have another label (first images/a/0.png and images/a/10.png)",
    ]


def test_what_is_odd_is_said_once_with_a_number(tmp_path: Path) -> None:
    folder(tmp_path)
    for number in (0, 1):
        write(tmp_path / f"labels/a/{number}.png", np.full((6, 8), 255, np.uint8))
        write(tmp_path / f"images/a/{number}.png", RNG.integers(0, 99, (6, 8, 4), dtype=np.uint8))
    write(tmp_path / "unlabelled/u0.png", RNG.integers(0, 900, (6, 8)).astype(np.uint16))
    (tmp_path / "unlabelled/u0.jpg").unlink()
    said: list[str] = []
    rows_of("folder", tmp_path, warn=said.append)
    assert said == [
        "warning: 2 of 12 images (first images/a/0.png) have an alpha channel, which is ignored: "
        "the colours are taken as they are",
        "warning: 1 of 12 images (first unlabelled/u0.png) have 16 bits but no value above 1023, so they look nearly black; "
        'if that is their range, write "range": [0, 1023] into classes.json',
        "warning: 2 of 12 images (first images/a/0.png) have a label without a pixel of any class, "
        "from which nothing can be learnt",
    ]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"val": "a/0\na/1.png\n", "test": "a/2\n"}, {"a__0": "val", "a__1": "val", "a__2": "test", "a__3": "train"}),
        ({"train": "a/3\n"}, {"a__3": "train", "a__4": "val"}),
        ({"train": "a/3\n", "val": "a/0\n"}, {"a__3": "train", "a__0": "val", "a__4": None, "a__8": "extra"}),
        ({"val": "a/2 words\na/3.png labels/a/3.png\n"}, {"a__2 words": "val", "a__2": "train", "a__3": "val"}),
        (
            {"val": 'images\\\\a\\\\0.png\n"a/1.png","labels/a/1.png"\n'},
            {"a__0": "val", "a__1": "val", "a__2": "train"},
        ),
        (
            {"val": "'a/2 words.png'\nC:\\\\mine\\\\a\\\\0.png;1\n"},
            {"a__2 words": "val", "a__0": "val", "a__2": "train"},
        ),
        ({"val": "\ufeffimages/a/0.png\n", "test": "/elsewhere/0.png\n"}, {"a__0": "val", "0": "test"}),  # the longest
    ],
)
def test_lists_choose_the_subsets(lists: dict[str, str], expected: dict[str, str | None], tmp_path: Path) -> None:
    folder(tmp_path)
    for stem in ("0", "a/2 words"):
        write_image(tmp_path / f"images/{stem}.png")
        shutil.copy(tmp_path / "labels/a/0.png", tmp_path / f"labels/{stem}.png")
    for subset, text in lists.items():
        (tmp_path / f"{subset}.txt").write_text(text, encoding="utf-8")
    found = subsets(rows_of("folder", tmp_path)[1])
    assert {id_: found.get(id_) for id_ in expected} == expected


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"names": ["cat"], "colours": [[255, 0, 0]]})
    for path in (tmp_path / "labels/a").iterdir():
        write(path, np.resize(np.array([0, 255], np.uint8), (6, 8)))
    with pytest.raises(UserError, match="hold only cat and ignored pixels; there is nothing to tell apart"):
        rows_of("folder", tmp_path)


def test_classes_json(tmp_path: Path) -> None:
    path, (names, colours) = tmp_path / "classes.json", (("cat", "dog"), ((0, 0, 0), (0, 0, 0)))
    path.write_text(json.dumps({"names": names, "colours": colours}))  # ids: the colours are for pictures alone
    assert read_classes(path) == Classes(names, colours)
    more = {"labels": "colours", "ids": [7, 8], "ignore_ids": [0], "ignore_colours": [[9, 9, 9]]}
    content = json.dumps({"names": names, "colours": [[1, 1, 1], [2, 2, 2]], **more})
    path.write_text("\ufeff" + content, encoding="utf-8")
    expected = Classes(names, ((1, 1, 1), (2, 2, 2)), (0,), (7, 8), "colours", ((9, 9, 9),))
    assert read_classes(path) == expected == Classes.from_dict(json.loads(json.dumps(expected.to_dict())))


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(content)


def wrong(**changes: object) -> Callable[[Path], object]:
    return text("classes.json", json.dumps({**THREE, **changes}))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no classes.json": (
        lambda root: (root / "classes.json").unlink(),
        r"classes\.json not found; it names the classes",
    ),
    "no JSON": (text("classes.json", "{"), r"classes\.json is wrong \(Expecting property name"),
    "a key twice": (
        text("classes.json", '{"names": ["a", "b"], "names": ["b", "a"], "colours": [[0, 0, 0], [1, 1, 1]]}'),
        r"classes\.json is wrong \(the key names occurs twice\)",
    ),
    "no colours": (text("classes.json", '{"names": ["a"]}'), r"classes\.json is wrong \(colours: no such key\)"),
    "too few colours": (wrong(colours=[[0, 0, 0]]), r"colours must be 3"),
    "unknown key": (wrong(color=1), r"classes\.json is wrong \(color: unknown key\)"),
    "names in one text": (wrong(names="abc"), r"\(names: Input should be a valid"),
    "equal colours": (wrong(colours=[[0, 0, 0]] * 3, labels="colours"), r"must all differ"),
    "label without image": (lambda root: (root / "images/a/3.png").unlink(), r"labels/a/3\.png has no image"),
    "no labels": (lambda root: (root / "labels").rename(root / "other"), r"folder .*labels not found"),
    "unknown name": (text("val.txt", "zebra\n"), r"val\.txt names 'zebra'"),
    "list of an unlabelled image": (text("val.txt", "a/8\n"), r"names 'a/8', which has no"),
    "too few labels to hold any out": (
        lambda root: [path.unlink() for path in (root / "labels/a").glob("[1-7].png")],
        r"data\.val_fraction 0\.25 of 1 labelled images leaves none for validation",
    ),
    "nothing left": (text("train.txt", "\n".join(f"a/{i}" for i in range(8))), r"train\.txt leaves no labelled image"),
    "one id twice": (
        lambda root: write_image(root / "unlabelled/a__0.png"),
        r"a/0\.png and .*a__0\.png have the same id",
    ),
    "in two lists": (
        lambda root: [(root / f"{name}.txt").write_text("a/1\n") for name in ("train", "val")],
        r"'a/1' is in val\.txt and in train\.txt",
    ),
    "empty list": (text("val.txt", "\n"), r"val\.txt is empty"),
    "a wrong range": (wrong(range=[9, 2]), r"range must be \[low, high\], found \[9\.0, 2\.0\]"),
    "another encoding": (
        lambda root: (root / "classes.json").write_bytes('{"names": ["\u4e2d\u6587"]}'.encode("gbk")),
        r"classes\.json is wrong \(it is not in UTF-8",
    ),
    "one name twice": (lambda root: write_image(root / "unlabelled/a/1.png"), r"have one name"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder_gets_one_clear_error(case: str, tmp_path: Path) -> None:
    folder(tmp_path)
    spoil, message = BAD_FOLDERS[case]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        rows_of("folder", tmp_path)
