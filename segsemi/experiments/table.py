"""The table of a grid, from the dvc experiments that are finished: Markdown and CSV."""

import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from segsemi.core.config import TEACHER, learns_pseudo_labels
from segsemi.core.consistency import SUPERVISED
from segsemi.core.files import write_text
from segsemi.core.git import git
from segsemi.experiments.grid import Cell, Grid
from segsemi.experiments.run import Run, finished_runs
from segsemi.reporting.experiments import dots, lines

References = dict[tuple[str, str], str]  # (row, column) -> the row on which it gains


def read_results(planned: Sequence[Run], finished: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read what the finished cells measured, all numbers in percent.

    Args:
        finished: key -> git revision of each experiment.

    Returns:
        One line per cell: row, column, seed, model, steps and images (in all), miou, pseudo_label_miou. And its validation
        curve: row, column, seed, step, val_miou.

    Raises:
        UserError: an experiment lacks its report.
    """
    results: list[dict[str, Any]] = []
    curves = [pd.DataFrame({"row": [], "column": [], "seed": [], "step": [], "val_miou": []})]
    for key, cell in planned:
        if key not in finished:
            continue
        place: dict[str, Any] = {"row": cell.row, "column": cell.column, "seed": cell.seed}
        numbers = json.loads(git("show", f"{finished[key]}:reports/metrics.json"))[cell.model]
        measured = {"model": cell.model, **cell.budget._asdict(), "miou": numbers["miou"]}
        if learns_pseudo_labels(cell.params, cell.model):  # else nobody used them
            measured["pseudo_label_miou"] = numbers.get("pseudo_label_miou")
        results.append(place | measured)
        curve = pd.read_csv(io.StringIO(git("show", f"{finished[key]}:reports/validation.csv")))
        curves.append(curve.loc[curve["model"] == cell.model, ["step", "val_miou"]].assign(**place))
    columns = ["row", "column", "seed", "model", "steps", "images", "miou", "pseudo_label_miou"]
    table = pd.DataFrame(results, columns=columns).astype({"miou": float, "pseudo_label_miou": float})
    return table, pd.concat([curve for curve in curves if not curve.empty] or curves)


def summarise(grid: Grid, cells: Sequence[Cell], results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one line per column and row that has results, as texts to show and as numbers.

    Both have the mean mIoU and its standard deviation over the seeds, the steps and images that went into the model in all,
    the mean mIoU of its pseudo labels, and gains: paired by seed, with their standard deviation and the p of a paired t-test.
    """
    mious = {place: runs.set_index("seed")["miou"].dropna() for place, runs in results.groupby(["row", "column"])}
    comparisons = _comparisons(grid, cells, {place: miou.mean() for place, miou in mious.items()})
    shown, numbers = [], []
    for column, row in itertools.product(grid.columns, grid.rows):
        runs, miou = results[(results["row"] == row) & (results["column"] == column)], mious.get((row, column))
        if miou is None:
            continue
        pseudo = runs["pseudo_label_miou"].mean()
        steps, images, mean, spread = *runs[["steps", "images"]].iloc[0], miou.mean(), miou.std(ddof=1)
        text = {"column": column, "row": row, "steps in all": f"{steps}", "images in all": f"{images}"}
        text |= {"seeds": f"{len(miou)}"}
        text |= {"mIoU": _with_spread("%.2f", mean, spread), "mIoU of pseudo labels": _with_spread("%.2f", pseudo)}
        line = {"column": column, "row": row, "model": runs["model"].iloc[0], "steps": steps, "images": images}
        line |= {"seeds": len(miou), "miou": mean, "deviation": spread, "pseudo_label_miou": pseudo}
        for name, references in comparisons.items():
            gains = (miou - mious.get((references.get((row, column)), column), np.nan)).dropna()
            gain, spread = gains.mean(), gains.std(ddof=1)
            p = ttest_1samp(gains, 0).pvalue if spread > 0 else np.nan
            chance = "" if np.isnan(p) else " (p < 0.01)" if p < 0.005 else f" (p = {p:.2f})"
            text[name] = _with_spread("%+.2f", gain, spread) + chance
            line |= {name: gain, f"{name}: deviation": spread, f"{name}: p": p}
        shown.append(text)
        numbers.append(line)
    texts = pd.DataFrame(shown)
    return texts.loc[:, (texts != "").any()], pd.DataFrame(numbers).dropna(axis="columns", how="all")


def _with_spread(style: str, mean: float, spread: float = np.nan) -> str:
    if np.isnan(mean):
        return ""
    return style % mean + ("" if np.isnan(spread) else f" ± {spread:.2f}")


def _comparisons(grid: Grid, cells: Sequence[Cell], means: Mapping[Any, float]) -> dict[str, References]:
    """Return heading -> the row on which each row gains, per column; `means` has the mIoU of each place."""
    places = dict.fromkeys((cell.row, cell.column) for cell in cells)
    before = dict(itertools.pairwise(reversed(grid.ladder)))
    found = {"gain on the row before": {place: before[place[0]] for place in places if place[0] in before}}
    for other in grid.against:
        found[f"gain on {other}"] = {place: other for place in places if place[0] != other}
    # the supervised baselines of as many steps and of as many images: a student has to beat the better one
    stronger = found["gain on the stronger supervised baseline"] = {}
    supervised = sorted((c for c in cells if c.model == SUPERVISED), key=lambda c: means.get((c.row, c.column), 0.0))
    for cell in cells:
        for alone in supervised if cell.model not in (TEACHER, SUPERVISED) else []:  # the last one wins
            if set(_budgets(cell)) & set(_budgets(alone)):
                stronger[cell.row, cell.column] = alone.row
    return found


def _budgets(cell: Cell) -> list[str]:
    """Return what a model shares with the supervised baseline of as many steps, and with that of as many images."""
    labels = cell.params.split.model_dump(exclude={"unlabelled_ratio"})
    same = [cell.column, cell.params.data.model_dump(), labels]
    return [json.dumps([*same, kind, number]) for kind, number in cell.budget._asdict().items()]


def write_table(grid: Grid, title: str, fact: str, planned: Sequence[Run], path: Path) -> str:
    """Write the table of the finished cells to `path`.md and `path`.csv and its figure to `path`.svg; return the Markdown.

    Nothing is taken over from an earlier table: cells of other params, code or data have other keys.

    Args:
        fact: what to state above the table.
    """
    results, validation = read_results(planned, finished_runs())
    if results.empty:
        return f"no cell is finished: nothing to write into {path}.md"
    shown, numbers = summarise(grid, [cell for _, cell in planned], results)
    table = shown.map(_plain).rename(columns=_plain).to_markdown(index=False, disable_numparse=True)
    note = (
        "mIoU in percent: mean ± standard deviation over the seeds. Gains are paired by seed, with the p of a paired t-test. "
        "In all: optimizer steps, and images through the network forward and backward, its teachers' included."
    )
    image = f"![{_plain(title)}]({quote(path.name)}.svg)"
    text = "\n\n".join([f"# {_plain(title)}", fact, table, note, image]) + "\n"
    rows = [name for name in grid.rows if name in set(results["row"])]
    columns = [name for name in grid.columns if name in set(results["column"])]
    svg = lines(results, rows, columns, grid.lines) if grid.lines else dots(results, validation, rows, columns)
    csv = numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    for ending, content in (("svg", svg), ("csv", csv), ("md", text)):
        write_text(path.with_name(f"{path.name}.{ending}"), content)
    return text


def _plain(text: str) -> str:
    """Return text that Markdown takes as it is, in a table too."""
    return re.sub(r"([\\|\[\]*`])", r"\\\1", text)
