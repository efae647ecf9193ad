"""Shared code of all readers of data sets: the search for files, and the check of each of them (stage prepare)."""

import os
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import md5
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import decoded, file_hash, visible_files, write_text
from segsemi.data.images import IMAGE_ENDINGS, note_lines, read_label, read_picture, require_size
from segsemi.data.manifest import HELD_OUT, SKIPPED, Row

SHOWN = 20  # broken files, or pairs of equal images, that an error lists
SEPARATOR = re.compile(r"[\s,;\"']+")  # of the columns of a list
LONGEST_ID = 200  # bytes; a file name, which may have 255, is the id with an ending


class DataSet(NamedTuple):
    """The classes of a data set, with the ids or colours of its label files, and its images, not checked yet.

    `notes` are warnings about what was skipped.
    """

    classes: Classes
    entries: list[Row]
    notes: Sequence[str] = ()


class Checked(NamedTuple):
    """The content of one entry's files.

    Attributes:
        row: with size and hashes.
        counts: the label's pixels of each id, (256,).
        notes: what is odd about the image, as `read_picture` says it.
        error: what is wrong with a file; empty if nothing is.
    """

    row: Row
    counts: np.ndarray
    notes: dict[str, int]
    error: str = ""


def composed(name: str) -> str:
    """Return a name in composed Unicode (NFC): macOS and archives made there may have decomposed ones."""
    return unicodedata.normalize("NFC", name)


def stem_of(path: Path, base: Path) -> str:
    """Return the composed path below `base`, without ending."""
    return composed(path.relative_to(base).with_suffix("").as_posix())


def stems(root: Path, folder: str, endings: Sequence[str]) -> dict[str, str]:
    """Return composed path below the folder, without ending -> path below root, of the files with one of the `endings`."""
    base = root / folder
    if not base.is_dir():
        below = next((path for path in sorted(root.glob(f"*/{folder}")) if path.is_dir()), None)
        found = f" ({below} is there: each archive belongs into the same folder)" if below else ""
        raise UserError(f"folder {base} not found{found}; set data.root to the folder that holds {folder}/")
    files: dict[str, str] = {}
    for path in visible_files(base, endings):
        stem = stem_of(path, base)
        if stem in files:
            raise UserError(f"{path} and {root / files[stem]} are the same image twice; remove one")
        files[stem] = path.relative_to(root).as_posix()
    if not files:
        raise UserError(f"folder {base} has no {' or '.join(endings)} files")
    return files


def id_of(stem: str) -> str:
    """Return the id of an image, which names its files: a path that is too long for that ends with a hash."""
    id_ = stem.replace("/", "__")
    if len(id_.encode()) <= LONGEST_ID:
        return id_
    digest = md5(id_.encode(), usedforsecurity=False).hexdigest()[:12]
    return f"{id_.encode()[: LONGEST_ID - 13].decode(errors='ignore')}-{digest}"


def read_lines(path: Path, *, may_be_empty: bool = False) -> list[str]:
    """Return the lines, in composed Unicode, of a list file that are neither empty nor a comment (# ...)."""
    try:
        lines = [composed(line.strip()) for line in decoded(path).splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"list {path} cannot be read ({error})") from None
    named = [line for line in lines if line and not re.match(r"#(\s|$)", line)]
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
    """Return the first known name, the longest of these, with which a list's line, or a part before a separator, ends.

    Quotes may surround the names, and backslashes may separate folders. A name may contain any of these. None, too, where
    another part names another image of the same folder: `0,3.png`, row 0 of a table, or a list on one line.
    """
    texts = {text for slashed in (line, line.replace("\\", "/")) for text in (slashed, slashed.lstrip("\"'"))}
    found = [
        (name, text, stop)
        for text in texts
        for stop in [len(text), *(match.start() for match in SEPARATOR.finditer(text))]
        for name in path_ends(text[:stop])
        if name in known
    ]
    if not found:
        return None
    name, text, stop = max(found, key=lambda item: (-item[1].rfind(item[0], 0, item[2]), len(item[0])))
    *before, own = SEPARATOR.split(text[: max(text.rfind(name, 0, stop), 0)])
    parts, folder = [*before, *SEPARATOR.split(text[stop:])], PurePosixPath(own + name).parent
    beside = [part for part in parts if PurePosixPath(part).parent == folder]
    if _is_picture(text[:stop]):  # else further columns may be numbers
        beside = [part for part in beside if _is_picture(part)]
    others = {PurePosixPath(end).stem for other in beside for end in path_ends(other) if end in known}
    return name if others <= {PurePosixPath(name).stem} else None


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS


