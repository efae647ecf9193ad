"""Annotations of labelme and COCO become the masks that were drawn."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk, polygon

from segsemi.commands.cli import main
from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.pictures import png_bytes
from segsemi.data.images import read_label
from segsemi.datasets import annotations
from segsemi.datasets.annotations import Annotated, Notes, find_pictures, fitting
from segsemi.datasets.folder import read_classes

HEIGHT, WIDTH = 40, 60
TRIANGLE = [[10.0, 5.0], [50.0, 10.0], [20.0, 35.0]]
SQUARE = {"label": "pole", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}


def read_labelme(source: Path) -> list[Annotated]:
    return annotations.read_labelme(source, {}, Notes())


def read_coco(source: Path, notes: Notes | None = None) -> list[Annotated]:
    return annotations.read_coco(source, {}, notes or Notes())


def write_labels(images: list[Annotated], out: Path, **options: Any) -> Classes:
    return annotations.write_labels(images, out, **{"notes": Notes(), **options})


def labelme(path: Path, *shapes: dict, **changes: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}))


def label_of(folder: Path, name: str) -> np.ndarray:
    return read_label(folder / "labels" / f"{name}.png", read_classes(folder / "classes.json"))


def near(mask: np.ndarray, expected: np.ndarray) -> bool:
    """Rasterizers differ on the outline."""
    return (mask != expected).sum() <= 0.12 * expected.sum() and mask.sum() > 0


def test_labelme_shapes(tmp_path: Path) -> None:
    patch = np.zeros((6, 9), dtype=np.uint8)
    patch[2:4] = 255
    mask = base64.b64encode(png_bytes(patch)).decode()
    labelme(
        tmp_path / "json/a/one.json",
        {"label": "roof", "points": TRIANGLE, "shape_type": "polygon"},
        {"label": "door", "points": [[55.0, 30.0], [45.0, 20.0]], "shape_type": "rectangle"},
        {"label": "sun", "points": [[20.0, 20.0], [20.0, 25.0]], "shape_type": "circle"},
        {"label": "cat", "points": [[3, 30], [11, 35]], "shape_type": "mask", "mask": mask},
        {**SQUARE, "label": "__ignore__"},
    )
    labelme(tmp_path / "json/two.json")
    classes = write_labels(read_labelme(tmp_path / "json"), tmp_path, background="ground")
    assert classes.names == ("ground", "cat", "door", "roof", "sun")
    label = label_of(tmp_path, "a/one")
    roof, sun = np.zeros((HEIGHT, WIDTH), dtype=bool), np.zeros((HEIGHT, WIDTH), dtype=bool)
    roof[polygon(*np.array(TRIANGLE).T[::-1], (HEIGHT, WIDTH))] = True
    sun[disk((20, 20), 5.5)] = True
    assert near(label == 4, sun) and near((label == 3) | (label == 4), roof | sun)  # the sun lies on top
    assert (label[20:31, 45:56] == 2).all() and (label == 2).sum() == 121
    assert (label[32:34, 3:12] == 1).all() and (label == 1).sum() == 18
    assert (label[1:6, 1:6] == 255).all() and (label == 255).sum() == 25
    assert (label_of(tmp_path, "two") == 0).all()


def write_coco(path: Path, images: dict[int, str], classes: dict[int, str], shapes: list, **image: object) -> Path:
    """Write a COCO file of images and classes, id -> name."""
    size = {"height": HEIGHT, "width": WIDTH, **image}
    content = {
        "images": [{"id": id_, "file_name": name, **size} for id_, name in images.items()],
        "categories": [{"id": id_, "name": name} for id_, name in classes.items()],
        "annotations": shapes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(folder: Path, *, annotated: bool = True, **changes: object) -> Path:
    """Write a file of an image with annotations and one without; `changes` are those of the only annotation."""
    bar = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    bar[2:6, 3:20] = 1
    flat = bar.ravel(order="F")
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    one = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[20, 12, 30, 12, 30, 20, 20, 20]], **changes}
    two = {**one, "id": 2, "category_id": 9, "segmentation": [[10, 8, 50, 8, 50, 30, 10, 30]]}
    crowd = {**one, "id": 3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "iscrowd": 1}
    shapes = ([one] if changes else [one, two, crowd]) if annotated else []
    names = {7: "b/pic.jpg", 99: "new.jpg"}
    return write_coco(folder / "instances.json", names, {3: "person", 9: "sofa"}, shapes)


def test_coco_polygons_and_crowds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "coco", str(coco(tmp_path)), "-o", str(tmp_path)]) == 0
    label = label_of(tmp_path, "b/pic")
    assert set(np.unique(label)) == {0, 1, 255}
    assert (label[12:20, 20:30] == 0).all() and (label == 0).sum() == 80 + 4 * 17  # the smaller one on top
    assert (label[8:30, 10:50] != 255).all() and (label[30:] == 255).all() and (label[2:6, 3:20] == 0).all()
    assert "crowds count as their class (1): instances.json annotation 3 (person)" in capsys.readouterr().err


def test_coco_compressed_masks(tmp_path: Path) -> None:
    from pycocotools import mask as rle

    expected = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    coded = rle.encode(np.asfortranarray(expected, dtype=np.uint8))
    path = coco(tmp_path, segmentation={**coded, "counts": coded["counts"].decode()})
    write_labels(read_coco(path), tmp_path, background="room")
    assert np.array_equal(label_of(tmp_path, "b/pic") == 1, expected)


def test_coco_image_without_annotations_stays_unlabelled(tmp_path: Path) -> None:
    assert [image.name for image in read_coco(coco(tmp_path))] == ["b/pic"]
    with pytest.raises(UserError, match=r"instances\.json has no annotation"):
        read_coco(coco(tmp_path, annotated=False))


def test_classes_of_ones_own_order(tmp_path: Path) -> None:
    images = read_coco(coco(tmp_path))
    assert write_labels(images, tmp_path, names=["sofa", "room", "person"], background="room").names[1] == "room"
    assert label_of(tmp_path, "b/pic")[0, 0] == 1
    with pytest.raises(UserError, match="shapes of sofa, which --classes does not name"):
        write_labels(images, tmp_path, names=["person"])


def test_labels_that_are_there_keep_their_meaning(tmp_path: Path) -> None:
    labelme(tmp_path / "one/a.json", {**SQUARE, "label": "cat"}, {**SQUARE, "label": "dog"})
    labelme(tmp_path / "two/b.json", {**SQUARE, "label": "bird"}, {**SQUARE, "label": "dog"})
    out = tmp_path / "out"
    for _ in range(2):  # the same again is allowed
        write_labels(read_labelme(tmp_path / "one"), out)
    before = (out / "classes.json").read_text()
    names = ["cat", "dog", "bird"]
    with pytest.raises(UserError, match=r"classes.json has other classes.*: cat, dog; begin --classes with these"):
        write_labels(read_labelme(tmp_path / "two"), out, names=["bird", "dog"])
    assert (out / "classes.json").read_text() == before and not (out / "labels/b.png").exists()
    for options in ({}, {"names": names}):  # new ones are added behind them
        notes = Notes()
        classes = write_labels(read_labelme(tmp_path / "two"), out, notes=notes, **options)
        assert classes.names == tuple(names) and (label_of(out, "b") == 1).any()
        assert "labels of an earlier export stay and count (1): labels/a.png" in str(notes)
        assert ("cat, dog (1): bird" in str(notes)) == (not options)
    (out / "classes.json").write_text(json.dumps({"names": names, "colours": classes.colours, "ids": [7, 8, 9]}))
    with pytest.raises(UserError, match="has other classes"):
        write_labels(read_labelme(tmp_path / "two"), out, names=names)


def test_a_label_replaces_one_of_another_ending_or_spelling(tmp_path: Path) -> None:
    labelme(tmp_path / "json/caf\u00e9.json", {**SQUARE, "label": "cat"}, {**SQUARE, "label": "dog"})
    (tmp_path / "labels").mkdir()
    for name in ("cafe\u0301.png", "caf\u00e9.tif"):
        (tmp_path / f"labels/{name}").write_bytes(b"")
    notes = Notes()
    write_labels(read_labelme(tmp_path / "json"), tmp_path, notes=notes)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["caf\u00e9.png"]
    assert "replaced (2): " in str(notes)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", SQUARE)
    with pytest.raises(UserError, match="pole is the only class.*--background"):
        write_labels(read_labelme(tmp_path), tmp_path)
    write_labels(read_labelme(tmp_path), tmp_path, background="ground")
    assert [image.name for image in read_labelme(tmp_path)] == ["a"]  # not classes.json, which lies beside it now


def test_missing_files_and_broken_ones_of_labelme_are_refused(tmp_path: Path) -> None:
    for read in (read_labelme, read_coco):
        with pytest.raises(UserError, match=r"none\.json not found; name a JSON file of annotations, or the folder"):
            read(tmp_path / "none.json")
    with pytest.raises(UserError, match="has no JSON file of labelme"):
        read_labelme(tmp_path)
    (tmp_path / "coco.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"JSON files without shapes are skipped \(1\): .*coco\.json"):
        read_labelme(tmp_path)
    labelme(tmp_path / "size.json", SQUARE, imageHeight=None)
    labelme(tmp_path / "embedded.json", SQUARE, imageHeight=None, imageData="bm90aGluZw==")
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "gbk.json").write_bytes('{"shapes": ["中文"]}'.encode("gbk"))
    problems = [
        r"cut.json is no annotation of labelme \(JSONDecodeError",
        "embedded.json .*imageData cannot be read",
        "gbk.json .*not in UTF-8",
        "size.json .*no imageH",
    ]
    with pytest.raises(UserError, match="(?s)" + ".*".join(problems)):  # all in one message
        read_labelme(tmp_path)


MASK = {"shape_type": "mask", "mask": base64.b64encode(png_bytes(np.full((6, 9), 255, np.uint8))).decode()}
BOX = [[10, 10], [20, 10], [20, 15], [10, 15]]


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ({**MASK, "points": [[-4, -3], [4, 2]]}, slice(0, 3), slice(0, 5)),
        ({**MASK, "points": [[57, 37], [65, 42]]}, slice(37, 40), slice(57, 60)),
        ({**MASK, "points": [[-30, 5], [-22, 10]]}, None, None),  # outside, and on no other side
        ({"shape_type": "rectangle", "points": BOX}, slice(10, 16), slice(10, 21)),
        ({"shape_type": "rotation", "points": BOX}, slice(10, 16), slice(10, 21)),
        ({"shape_type": None, "points": BOX}, slice(10, 16), slice(10, 21)),
        ({"points": [[-50, -9], [70, -9], [70, 4], [-50, 4]]}, slice(0, 5), slice(0, 60)),
        ({"shape_type": "point", "points": BOX[:1]}, None, None),
        ({"shape_type": "line", "points": BOX[:2]}, None, None),
        ({"shape_type": "linestrip", "points": BOX[:3]}, None, None),
        ({"points": BOX[:2]}, None, None),
        ({"points": [[0, 0], [2e8, 0], [2e8, 9]]}, None, None),
        ({"points": [[0, 0], [None, 0], [9, 9]]}, None, None),
        ({"points": [[0, 0], [float("nan"), 0], [9, 9]]}, None, None),
        ({"points": BOX, "label": None}, None, None),
        ({"points": BOX, "label": "\ud83d"}, None, None),  # half of an emoji
        ({"points": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]}, None, None),  # shares of the image
        ({**MASK, "points": [[4, 2], [-4, -3]]}, slice(0, 3), slice(0, 5)),  # corners in the other order
        ({**MASK, "points": [[10, 10], [30, 20]]}, None, None),  # of another size than its box
        ({"shape_type": "mask", "points": BOX[:2], "mask": "bm8gUE5H"}, None, None),
    ],
)
def test_stray_shapes_are_counted(shape: dict, rows: slice | None, columns: slice, tmp_path: Path) -> None:
    notes = Notes()
    labelme(tmp_path / "a.json", {**SQUARE, "label": "zebra"}, {"label": "cat", **shape})
    labelme(tmp_path / "b.json", {**SQUARE, "label": "cat"})
    images = annotations.read_labelme(tmp_path, {}, notes)
    write_labels(images, tmp_path, names=["cat", "zebra"])
    expected = np.full((HEIGHT, WIDTH), 255)
    expected[1:6, 1:6] = 1
    if rows is not None:
        expected[rows, columns] = 0
    assert np.array_equal(label_of(tmp_path, "a"), expected)
    assert ("shapes are skipped (1): a.json" in str(notes)) == (rows is None)


def pictures(folder: Path, *names: str, size: tuple = (WIDTH, HEIGHT), orientation: int = 1) -> dict[str, Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size).save(folder / name, exif=exif)
    return find_pictures(folder)


@pytest.mark.parametrize(
    ("json_name", "path", "there", "name"),
    [
        ("a.b.2024", "a.b.2024.png", ["images/a.b.2024.png", "images/a.png"], "a.b.2024"),
        ("0001", "..\\images\\IMG 1.png", ["images/IMG 1.png", "images/IMG.png"], "IMG 1"),
        ("0001", "x.png", ["images/0001.png", "images/x.png"], "0001"),  # said
        ("e\u0301", "", ["images/\u00e9.png"], "\u00e9"),
        ("cam/1", "1.png", ["images/cam/1.png", "unlabelled/1.png"], "cam/1"),
    ],
)
def test_labelme_finds_its_image(json_name: str, path: str, there: list[str], name: str, tmp_path: Path) -> None:
    found, notes = pictures(tmp_path, *there), Notes()
    labelme(tmp_path / f"json/{json_name}.json", SQUARE, imagePath=path, imageHeight=None)
    (image,) = annotations.read_labelme(tmp_path / "json", found, notes)
    assert image[:3] == (name, HEIGHT, WIDTH)
    assert ("another image in imagePath" in str(notes)) == (path == "x.png")


def test_size_of_an_image_embedded_in_labelme(tmp_path: Path) -> None:
    data = base64.b64encode(png_bytes(np.zeros((HEIGHT, WIDTH, 3), np.uint8))).decode()
    labelme(tmp_path / "a.json", SQUARE, imageHeight=None, imageData=data)
    assert read_labelme(tmp_path)[0][:3] == ("a", HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("file_name", "there", "name"),
    [
        ("images/x.png", ["images/x.png"], "x"),
        ("images\\x.png", ["images/x.png"], "x"),
        ("/data/upload/7/sub/x.png", ["images/sub/x.jpg", "images/x.png"], "sub/x"),
        ("frame.0001", ["images/frame.0001.png", "images/frame.png"], "frame.0001"),
        ("x 1.png", ["unlabelled/x 1.png", "images/x.png"], "x 1"),
        ("https://x.org/a/x%201.png?sign=a/b", ["images/x 1.png", "images/b.png"], "x 1"),
        ("y.png", ["images/x.png"], None),
        ("images/3fa9c1d2-x%201.png", ["images/x 1.png"], "x 1"),  # Label Studio
        ("/data/local-files/?d=x.png", ["images/x.png"], "x"),
        ("images\\x.png", [], "x"),
        ("frame.0001", [], "frame.0001"),
    ],
)
def test_coco_finds_its_image(file_name: str, there: list[str], name: str | None, tmp_path: Path) -> None:
    found, notes = pictures(tmp_path, *there), Notes()
    path = coco(tmp_path, segmentation=[[20, 12, 30, 12, 30, 20, 20, 20]])
    path.write_text(path.read_text().replace('"b/pic.jpg"', json.dumps(file_name)))
    images = annotations.read_coco(path, found, notes)
    if name is None:
        with pytest.raises(UserError, match=r"no annotated image is in images/.*\n.*get no label \(1\): y"):
            fitting(images, found, notes)
    else:
        assert [image.name for image in (fitting(images, found, notes) if found else images)] == [name]


def test_an_image_of_another_size_than_its_annotation_is_named(tmp_path: Path) -> None:
    images, notes = read_coco(coco(tmp_path)), Notes()
    for size, orientation in (((60, 40), 1), ((40, 60), 6)):
        found = pictures(tmp_path, "images/b/pic.jpg", size=size, orientation=orientation)
        assert fitting(images, found, notes) == images
    found = pictures(tmp_path, "images/b/pic.jpg", size=(60, 40), orientation=6)
    with pytest.raises(UserError, match=r"b/pic \(60x40, annotated at 40x60\)"):
        fitting(images, found, notes)


RING = [20, 12, 30, 12, 30, 20, 20, 20]
POINTS = [[20, 12], [30, 12], [30, 20], [20, 20]]


@pytest.mark.parametrize("change", [{"segmentation": RING}, {"segmentation": POINTS}, {"segmentation": [POINTS]},
    {"segmentation": [RING, [1, 1, 4, 4]]}, {"image_id": "7", "category_id": 3.0}, {"iscrowd": 1}])  # fmt: skip
def test_coco_dialects(change: dict, tmp_path: Path) -> None:
    path = coco(tmp_path, **change)
    for text in (path.read_text().encode("utf-8-sig"), path.read_text().encode("utf-16")):
        path.write_bytes(text)
        write_labels(read_coco(path), tmp_path, background="room")
        label = label_of(tmp_path, "b/pic")
        assert (label[12:20, 20:30] == 1).all() and (label == 1).sum() == 80


def test_files_of_one_data_set_are_read_together(tmp_path: Path) -> None:
    for name, ring in (("train", RING), ("valid", [1, 1, 5, 1, 5, 5, 1, 5])):
        pictures(tmp_path, f"images/{name}/b/pic.jpg")
        coco(tmp_path / f"json/{name}", segmentation=[ring])
    (tmp_path / "json/info.json").write_text("{}")
    images = annotations.read_coco(tmp_path / "json", find_pictures(tmp_path), Notes())
    areas = {image.name: int(image.shapes[0][1]().sum()) for image in images}
    assert areas == {"train/b/pic": 80, "valid/b/pic": 16}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"id": 99', '"id": "7"', "image id 7 is 'b/pic.jpg' and 'new.jpg'; merged files"),
        ('"id": 9,', '"id": 3,', "category id 3 is 'person' and 'sofa'"),
        ("new.jpg", "b/pic.png", "2 images have the name 'b/pic'"),
        ('"height": 40', '"height": null', "has no height and width"),
        ('"categories"', '"classes"', "KeyError: 'categories'"),
    ],
)
def test_coco_that_could_mean_two_things_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = coco(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"instances\.json is no COCO file of masks \(.*{message}"):
        read_coco(path)


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["/data/pic"], 4, "outside the folder"),
        (["../pic"], 4, "outside the folder"),
        (["b/x", "b/x"], 4, "two images have the name 'b/x'"),
        (["x"], 0, "image 'x' is 0x0"),
    ],
)
def test_images_without_a_file_of_their_own_are_refused(names: list, size: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_labels([Annotated(name, size, size, []) for name in names], tmp_path / "out", names=["a", "b"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_id", 8, "has image_id 8, which the file does not explain"),
        ("category_id", 99, "has category_id 99, which the file does not explain"),
        ("segmentation", [], "has no polygon, and a box alone is no mask"),
        ("segmentation", None, "has no polygon"),
        ("segmentation", [[1, 1, 4, 4]], "has no polygon"),  # which pycocotools takes for a box
        ("segmentation", [[1, 1, 4, None, 4, 4]], "has a segmentation that is no list"),
        ("segmentation", [[1, 1, 2e8, 4, 4, 4]], "has coordinates beyond"),
        ("segmentation", [[1, 1, 4, 4, 9]], "has a polygon of 5 numbers"),
        ("segmentation", [{"x": 1, "y": 2}], "has a segmentation that is no list"),
        ("segmentation", [[100, 1, 200, 1, 200, 9]], "covers no pixel of the image"),
        ("segmentation", [[5, 5, 5, 5, 5, 5]], "covers no pixel of the image"),
        ("segments_info", [], "is panoptic, with its mask in a PNG"),
        ("segmentation", {"size": [2, 2], "counts": [4]}, r"has a mask of \[2, 2\], its image \[40, 60\]"),
        *(
            ("segmentation", {"size": [HEIGHT, WIDTH], "counts": counts}, "has run lengths that are not those of 40x60")
            for counts in ([4], [-1, 2401], "1", "", "zz")
        ),
    ],
)
def test_annotation_without_a_mask_is_skipped(key: str, value: object, message: str, tmp_path: Path) -> None:
    path = coco(tmp_path, **{key: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"instances\.json has no annotation with a mask.*\n.* annotation 1 {message}"):
        read_coco(path)
    content, notes = json.loads(path.read_text()), Notes()
    content["annotations"].append({"id": 2, "image_id": 7, "category_id": 9, "segmentation": [RING]})
    path.write_text(json.dumps(content))
    assert len(read_coco(path, notes)[0].shapes) == 1 and "skipped (1): instances.json annotation 1" in str(notes)


def per_class(path: Path, name: str, ring: list[int], file_name: str = "x.png", **image: object) -> None:
    """Write a COCO file of one class and one shape."""
    shape = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}
    write_coco(path, {1: file_name}, {1: name}, [shape, None], **image)


def test_smaller_shapes_lie_on_top_in_whichever_file_they_are(tmp_path: Path) -> None:
    per_class(tmp_path / "json/a.json", "car", [10, 10, 20, 10, 20, 20, 10, 20])
    per_class(tmp_path / "json/b.json", "road", [0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT], file_name="images/x.png")
    per_class(tmp_path / "json/c.json", "__ignore__", [0, 0, 5, 0, 5, 5, 0, 5])
    (tmp_path / "json/captions.json").write_text('{"images": [], "annotations": [{"id": 1, "caption": "a car"}]}')
    notes = Notes()
    classes = write_labels(read_coco(tmp_path / "json", notes), tmp_path)
    label = label_of(tmp_path, "x")
    assert classes.names == ("car", "road") and (label[15, 15], label[30, 30], label[2, 2]) == (0, 1, 255)
    for what in ("annotated in several files", "without annotations and categories", "without a mask"):
        assert what in str(notes)


def test_pictures_of_two_folders_are_not_one(tmp_path: Path) -> None:
    found = pictures(tmp_path, "images/0001.png")
    for folder in ("cam1", "cam2"):
        per_class(tmp_path / f"json/{folder}.json", "car", [1, 1, 9, 1, 9, 9], file_name=f"{folder}/0001.png")
    with pytest.raises(UserError, match="images of 'cam1' and 'cam2' would both be '0001'"):
        annotations.read_coco(tmp_path / "json", found, Notes())
    per_class(tmp_path / "json/cam2.json", "car", [1, 1, 9, 1, 9, 9], height=-4)
    with pytest.raises(UserError, match="is no COCO file of masks"):
        annotations.read_coco(tmp_path / "json", found, Notes())


def test_names_are_compared_in_composed_unicode_and_labels_have_the_suffix(tmp_path: Path) -> None:
    per_class(tmp_path / "a.json", "caf\u00e9", [1, 1, 9, 1, 9, 9])
    (tmp_path / "classes.json").write_text(
        json.dumps({"names": ["cafe\u0301", "rest"], "colours": [[0, 0, 0], [9, 9, 9]], "label_suffix": "_mask"})
    )
    classes = write_labels(read_coco(tmp_path / "a.json"), tmp_path, background="rest")
    assert classes.names == ("caf\u00e9", "rest") and label_of(tmp_path, "x_mask")[3, 5] == 0
