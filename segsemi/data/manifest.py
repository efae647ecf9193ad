"""The manifest, one row per image, from which the lists of the split are cut.

Paths are relative to the root of the data set, so that the lists, and with them dvc's cache, do not depend on where it
lies. The lists carry the files' hashes: a stage that depends on a list depends on the content of its files.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from segsemi.core.errors import UserError
from segsemi.core.files import write_csv

Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """One image; `subset` is train, val, test, extra (images beside the training images, usually without labels), or SKIPPED.

    `label` and `label_hash` are empty where there is no label. Readers of data sets leave size (in pixels), and hashes that
    they do not need, to the check of the files.
    """

    id: str
    subset: str
    image: str
    label: str = ""
    height: int = 0
    width: int = 0
    image_hash: str = ""
    label_hash: str = ""


COLUMNS = tuple(field.name for field in fields(Row))
UNLABELLED_COLUMNS = tuple(name for name in COLUMNS if not name.startswith("label"))
HIDDEN_COLUMNS = ("id", "label", "label_hash")
HELD_OUT = ("val", "test")  # subsets that are measured on and never learnt from
SKIPPED = "skipped"  # the subset of broken images, which nothing uses


def write_rows(path: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write the named columns of `rows` as CSV, atomically."""
    write_csv(path, columns, (asdict(row) for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Read a manifest or a list; columns that are not in the file are empty, heights and widths then 0.

    Raises:
        UserError: the file is missing or broken, has no id column or a broken number, or a path leaves the data set's folder.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro` from its first stage") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); rerun the stage that writes it") from None
    rows = []
    for number, record in enumerate(records, start=2):
        try:
            values = {name: record.get(name) or "" for name in COLUMNS}
            sides = {name: int(values.pop(name) or 0) for name in ("height", "width")}
            _check(values)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}; rerun the stage that writes it") from None
        rows.append(Row(**values, **sides))  # type: ignore[arg-type]
    return rows


def evenly_spread(rows: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of the rows, from the first to the last, in their order."""
    return [rows[index] for index in np.linspace(0, len(rows) - 1, num=min(count, len(rows)), dtype=int)]


def _check(values: dict[str, str]) -> None:
    """Refuse an id that is no file name, and a path that leads out of the data set."""
    if not values["id"]:
        raise ValueError("no id")
    if "/" in values["id"] or values["id"] in (".", ".."):
        raise ValueError(f"id {values['id']!r} is no file name")
    for name in ("image", "label"):
        path = PurePosixPath(values[name])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name} {values[name]!r} leaves the folder of the data set")
