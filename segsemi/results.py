"""The table and figure of a grid, from the dvc experiments that are done."""

from __future__ import annotations

import io
import itertools
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
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


def write_tables(grid: Grid, title: str, results: pd.DataFrame, facts: Sequence[str], path: Path) -> str:
    """Write the results to `path`.csv, mean and standard deviation over the seeds to `path`_summary.csv, and all as Markdown
    to `path`.md: with the gain on the rows `against` and along the `ladder`, paired by seed; it shows `path`.svg and
    `path`_examples.png, if they are there. Returns the Markdown."""
    columns = [column for column in grid.columns if column in set(results["column"])]
    parts = [f"# {title}", "\n".join(f"- {fact}" for fact in facts), "mIoU in percent, mean ± standard deviation:"]
    parts.append(_means(results, list(grid.rows), columns, "miou"))
    if grid.ladder:
        steps = [(f"{row}, on {before}", row, before) for before, row in itertools.pairwise(grid.ladder)]
        parts += ["Gain of each on the one before, paired by seed:", _gains(results, steps, columns)]
    for other in grid.against:
        rows = [(row, row, other) for row in grid.rows if row != other]
        parts += [f"Gain on {other}, paired by seed:", _gains(results, rows, columns)]
    learnt = [row for row in grid.rows if results.loc[results["row"] == row, "pseudo_label_miou"].notna().any()]
    if learnt:
        heading = "mIoU of the pseudo labels from which each learnt, against the hidden labels:"
        parts += [heading, _means(results, learnt, columns, "pseudo_label_miou")]
    if path.with_name(f"{path.name}.svg").exists():
        parts.append(f"![{title}]({quote(path.name)}.svg)")
    if path.with_name(f"{path.name}_examples.png").exists():
        parts.append(
            "Examples: green where the last model is right and the first one wrong, red the other way round.\n\n"
            f"![examples]({quote(path.name)}_examples.png)"
        )
    text = "\n\n".join(parts) + "\n"
    write_text(path.with_name(f"{path.name}_summary.csv"), _summary(grid, results, columns))
    write_text(path.with_name(f"{path.name}.csv"), results.to_csv(index=False, lineterminator="\n"))
    write_text(path.with_name(f"{path.name}.md"), text)
    return text


def _values(results: pd.DataFrame, row: str, column: str, number: str = "miou") -> pd.Series:
    """mIoU, or another number, by seed."""
    chosen = results[(results["row"] == row) & (results["column"] == column)]
    return chosen.set_index("seed")[number].astype(float)


def _means(results: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], number: str) -> str:
    lines = [[row, *(_cell(_values(results, row, column, number)) for column in columns)] for row in rows]
    return _markdown(lines, columns)


def _gains(results: pd.DataFrame, pairs: Sequence[tuple[str, str, str]], columns: Sequence[str]) -> str:
    """pairs: heading, the row, and the row on which it gains."""
    return _markdown(
        [
            [heading, *(_gain(_values(results, row, column) - _values(results, other, column)) for column in columns)]
            for heading, row, other in pairs
        ],
        columns,
    )


def _summary(grid: Grid, results: pd.DataFrame, columns: Sequence[str]) -> str:
    """CSV of mean and standard deviation of each row and column that has a result."""
    found = {(row, column): _values(results, row, column).dropna() for row in grid.rows for column in columns}
    lines = [
        {"row": row, "column": column, "seeds": len(values), "miou": values.mean(), "std": values.std(ddof=1)}
        for (row, column), values in found.items()
        if len(values)
    ]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n", float_format="%.2f")


def _cell(values: pd.Series) -> str:
    values = values.dropna()
    if values.empty:
        return ""
    return f"{values.mean():.2f}" + (f" ± {np.std(values, ddof=1):.2f} ({len(values)})" if len(values) > 1 else " (1)")


def _gain(differences: pd.Series) -> str:
    """A difference of which the seeds do not agree by more than their spread is called that."""
    values = differences.dropna()
    if values.empty:
        return ""
    if len(values) == 1:
        return f"{values.mean():+.2f} (1 seed)"
    spread = float(np.std(values, ddof=1))
    note = ", within the spread" if abs(values.mean()) <= spread else ""
    return f"{values.mean():+.2f} ± {spread:.2f}{note}"


def _markdown(rows: list[list[str]], columns: Sequence[str]) -> str:
    return pd.DataFrame(rows, columns=["", *columns]).to_markdown(index=False, disable_numparse=True)
