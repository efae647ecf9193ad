"""Results that a table has already: they stay when other cells are measured, or the code has changed since."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import pandas as pd

from segsemi.core.errors import UserError
from segsemi.core.files import write_json, write_text
from segsemi.experiments.grid import Cell, Grid

T = TypeVar("T")
Settings = dict[str, Any]  # "section.key" -> value
Place = tuple[str, str]  # row and column
PLACE = ["row", "column", "seed"]
NUMBERS = ("miou", "pixel_accuracy", "pseudo_label_miou")  # of a model
_NAMES = ("row", "column", "model", "class", "experiment", "commit")  # as they are: one may be 500, 1e5 or None
_MEND = "give -o FOLDER for a table of its own, or --replace to begin this one anew"


def beside(path: Path, ending: str) -> Path:
    """The file of the table `path`, a name without an ending, that ends like this."""
    return path.with_name(f"{path.name}{ending}")


def settings_path(path: Path) -> Path:
    """Of the table `path`, a name without an ending."""
    return beside(path, "_settings.json")


def settings_of(cells: Sequence[Cell], files: Sequence[str]) -> dict[Place, Settings]:
    """(row, column) -> its params, flat; without the seed, and without what no result should depend on: machine, data.root.

    Args:
        files: of each cell what experiments.file_keys says.
    """
    result = {}
    for cell, file_key in zip(cells, files, strict=True):
        values = cell.params.model_dump(exclude={"machine": True, "seed": True, "data": {"root"}})
        flat = {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
        result[cell.row, cell.column] = json.loads(json.dumps(flat | {"data.files": file_key}))  # as it is read again
    return result


def shared(settings: Mapping[Place, Settings]) -> Settings:
    """What is the same in all of them."""
    first, *others = settings.values()
    return {key: value for key, value in first.items() if all(key in x and x[key] == value for x in others)}


def earlier_results(path: Path, cells: Sequence[Cell], settings: Mapping[Place, Settings]) -> pd.DataFrame:
    """The table `path`.csv as it is, perhaps empty: it may be written anew with these in it.

    Raises:
        UserError: it has results of other settings, files or models than the grid's cells have now, or of rows that the grid
            does not have, or it does not say of which; it cannot be read.
    """
    csv = beside(path, ".csv")
    if not csv.exists():
        return pd.DataFrame(columns=[*PLACE, "commit"])
    table = _read(csv, lambda: read_lines(csv).astype({"seed": int, "steps": int, "miou": float}))
    if not settings_path(path).exists():
        raise UserError(f"{csv} has results, but no {settings_path(path).name} says with which settings; {_MEND}")
    saved = _saved(path)
    known = {(cell.row, cell.column): cell for cell in cells}
    for row, column, model, steps in table[["row", "column", "model", "steps"]].drop_duplicates().to_numpy():
        place = (row, column)
        if place not in known:
            raise UserError(f"{csv} has results of row {row!r}, column {column!r}, which the grid has not; {_MEND}")
        then = saved["all"] | saved["cells"].get(f"{row} | {column}", {})
        now = settings[place] | {"model": known[place].model, "steps in all": known[place].steps_in_all}
        for key, value in (then | {"model": model, "steps in all": int(steps)}).items():
            if key in now and now[key] != value:
                raise UserError(
                    f"{csv} has results of other settings: {key} was {value}, and is {now[key]} now, in row {row!r}; {_MEND}"
                )
    return table


def earlier_lines(path: Path, kind: str) -> pd.DataFrame:
    """What the table has of several lines a run, perhaps none: its `validation` curves, or its `classes`.

    Raises:
        UserError: the file cannot be read.
    """
    csv = beside(path, f"_{kind}.csv")
    return _read(csv, lambda: read_lines(csv)) if csv.exists() else pd.DataFrame(columns=PLACE)


def read_lines(csv: Path | TextIO) -> pd.DataFrame:
    """A CSV of results, their curves or their classes."""
    missing = {name: [""] for name in (*NUMBERS, "iou", "val_miou")}
    return pd.read_csv(csv, keep_default_na=False, na_values=missing, dtype=dict.fromkeys(_NAMES, str))


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is no file of a table, perhaps after a merge ({reason}): mend it, or {_MEND}"
        ) from None


def joined(earlier: pd.DataFrame, new: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """All of `new`, and of `earlier` that for whose row, column and seed `new` has nothing; by seed, in the grid's order."""
    places = set(map(tuple, new[PLACE].to_numpy()))
    stays = earlier[[tuple(place) not in places for place in earlier[PLACE].to_numpy()]]
    parts = [part for part in (stays, new) if not part.empty]
    if not parts:
        return new
    declared = {"row": list(grid.rows), "column": list(grid.columns)}
    return pd.concat(parts).sort_values(
        ["seed", "column", "row"],
        key=lambda values: values.map(declared[values.name].index) if values.name in declared else values,
        kind="stable",
        ignore_index=True,
    )


def earlier_commands(path: Path) -> list[str]:
    """The commands that made the table so far."""
    return _saved(path)["commands"] if settings_path(path).exists() else []


def _saved(path: Path) -> dict[str, Any]:
    file = settings_path(path)

    def read() -> dict[str, Any]:
        saved = json.loads(file.read_text())
        return {key: saved[key] for key in ("commands", "all", "cells")}

    return _read(file, read)


def write_kept(
    path: Path,
    settings: Mapping[Place, Settings],
    results: pd.DataFrame,
    lines: Mapping[str, pd.DataFrame],
    commands: Sequence[str],
    *,
    replace: bool,
) -> None:
    """Write the results, their settings (what all share once), the commands and the `lines`: kind -> several lines a run.

    Args:
        settings: those of the cells that have results.
        replace: what is there is of other settings; not even a stop in the middle leaves it beside the new ones.
    """
    if replace:
        beside(path, ".csv").unlink(missing_ok=True)
    common = shared(settings)
    own = {
        f"{row} | {column}": {key: value for key, value in values.items() if key not in common}
        for (row, column), values in settings.items()
    }
    write_json(settings_path(path), {"commands": list(commands), "all": common, "cells": own})
    write_text(beside(path, ".csv"), results.to_csv(index=False, lineterminator="\n"))
    for kind, table in lines.items():
        order = [*PLACE, *(column for column in table.columns if column not in PLACE)]
        write_text(beside(path, f"_{kind}.csv"), table[order].to_csv(index=False, lineterminator="\n"))
