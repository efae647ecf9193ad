"""The report's figures, as SVG texts with fixed ids: equal in, equal out."""

import functools
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

P = ParamSpec("P")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "segsemi",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names are no formulas
}


def as_svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Let a function that draws a figure return its SVG text."""

    @functools.wraps(draw)
    @matplotlib.rc_context(STYLE)
    def drawn(*args: P.args, **options: P.kwargs) -> str:
        text = io.StringIO()
        draw(*args, **options).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return text.getvalue()[text.getvalue().index("<svg") :]

    return drawn


def new_axes(columns: int, rows: int = 1, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a new figure and its columns x rows axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


class _PlainLogFormatter(LogFormatter):
    """0.6 where matplotlib writes 6e-01, or a formula."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if not super().__call__(x, pos):  # ticks that stand too close
            return ""
        return np.format_float_positional(x, precision=6, fractional=False, trim="-")


def _log_scale(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(_PlainLogFormatter(minor_thresholds=(1, 0.5)))
    ax.yaxis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(1, 0.5)))


def colours(models: Sequence[str]) -> dict[str, str]:
    """Return name -> colour of each model, the same in all figures; dvc's (.dvc/plots) take them in the same order."""
    return {name: matplotlib.colors.to_hex(f"C{number % 10}") for number, name in enumerate(models)}


@as_svg
def curves(table: pd.DataFrame, value: str, label: str, colour_of: Mapping[str, str]) -> Figure:
    """Draw one line per model over the steps; columns model, step and `value`, "loss" (on a logarithmic axis) or val_miou."""
    figure, (ax,) = new_axes(1, width=4.8, height=2.9)
    for name, curve in table.dropna(subset=[value]).groupby("model", sort=False):
        marker = "" if value == "loss" else "o"
        ax.plot(curve["step"], curve[value], color=colour_of[str(name)], label=name, linewidth=1.5, marker=marker)
    ax.set(xlabel="step of its own training", ylabel=label)
    if value == "loss":
        _log_scale(ax)
    ax.legend(frameon=False)
    return figure


@as_svg
def rounds(models: Sequence[Mapping[str, Any]], colour_of: Mapping[str, str]) -> Figure:
    """Draw mIoU of teacher and students over the rounds, and of the pseudo labels between them (paper, Figures 6 and 8).

    Baselines are horizontal lines.

    Args:
        models: one per model, the first teacher first; keys model, teacher (None for the first one and for baselines), miou
            and, for students, pseudo_label_miou, in percent.
    """
    names = [model["model"] for model in models]
    numbers = pd.DataFrame(models, index=names, columns=["miou", "pseudo_label_miou"]).astype(float)
    miou, pseudo = numbers["miou"], numbers["pseudo_label_miou"]
    teacher_of: dict[str, str] = {model["model"]: model["teacher"] for model in models if model["teacher"] is not None}

    def depth(name: str) -> int:
        return 1 + depth(teacher_of[name]) if name in teacher_of else 0

    first, *others = names
    figure, (ax,) = new_axes(1, width=4.8, height=2.9)
    for name, teacher in teacher_of.items():
        place = depth(name)
        ax.plot([place - 1, place], [miou[teacher], miou[name]], color="grey", linewidth=1, zorder=1)
        ax.plot(place, pseudo[name], color=colour_of[name], marker="s", fillstyle="none")
    for name in [first, *teacher_of]:
        where = (depth(name), miou[name])
        ax.plot(*where, color=colour_of[name], marker="o")
        ax.annotate(name, where, xytext=(0, -14), textcoords="offset points", ha="center")
    for name, style in zip((name for name in others if name not in teacher_of), itertools.cycle(("--", "-.", ":"))):
        ax.axhline(miou[name], color=colour_of[name], linestyle=style, linewidth=1, label=name)
    ax.plot([], [], color="grey", marker="o", linestyle="", label="model, on the evaluated images")
    look: dict[str, Any] = {"color": "grey", "marker": "s", "fillstyle": "none", "linestyle": ""}
    ax.plot([], [], label="its pseudo labels, unlabelled images", **look)
    ax.set(xticks=range(max(map(depth, names)) + 1), xlabel="round", ylabel="mIoU, percent")
    ax.margins(x=0.12, y=0.15)
    ax.legend(frameon=False)
    return figure


@as_svg
def confusion(cells: pd.DataFrame) -> Figure:
    """Draw the confusion matrix; columns truth, prediction, percent (of the truth's pixels)."""
    names = list(dict.fromkeys(cells["truth"]))
    matrix = cells.pivot(index="truth", columns="prediction", values="percent").loc[names, names].to_numpy(float)
    size = 1.6 + 0.34 * len(names)
    figure, (ax,) = new_axes(1, width=size + 1, height=size)
    ax.imshow(np.ma.masked_invalid(matrix), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in zip(*np.nonzero(np.nan_to_num(matrix) >= 1), strict=True):
        colour = "white" if matrix[row, column] > 55 else "#111111"  # not black, which dark mode turns
        ax.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="prediction", ylabel="truth")
    return figure


@as_svg
def calibration(bins: pd.DataFrame) -> Figure:
    """Draw a reliability diagram; columns pixels, confidence and accuracy, one row per bin of equal width."""
    edges = np.linspace(0, 1, len(bins) + 1)
    figure, (left, right) = new_axes(2, width=7.2, height=2.9)
    left.bar(edges[:-1], bins["accuracy"].fillna(0), width=1 / len(bins), align="edge", color="C0", edgecolor="white")
    left.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    left.plot(bins["confidence"], bins["accuracy"], color="C3", marker=".", linestyle="")
    left.set(xlabel="confidence", ylabel="share of right pixels", xlim=(0, 1), ylim=(0, 1))
    shares = 100 * bins["pixels"] / max(bins["pixels"].sum(), 1)
    right.bar(edges[:-1], shares, width=1 / len(bins), align="edge", color="grey", edgecolor="white")
    right.set(xlabel="confidence", ylabel="pixels, percent", xlim=(0, 1))
    return figure


@as_svg
def bn_branches(table: pd.DataFrame) -> Figure:
    """Draw the running statistics of both batch norms of each layer of a student (paper, Figure 4); `table` is its bn.csv."""
    layers = range(1, len(table) + 1)
    figure, axes = new_axes(2, width=11, height=3)
    for ax, statistic in zip(axes, ("mean", "variance"), strict=True):
        ax.plot(layers, table[f"{statistic}_standard"], color="C3", linewidth=3, label="standard batch norm")
        ax.plot(layers, table[f"{statistic}_parallel"], color="C0", linewidth=1, label="parallel batch norm")
        ax.set(xlabel="batch norm, from the image to the logits", ylabel=f"running {statistic}")
    _log_scale(axes[1])
    axes[0].legend(frameon=False)
    return figure
