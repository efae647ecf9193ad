"""The report's figures, as SVG texts with fixed ids: equal in, equal out."""

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter


class Drawing:
    """One figure while it is drawn; `svg` holds its text afterwards."""

    def __init__(self) -> None:
        self.axes: list[Axes] = []
        self.svg = ""


@contextmanager
def figure(columns: int, rows: int = 1, *, width: float, height: float) -> Iterator[Drawing]:
    """Yield a drawing with columns x rows axes; after the block its `svg` is there."""
    drawing = Drawing()
    # names are no formulas
    with plt.rc_context({"svg.hashsalt": "segsemi", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}):
        canvas, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
        drawing.axes = list(axes.flat)
        for ax in drawing.axes:
            ax.spines[["top", "right"]].set_visible(False)
        yield drawing
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(canvas)
    drawing.svg = text.getvalue()[text.getvalue().index("<svg") :]


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


def curves(table: pd.DataFrame, value: str, label: str, colour_of: Mapping[str, str]) -> str:
    """Draw one line per model over the steps; columns model, step and `value`, "loss" (on a logarithmic axis) or val_miou."""
    with figure(1, width=4.8, height=2.9) as drawing:
        ax = drawing.axes[0]
        for name, curve in table.dropna(subset=[value]).groupby("model", sort=False):
            marker = "" if value == "loss" else "o"
            ax.plot(curve["step"], curve[value], color=colour_of[str(name)], label=name, linewidth=1.5, marker=marker)
        ax.set(xlabel="step of its own training", ylabel=label)
        if value == "loss":
            _log_scale(ax)
        ax.legend(frameon=False)
    return drawing.svg


def rounds(models: Sequence[Mapping[str, Any]], colour_of: Mapping[str, str]) -> str:
    """Draw mIoU of teacher and students over the rounds, and of the pseudo labels between them (paper, Figures 6 and 8).

    Baselines are horizontal lines.

    Args:
        models: one per model, the first teacher first; keys model, teacher (None for the first one and for baselines), miou
            and, for students, pseudo_label_miou, in percent.
    """
    by_name = {model["model"]: model for model in models}

    def depth(name: str) -> int:
        teacher = by_name[name]["teacher"]
        return 0 if teacher is None else 1 + depth(teacher)

    def value(name: str, key: str = "miou") -> float:
        found = by_name[name].get(key)
        return math.nan if found is None else found

    students = [name for name, model in by_name.items() if model["teacher"] is not None]
    first, *others = by_name
    with figure(1, width=4.8, height=2.9) as drawing:
        ax = drawing.axes[0]
        for name in students:
            teacher, place = by_name[name]["teacher"], depth(name)
            ax.plot([place - 1, place], [value(teacher), value(name)], color="grey", linewidth=1, zorder=1)
            ax.plot(place, value(name, "pseudo_label_miou"), color=colour_of[name], marker="s", fillstyle="none")
        for name in [first, *students]:
            where = (depth(name), value(name))
            ax.plot(*where, color=colour_of[name], marker="o")
            ax.annotate(name, where, xytext=(0, -14), textcoords="offset points", ha="center")
        for name, style in zip((name for name in others if name not in students), itertools.cycle(("--", "-.", ":"))):
            ax.axhline(value(name), color=colour_of[name], linestyle=style, linewidth=1, label=name)
        ax.plot([], [], color="grey", marker="o", linestyle="", label="model, on the evaluated images")
        look: dict[str, Any] = {"color": "grey", "marker": "s", "fillstyle": "none", "linestyle": ""}
        ax.plot([], [], label="its pseudo labels, unlabelled images", **look)
        ax.set(xticks=range(max(map(depth, by_name)) + 1), xlabel="round", ylabel="mIoU, percent")
        ax.margins(x=0.12, y=0.15)
        ax.legend(frameon=False)
    return drawing.svg


def confusion(cells: pd.DataFrame) -> str:
    """Draw the confusion matrix; columns truth, prediction, percent (of the truth's pixels)."""
    names = list(dict.fromkeys(cells["truth"]))
    matrix = cells.pivot(index="truth", columns="prediction", values="percent").loc[names, names].to_numpy(float)
    size = 1.6 + 0.34 * len(names)
    with figure(1, width=size + 1, height=size) as drawing:
        ax = drawing.axes[0]
        ax.imshow(np.ma.masked_invalid(matrix), cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for row, column in zip(*np.nonzero(np.nan_to_num(matrix) >= 1), strict=True):
            colour = "white" if matrix[row, column] > 55 else "#111111"  # not black, which dark mode turns
            ax.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=7)
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel="prediction", ylabel="truth")
    return drawing.svg


def calibration(bins: pd.DataFrame) -> str:
    """Draw a reliability diagram; columns pixels, confidence and accuracy, one row per bin of equal width."""
    edges = np.linspace(0, 1, len(bins) + 1)
    with figure(2, width=7.2, height=2.9) as drawing:
        left, right = drawing.axes
        left.bar(
            edges[:-1], bins["accuracy"].fillna(0), width=1 / len(bins), align="edge", color="C0", edgecolor="white"
        )
        left.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
        left.plot(bins["confidence"], bins["accuracy"], color="C3", marker=".", linestyle="")
        left.set(xlabel="confidence", ylabel="share of right pixels", xlim=(0, 1), ylim=(0, 1))
        shares = 100 * bins["pixels"] / max(bins["pixels"].sum(), 1)
        right.bar(edges[:-1], shares, width=1 / len(bins), align="edge", color="grey", edgecolor="white")
        right.set(xlabel="confidence", ylabel="pixels, percent", xlim=(0, 1))
    return drawing.svg


def bn_branches(table: pd.DataFrame) -> str:
    """Draw the running statistics of both batch norms of each layer of a student (paper, Figure 4); `table` is its bn.csv."""
    layers = range(1, len(table) + 1)
    with figure(2, width=11, height=3) as drawing:
        for ax, statistic in zip(drawing.axes, ("mean", "variance"), strict=True):
            ax.plot(layers, table[f"{statistic}_standard"], color="C3", linewidth=3, label="standard batch norm")
            ax.plot(layers, table[f"{statistic}_parallel"], color="C0", linewidth=1, label="parallel batch norm")
            ax.set(xlabel="batch norm, from the image to the logits", ylabel=f"running {statistic}")
        _log_scale(drawing.axes[1])
        drawing.axes[0].legend(frameon=False)
    return drawing.svg
