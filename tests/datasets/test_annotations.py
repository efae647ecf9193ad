"""Annotations of labelme and COCO become the masks that were drawn."""

from __future__ import annotations

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
from segsemi.datasets.annotations import read_coco, read_labelme, write_labels
from segsemi.datasets.folder import read_classes

HEIGHT, WIDTH = 40, 60
TRIANGLE = [[10.0, 5.0], [50.0, 10.0], [20.0, 35.0]]


def labelme(path: Path, shapes: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": path.with_suffix(".jpg").name}
    path.write_text(json.dumps({**content, "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}))


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
    labelme(
        tmp_path / "json/a/one.json",
        [
            {"label": "roof", "points": TRIANGLE, "shape_type": "polygon"},
            {"label": "door", "points": [[55.0, 30.0], [45.0, 20.0]], "shape_type": "rectangle"},
            {"label": "sun", "points": [[20.0, 20.0], [20.0, 25.0]], "shape_type": "circle"},
            {
                "label": "cat",
                "points": [[3, 30], [11, 35]],
                "shape_type": "mask",
                "mask": base64.b64encode(png.getvalue()).decode(),
            },
        ],
    )
    labelme(tmp_path / "json/two.json", [])
    classes = write_labels(read_labelme(tmp_path / "json"), tmp_path / "out", background="ground")
    assert classes.names == ("ground", "cat", "door", "roof", "sun")
    label = label_of(tmp_path / "out", "a/one")
    roof, sun = np.zeros((HEIGHT, WIDTH), dtype=bool), np.zeros((HEIGHT, WIDTH), dtype=bool)
    roof[polygon(*np.array(TRIANGLE).T[::-1], (HEIGHT, WIDTH))] = True
    sun[disk((20, 20), 5.5)] = True
    assert near(label == 4, sun) and near((label == 3) | (label == 4), roof | sun)  # the sun lies on top
    assert (label[20:31, 45:56] == 2).all() and (label == 2).sum() == 121
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[32:34, 3:12] = True
    assert np.array_equal(label == 1, expected)
    assert (label_of(tmp_path / "out", "two") == 0).all()


def coco(path: Path) -> dict:
    uncompressed = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    uncompressed[2:6, 3:20] = 1
    flat = uncompressed.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    crowd = {"size": [HEIGHT, WIDTH], "counts": counts}
    content = {
        "images": [{"id": 7, "file_name": "b/pic.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 3, "name": "person"}, {"id": 9, "name": "sofa"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[20, 12, 30, 12, 30, 20, 20, 20]]},
            {"id": 2, "image_id": 7, "category_id": 9, "segmentation": [[10, 8, 50, 8, 50, 30, 10, 30]]},
            {"id": 3, "image_id": 7, "category_id": 3, "segmentation": crowd, "iscrowd": 1},
        ],
    }
    path.write_text(json.dumps(content))
    return content


def test_coco_polygons_and_crowds(tmp_path: Path) -> None:
    coco(tmp_path / "instances.json")
    assert main(["labels", "coco", str(tmp_path / "instances.json"), "-o", str(tmp_path / "out")]) == 0
    label = label_of(tmp_path / "out", "b/pic")
    assert set(np.unique(label)) == {0, 1, 255}
    assert (label[12:20, 20:30] == 0).all() and (label == 0).sum() == 80  # the smaller one on top
    assert (label[8:30, 10:50] != 255).all() and (label[30:] == 255).all() and (label[2:6, 3:20] == 255).all()


def test_coco_image_without_annotations_stays_unlabelled(tmp_path: Path) -> None:
    content = coco(tmp_path / "instances.json")
    content["images"].append({**content["images"][0], "id": 99, "file_name": "new.jpg"})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert main(["labels", "coco", str(tmp_path / "instances.json"), "-o", str(out), "--background", "room"]) == 0
    assert (out / "labels/b/pic.png").exists() and not (out / "labels/new.png").exists()
    (tmp_path / "instances.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(UserError, match=r"instances\.json has no annotation"):
        read_coco(tmp_path / "instances.json")


def test_classes_of_ones_own_order(tmp_path: Path) -> None:
    coco(tmp_path / "instances.json")
    images = read_coco(tmp_path / "instances.json")
    assert write_labels(images, tmp_path, names=["sofa", "room", "person"], background="room").names[1] == "room"
    assert label_of(tmp_path, "b/pic")[0, 0] == 1
    with pytest.raises(UserError, match="shapes of sofa, which --classes does not name"):
        write_labels(images, tmp_path, names=["person"])


def test_labels_that_are_there_keep_their_meaning(tmp_path: Path) -> None:
    def shape(name: str) -> dict:
        return {"label": name, "points": TRIANGLE, "shape_type": "polygon"}

    labelme(tmp_path / "one/a.json", [shape("cat"), shape("dog")])
    labelme(tmp_path / "two/b.json", [shape("bird"), shape("dog")])
    out = tmp_path / "out"
    write_labels(read_labelme(tmp_path / "one"), out)
    before = (out / "classes.json").read_text()
    with pytest.raises(UserError, match=r"classes.json has other classes.*: cat, dog; begin --classes with these"):
        write_labels(read_labelme(tmp_path / "two"), out)
    assert (out / "classes.json").read_text() == before and not (out / "labels/b.png").exists()
    write_labels(read_labelme(tmp_path / "one"), out)
    classes = write_labels(read_labelme(tmp_path / "two"), out, names=["cat", "dog", "bird"])
    assert classes.names == ("cat", "dog", "bird") and (label_of(out, "b") == 1).any()
    (out / "classes.json").write_text(
        '{"names": ["cat", "dog", "bird"], "colours": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "ids": [7, 8, 9]}'
    )
    with pytest.raises(UserError, match="has other classes"):
        write_labels(read_labelme(tmp_path / "two"), out, names=["cat", "dog", "bird"])


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    square = {"label": "pole", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}
    labelme(tmp_path / "a.json", [square, {**square, "label": "__ignore__"}])
    with pytest.raises(UserError, match="pole is the only class.*--background"):
        write_labels(read_labelme(tmp_path), tmp_path)
    write_labels(read_labelme(tmp_path), tmp_path, background="ground")
    with Image.open(tmp_path / "labels/a.png") as label:
        assert np.asarray(label)[3, 3] == 255 and np.asarray(label)[20, 20] == 0
    assert [image.name for image in read_labelme(tmp_path)] == ["a"]  # not classes.json, which lies beside it now


def test_broken_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no JSON file of labelme"):
        read_labelme(tmp_path)
    labelme(tmp_path / "a.json", [{"label": "pole", "points": [[1, 1], [5, 5]], "shape_type": "line"}])
    with pytest.raises(UserError, match=r"a\.json is no annotation of labelme .*'pole' of type 'line'"):
        read_labelme(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json cannot be read as JSON"):
        read_labelme(tmp_path)
    content = coco(tmp_path / "c.json")
    for name in ("/data/pic.jpg", "../pic.jpg"):
        content["images"][0]["file_name"] = name
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="outside the folder"):
            write_labels(read_coco(tmp_path / "c.json"), tmp_path / "out")
    content["images"] += [
        {**content["images"][0], "id": 8 + i, "file_name": f"b/x.{e}"} for i, e in enumerate(["jpg", "png"])
    ]
    content["images"][0]["file_name"] = "c.jpg"
    content["annotations"] += [{**content["annotations"][0], "image_id": 8 + i} for i in range(2)]
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="two images have the name 'b/x'"):
        write_labels(read_coco(tmp_path / "c.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    content["images"] = content["images"][:1]
    content["annotations"] = content["annotations"][:1]
    for key, value, message in (
        ("image_id", 8, "has image_id 8, which the file does not explain"),
        ("category_id", 99, "has category_id 99, which the file does not explain"),
        ("segmentation", [], "has no polygon"),
        ("segmentation", None, "has no polygon"),
        ("segmentation", [[1, 1, 4, 4]], "has no polygon"),  # which pycocotools takes for a box
    ):
        annotation = {**content["annotations"][0], key: value}
        (tmp_path / "c.json").write_text(json.dumps({**content, "annotations": [annotation]}))
        with pytest.raises(
            UserError, match=rf"c\.json is no COCO file of masks \(ValueError: annotation \d+ {message}"
        ):
            read_coco(tmp_path / "c.json")
