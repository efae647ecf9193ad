"""Conversion of annotations (labelme, COCO) to label PNGs and classes.json of a folder (docs/own-data.md)."""

import base64
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from segsemi.core.classes import IGNORE_INDEX, Classes, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import visible_files, write_json
from segsemi.datasets.folder import read_classes
from segsemi.datasets.voc import colour_of


class Annotated(NamedTuple):
    """The annotation of one image.

    Attributes:
        name: the image's path below its folder, without ending.
        shapes: (class name, a function that returns the (height, width) bool mask), those that lie on top last; class None:
            no class (crowds). Functions, since the masks of thousands of images do not fit in memory.
    """

    name: str
    height: int
    width: int
    shapes: Sequence[tuple[str | None, Callable[[], np.ndarray]]]


def read_labelme(folder: Path) -> list[Annotated]:
    """Read the JSON files of labelme below `folder`, later shapes on top of earlier ones."""
    paths = [path for path in visible_files(folder, (".json",)) if path.name != "classes.json"]  # which we wrote
    if not paths:
        raise UserError(f"{folder} has no JSON file of labelme; name the folder that holds them")
    found = []
    for path in paths:
        shapes = []
        try:
            content = json.loads(path.read_bytes())
            height, width = int(content["imageHeight"]), int(content["imageWidth"])
            for shape in content["shapes"]:
                mask = partial(_labelme_mask, shape, height, width)
                mask()  # so that an error comes before anything is written
                shapes.append((None if shape["label"] == "__ignore__" else str(shape["label"]), mask))
            name = path.relative_to(folder).with_suffix("").as_posix()
            found.append(Annotated(name, height, width, shapes))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{path} is no annotation of labelme ({type(error).__name__}: {error})") from None
    return found


def _labelme_mask(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    kind, points = shape.get("shape_type", "polygon"), [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "mask":  # a PNG within the bounding box that the two points span
        left, top = (round(value) for value in points[0])
        patch = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
        mask = np.zeros((height, width), dtype=bool)
        mask[top : top + patch.shape[0], left : left + patch.shape[1]] = patch[: height - top, : width - left]
        return mask
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        draw.rectangle([*np.min(points, axis=0), *np.max(points, axis=0)], fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1)
    else:
        raise ValueError(f"shape {shape['label']!r} of type {kind!r} with {len(points)} points has no area")
    return np.asarray(canvas)


def read_coco(path: Path) -> list[Annotated]:
    """Read the images of a COCO file of instances that have annotations: smaller ones on top; crowds are no class.

    An image without any is one that nobody has labelled yet.
    """
    coco, shapes = COCO(), defaultdict(list)
    try:
        content = json.loads(path.read_bytes())
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        coco.imgs = {item["id"]: item for item in content["images"]}
        for item in content["annotations"]:
            for key, known in (("image_id", coco.imgs), ("category_id", names)):
                if item[key] not in known:
                    raise ValueError(f"annotation {item['id']} has {key} {item[key]}, which the file does not explain")
            mask = partial(_coco_mask, coco, item)
            area = mask().sum()  # also, so that an error comes before anything is written
            shapes[item["image_id"]].append((area, None if item.get("iscrowd") else names[item["category_id"]], mask))
        found = []
        for id_, image in coco.imgs.items():
            if id_ in shapes:
                ordered = sorted(shapes[id_], key=lambda shape: -shape[0])
                name = PurePosixPath(image["file_name"]).with_suffix("").as_posix()
                found.append(Annotated(name, image["height"], image["width"], [shape[1:] for shape in ordered]))
    except Exception as error:  # pycocotools fails in its own ways
        raise UserError(f"{path} is no COCO file of masks ({type(error).__name__}: {error})") from None
    if not found:
        raise UserError(f"{path} has no annotation; export it with them")
    return found


def _coco_mask(coco: COCO, annotation: dict[str, Any]) -> np.ndarray:
    image, segmentation = coco.imgs[annotation["image_id"]], annotation.get("segmentation") or []
    if isinstance(segmentation, list):
        segmentation = [polygon for polygon in segmentation if len(polygon) > 4]  # two points have no area
    if not segmentation:
        raise ValueError(f"annotation {annotation['id']} has no polygon, and a box alone is no mask: draw or remove it")
    mask = coco.annToMask({**annotation, "segmentation": segmentation}).astype(bool)
    if mask.shape != (image["height"], image["width"]):
        raise ValueError(f"annotation {annotation['id']} has a mask of {mask.shape}, its image another size")
    return mask


def write_labels(
    images: Sequence[Annotated], out: Path, *, names: Sequence[str] = (), background: str | None = None
) -> Classes:
    """Write out/labels/NAME.png and out/classes.json.

    Args:
        names: the classes, in the order of their ids; none: all that occur, in alphabetical order.
        background: the class of all pixels outside the shapes, the first one if `names` does not hold it; None: they are
            no class and are ignored in training.

    Raises:
        UserError: a shape has a class that is not in `names`; there is no class, or more than a label can hold; two images
            have one name, or one that leads out of the folder; labels that are there would change their meaning.
    """
    seen = set()
    for image in images:
        if PurePosixPath(image.name).is_absolute() or ".." in PurePosixPath(image.name).parts:
            raise UserError(f"image {image.name!r} lies outside the folder of the images; give paths below it")
        if min(image.height, image.width) < 1:
            raise UserError(f"image {image.name!r} is {image.height}x{image.width} (height x width); correct its size")
        if image.name in seen:
            raise UserError(f"two images have the name {image.name!r} (endings do not count); rename one")
        seen.add(image.name)
    classes = _choose_classes(images, names, background, out / "classes.json")
    ids: dict[str | None, int] = {name: index for index, name in enumerate(classes.names)} | {None: IGNORE_INDEX}
    for image in images:
        label = np.full((image.height, image.width), ids[background], dtype=np.uint8)
        for name, mask in image.shapes:
            label[mask()] = ids[name]
        write_label_png(out / "labels" / f"{image.name}.png", label, classes)
    write_json(out / "classes.json", {"names": classes.names, "colours": classes.colours})
    return classes


def _choose_classes(images: Sequence[Annotated], names: Sequence[str], background: str | None, path: Path) -> Classes:
    """Return the classes, with the colours that they have in `path` already; errors as `write_labels`."""
    present = sorted({name for image in images for name, _ in image.shapes if name is not None})
    chosen = list(names or present)
    if background is not None and background not in chosen:
        chosen.insert(0, background)
    unknown = [name for name in present if name not in chosen]
    if unknown:
        raise UserError(f"shapes of {', '.join(unknown[:5])}, which --classes does not name; add or rename them")
    if len(chosen) == 1:
        raise UserError(f"{chosen[0]} is the only class, and there must be two; name the rest by --background")
    try:
        classes = Classes(tuple(chosen), tuple(colour_of(index) for index in range(len(chosen))))
    except ValueError as error:
        raise UserError(f"classes: {error}") from None
    if not path.exists():
        return classes
    there = read_classes(path)
    if there.names != classes.names[: len(there)] or there != there.as_written():
        known = ", ".join(there.names)
        raise UserError(f"{path} has other classes: {known}; begin --classes with these, or give -o another folder")
    return Classes(classes.names, there.colours + classes.colours[len(there) :])