def check_entries(
    root: Path,
    entries: Sequence[Row],
    classes: Classes,
    warn: Callable[[str], None] = print,
    *,
    skip_broken: bool = False,
    bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    errors: Path | None = None,
) -> list[Row]:
    """Read every file once and check it; return the rows with sizes and hashes.

    Args:
        skip_broken: return an image without label that is broken in the subset SKIPPED, instead of raising an error.
        bar: wraps the results, in the order of `entries`, to show the progress.
        errors: the file for what is wrong if that is more than an error can list.

    Raises:
        UserError: two images of one id, unreadable or wrong files, a label of another size than its image, labels without
            two classes in all of them, or the same image, by content, in train and val (leakage).
    """
    named: dict[str, Row] = {}
    for entry in entries:
        if (other := named.setdefault(entry.id, entry)) is not entry:
            both = f"{root / other.image} and {root / entry.image}"
            raise UserError(f"{both} have the same id, {entry.id}; rename or remove one, or list it once")
    found = read_entries(root, entries, classes, bar)
    broken = [item for item in found if item.error]
    refuse([item for item in broken if item.row.label or not skip_broken], errors)
    if broken:
        number = f"{len(broken)} broken unlabelled images"
        warn(f"warning: data.skip_broken: {number} are skipped, first: {broken[0].error}")
    for line in odd_lines(found, classes):
        warn(line)
    pixels: dict[str, np.ndarray] = {}  # subset -> (256,)
    for row, counts, *_ in found:
        if row.label:
            pixels[row.subset] = pixels.get(row.subset, 0) + counts
    rows = [replace(item.row, subset=SKIPPED) if item.error else item.row for item in found]
    _warn_of_links(root, rows, warn)
    refuse_leakage(rows)
    _warn_of_copies(rows, warn)
    _check_classes(root, classes, pixels, warn)
    return rows


