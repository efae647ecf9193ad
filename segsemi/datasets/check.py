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
    """Read every file once and check it; the rows of the manifest.

    Raises:
        UserError: two images of one id, an unreadable or wrong file, a label of another size than its image, labels without
            two classes in all of them, or the same image, by content, in train and val (leakage).
    """
    entries = list(entries)
    named: dict[str, Path] = {}
    folders: set[Path] = set()
    for entry in entries:
        folders.update(entry.image.parents, entry.label.parents if entry.label else ())
        if (other := named.setdefault(entry.id, entry.image)) is not entry.image:
            if other == entry.image:
                raise UserError(f"{root / other} is in two lists, or twice in one; name it once")
            raise UserError(
                f"{root / other} and {root / entry.image} have the same id, {entry.id}, so one's files would be the "
                "other's; rename or remove one, or name it once in its list"
            )
    rows: list[Row] = []
    pixels: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as readers:
        for row, counts in readers.map(partial(_read, root, classes=classes), entries):
            rows.append(row)
            if counts is not None:
                pixels[row.subset] = pixels.get(row.subset, 0) + counts
    for folder in sorted(folders - {Path()}):
        if (root / folder).is_symlink():
            warn(
                f"warning: {root / folder} is a link to a folder, in which dvc sees no change; make data.root itself the link"
            )
    _refuse_leakage(rows)
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
    return rows


def _read(root: Path, entry: Entry, classes: Classes) -> tuple[Row, np.ndarray | None]:
    """The entry's row, and how many pixels of its label each id has, (256,)."""
    image = read_image(root / entry.image)
    counts = None
    if entry.label is not None:
        label = read_label(root / entry.label, classes)
        require_equal_size(image, label, root / entry.label)
        counts = np.bincount(label.ravel(), minlength=256)
    row = Row(
        id=entry.id,
        subset=entry.subset,
        image=entry.image.as_posix(),
        label="" if entry.label is None else entry.label.as_posix(),
        height=image.shape[0],
        width=image.shape[1],
        image_hash=file_hash(root / entry.image),
        label_hash="" if entry.label is None else file_hash(root / entry.label),
    )
    return row, counts


def _refuse_leakage(rows: list[Row]) -> None:
    """No image of val or test may be, by content, among the others."""
    learnt = {row.image_hash: row for row in rows if row.subset not in HELD_OUT}
    for row in rows:
        if row.subset in HELD_OUT and row.image_hash in learnt:
            other = learnt[row.image_hash]
            raise UserError(
                f"{row.image} ({row.subset}) and {other.image} ({other.subset}) are the same image: results on "
                f"{row.subset} would be worthless; remove one"
            )
