"""The results of a grid, from the dvc experiments that are done, and its figure."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.core.git import PIPELINE, git
from segsemi.experiments.earlier import NUMBERS, PLACE, beside, read_lines
from segsemi.experiments.grid import Cell, Grid

COLUMNS = ["row", "column", "seed", "model", "steps", *NUMBERS, "experiment", "commit"]


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


def facts(cells: Sequence[Cell], results: pd.DataFrame, commands: Sequence[str]) -> list[str]:
    """What a table was made from: commands, the commits whose code ran, data, network and steps.

    Where the cells that have results differ in one of them, all its values are given.
    """
    there = set(zip(results["row"], results["column"], strict=True))
    params = [cell.params for cell in cells if (cell.row, cell.column) in there]
    networks = (f"{p.data.name}, {p.model.decoder} on {p.model.encoder}, crop {p.augment.crop_size}" for p in params)
    steps = f"teacher {_values_of(p.teacher.steps for p in params)} steps"
    if taught := [p.student.steps for p in params if p.rounds]:
        steps += f", each student {_values_of(taught)}"
    made = [f"`python -m segsemi {command}`" for command in commands]
    return ["; ".join([*made, f"code of {_values_of(results['commit'])}"]), _values_of(networks), steps]


def _values_of(values: Iterable[object]) -> str:
    return " or ".join(map(str, dict.fromkeys(values)))


def code_of(revision: str) -> str:
    """The last commit of the pipeline's code in which an experiment ran, and whether there were changes beside it.

    Not the commit from which it started, which may have changed other files, or live in another clone.
    """
    code = [*(path for path in PIPELINE if path != "params.yaml"), ":(exclude)segsemi/experiments/grids"]
    commit = git("log", "-1", "--format=%h", "--abbrev=7", f"{revision}^", "--", *code).strip()
    return commit + (" and changes" if git("diff", "--name-only", f"{revision}^", revision, "--", *code) else "")


def collect(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """One row a finished cell: row, column, seed, model, its steps in all, its numbers in percent, the experiment's git
    revision, and the commit of its code."""
    records: list[dict[str, Any]] = []
    reports = {key: measured(finished[key]) for key in dict.fromkeys(keys) if key in finished}
    commits = {key: code_of(finished[key]) for key in reports}
    for cell, key in zip(cells, keys, strict=True):
        if key in reports:
            place = {"row": cell.row, "column": cell.column, "seed": cell.seed, "model": cell.model}
            numbers = {"steps": cell.steps_in_all, **reports[key][cell.model]}
            if not cell.learns_from_pseudo_labels:  # some are made all the same
                numbers.pop("pseudo_label_miou", None)
            records.append({**place, **numbers, "experiment": finished[key][:10], "commit": commits[key]})
    return pd.DataFrame(records, columns=COLUMNS)


def validation_curves(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """Validation mIoU during the training of each finished cell's model: columns row, column, seed, step, val_miou."""
    return _lines(cells, keys, finished, "validation", ["step", "val_miou"]).astype({"step": float, "val_miou": float})


def class_ious(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """IoU of each class, in percent, of each finished cell's model: columns row, column, seed, class, iou."""
    return _lines(cells, keys, finished, "per_class", ["class", "iou"]).astype({"iou": float})


def _lines(
    cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str], name: str, columns: Sequence[str]
) -> pd.DataFrame:
    """Those of each finished cell's model in reports/NAME.csv of its experiment."""
    texts = {key: _file_of(finished[key], f"reports/{name}.csv") for key in set(keys) & set(finished)}
    tables = {key: read_lines(io.StringIO(text)) for key, text in texts.items()}
    parts = [pd.DataFrame(columns=[*PLACE, *columns])]
    for cell, key in zip(cells, keys, strict=True):
        if key in tables:
            own = tables[key][tables[key]["model"] == cell.model].drop(columns="model")
            parts.append(own.assign(row=cell.row, column=cell.column, seed=cell.seed))
    return pd.concat(parts)


def write_figure(grid: Grid, results: pd.DataFrame, validation: pd.DataFrame, path: Path) -> None:
    """Draw the results to `path`.svg, with the validation curves."""
    from segsemi import figures  # matplotlib is slow to import

    rows = [name for name in grid.rows if name in set(results["row"])]
    columns = [name for name in grid.columns if name in set(results["column"])]
    if grid.lines is None:
        drawn = figures.experiment(results, validation, rows, columns)
    elif grid.lines == "rows":
        drawn = figures.trend(results, validation, "row", rows, "column", columns)
    else:
        drawn = figures.trend(results, validation, "column", columns, "row", rows)
    write_text(beside(path, ".svg"), drawn)