def read_entries(
    root: Path, entries: Sequence[Row], classes: Classes, bar: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> list[Checked]:
    """Read the files of all entries, several at a time; `bar` as in `check_entries`."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as readers:
        return list(bar(readers.map(partial(_read, root, classes=classes), entries)))


def _read(root: Path, row: Row, classes: Classes) -> Checked:
    counts = np.zeros(256, int)
    try:
        image, notes = read_picture(root / row.image, classes.value_range)
        height, width = image.shape[:2]
        row = replace(row, height=height, width=width, image_hash=row.image_hash or file_hash(root / row.image))
        if row.label:
            label = read_label(root / row.label, classes)
            require_size(label, (height, width), root / row.label)
            counts = np.bincount(label.ravel(), minlength=256)
            row = replace(row, label_hash=file_hash(root / row.label))
        return Checked(row, counts, notes)
    except UserError as error:
        return Checked(row, counts, {}, str(error))


def first_lines(lines: Sequence[str]) -> str:
    """Return the first SHOWN lines, indented, and the number of the others."""
    rest = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n  ".join([*lines[:SHOWN], *rest])


def refuse(broken: Sequence[Checked], file: Path | None = None) -> None:
    """Raise a UserError that lists what is wrong with the entries, if anything; write a longer list to `file`."""
    if not broken:
        return
    lines = [item.error for item in broken]
    message = lines[0] if len(lines) == 1 else f"{len(lines)} files are wrong:\n  {first_lines(lines)}"
    if len(lines) > SHOWN and file is not None:
        write_text(file, "\n".join(lines) + "\n")
        message += f"; {file} lists all of them"
    if any(not item.row.label for item in broken):
        message += "\n  data.skip_broken: true in params.yaml skips broken images that have no label"
    raise UserError(message)


def odd_lines(found: Sequence[Checked], classes: Classes) -> Iterator[str]:
    """Yield a warning, with a number of images and the first, for each thing that is odd about them."""
    yield from note_lines(
        {
            item.row.image: {note: top for note, top in item.notes.items() if note != "turned" or item.row.label}
            for item in found
        }
    )
    empty = [item for item in found if item.row.label and not item.error and not item.counts[: len(classes)].any()]
    if empty:
        which = f"{len(empty)} of {len(found)} images (first {empty[0].row.image})"
        yield f"warning: {which} have a label without a pixel of any class, from which nothing can be learnt"


def _warn_of_links(root: Path, rows: list[Row], warn: Callable[[str], None]) -> None:
    paths = [PurePosixPath(path) for row in rows for path in (row.image, row.label)]
    for folder in sorted({parent for path in paths for parent in path.parents} - {PurePosixPath()}):
        if (root / folder).is_symlink():
            warn(f"warning: {root / folder} is a link, behind which dvc sees no change; make data.root the link")


def refuse_leakage(rows: list[Row]) -> None:
    """Refuse images of val or test that are, by content, among the others."""
    learnt = {row.image_hash: row for row in rows if row.subset not in (*HELD_OUT, SKIPPED)}
    held_out = [(row, learnt[row.image_hash]) for row in rows if row.subset in HELD_OUT and row.image_hash in learnt]
    pairs = [f"{row.image} ({row.subset}) and {other.image} ({other.subset})" for row, other in held_out]
    if pairs:
        listed = "; ".join(pairs[:SHOWN]) + (f" and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else "")
        raise UserError(f"{listed} are the same image: results would be worthless; remove one of each pair")


def _warn_of_copies(rows: list[Row], warn: Callable[[str], None]) -> None:
    """Warn of images that are, by content, twice in val, in test, or to learn from; perhaps with two labels."""
    first: dict[tuple[str, str], Row] = {}
    sound = sorted((row for row in rows if row.subset != SKIPPED), key=lambda row: not row.label)  # labelled ones first
    all_ = [(first.setdefault((row.subset * (row.subset in HELD_OUT), row.image_hash), row), row) for row in sound]
    copies = [(one, other) for one, other in all_ if one is not other]
    differ = [(one, other) for one, other in copies if other.label and one.label and one.label_hash != other.label_hash]
    for pairs, what in ((copies, "are copies of others"), (differ, "of these have another label")):
        if pairs:
            warn(f"warning: {len(pairs)} images {what} (first {pairs[0][0].image} and {pairs[0][1].image})")


def _check_classes(root: Path, classes: Classes, pixels: dict[str, np.ndarray], warn: Callable[[str], None]) -> None:
    """Refuse labels of fewer than two classes; warn of classes without a pixel in a subset."""
    present = np.flatnonzero(np.sum([*pixels.values()], axis=0)[: len(classes)]) if pixels else np.arange(2)
    if len(present) < 2:
        only = classes.names[present[0]] if len(present) else "no class"
        remedy = "fix them"
        if len(classes) == 1:
            remedy = "there is nothing to tell apart: make what surrounds it a class too, such as background"
        elif classes.label_format == "ids":
            remedy = 'for masks of 0 and 255 write "ids": [0, 255], "ignore_ids": [] into classes.json'
        raise UserError(f"{root}: the labels hold only {only} and ignored pixels; {remedy}")
    for subset, counts in pixels.items():
        for id_, name in enumerate(classes.names):
            if counts[id_] == 0:
                warn(f"warning: class {id_} ({name}) has no pixel in {subset}")
