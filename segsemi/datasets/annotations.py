"""Conversion of annotations (labelme, COCO) to label PNGs and classes.json of a folder (docs/own-data.md)."""

import base64
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from segsemi.core.classes import IGNORE_INDEX, Classes, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.files import read_json, visible_files, write_json
from segsemi.data.images import IMAGE_ENDINGS, LABEL_ENDINGS, read_size
from segsemi.datasets.entries import composed, first_lines, path_ends, stem_of
from segsemi.datasets.folder import read_classes
from segsemi.datasets.voc import colour_of

FARTHEST = 100_000  # pixels; coordinates beyond are mistakes, and pycocotools crashes at some of them
SHOWN = 5
Mask = Callable[[], np.ndarray]  # returns (height, width) bool: the masks of thousands of images do not fit in memory
_Shapes = list[tuple[int, str | None, Mask]]  # of one image of COCO: area in pixels, class name, mask


class Annotated(NamedTuple):
    """The annotation of one image.

    Attributes:
        name: the image's path below its folder, without ending.
        shapes: (class name, or None for no class; mask), those that lie on top last.
    """

    name: str
    height: int
    width: int
    shapes: Sequence[tuple[str | None, Mask]]


class Notes:
    """Counts what is skipped or worth a look, with the first places."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, place: str) -> None:
        """Note one more of what happened, such as `shapes without an area are skipped`."""
        self.places[what].append(place)

    def __str__(self) -> str:
        return "".join(f"\n  {line}" for line in self.lines())

    def lines(self) -> list[str]:
        """Return a warning for each kind: how often, what, and the first places."""
        return [
            f"warning: {what} ({len(places)}): {', '.join(places[:SHOWN])}{' ...' if len(places) > SHOWN else ''}"
            for what, places in self.places.items()
        ]


class _StrayShape(ValueError):
    """Says why a shape has no area."""


def find_pictures(folder: Path) -> dict[str, Path]:
    """Return path below images/ or unlabelled/ of `folder`, without ending -> file, of all pictures there."""
    found = {}
    for base in (folder / "unlabelled", folder / "images"):
        for path in visible_files(base, IMAGE_ENDINGS):
            found[stem_of(path, base)] = path
    return found


def read_labelme(source: Path, pictures: Mapping[str, Path], notes: Notes) -> list[Annotated]:
    """Read the JSON files of labelme, or of a tool with its format, below a folder, later shapes on top of earlier ones.

    Args:
        pictures: those that may be annotated, from `find_pictures`; if there are none, names are as in the files.
        notes: is told what is skipped.

    Raises:
        UserError: there is no such file, or some are broken.
    """
    found, broken = [], []
    for path in _json_files(source):
        try:
            content = read_json(path)
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                notes.add("JSON files without shapes are skipped", str(path))
                continue
            own = stem_of(path, source if source.is_dir() else source.parent)
            named = str(content.get("imagePath") or "").replace("\\", "/")
            name = _known(own, pictures) or _known(composed(named), pictures) or own
            if named and composed(PurePosixPath(named).stem) != PurePosixPath(own).name and name == own:
                notes.add("files name another image in imagePath; their own name counts", f"{path} ({named})")
            height, width = _labelme_size(content, pictures.get(name), path.parent / named)
            shapes: list[tuple[str | None, Mask]] = []
            for shape in content["shapes"]:
                try:
                    class_ = _class_name(shape.get("label"))
                    mask = partial(_labelme_mask, shape, height, width)
                    if not mask().any():  # an error, too, comes before anything is written
                        raise _StrayShape("covers no pixel of the image")
                    shapes.append((class_, mask))
                except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
                    notes.add("shapes are skipped", f"{path.name} {_reason(error)}")
            if shapes or not content["shapes"]:
                found.append(Annotated(name, height, width, shapes))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            broken.append(f"{path} is no annotation of labelme ({_reason(error)})")
    if broken:
        raise UserError(first_lines(broken))
    if not found:
        raise UserError(f"{source} has no JSON file of labelme with a shape; name the folder that holds them{notes}")
    return found


def _json_files(source: Path) -> list[Path]:
    """Return a file itself, or the JSON files below a folder, without the classes.json that we write."""
    if not source.exists():
        raise UserError(f"{source} not found; name a JSON file of annotations, or the folder that holds them")
    paths = visible_files(source, (".json",)) if source.is_dir() else [source]
    return [path for path in paths if path.name != "classes.json"]


def _reason(error: Exception) -> str:
    return str(error) if type(error) in (ValueError, _StrayShape) else f"{type(error).__name__}: {error}"


def _known(name: str, pictures: Mapping[str, Path]) -> str | None:
    """Return the picture that a path of an annotation means, perhaps with folders of another machine before it."""
    return max((end for end in path_ends(name) if end in pictures), key=len, default=None)


def _class_name(label: Any) -> str | None:
    """Return the name of a class; None for what labelme calls no class."""
    if label is None or not str(label).strip():
        raise _StrayShape("has no class")
    name = composed(str(label).strip())
    name.encode()  # half of a surrogate pair, which JSON can hold, has no file
    return None if name == "__ignore__" else name


def _labelme_size(content: Mapping[str, Any], picture: Path | None, beside: Path) -> tuple[int, int]:
    """Return (height, width) as the file has them, else those of the embedded image, of the picture, or of one `beside`."""
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height and width:
        return int(height), int(width)
    if content.get("imageData"):
        with NamedTemporaryFile() as embedded:
            embedded.write(base64.b64decode(content["imageData"].rsplit(",", 1)[-1]))
            embedded.flush()
            try:
                return read_size(Path(embedded.name))
            except UserError:
                raise ValueError("its imageData cannot be read; write imageHeight and imageWidth instead") from None
    for file in (picture, beside):
        if file is not None and file.is_file():
            return read_size(file)
    raise ValueError("no imageHeight and imageWidth, and its image is neither beside it nor in images/")


def _points(points: Any) -> list[tuple[float, float]]:
    """Return pairs of numbers; raise _StrayShape for any that cannot be in an image."""
    pairs = [(float(x), float(y)) for x, y in points]
    if not all(abs(value) <= FARTHEST for pair in pairs for value in pair):  # NaN is not
        raise _StrayShape(f"has coordinates beyond {FARTHEST} pixels")
    if pairs and all(0 <= value <= 1 for pair in pairs for value in pair):
        raise _StrayShape("has coordinates of 0 to 1; expected pixels")
    return pairs


def _labelme_mask(shape: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    kind, points = shape.get("shape_type") or "polygon", _points(shape["points"])
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    if kind == "mask" and points:  # a PNG within the bounding box that the two points span
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as file:
            patch = np.asarray(file if file.mode in ("1", "L", "P") else file.convert("L")) > 0
        (left, top), (right, bottom) = np.rint(np.min(points, axis=0)), np.rint(np.max(points, axis=0))
        if max(abs(bottom - top + 1 - patch.shape[0]), abs(right - left + 1 - patch.shape[1])) > 1:
            sizes = f"{patch.shape[0]}x{patch.shape[1]} in a box of {bottom - top + 1:.0f}x{right - left + 1:.0f}"
            raise _StrayShape(f"has a mask of {sizes} pixels")
        canvas.paste(Image.fromarray(patch), (int(left), int(top)))  # clips at all edges
    elif kind in ("polygon", "rectangle", "rotation", "quadrilateral") and len(points) > 2:
        draw.polygon(points, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        draw.rectangle([*np.min(points, axis=0), *np.max(points, axis=0)], fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1)
    else:
        raise _StrayShape(f"shape {shape.get('label')!r} of type {kind!r} with {len(points)} points")
    return np.asarray(canvas)


def read_coco(source: Path, pictures: Mapping[str, Path], notes: Notes) -> list[Annotated]:
    """Read the images that have annotations of a COCO file of instances, or of all such files in a folder: smaller ones on top.

    Crowds are their class, as the brush masks of CVAT are marked as crowds. An image without any annotation is one that
    nobody has labelled yet.

    Args:
        pictures, notes: as in `read_labelme`.

    Raises:
        UserError: a file is broken or no COCO file, ids stand for two things, or no annotation has a mask.
    """
    found: dict[str, tuple[tuple[int, int], str, _Shapes]] = {}  # name -> size, folder of the first picture, shapes
    joined: set[str] = set()  # names in several files
    for path in _json_files(source):
        try:
            content = read_json(path)
            if source.is_dir() and not (isinstance(content, dict) and {"annotations", "categories"} <= content.keys()):
                notes.add("JSON files without annotations and categories are skipped", str(path))
                continue
            folder = path.parent.relative_to(source) if source.is_dir() else Path()
            for name, size, place, new in _coco_images(content, f"{path.name} annotation", folder, pictures, notes):
                first_size, first, shapes = found.setdefault(name, (size, place, []))
                if size != first_size:
                    raise ValueError(f"image {name!r} has another size than in a file before")
                if not (place.endswith(first) or first.endswith(place)):
                    both = f"images of {first!r} and {place!r} would both be {name!r}"
                    raise ValueError(f"{both}; put the folders of both below images/")
                if shapes:
                    joined.add(name)
                shapes += new
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error})") from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path} is no COCO file of masks ({_reason(error)})") from None
    if not found:
        raise UserError(f"{source} has no annotation with a mask; export it with them{notes}")
    for name in sorted(joined):
        notes.add("images are annotated in several files, whose shapes are joined", name)
    return [
        Annotated(name, *size, [shape[1:] for shape in sorted(shapes, key=lambda shape: -shape[0])])
        for name, (size, _, shapes) in found.items()
    ]


def _id(value: Any) -> str:
    """Return an id as text, as files have 1, 1.0 or "1" for the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _by_id(items: Sequence[Mapping[str, Any]], kind: str, key: str) -> dict[str, Mapping[str, Any]]:
    """Return id -> item; raise ValueError if an id has two different values of `key`."""
    found: dict[str, Mapping[str, Any]] = {}
    for item in items:
        other = found.setdefault(_id(item["id"]), item)
        if other[key] != item[key]:
            both = f"{kind} id {item['id']} is {other[key]!r} and {item[key]!r}"
            raise ValueError(f"{both}; merged files need an id of its own for each {kind}")
    return found


