"""Exchange of pseudo labels with CVAT ("Segmentation mask 1.1") and Label Studio (brush), to correct them there."""

import base64
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from segsemi.core.classes import IGNORE_INDEX, Classes
from segsemi.core.errors import UserError
from segsemi.core.files import read_json, visible_files, write_bytes, write_json, write_text
from segsemi.core.pictures import png_bytes
from segsemi.data.images import read_label
from segsemi.datasets.annotations import Notes
from segsemi.datasets.entries import composed, read_lines
from segsemi.datasets.voc import colour_of

IGNORED = "__ignore__"  # the name of "no class" in both tools, as in labelme
UNLABELLED = "background"  # CVAT's name of the pixels outside all shapes, which are black
RUN = 1 << 14  # pixels; a run of Label Studio has at most 2^16 values, 4 for each pixel
SKIPPED = "images have no annotation and get no label"


def export_labels(labels: Mapping[str, np.ndarray], classes: Classes, student: str, out: Path) -> None:
    """Write the files to import: cvat.zip and cvat_labels.json; labelstudio.json and labelstudio.xml.

    Label Studio reads the images from out/images/ID.png, as a folder below its document root.

    Args:
        labels: id -> class ids, (H, W) uint8.
    """
    colours = _colours(classes)
    hexadecimal = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours.items()}
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[*range(len(classes)), IGNORE_INDEX]] = list(colours.values())
    objects = np.array([*map(colour_of, range(1, 256)), colour_of(len(classes) + 1)], dtype=np.uint8)  # 0 is no object
    listed = [(UNLABELLED, (0, 0, 0)), *((name, colour) for name, colour in colours.items() if name != UNLABELLED)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        lines = "".join(f"{name}:{red},{green},{blue}::\n" for name, (red, green, blue) in listed)
        file.writestr("labelmap.txt", "# label:color_rgb:parts:actions\n" + lines)
        file.writestr("ImageSets/Segmentation/default.txt", "".join(f"{id_}\n" for id_ in labels))
        for id_, label in labels.items():
            file.writestr(f"SegmentationClass/{id_}.png", png_bytes(palette[label]))
            file.writestr(f"SegmentationObject/{id_}.png", png_bytes(objects[label]))
    write_bytes(out / "cvat.zip", buffer.getvalue())
    editor = [{"name": name, "color": colour, "attributes": []} for name, colour in hexadecimal.items()]
    write_json(out / "cvat_labels.json", editor)
    tasks = [_task(id_, label, classes, student) for id_, label in labels.items()]
    write_text(out / "labelstudio.json", json.dumps(tasks))
    choices = "".join(f"    <Label value={quoteattr(k)} background={quoteattr(v)}/>\n" for k, v in hexadecimal.items())
    brushes = f'  <BrushLabels name="label" toName="image">\n{choices}  </BrushLabels>\n'
    image = '  <Image name="image" value="$image" zoom="true"/>\n'
    write_text(out / "labelstudio.xml", f"<View>\n{image}{brushes}</View>\n")


def _colours(classes: Classes) -> dict[str, tuple[int, int, int]]:
    """Return name -> colour, all different, of the classes in order and of IGNORED; only UNLABELLED is black."""
    names = [*classes.names, IGNORED]
    return {name: (0, 0, 0) if name == UNLABELLED else colour_of(index + 1) for index, name in enumerate(names)}


def _task(id_: str, label: np.ndarray, classes: Classes, student: str) -> dict[str, Any]:
    """Return a task of Label Studio. Its data, which an export holds again, has the id and the label as suggested."""
    result = [
        {
            "id": f"region{class_}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_height": label.shape[0],
            "original_width": label.shape[1],
            "image_rotation": 0,
            "value": {"format": "rle", "rle": encode_brush(label == class_), "brushlabels": [name]},
        }
        for class_, name in [*enumerate(classes.names), (IGNORE_INDEX, IGNORED)]
        if (label == class_).any()
    ]
    data = {
        "image": f"/data/local-files/?d=images/{quote(id_)}.png",
        "id": id_,
        "suggested": base64.b64encode(png_bytes(label)).decode(),
    }
    return {"data": data, "predictions": [{"model_version": student, "result": result}]}


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encode a mask, (H, W) bool, as the bytes of Label Studio's run lengths: RGBA values 0 or 255.

    The format is that of the package rle-pack of thi.ng/umbrella: number of values (32 bits), bits per value - 1 (5),
    four lengths of counts - 1 (4 each). Then runs: 1, which of the four lengths (2), count - 1, value.
    """
    flat = mask.ravel()
    starts = np.union1d(np.flatnonzero(np.diff(flat)) + 1, np.arange(0, flat.size, RUN))
    counts = 4 * np.diff(np.append(starts, flat.size)) - 1
    runs = 1 << 26 | counts << 8 | 255 * flat[starts].astype(np.int64)  # 1 + 2 + 16 + 8 bits
    head = np.array([int(bit) for bit in f"{4 * flat.size:032b}{7:05b}{4 * '1111'}"])
    bits = (runs[:, None] >> np.arange(26, -1, -1)) & 1
    return np.packbits(np.concatenate([head, bits.ravel()]).astype(np.uint8)).tolist()


def decode_brush(code: Sequence[int], height: int, width: int) -> np.ndarray:
    """Decode what `encode_brush` or Label Studio wrote as (height, width) bool: pixels of at least half opacity.

    Raises:
        ValueError: the code is cut short or is not that of an image of this size.
    """
    bits, place = "".join(f"{byte:08b}" for byte in code), 0

    def take(number: int) -> int:
        nonlocal place
        place += number
        if place > len(bits):
            raise ValueError("its run lengths are cut short")
        return int(bits[place - number : place], 2)

    size, word, lengths = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    if size != 4 * height * width or word != 8:
        raise ValueError(f"its run lengths have {size} values of {word} bits, expected 4 x {height} x {width} of 8")
    values, filled = np.empty(size, dtype=np.uint8), 0
    while filled < size:
        repeated, count = take(1), take(lengths[take(2)]) + 1
        values[filled : filled + count] = take(8) if repeated else [take(8) for _ in range(min(count, size - filled))]
        filled += count
    return values.reshape(height, width, 4)[..., 3] >= 128


def read_cvat(source: Path, classes: Classes, notes: Notes) -> dict[str, np.ndarray]:
    """Read CVAT's export "Segmentation mask 1.1", a zip or its folder: name -> class ids, (H, W) uint8.

    Pixels outside all shapes are `background` if that is a class, else ignored.

    Args:
        notes: is told of images without a shape, which are left out.

    Raises:
        UserError: it is no such export, a mask is broken, or a shape has a class that `classes` lacks.
    """
    found: dict[str, np.ndarray] = {}
    strange: dict[str, str] = {}  # unknown class -> an image with it
    with _unpacked(source) as folder:
        labelmaps = sorted(folder.rglob("labelmap.txt"))
        if len(labelmaps) != 1:
            number = len(labelmaps) or "no"
            raise UserError(
                f'{source} has {number} labelmap.txt; export from CVAT as "Segmentation mask 1.1", one task a file'
            )
        base, table, ids = labelmaps[0].parent, _labelmap(labelmaps[0]), _ids(classes)
        lookup = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        lookup[: len(table)] = [ids.get(class_, IGNORE_INDEX) for class_ in table.names]
        lists = visible_files(base / "ImageSets", (".txt",))
        listed = {PurePosixPath(line).name for path in lists for line in read_lines(path, may_be_empty=True)}
        for path in visible_files(base / "SegmentationClass", (".png",)):
            name, label = composed(path.stem), read_label(path, table)
            if name in found:
                raise UserError(f"{source} has two masks of {name}; remove one")
            present = {table.names[id_] for id_ in np.unique(label) if id_ != IGNORE_INDEX}
            strange |= dict.fromkeys(present - ids.keys(), name)
            if present - {UNLABELLED}:
                found[name] = lookup[label]
            else:
                listed.add(name)
    for name in sorted(listed - found.keys() - {""}):
        notes.add(SKIPPED, name)
    _refuse_strange(source, strange, classes)
    return found


def read_label_studio(source: Path, classes: Classes, notes: Notes) -> dict[str, np.ndarray]:
    """Read the brush labels of Label Studio's export "JSON": name -> class ids, (H, W) uint8.

    Where regions overlap, what the annotator has painted counts, not what was suggested there; of several, the last. Pixels
    outside all regions are ignored.

    Args:
        notes: is told of images without annotation, which are left out, and of regions that are skipped.

    Raises:
        UserError: it is no such export, or a region is broken or has a class that `classes` lacks.
    """
    ids, found, strange = _ids(classes), dict[str, np.ndarray](), dict[str, str]()
    for task in _read_tasks(source):
        name = _name_of(task["data"])
        if name in found:
            raise UserError(f"{source} has two tasks of {name}; remove one")
        try:
            done = [item for item in task["annotations"] if item.get("result") and not item.get("was_cancelled")]
            last = max(enumerate(done), key=lambda item: (str(item[1].get("updated_at", "")), item[0]), default=None)
            regions = [*_regions(last[1]["result"], name, notes)] if last else []
            if not regions:
                notes.add(SKIPPED, name)
                continue
            if len(done) > 1:
                notes.add("images have several annotations, of which the latest counts", name)
            strange |= {class_: name for class_, *_ in regions if class_ not in ids}
            drawn = [(ids.get(class_, IGNORE_INDEX), mask, region) for class_, mask, region in regions]
            found[name] = _flattened(drawn, task["data"].get("suggested"))
        except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{source}: the annotation of {name} is broken ({error}); correct or remove it") from None
    _refuse_strange(source, strange, classes)
    return found


def _read_tasks(source: Path) -> list[Any]:
    try:
        tasks = read_json(source)
    except ValueError as error:
        raise UserError(f"{source} is no JSON file ({error})") from None
    keys = {"data": dict, "annotations": list}
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and all(isinstance(task.get(key), kind) for key, kind in keys.items()) for task in tasks
    ):
        raise UserError(f'{source} is no list of tasks with annotations; export from Label Studio as "JSON"')
    return tasks


def _name_of(data: Mapping[str, Any]) -> str:
    """Return the id that `export_labels` wrote; else the image's name, without what Label Studio puts before uploaded ones."""
    image = unquote(str(data.get("image", "")))
    stem = PurePosixPath(image.split("?d=")[-1]).stem
    if "/upload/" in image:
        stem = re.sub(r"^[0-9a-f]{8}-", "", stem)
    return composed(str(data.get("id") or stem))


def _regions(result: Sequence[Mapping[str, Any]], name: str, notes: Notes) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield class, mask, (H, W) bool, and id of each region of a brush."""
    for region in result:
        value = region.get("value") or {}
        if value.get("format") != "rle" or not value.get("brushlabels"):
            notes.add("regions that are not of a brush with a class are skipped", f"{name} ({region.get('type')})")
        elif region.get("image_rotation"):
            raise ValueError("its image is rotated")
        else:
            mask = decode_brush(value["rle"], region["original_height"], region["original_width"])
            yield composed(value["brushlabels"][0]), mask, str(region.get("id"))


def _flattened(regions: Sequence[tuple[int, np.ndarray, str]], suggested: str | None) -> np.ndarray:
    """Return the class ids, (H, W) uint8, of overlapping regions; see `read_label_studio`."""
    label = np.full(regions[0][1].shape, IGNORE_INDEX, dtype=np.uint8)
    before = label if suggested is None else np.asarray(Image.open(io.BytesIO(base64.b64decode(suggested))))
    for changed in (False, True):
        for id_, mask, region in regions:
            painted = (before != id_) | (region != f"region{id_}")  # a region of our own begins as suggested
            label[mask & painted if changed else mask] = id_
    return label


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(source) as file:
                file.extractall(folder)
        except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: it wants a password
            raise UserError(f"{source}: {error}; name what CVAT exported, or the folder of its files") from None
        yield Path(folder)


def _labelmap(path: Path) -> Classes:
    """Return the classes of lines `name:red,green,blue:parts:actions`; black of no class is ignored."""
    colours: dict[str, tuple[int, int, int]] = {}
    try:
        for line in read_lines(path):
            name, colour, *_ = line.rsplit(":", 3)
            red, green, blue = map(int, colour.split(","))
            colours[name.strip()] = red, green, blue
        black = () if (0, 0, 0) in colours.values() else ((0, 0, 0),)
        table = Classes(tuple(colours), tuple(colours.values()), label_format="colours", ignore_colours=black)
    except ValueError as error:
        raise UserError(f"{path.name} is no label map of CVAT ({error}); export it again") from None
    taken = next((name for name, colour in colours.items() if colour == (0, 0, 0)), UNLABELLED)
    if taken != UNLABELLED:
        raise UserError(f"CVAT has class {taken} in black, as all unlabelled pixels; change its colour, export again")
    return table


def _ids(classes: Classes) -> dict[str, int]:
    """Return name -> id of the classes and of what means "no class"."""
    own = {composed(name): id_ for id_, name in enumerate(classes.names)}
    return {IGNORED: IGNORE_INDEX, UNLABELLED: IGNORE_INDEX} | own


def _refuse_strange(source: Path, strange: Mapping[str, str], classes: Classes) -> None:
    if strange:
        listed = ", ".join(f"{name} (in {image})" for name, image in list(strange.items())[:5])
        known = ", ".join(classes.names)
        raise UserError(f"{source} has classes that are not the data set's: {listed}; rename them: {known}")
