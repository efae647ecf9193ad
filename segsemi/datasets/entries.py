"""Shared code of all readers of data sets: the search for files, and the check of each of them (stage prepare)."""

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, visible_files
from segsemi.data.images import IMAGE_ENDINGS, read_image, read_label, require_size
from segsemi.data.manifest import HELD_OUT, Row


class DataSet(NamedTuple):
    """The classes of a data set, with the ids or colours of its label files, and its images, not checked yet."""

    classes: Classes
    entries: list[Row]


def stems(root: Path, folder: str, endings: Sequence[str]) -> dict[str, str]:
    """Return path below the folder, without ending -> path below root, of the files with one of the `endings`."""
    base = root / folder
    if not base.is_dir():
        below = next((path for path in sorted(root.glob(f"*/{folder}")) if path.is_dir()), None)
        found = f" ({below} is there: each archive belongs into the same folder)" if below else ""
        raise UserError(f"folder {base} not found{found}; set data.root to the folder that holds {folder}/")
    files: dict[str, str] = {}
    for path in visible_files(base, endings):
        stem = path.relative_to(base).with_suffix("").as_posix()
        if stem in files:
            raise UserError(f"{path} and {root / files[stem]} are the same image twice; remove one")
        files[stem] = path.relative_to(root).as_posix()
    if not files:
        raise UserError(f"folder {base} has no {' or '.join(endings)} files")
    return files


def read_lines(path: Path, *, may_be_empty: bool = False) -> list[str]:
    """Return the lines of a list file that are neither empty nor a comment (# ...)."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error})") from None
    named = [line for line in lines if line and not line.startswith("#")]
    if not named and not may_be_empty:
        raise UserError(f"list {path} is empty; name one image per line, or remove the file")
    return named


def path_ends(path: str) -> Iterator[str]:
    """Yield the ends of a path: a/b.png -> a/b.png, a/b, b.png, b."""
    parts = PurePosixPath(path).parts
    for start in range(len(parts)):
        end = PurePosixPath(*parts[start:])
        yield str(end)
        if end.suffix.lower() in IMAGE_ENDINGS:
            yield str(end.with_suffix(""))


def find_name(line: str, known: Container[str]) -> str | None:
    """Return the longest known name with which a list's line ends, or a part of it before a separator."""
    stops = [len(line), *(match.start() for match in re.finditer(r"[\s,;]+", line))]  # names may have spaces
    names = (name for stop in stops for name in path_ends(line[:stop]) if name in known)
    return max(names, key=len, default=None)


def check_entries(
    root: Path, entries: Iterable[Row], classes: Classes, warn: Callable[[str], None] = print
) -> list[Row]:
    """Read every file once and check it; return the rows with sizes and hashes.

    Raises:
        UserError: two images of one id, an unreadable or wrong file, a label of another size than its image, labels without
            two classes in all of them, or the same image, by content, in train and val (leakage).
    """
    entries = list(entries)
    named: dict[str, Row] = {}
    for entry in entries:
        if (other := named.setdefault(entry.id, entry)) is not entry:
            both = f"{root / other.image} and {root / entry.image}"
            raise UserError(f"{both} have the same id, {entry.id}; rename or remove one, or list it once")
    rows: list[Row] = []
    pixels: dict[str, np.ndarray] = {}  # subset -> (256,)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as readers:
        for row, counts in readers.map(partial(_read, root, classes=classes), entries):
            rows.append(row)
            if row.label:
                pixels[row.subset] = pixels.get(row.subset, 0) + counts
    _warn_of_links(root, rows, warn)
    _refuse_leakage(rows)
    _check_classes(root, classes, pixels, warn)
    return rows


def _read(root: Path, row: Row, classes: Classes) -> tuple[Row, np.ndarray]:
    """Return the row with size and hashes, and how many pixels of its label each id has, (256,)."""
    image, counts = read_image(root / row.image), np.zeros(256, int)
    height, width = image.shape[:2]
    row = replace(row, height=height, width=width, image_hash=file_hash(root / row.image))
    if row.label:
        label = read_label(root / row.label, classes)
        require_size(label, (height, width), root / row.label)
        counts = np.bincount(label.ravel(), minlength=256)
        row = replace(row, label_hash=file_hash(root / row.label))
    return row, counts


def _warn_of_links(root: Path, rows: list[Row], warn: Callable[[str], None]) -> None:
    paths = [PurePosixPath(path) for row in rows for path in (row.image, row.label)]
    for folder in sorted({parent for path in paths for parent in path.parents} - {PurePosixPath()}):
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
