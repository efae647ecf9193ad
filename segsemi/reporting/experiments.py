"""The figure of a grid of experiments, and the page with all tables and figures of a folder."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib
import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from segsemi.core.files import write_text
from segsemi.reporting.figures import as_svg, new_axes
from segsemi.reporting.page import render


@as_svg
def dots(results: pd.DataFrame, validation: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draw, per column of the table, mIoU of its rows: a dot per seed, a bar for mean ± standard deviation. Beside them, in
    the same colours, validation mIoU over the steps: mean and range over the seeds (paper, Figure 5).

    Args:
        results: columns row, column, seed, miou (percent).
        validation: columns row, column, step, val_miou (percent); perhaps empty.
        rows, columns: those that results has, in the order of the table.
    """
    palette = matplotlib.colormaps["tab10" if len(rows) <= 10 else "tab20"]
    colours = {row: palette(number % palette.N) for number, row in enumerate(rows)}
    height = len(columns) * (0.8 + max(2.2, 0.28 * len(rows)))
    figure, axes = new_axes(2, len(columns), width=9.5, height=height)
    for left, right, column in zip(axes[::2], axes[1::2], columns, strict=True):
        there, measured = (table[table["column"] == column] for table in (results, validation))
        shown = [row for row in rows if row in set(there["row"])]
        for place, row in enumerate(shown):
            miou = there.loc[there["row"] == row, "miou"]
            left.plot(miou, [place] * len(miou), "o", color=colours[row], markersize=4, alpha=0.5)
            spread = miou.std(ddof=1) if len(miou) > 1 else 0.0
            left.errorbar(miou.mean(), place, xerr=spread, color=colours[row], marker="|", markersize=12, capsize=3)
            by_step = measured[measured["row"] == row].groupby("step")["val_miou"]
            right.plot(by_step.mean(), color=colours[row], linewidth=1)
            low, high = by_step.min(), by_step.max()
            right.fill_between(low.index, low, high, color=colours[row], alpha=0.15, linewidth=0)
        left.set(yticks=range(len(shown)), yticklabels=shown, xlabel="mIoU, percent", title=column)
        left.invert_yaxis()
        for label, row in zip(left.get_yticklabels(), shown, strict=True):
            label.set_color(colours[row])
        right.set(xlabel="step of its own training", ylabel="validation mIoU, percent", title=column)
        right.set_visible(not measured.empty)
    return figure


@as_svg
def lines(results: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], along: str) -> Figure:
    """Draw mIoU, mean ± standard deviation over the seeds, as lines along the `rows` or the `columns` of a table (paper,
    Figures 3 and 6); dotted: that of the pseudo labels from which the models learnt.

    Args:
        results: columns row, column, seed, miou, pseudo_label_miou (percent; the latter empty for models without any).
        rows, columns: those that results has, in the order of the table.
    """
    ticks, names = (rows, columns) if along == "rows" else (columns, rows)
    tick_of, name_of = ("row", "column") if along == "rows" else ("column", "row")
    measures = (("miou", "", "o-"), ("pseudo_label_miou", ", pseudo labels", "s:"))
    figure, (ax,) = new_axes(1, width=5.5, height=3.4)
    for (number, name), (measure, what, style) in itertools.product(enumerate(names), measures):
        values = results[results[name_of] == name].dropna(subset=[measure]).groupby(tick_of)[measure]
        present = [tick for tick in ticks if tick in values.groups]
        if present:
            mean, spread = values.mean()[present], values.std(ddof=1).fillna(0)[present]
            look: dict[str, Any] = {"color": f"C{number % 10}", "fmt": style, "markersize": 4, "capsize": 3}
            ax.errorbar([ticks.index(tick) for tick in present], mean, yerr=spread, label=f"{name}{what}", **look)
    ax.set(xticks=range(len(ticks)), xticklabels=ticks, ylabel="mIoU, percent")
    ax.margins(x=0.08)
    ax.legend(frameon=False)
    return figure


def write_page(folder: Path) -> Path:
    """Write tables.html, one self-contained page, from the tables NAME.md with their figures NAME.svg; return its path.

    It links to the report of a run in the folder above, if there is one.
    """

    def image(_: Any, tokens: Any, index: int, *__: Any) -> str:
        source = folder / unquote(tokens[index].attrs["src"])
        return source.read_text() if source.suffix == ".svg" else ""

    page = MarkdownIt("commonmark", {"html": False}).enable("table")
    page.add_render_rule("image", image)
    tables = {
        path.stem: page.render(path.read_text())
        for path in sorted(folder.glob("*.md"))
        if path.with_suffix(".svg").exists()  # other texts may lie there
    }
    report = "../index.html" if (folder.parent / "index.html").exists() else None
    write_text(folder / "tables.html", render("tables.html", tables=tables, report=report))
    return folder / "tables.html"
