"""Results that a table has already: they stay when other cells are measured, or the code has changed since."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from segsemi.errors import UserError
from segsemi.files import write_json
from segsemi.grid import Cell, Grid

Settings = dict[str, Any]  # "section.key" -> value
PLACE = ["row", "column", "seed"]
NAMES = {"row": str, "column": str}  # a column may be called 500


def settings_path(path: Path) -> Path:
    """Of the table `path`, a name without an ending."""
    return path.with_name(f"{path.name}_settings.json")


def settings_of(cells: Sequence[Cell]) -> dict[tuple[str, str], Settings]:
    """(row, column) -> its params, flat; without the seed, and without what no result should depend on: machine, data.root."""
    result = {}
    for cell in cells:
        values = cell.params.model_dump(exclude={"machine": True, "seed": True, "data": {"root"}})
        flat = {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
        result[cell.row, cell.column] = json.loads(json.dumps(flat))  # as it is read again
    return result


def shared(settings: dict[tuple[str, str], Settings]) -> Settings:
    """What is the same in all of them."""
    first, *others = settings.values()
    return {key: value for key, value in first.items() if all(key in x and x[key] == value for x in others)}


def earlier_results(path: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """The table `path`.csv as it is, perhaps empty: it may be written anew with these in it.

    Raises:
        UserError: it has results of other settings than the grid's cells have now, or of rows that the grid does not have,
            or it does not say of which.
    """
    csv = path.with_name(f"{path.name}.csv")
    if not csv.exists():
        return pd.DataFrame(columns=[*PLACE, "commit"])
    mend = "give -o FOLDER for a table of its own, or --replace to begin this one anew"
    table = pd.read_csv(csv, dtype=NAMES)
    if not settings_path(path).exists():
        raise UserError(f"{csv} has results, but no {settings_path(path).name} says with which settings; {mend}")
    saved = json.loads(settings_path(path).read_text())
    now = settings_of(cells)
    for row, column in dict.fromkeys(zip(table["row"], table["column"], strict=True)):
        if (row, column) not in now:
            raise UserError(f"{csv} has results of row {row!r}, column {column!r}, which the grid has not; {mend}")
        then = saved["all"] | saved["cells"].get(f"{row} | {column}", {})
        for key, value in now[row, column].items():
            if key in then and then[key] != value:
                raise UserError(
                    f"{csv} has results of other settings: {key} was {then[key]}, and is {value} now; {mend}"
                )
    return table


def earlier_lines(path: Path, kind: str) -> pd.DataFrame:
    """What the table has of several lines a run, perhaps none: its `validation` curves, or its `classes`."""
    csv = path.with_name(f"{path.name}_{kind}.csv")
    return read_lines(csv) if csv.exists() else pd.DataFrame(columns=PLACE)


def read_lines(csv: Path | TextIO) -> pd.DataFrame:
    """Numbers, and names as they are: a class may be called None."""
    missing = {"iou": [""], "val_miou": [""]}
    return pd.read_csv(csv, keep_default_na=False, na_values=missing, dtype=NAMES | {"class": str})


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
    saved = settings_path(path)
    return json.loads(saved.read_text())["commands"] if saved.exists() else []


def write_settings(path: Path, cells: Sequence[Cell], results: pd.DataFrame, commands: Sequence[str]) -> Settings:
    """Write the settings of the cells that have results, what they share once, and the commands. Returns what they share."""
    there = set(zip(results["row"], results["column"], strict=True))
    settings = {place: values for place, values in settings_of(cells).items() if place in there}
    common = shared(settings)
    own = {
        f"{row} | {column}": {key: value for key, value in values.items() if key not in common}
        for (row, column), values in settings.items()
    }
    write_json(settings_path(path), {"commands": list(commands), "all": common, "cells": own})
    return common