def _coco_images(
    content: Mapping[str, Any], place: str, folder: Path, pictures: Mapping[str, Path], notes: Notes
) -> Iterator[tuple[str, tuple[int, int], str, _Shapes]]:
    """Yield the name, (height, width), folder and shapes of each image of one file that has a mask."""
    if not isinstance(content, dict):
        raise ValueError("it is no object with images, categories and annotations")
    categories = _by_id(content["categories"], "category", "name")
    classes = {id_: _class_name(item["name"]) for id_, item in categories.items()}
    # LVIS has URLs
    listed = [{**item, "file_name": item.get("file_name") or item["coco_url"]} for item in content["images"]]
    images, shapes = _by_id(listed, "image", "file_name"), defaultdict[str, _Shapes](list)
    names = {id_: _coco_name(str(item["file_name"]), folder, pictures) for id_, item in images.items()}
    sizes = {id_: _coco_size(item, pictures.get(names[id_])) for id_, item in images.items()}
    for index, item in enumerate(content["annotations"] or ()):
        here = f"{place} {item['id'] if isinstance(item, dict) and 'id' in item else f'at position {index}'}"
        try:
            if "segments_info" in item:
                raise _StrayShape("is panoptic, with its mask in a PNG; export instances")
            image, category = _id(item["image_id"]), _id(item["category_id"])
            for key, value, known in (("image_id", image, images), ("category_id", category, classes)):
                if value not in known:
                    raise _StrayShape(f"has {key} {value}, which the file does not explain")
            mask = partial(_coco_mask, item.get("segmentation"), *sizes[image])
            if not (area := int(mask().sum())):
                raise _StrayShape("covers no pixel of the image")
            shapes[image].append((area, classes[category], mask))
            if item.get("iscrowd"):
                notes.add("crowds count as their class", f"{here} ({classes[category]})")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            notes.add("annotations without a mask are skipped", f"{here} {_reason(error)}")
    often = Counter(names.values())
    for id_, name in names.items():
        if id_ in shapes:
            if often[name] > 1:
                raise ValueError(f"{often[name]} images have the name {name!r} (endings do not count); rename one")
            parent = PurePosixPath(str(images[id_]["file_name"]).replace("\\", "/")).parent
            yield name, sizes[id_], str(folder / parent).strip("./"), shapes[id_]


