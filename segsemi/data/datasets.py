"""Where each known data set keeps its files, and the check of all of them (stage prepare)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segsemi.data import synthetic
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.errors import UserError
from segsemi.files import file_hash
from segsemi.palette import Classes

# CamVid in the 11-class version distributed with SegNet; colours as published with it.
CAMVID = Classes(
    names=(
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    ),
    colours=(
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ),
    ignore_ids=(11, 255),
)
SYNTHETIC = Classes(names=synthetic.CLASSES, colours=synthetic.COLOURS)
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Entry:
    """One image of a data set, before it is checked; paths are relative to the root."""

    id: str
    subset: str
    image: Path
    label: Path


def classes_of(name: str) -> Classes:
    """The classes of the data set `name`."""
    return {"synthetic": SYNTHETIC, "camvid": CAMVID}[name]


def find_entries(root: Path) -> list[Entry]:
    """The images of a data set in CamVid's layout: train/, trainannot/, val/, valannot/, equal file stems.

    The id is the file's stem, with the subset before it where a stem occurs in both subsets.

    Raises:
        UserError: a folder is missing or empty; an image has no label or a label no image; two files share a stem.
    """
    found: list[tuple[str, Path, Path]] = []
    for subset in ("train", "val"):
        images = _stems(root, subset, IMAGE_ENDINGS)
        labels = _stems(root, f"{subset}annot", (".png",))
        for stem in sorted(images.keys() | labels.keys()):
            if stem not in labels:
                raise UserError(f"image {root / images[stem]} has no label {subset}annot/{stem}.png; add or remove it")
            if stem not in images:
                raise UserError(f"label {root / labels[stem]} has no image {subset}/{stem}.(png|jpg); add or remove it")
            found.append((subset, images[stem], labels[stem]))
    counts = Counter(image.stem for _, image, _ in found)
    shared = any(count > 1 for count in counts.values())
    return [
        Entry(f"{subset}_{image.stem}" if shared else image.stem, subset, image, label)
        for subset, image, label in found
    ]


def _stems(root: Path, folder: str, endings: tuple[str, ...]) -> dict[str, Path]:
    """stem -> path relative to root, for the files of one folder."""
    if not (root / folder).is_dir():
        raise UserError(f"folder {root / folder} not found; set data.root to the folder that holds {folder}/")
    files: dict[str, Path] = {}
    for path in sorted((root / folder).iterdir()):
        if path.suffix.lower() not in endings or path.name.startswith("."):
            continue
        if path.stem in files:
            raise UserError(f"{path} and {files[path.stem].name} are the same image twice; remove one")
        files[path.stem] = path.relative_to(root)
    if not files:
        raise UserError(f"folder {root / folder} has no {' or '.join(endings)} files")
    return files


def check_entries(
    root: Path, entries: Iterable[Entry], classes: Classes, warn: Callable[[str], None] = print
) -> list[Row]:
    """Read every file once and check it; the rows of the manifest.

    Raises:
        UserError: an unreadable or wrong file, a label of another size than its image, or the same image, by
            content, in train and val (leakage).
    """
    rows: list[Row] = []
    pixels: dict[str, np.ndarray] = {}
    for entry in entries:
        image = read_image(root / entry.image)
        label = read_label(root / entry.label, classes)
        height, width = image.shape[:2]
        if label.shape != (height, width):
            raise UserError(
                f"label {root / entry.label} is {label.shape[0]}x{label.shape[1]}, its image {height}x{width} (height x "
                "width); they must be equal"
            )
        counts = pixels.setdefault(entry.subset, np.zeros(256, dtype=np.int64))
        counts += np.bincount(label.ravel(), minlength=256)
        rows.append(
            Row(
                id=entry.id,
                subset=entry.subset,
                image=entry.image.as_posix(),
                label=entry.label.as_posix(),
                height=height,
                width=width,
                image_hash=file_hash(root / entry.image),
                label_hash=file_hash(root / entry.label),
            )
        )
    _refuse_leakage(rows)
    for subset, counts in pixels.items():
        for id_, name in enumerate(classes.names):
            if counts[id_] == 0:
                warn(f"warning: class {id_} ({name}) has no pixel in {subset}")
    return rows


def _refuse_leakage(rows: list[Row]) -> None:
    train = {row.image_hash: row for row in rows if row.subset != "val"}
    for row in rows:
        if row.subset == "val" and row.image_hash in train:
            raise UserError(
                f"{row.image} (val) and {train[row.image_hash].image} (train) are the same image: results on val would "
                "be worthless; remove one"
            )
