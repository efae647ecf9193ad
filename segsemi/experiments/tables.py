"""A grid's results as tables: Markdown and CSV."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from segsemi.core.config import TEACHER
from segsemi.core.files import write_text
from segsemi.experiments.earlier import Place, Settings, beside, shared
from segsemi.experiments.grid import SUPERVISED, Grid

_OF_SYNTHETIC = ("train_images", "val_images", "height", "width")  # params of the embedded data set alone


def write_tables(
    grid: Grid,
    title: str,
    results: pd.DataFrame,
    classes: pd.DataFrame,
    facts: Sequence[str],
    settings: Mapping[Place, Settings],
    path: Path,
) -> str:
    """Write mean and standard deviation over the seeds to `path`_summary.csv, and all as Markdown to `path`.md: with the gain
    on the rows `against`, along the `ladder`, and on labels alone of as many steps, paired by seed, and the IoU of each
    class; it shows `path`.svg and `path`_examples.png, if they are there. Returns the Markdown.

    Args:
        results: as results.collect gives them.
        classes: as results.class_ious gives them, perhaps of some of the runs only.
        facts: lines that go before the table.
        settings: of the rows and columns that have results.
    """
    columns = [column for column in grid.columns if column in set(results["column"])]
    rows = [row for row in grid.rows if row in set(results["row"])]
    parts = [f"# {title}", "\n".join(f"- {fact}" for fact in facts)]
    parts.append(
        "mIoU in percent: mean ± standard deviation over the seeds, and their number. Gains are paired by seed; p is that of a "
        "paired t-test, and a gain no larger than its standard deviation is called within the spread. Where the two models of "
        "a gain are of different commits of the code, it says so."
    )
    parts.append(_means(results, rows, columns, "miou", steps=True))
    if grid.ladder:
        pairs = [(f"{row}, on {before}", row, before) for before, row in itertools.pairwise(grid.ladder)]
        parts += ["Gain of each on the one before:", _gains(results, pairs, columns)]
    if fair := _fair_gains(grid, results, settings, rows, columns):
        parts += ["Gain on labels alone of **as many steps**:", fair]
    for other in grid.against:
        parts += [f"Gain on {other}:", _gains(results, [(row, row, other) for row in rows if row != other], columns)]
    learnt = [row for row in rows if results.loc[results["row"] == row, "pseudo_label_miou"].notna().any()]
    if learnt:
        heading = "mIoU of the pseudo labels from which each learnt, against the hidden labels:"
        parts += [heading, _means(results, learnt, columns, "pseudo_label_miou")]
    parts += _by_class(classes, rows, columns)
    if beside(path, ".svg").exists():
        parts.append(f"![{_plain(title)}]({quote(path.name)}.svg)")
    if grid.examples and beside(path, "_examples.png").exists():
        first, last = grid.examples[0], grid.examples[-1]
        parts.append(
            f"Image, truth, {', '.join(grid.examples)}, and what changed: green where {last} is right and {first} wrong, red "
            f"the other way round.\n\n![examples]({quote(path.name)}_examples.png)"
        )
    if settings:
        heading = "Settings that all cells share; what else a row or column has, the grid says:"
        parts += [heading, _settings(_that_count(settings))]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(beside(path, "_summary.csv"), _summary(grid, results, columns))
    write_text(beside(path, ".md"), text)
    return text


def _by_class(classes: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """A table for each column: the classes as columns, in their own order."""
    parts = []
    for column in columns:
        here = classes[classes["column"] == column]
        names = list(dict.fromkeys(here["class"]))
        lines = []
        for row in rows:
            own = here[here["row"] == row]
            if not own.empty:
                means = own.groupby("class")["iou"].mean().reindex(names)
                lines.append([row, str(own["seed"].nunique()), *(_number(value) for value in means)])
        if lines:
            parts.append(f"IoU of each class, {column}, mean over the runs that say it:")
            parts.append(_markdown(lines, ["runs", *names]))
    return parts


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _that_count(settings: Mapping[Place, Settings]) -> Settings:
    """What all cells share, without what plays no part in them."""
    common = shared(settings)
    without = [] if common.get("data.name") == "synthetic" else [f"data.{key}" for key in _OF_SYNTHETIC]
    if common.get("split.count") is not None:
        without.append("split.fraction")
    if not any(key.startswith("rounds.") for own in settings.values() for key in own):
        without += [key for key in common if key.startswith(("pseudo_label.", "student.", "student_model."))]
    return {key: value for key, value in common.items() if key not in without}


def _settings(settings: Settings) -> str:
    """A line a section."""
    sections: dict[str, list[str]] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} {'-' if value is None else value}")
    return "\n".join(f"- {section}: {', '.join(values)}" for section, values in sections.items())


def _values(results: pd.DataFrame, row: str, column: str, number: str = "miou") -> pd.Series:
    """mIoU, or another number, by seed."""
    return _runs(results, row, column)[number].astype(float)


def _runs(results: pd.DataFrame, row: str, column: str) -> pd.DataFrame:
    """Those of a cell, by seed."""
    return results[(results["row"] == row) & (results["column"] == column)].set_index("seed")


def _means(
    results: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], number: str, *, steps: bool = False
) -> str:
    lines = [[row, *(_cell(_values(results, row, column, number)) for column in columns)] for row in rows]
    if not steps:
        return _markdown(lines, columns)
    counts = [results.loc[results["row"] == row, "steps"].unique() for row in rows]
    for line, count in zip(lines, counts, strict=True):
        line.insert(1, " or ".join(map(str, count)))
    return _markdown(lines, ["steps in all", *columns])


def _gains(results: pd.DataFrame, pairs: Sequence[tuple[str, str, str]], columns: Sequence[str]) -> str:
    """pairs: heading, the row, and the row on which it gains."""
    return _markdown(
        [[heading, *(_gain(results, row, other, column) for column in columns)] for heading, row, other in pairs],
        columns,
    )


def _fair_gains(
    grid: Grid,
    results: pd.DataFrame,
    settings: Mapping[Place, Settings],
    rows: Sequence[str],
    columns: Sequence[str],
) -> str:
    """Of students on the models that were trained on the same labels alone for as many steps; empty if there are no such."""
    alone = [name for name in rows if grid.rows[name].model == SUPERVISED]
    lines = []
    for row in rows:
        if grid.rows[row].model in (TEACHER, SUPERVISED):
            continue
        equal = {
            column: next(
                (
                    name
                    for name in alone
                    if _steps(results, name, column) == _steps(results, row, column)
                    and _labels(settings, name, column) == _labels(settings, row, column)
                ),
                None,
            )
            for column in columns
        }
        cells = [_gain(results, row, other, column) if other else "" for column, other in equal.items()]
        if any(cells):
            lines.append([row, *cells])
    return _markdown(lines, columns) if lines else ""


def _labels(settings: Mapping[Place, Settings], row: str, column: str) -> Settings:
    """What says which labels there are to learn from."""
    own = settings.get((row, column), {})
    return {k: v for k, v in own.items() if k.startswith(("data.", "split.")) and k != "split.unlabelled_ratio"}


def _steps(results: pd.DataFrame, row: str, column: str) -> set[float]:
    return set(_values(results, row, column, "steps"))


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


def _gain(results: pd.DataFrame, row: str, other: str, column: str) -> str:
    """A difference of which the seeds do not agree by more than their spread is called that."""
    ours, theirs = _runs(results, row, column), _runs(results, other, column)
    values = (ours["miou"].astype(float) - theirs["miou"].astype(float)).dropna()
    if values.empty:
        return ""
    same = ours.loc[values.index, "commit"].equals(theirs.loc[values.index, "commit"])
    different = "" if same else ", different code"
    if len(values) == 1:
        return f"{values.mean():+.2f} (1){different}"
    spread = float(np.std(values, ddof=1))
    p = ttest_1samp(values, 0).pvalue if spread else np.nan
    chance = "" if np.isnan(p) else f"; p = {p:.2f}" if p >= 0.005 else "; p < 0.01"
    note = ", within the spread" if abs(values.mean()) <= spread else ""
    return f"{values.mean():+.2f} ± {spread:.2f} ({len(values)}{chance}){note}{different}"


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, in a table too."""
    return re.sub(r"([\\|\[\]*`])", r"\\\1", text)


def _markdown(rows: list[list[str]], columns: Sequence[str]) -> str:
    rows, columns = [[_plain(value) for value in row] for row in rows], [_plain(name) for name in columns]
    return pd.DataFrame(rows, columns=["", *columns]).to_markdown(index=False, disable_numparse=True)
