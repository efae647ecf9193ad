"""The results of a grid, from the dvc experiments that are done, and its figure."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segsemi.errors import UserError
from segsemi.files import write_text
from segsemi.grid import Cell, Grid
from segsemi.revision import git

_NUMBERS = ("miou", "pixel_accuracy", "pseudo_label_miou")


def _file_of(revision: str, path: str) -> str:
    try:
        return git("show", f"{revision}:{path}")
    except UserError:
        raise UserError(
            f"the experiment of commit {revision[:10]} has no {path}: dvc exp list --sha names it, dvc exp remove takes it away"
        ) from None


def measured(revision: str) -> dict[str, dict[str, float | None]]:
    """reports/metrics.json of an experiment: model -> miou, pixel_accuracy and, for students, pseudo_label_miou."""
    return json.loads(_file_of(revision, "reports/metrics.json"))


def facts(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str], command: Sequence[str]) -> list[str]:
    """What a table was made from: command, the commits from which the runs started, data, network and steps.

    Where the finished cells differ in one of them, all its values are given.
    """
    params = [cell.params for cell, key in zip(cells, keys, strict=True) if key in finished]
    revisions = dict.fromkeys(finished[key] for key in keys if key in finished)
    commits = dict.fromkeys(git("rev-parse", "--short", f"{revision}^").strip() for revision in revisions)
    networks = (f"{p.data.name}, {p.model.decoder} on {p.model.encoder}, crop {p.augment.crop_size}" for p in params)
    steps = f"teacher {_values_of(p.teacher.steps for p in params)} steps"
    if taught := [p.student.steps for p in params if p.rounds]:
        steps += f", each student {_values_of(taught)}"
    return [f"`python -m segsemi {shlex.join(command)}`, runs of {', '.join(commits)}", _values_of(networks), steps]


def _values_of(values: Iterable[object]) -> str:
    return " or ".join(map(str, dict.fromkeys(values)))


def collect(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """One row a finished cell: row, column, seed, model, its numbers in percent, and the experiment's git revision."""
    records: list[dict[str, Any]] = []
    reports = {key: measured(finished[key]) for key in dict.fromkeys(keys) if key in finished}
    for cell, key in zip(cells, keys, strict=True):
        if key in reports:
            place = {"row": cell.row, "column": cell.column, "seed": cell.seed, "model": cell.model}
            records.append({**place, **reports[key][cell.model], "experiment": finished[key][:10]})
    return pd.DataFrame(records, columns=["row", "column", "seed", "model", *_NUMBERS, "experiment"])


def validation_curves(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """Validation mIoU during the training of each finished cell's model: columns row, column, seed, step, val_miou."""
    texts = {key: _file_of(finished[key], "reports/validation.csv") for key in set(keys) & set(finished)}
    tables = {key: pd.read_csv(io.StringIO(text)) for key, text in texts.items()}
    parts = [pd.DataFrame(columns=["row", "column", "seed", "step", "val_miou"])]
    for cell, key in zip(cells, keys, strict=True):
        if key in tables:
            curve = tables[key][tables[key]["model"] == cell.model].drop(columns="model")
            parts.append(curve.assign(row=cell.row, column=cell.column, seed=cell.seed))
    return pd.concat(parts).astype({"step": float, "val_miou": float})


def write_figure(grid: Grid, results: pd.DataFrame, validation: pd.DataFrame, path: Path) -> None:
    """Draw the results to `path`.svg, and write the validation curves in it to `path`_validation.csv."""
    from segsemi import figures  # matplotlib is slow to import

    rows = [name for name in grid.rows if name in set(results["row"])]
    columns = [name for name in grid.columns if name in set(results["column"])]
    if grid.lines is None:
        drawn = figures.experiment(results, validation, rows, columns)
        order = ["row", "column", "seed", "step", "val_miou"]
        write_text(
            path.with_name(f"{path.name}_validation.csv"), validation[order].to_csv(index=False, lineterminator="\n")
        )
    elif grid.lines == "rows":
        drawn = figures.trend(results, "row", rows, "column", columns)
    else:
        drawn = figures.trend(results, "column", columns, "row", rows)
    write_text(path.with_name(f"{path.name}.svg"), drawn)
