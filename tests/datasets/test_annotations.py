"""Annotations of labelme and COCO become the masks that were drawn."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk, polygon

from segsemi.commands.cli import main
from segsemi.core.errors import UserError
from segsemi.data.images import read_label
from segsemi.datasets.annotations import Annotated, read_coco, read_labelme, write_labels
from segsemi.datasets.folder import read_classes

HEIGHT, WIDTH = 40, 60
TRIANGLE = [[10.0, 5.0], [50.0, 10.0], [20.0, 35.0]]
SQUARE = {"label": "pole", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}


def labelme(path: Path, *shapes: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH}))


def label_of(folder: Path, name: str) -> np.ndarray:
    return read_label(folder / "labels" / f"{name}.png", read_classes(folder / "classes.json"))


def near(mask: np.ndarray, expected: np.ndarray) -> bool:
    """Rasterizers differ on the outline."""
    return (mask != expected).sum() <= 0.12 * expected.sum() and mask.sum() > 0


def test_labelme_shapes(tmp_path: Path) -> None:
    patch = np.zeros((6, 9), dtype=np.uint8)
    patch[2:4] = 255
    png = io.BytesIO()
    Image.fromarray(patch).save(png, format="PNG")
    mask = base64.b64encode(png.getvalue()).decode()
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


def coco(folder: Path, *, annotated: bool = True, **changes: object) -> Path:
    """Write a file of an image with annotations and one without; `changes` are those of the only annotation."""
    bar = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    bar[2:6, 3:20] = 1
    flat = bar.ravel(order="F")
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    one = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[20, 12, 30, 12, 30, 20, 20, 20]], **changes}
    two = {**one, "id": 2, "category_id": 9, "segmentation": [[10, 8, 50, 8, 50, 30, 10, 30]]}
    crowd = {**one, "id": 3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "iscrowd": 1}
    names = {7: "b/pic.jpg", 99: "new.jpg"}
    content = {
        "images": [{"id": id_, "file_name": name, "height": HEIGHT, "width": WIDTH} for id_, name in names.items()],
        "categories": [{"id": 3, "name": "person"}, {"id": 9, "name": "sofa"}],
        "annotations": ([one] if changes else [one, two, crowd]) if annotated else [],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_coco_polygons_and_crowds(tmp_path: Path) -> None:
    assert main(["labels", "coco", str(coco(tmp_path)), "-o", str(tmp_path)]) == 0
    label = label_of(tmp_path, "b/pic")
    assert set(np.unique(label)) == {0, 1, 255}
    assert (label[12:20, 20:30] == 0).all() and (label == 0).sum() == 80  # the smaller one on top
    assert (label[8:30, 10:50] != 255).all() and (label[30:] == 255).all() and (label[2:6, 3:20] == 255).all()


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
    with pytest.raises(UserError, match=r"classes.json has other classes.*: cat, dog; begin --classes with these"):
        write_labels(read_labelme(tmp_path / "two"), out)
    assert (out / "classes.json").read_text() == before and not (out / "labels/b.png").exists()
    names = ["cat", "dog", "bird"]
    classes = write_labels(read_labelme(tmp_path / "two"), out, names=names)
    assert classes.names == tuple(names) and (label_of(out, "b") == 1).any()
    (out / "classes.json").write_text(json.dumps({"names": names, "colours": classes.colours, "ids": [7, 8, 9]}))
    with pytest.raises(UserError, match="has other classes"):
        write_labels(read_labelme(tmp_path / "two"), out, names=names)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", SQUARE)
    with pytest.raises(UserError, match="pole is the only class.*--background"):
        write_labels(read_labelme(tmp_path), tmp_path)
    write_labels(read_labelme(tmp_path), tmp_path, background="ground")
    assert [image.name for image in read_labelme(tmp_path)] == ["a"]  # not classes.json, which lies beside it now


def test_broken_labelme_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no JSON file of labelme"):
        read_labelme(tmp_path)
    labelme(tmp_path / "a.json", {**SQUARE, "shape_type": "line"})
    line = (tmp_path / "a.json").read_text()
    for content, problem in ((line, "'pole' of type 'line'"), ("{", "JSONDecodeError")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match=rf"a\.json is no annotation of labelme \(.*{problem}"):
            read_labelme(tmp_path)


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["/data/pic"], 4, "outside the folder"),
        (["../pic"], 4, "outside the folder"),
        (["b/x", "b/x"], 4, "two images have the name 'b/x'"),
        (["x"], 0, "image 'x' is 0x0"),
    ],
)
def test_images_without_a_file_of_their_own_are_refused(
    names: list[str], size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        write_labels([Annotated(name, size, size, []) for name in names], tmp_path / "out", names=["a", "b"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_id", 8, "has image_id 8, which the file does not explain"),
        ("category_id", 99, "has category_id 99, which the file does not explain"),
        ("segmentation", [], "has no polygon"),
        ("segmentation", None, "has no polygon"),
        ("segmentation", [[1, 1, 4, 4]], "has no polygon"),  # which pycocotools takes for a box
        ("segmentation", {"size": [2, 2], "counts": [4]}, r"has a mask of \(2, 2\), its image another size"),
    ],
)
def test_annotation_without_a_mask_is_refused(key: str, value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"instances\.json is no COCO file .*annotation 1 {message}"):
        read_coco(coco(tmp_path, **{key: value}))  # type: ignore[arg-type]
