"""A grid's results as tables: Markdown and CSV."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from segsemi.files import write_text
from segsemi.grid import Grid


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
