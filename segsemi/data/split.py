"""Cut the training images into a labelled and an unlabelled part (paper, section 4.2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segsemi.data.images import IMAGE_ENDINGS
from segsemi.data.manifest import HELD_OUT, HIDDEN_COLUMNS, LABELLED_COLUMNS, UNLABELLED_COLUMNS, Row, write_rows
from segsemi.errors import UserError


@dataclass(frozen=True)
class Split:
    """Rows of the manifest, each part in the manifest's order."""

    labelled: list[Row]
    unlabelled: list[Row]
    val: list[Row]
    test: list[Row]


def split_rows(
    rows: list[Row],
    *,
    fraction: float = 1.0,
    count: int | None = None,
    ids: list[str] | None = None,
    extra: str = "unlabelled",
    unlabelled_ratio: float | None = None,
    seed: int,
) -> Split:
    """Choose the labelled images: by `ids` if given, else `count`, else round(fraction * number of train images).

    Chosen at random from `seed`; with one seed a smaller choice is part of every larger one.

    Args:
        extra: images of the subset extra are `unlabelled`; or `labelled`: those with labels count as training images,
            the others are unlabelled; or `unused`.
        unlabelled_ratio: so many unlabelled images for each labelled one (paper, Figure 3); None: all.

    Raises:
        UserError: no labelled image would be left, more are asked for than there are, or an id is unknown.
    """
    rows = [row for row in rows if row.subset != "extra" or extra != "unused"]
    subsets = ("train", "extra") if extra == "labelled" else ("train",)
    train = [row for row in rows if row.subset in subsets and row.label]
    if ids is not None:
        chosen = _known_ids(ids, train)
    else:
        number = round(fraction * len(train)) if count is None else count
        if number < 1:
            raise UserError(
                f"split.fraction {fraction} of {len(train)} training images leaves no labelled one; raise it"
            )
        if number > len(train):
            raise UserError(f"split.count {number} is more than the {len(train)} training images; lower it")
        order = np.random.default_rng(seed).permutation(len(train))
        chosen = {train[i].id for i in order[:number]}
    labelled = [row for row in train if row.id in chosen]
    unlabelled = [row for row in rows if row.subset not in HELD_OUT and row.id not in chosen]
    if unlabelled_ratio is not None:
        number = round(unlabelled_ratio * len(labelled))
        if number > len(unlabelled):
            raise UserError(
                f"split.unlabelled_ratio {unlabelled_ratio} asks for {number} unlabelled images, there are "
                f"{len(unlabelled)}; lower it"
            )
        order = np.random.default_rng([seed, 1]).permutation(len(unlabelled))
        unlabelled = [unlabelled[index] for index in sorted(order[:number])]
    val, test = ([row for row in rows if row.subset == subset] for subset in HELD_OUT)
    return Split(labelled, unlabelled, val, test)


def read_list(path: Path) -> list[str] | None:
    """The lines that name an image; lines that begin with `#` are comments. None if there is none: no list.

    Raises:
        UserError: if the file is missing or no text.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"split.labelled_list: {path} cannot be read ({error})") from None
    return [line for line in lines if line and not line.startswith("#")] or None


def _known_ids(lines: list[str], train: list[Row]) -> set[str]:
    """A line is an id, an image's path or file name, with or without its ending, or one of these and its label's path."""
    by_name: dict[str, set[str]] = {}
    for row in train:
        for name in {row.id, *_ends(row.image)}:
            by_name.setdefault(name, set()).add(row.id)
    ids = {row.id for row in train}
    return {line if line in ids else _find_id(line, by_name) for line in lines}


def _ends(path: str) -> set[str]:
    """`a/b.png` -> a/b.png, b.png, a/b, b."""
    parts = path.split("/")
    paths = [PurePosixPath(*parts[start:]) for start in range(len(parts)) if parts[-1]]
    whole = [path for path in paths if path.suffix.lower() in IMAGE_ENDINGS]
    return {str(path) for path in paths} | {str(path.with_suffix("")) for path in whole}


def _find_id(line: str, by_name: dict[str, set[str]]) -> str:
    """The image with the longest name that the line, up to its end or a separator (names may have spaces), ends with."""
    stops = [len(line), *(match.start() for match in re.finditer(r"[\s,;]+", line))]
    names = {line}.union(*(_ends(line[:stop]) for stop in stops))
    name = max((name for name in names if name in by_name), key=len, default=None)
    if name is None:
        raise UserError(f"split.labelled_list names {line!r}, which is no training image; see the ids in manifest.csv")
    if len(ids := by_name[name]) > 1:
        some = ", ".join(sorted(ids)[:3])
        raise UserError(f"split.labelled_list: {line!r} may mean {some}; write one of these ids, or a path")
    return next(iter(ids))


def write_split(split: Split, folder: Path) -> None:
    """Write the lists. unlabelled.csv has no label column, so that training cannot read what it must not know;
    hidden.csv, which has it, is read only to measure the quality of pseudo labels."""
    write_rows(folder / "labelled.csv", split.labelled, LABELLED_COLUMNS)
    write_rows(folder / "val.csv", split.val, LABELLED_COLUMNS)
    write_rows(folder / "test.csv", split.test, LABELLED_COLUMNS)
    write_rows(folder / "unlabelled.csv", split.unlabelled, UNLABELLED_COLUMNS)
    write_rows(folder / "hidden.csv", [row for row in split.unlabelled if row.label], HIDDEN_COLUMNS)