def _coco_name(file_name: str, folder: Path, pictures: Mapping[str, Path]) -> str:
    """Return the picture that `file_name`, perhaps below `folder`, means; if none is known, the path without ending."""
    if "://" in file_name:
        file_name = unquote(re.split("[?#]", file_name)[0])
    # Label Studio quotes names, and puts a random prefix before those of uploaded files.
    slashed = composed(file_name.replace("\\", "/"))
    plain = unquote(slashed).split("?d=")[-1]
    for text in (slashed, plain, re.sub(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)", r"\1", plain)):
        if (name := _known(composed((folder / text).as_posix()), pictures)) is not None:
            return name
    path = PurePosixPath(slashed)
    if path.parts[:1] == ("images",) and len(path.parts) > 1:
        path = path.relative_to("images")
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_ENDINGS else path).as_posix()


def _coco_size(image: Mapping[str, Any], picture: Path | None) -> tuple[int, int]:
    """Return (height, width) as the file has them, else those of the picture."""
    if image.get("height") and image.get("width"):
        return int(image["height"]), int(image["width"])
    if picture is None:
        raise ValueError(f"image {image['file_name']!r} has no height and width, and is not in images/")
    return read_size(picture)


def _coco_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the (height, width) bool mask of polygons or of run lengths, whatever dialect they are written in."""
    if isinstance(segmentation, Mapping):
        return _from_run_lengths(segmentation, height, width)
    rings = [ring for ring in _rings(segmentation or []) if len(ring) > 2]  # two points have no area
    if not rings:
        raise _StrayShape("has no polygon, and a box alone is no mask")
    flat = [[value for point in ring for value in point] for ring in rings]
    return coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, height, width))).astype(bool)


def _rings(value: Any) -> Iterator[list[tuple[float, float]]]:
    """Yield the points of each polygon: of [x, y, x, y...], of [[x, y], ...], and of lists of these."""
    if not isinstance(value, list):
        raise _StrayShape("has a segmentation that is no list of points")
    if all(isinstance(item, int | float) for item in value):
        if len(value) % 2:
            raise _StrayShape(f"has a polygon of {len(value)} numbers, which are no points")
        yield _points(zip(value[::2], value[1::2], strict=True))
    elif all(isinstance(item, list) and len(item) == 2 and not isinstance(item[0], list) for item in value):
        yield _points(value)
    else:
        for item in value:
            yield from _rings(item)


def _from_run_lengths(code: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """Decode run lengths, column by column, themselves or in pycocotools' text; check what pycocotools does not."""
    counts = code["counts"] if isinstance(code["counts"], list) else _run_lengths(str(code["counts"]))
    if [int(side) for side in code["size"]] != [height, width]:
        raise _StrayShape(f"has a mask of {code['size']}, its image [{height}, {width}]")
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise _StrayShape(f"has run lengths that are not those of {height}x{width} pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _run_lengths(text: str) -> list[int]:
    """Return the run lengths in pycocotools' text: 5 bits a character, from the third on differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def fitting(images: Sequence[Annotated], pictures: Mapping[str, Path], notes: Notes) -> list[Annotated]:
    """Return the annotated images that are among the pictures and have the size of their annotation.

    Raises:
        UserError: there is none.
    """
    found = []
    for image in images:
        size = read_size(pictures[image.name]) if image.name in pictures else None
        if size is None:
            notes.add("annotated images are not in images/ and get no label", image.name)
        elif size != (image.height, image.width):
            text = f"{image.name} ({size[0]}x{size[1]}, annotated at {image.height}x{image.width})"
            notes.add("images have another height x width than their annotation and get no label", text)
        else:
            found.append(image)
    if not found:
        raise UserError(f"no annotated image is in images/, at the size of its annotation{notes}")
    return found


def write_labels(
    images: Sequence[Annotated], out: Path, *, names: Sequence[str] = (), background: str | None = None, notes: Notes
) -> Classes:
    """Write out/labels/NAME.png and out/classes.json.

    Args:
        names: the classes, in the order of their ids; none: those of classes.json, if it is there, then all others that
            occur, in alphabetical order.
        background: the class of all pixels outside the shapes, the first one if nothing names it yet; None: they are
            no class and are ignored in training.
        notes: is told which labels were there before.

    Raises:
        UserError: a shape has a class that is not in `names`; there is no class, or more than a label can hold; two images
            have one name, or one that leads out of the folder; labels that are there would change their meaning.
    """
    names, background = [*map(composed, names)], composed(background) if background else None
    seen, folder, file = set(), out / "labels", out / "classes.json"
    kept = read_json(file) if file.exists() else {}
    for image in images:
        if PurePosixPath(image.name).is_absolute() or ".." in PurePosixPath(image.name).parts:
            raise UserError(f"image {image.name!r} lies outside the folder of the images; give paths below it")
        if min(image.height, image.width) < 1:
            raise UserError(f"image {image.name!r} is {image.height}x{image.width} (height x width); correct its size")
        if image.name in seen:
            raise UserError(f"two images have the name {image.name!r} (endings do not count); rename one")
        seen.add(image.name)
    classes = _choose_classes(images, names, background, file, notes)
    suffix = kept.get("label_suffix", "")
    ids: dict[str | None, int] = {name: index for index, name in enumerate(classes.names)} | {None: IGNORE_INDEX}
    before = visible_files(folder, LABEL_ENDINGS)
    for image in images:
        label = np.full((image.height, image.width), ids[background], dtype=np.uint8)
        for name, mask in image.shapes:
            label[mask()] = ids[name]
        write_label_png(folder / f"{image.name}{suffix}.png", label, classes)
    for path in before:
        stem = stem_of(path, folder)
        replaced = stem.removesuffix(suffix) in seen
        what = "labels that were there are replaced" if replaced else "labels of an earlier export stay and count"
        notes.add(what, path.relative_to(out).as_posix())
        if replaced and not path.samefile(folder / f"{stem}.png"):  # of another ending, or with decomposed letters
            path.unlink()
    write_json(file, {**kept, "names": classes.names, "colours": classes.colours})
    return classes


def _choose_classes(
    images: Sequence[Annotated], names: Sequence[str], background: str | None, path: Path, notes: Notes
) -> Classes:
    """Return the classes, with the colours that they have in `path` already; errors as `write_labels`."""
    present = sorted({name for image in images for name, _ in image.shapes if name is not None})
    there = read_classes(path) if path.exists() else None
    chosen = list(names or dict.fromkeys([*(there.names if there else ()), *present]))
    if background is not None and background not in chosen:
        chosen.insert(0 if there is None or names else len(chosen), background)
    unknown = [name for name in present if name not in chosen]
    if unknown:
        raise UserError(f"shapes of {', '.join(unknown[:5])}, which --classes does not name; add or rename them")
    spellings = Counter(name.casefold() for name in chosen)
    twice = [name for name in chosen if spellings[name.casefold()] > 1]
    if twice and not names:
        raise UserError(f"{' and '.join(twice)} differ only in capital letters; rename one, or name both by --classes")
    if len(chosen) == 1:
        raise UserError(f"{chosen[0]} is the only class, and there must be two; name the rest by --background")
    try:
        classes = Classes(tuple(chosen), tuple(colour_of(index) for index in range(len(chosen))))
    except ValueError as error:
        raise UserError(f"classes: {error}") from None
    if there is None:
        return classes
    known = ", ".join(there.names)
    if there.names != classes.names[: len(there)] or there != there.as_written():
        raise UserError(f"{path} has other classes: {known}; begin --classes with these, or give -o another folder")
    if new := classes.names[len(there) :]:
        notes.add(f"classes are new, behind those of {path}, {known}", ", ".join(new))
    return Classes(classes.names, there.colours + classes.colours[len(there) :])
