"""The check of every file of a data set, and its manifest (stage prepare)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash
from segsemi.data.images import read_image, read_label, require_equal_size
from segsemi.data.manifest import HELD_OUT, Row
from segsemi.datasets.entry import Entry


def check_entries(
    root: Path, entries: Iterable[Entry], classes: Classes, warn: Callable[[str], None] = print
) -> list[Row]:
    """Read every file once and check it; return the rows of the manifest.

    Raises:
        UserError: two images of one id, an unreadable or wrong file, a label of another size than its image, labels without
            two classes in all of them, or the same image, by content, in train and val (leakage).
    """
    entries = list(entries)
    named: dict[str, Path] = {}
    for entry in entries:
        if (other := named.setdefault(entry.id, entry.image)) is not entry.image:
            both = f"{root / other} and {root / entry.image}"
            raise UserError(f"{both} have the same id, {entry.id}; rename or remove one, or list it once")
    rows: list[Row] = []
    pixels: dict[str, np.ndarray] = {}  # subset -> (256,)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as readers:
        for row, counts in readers.map(partial(_read, root, classes=classes), entries):
            rows.append(row)
            if row.label:
                pixels[row.subset] = pixels.get(row.subset, 0) + counts
    _warn_of_links(root, entries, warn)
    _refuse_leakage(rows)
    _check_classes(root, classes, pixels, warn)
    return rows


def _read(root: Path, entry: Entry, classes: Classes) -> tuple[Row, np.ndarray]:
    """Return the entry's row, and how many pixels of its label each id has, (256,)."""
    image, counts, label_path, label_hash = read_image(root / entry.image), np.zeros(256, int), "", ""
    if entry.label is not None:
        label = read_label(root / entry.label, classes)
        require_equal_size(image, label, root / entry.label)
        counts = np.bincount(label.ravel(), minlength=256)
        label_path, label_hash = entry.label.as_posix(), file_hash(root / entry.label)
    height, width = image.shape[:2]
    image_path, image_hash = entry.image.as_posix(), file_hash(root / entry.image)
    return Row(entry.id, entry.subset, image_path, label_path, height, width, image_hash, label_hash), counts


def _warn_of_links(root: Path, entries: list[Entry], warn: Callable[[str], None]) -> None:
    paths = [path for entry in entries for path in (entry.image, entry.label) if path is not None]
    for folder in sorted({parent for path in paths for parent in path.parents} - {Path()}):
        if (root / folder).is_symlink():
            warn(f"warning: {root / folder} is a link, behind which dvc sees no change; make data.root the link")


def _refuse_leakage(rows: list[Row]) -> None:
    """Refuse an image of val or test that is, by content, among the others."""
    learnt = {row.image_hash: row for row in rows if row.subset not in HELD_OUT}
    for row in rows:
        if row.subset in HELD_OUT and row.image_hash in learnt:
            other = learnt[row.image_hash]
            both = f"{row.image} ({row.subset}) and {other.image} ({other.subset})"
            raise UserError(f"{both} are the same image: results on {row.subset} would be worthless; remove one")


def _check_classes(root: Path, classes: Classes, pixels: dict[str, np.ndarray], warn: Callable[[str], None]) -> None:
    """Refuse labels of fewer than two classes; warn of classes without a pixel in a subset."""
    present = np.flatnonzero(np.sum([*pixels.values()], axis=0)[: len(classes)]) if pixels else np.arange(2)
    if len(present) < 2:
        only = classes.names[present[0]] if len(present) else "no class"
        mend = "mend them"
        if len(classes) == 1:
            mend = "there is nothing to tell apart: make what surrounds it a class too, such as background"
        elif classes.label_format == "ids":
            mend = 'for masks of 0 and 255 write "ids": [0, 255], "ignore_ids": [] into classes.json'
        raise UserError(f"{root}: the labels hold {only} and ignored pixels alone; {mend}")
    for subset, counts in pixels.items():
        for id_, name in enumerate(classes.names):
            if counts[id_] == 0:
                warn(f"warning: class {id_} ({name}) has no pixel in {subset}")
