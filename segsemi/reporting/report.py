"""Merge all measurements into reports/: the few numbers that people compare, the tables behind them, and one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segsemi.core.classes import Classes
from segsemi.core.files import write_bytes, write_json, write_text
from segsemi.core.paths import evaluated_folder, model_folder, quality_file
from segsemi.core.pictures import png_bytes
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.reporting import figures
from segsemi.reporting.comparison import comparison
from segsemi.reporting.page import render


@dataclass(frozen=True)
class Measured:
    """All measurements of one model.

    Attributes:
        teacher: the name of the model that made its pseudo labels; None for the teacher and supervised baselines.
        evaluated: the folder that stage evaluate wrote.
        metrics: metrics.json of that folder.
        training: `steps_in_all`, those of its teachers included, and `keep`, as model.json has them.
        curve: the training curve, columns step, loss, lr, val_miou.
        bn: bn.csv, the statistics of both batch norms of each layer; None without DSBN.
        quality: its pseudo labels against the hidden labels; None without pseudo labels.
    """

    name: str
    teacher: str | None
    evaluated: Path
    metrics: dict[str, Any]
    training: dict[str, Any]
    curve: pd.DataFrame
    bn: pd.DataFrame | None
    quality: dict[str, Any] | None


def read_measured(name: str, teacher: str | None) -> Measured:
    """Read one model's evaluation, training curve and, for a student, the quality of the labels it learnt from."""
    evaluated, model = evaluated_folder(name), model_folder(name)
    return Measured(
        name=name,
        teacher=teacher,
        evaluated=evaluated,
        metrics=json.loads((evaluated / "metrics.json").read_text()),
        training=json.loads((model / "model.json").read_text())["training"],
        curve=pd.read_csv(model / "curve.csv"),
        bn=pd.read_csv(model / "bn.csv") if (model / "bn.csv").exists() else None,
        quality=json.loads(quality_file(name).read_text()) if teacher is not None else None,
    )


def write_report(
    models: Sequence[Measured],
    classes: Classes,
    rows: Sequence[Row],
    root: Path,
    facts: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    out: Path,
) -> str:
    """Write metrics.json, per_class.csv, curves.csv, validation.csv, confusion.csv, table.md, examples/ and index.html.

    Args:
        models: in the order of the report, `teacher` first; the confusion matrix is that of the last student.
        rows: the images that were evaluated; their paths start at `root`.
        facts: what to state at the head of the page.
        settings: params to list on the page.
        out: the folder of the report.

    Returns:
        The table, as plain text for the terminal.
    """
    write_json(out / "metrics.json", {model.name: _key_numbers(model) for model in models})
    by_class = pd.DataFrame(
        {model.name: [percent(model.metrics["iou"][name]) for name in classes.names] for model in models},
        index=pd.Index(classes.names, name="class"),
    )
    per_class = by_class.melt(var_name="model", value_name="iou", ignore_index=False).reset_index()
    _write_csv(out / "per_class.csv", per_class[["model", "class", "iou"]])
    curves = pd.concat([model.curve.assign(model=model.name) for model in models])
    curves = curves.assign(val_miou=(100 * curves["val_miou"]).round(2))[["model", "step", "loss", "lr", "val_miou"]]
    _write_csv(out / "curves.csv", curves)
    _write_csv(out / "validation.csv", curves.dropna(subset=["val_miou"])[["model", "step", "val_miou"]])
    last = next((model for model in reversed(models) if model.teacher is not None), models[0])
    confusion = _confusion(last)
    _write_csv(out / "confusion.csv", confusion)
    table = summary_table(models)
    write_text(out / "table.md", table.to_markdown(index=False, disable_numparse=True) + "\n")
    page = render(
        "report.html",
        facts=facts,
        settings=settings,
        table=table.to_html(index=False, border=0),
        by_class=by_class,
        colours=dict(zip(classes.names, classes.colours, strict=True)),
        figures=_figures(models, last, curves, by_class, confusion),
        examples=_write_examples(models, last, classes, rows, root, out / "examples"),
    )
    write_text(out / "index.html", page)
    return table.to_string(index=False)


def _figures(
    models: Sequence[Measured], last: Measured, curves: pd.DataFrame, by_class: pd.DataFrame, confusion: pd.DataFrame
) -> dict[str, str]:
    """Return heading -> SVG of each figure of the page that these models have."""
    found, first = {"Training": figures.curves(curves)}, models[0].name
    if last is not models[0]:
        numbers = [{"model": model.name, "teacher": model.teacher, **_key_numbers(model)} for model in models]
        found["Rounds"] = figures.rounds(numbers)
        found[f"Gain of each class, {first} to {last.name}"] = figures.class_gains(by_class, first, last.name)
    found[f"Confusion matrix of {last.name}, percent of the truth's pixels"] = figures.confusion(confusion)
    if last.bn is not None:
        found[f"Batch norm statistics of {last.name}"] = figures.bn_branches(last.bn)
    return found


def _key_numbers(model: Measured) -> dict[str, float | None]:
    """Return the few numbers, in percent, that `dvc metrics` shows and compares."""
    numbers = {"miou": percent(model.metrics["miou"]), "pixel_accuracy": percent(model.metrics["pixel_accuracy"])}
    if model.quality and model.quality["images"]:
        numbers["pseudo_label_miou"] = percent(model.quality["miou"])
    return numbers


def percent(share: float | None) -> float | None:
    """Return a share as a percentage with two decimals; None stays None."""
    return None if share is None else round(100 * share, 2)


def summary_table(models: Sequence[Measured]) -> pd.DataFrame:
    """Return one row per model: steps that went into it, mIoU, gain on its teacher, quality of the labels it learnt from."""
    mious = {model.name: model.metrics["miou"] for model in models}
    rows = []
    for model in models:
        miou, before = mious[model.name], mious.get(model.teacher or "")
        rows.append(
            {
                "model": model.name,
                "steps in all": str(model.training["steps_in_all"]),
                "mIoU": _cell(miou),
                "gain on its teacher": "" if before is None or miou is None else f"{100 * (miou - before):+.2f}",
                "pixel accuracy": _cell(model.metrics["pixel_accuracy"]),
                "mIoU of its pseudo labels": _cell((model.quality or {}).get("miou")),
            }
        )
    return pd.DataFrame(rows)


def _cell(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _confusion(model: Measured) -> pd.DataFrame:
    """Return the confusion matrix as one row per cell, in percent of the truth's pixels."""
    cells = pd.read_csv(model.evaluated / "confusion.csv", keep_default_na=False)  # a class may be named "None"
    total = cells.groupby("truth")["pixels"].transform("sum")
    cells["percent"] = (100 * cells["pixels"] / total.where(total > 0)).round(2)
    return cells[["truth", "prediction", "percent"]]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _write_examples(
    models: Sequence[Measured], last: Measured, classes: Classes, rows: Sequence[Row], root: Path, out: Path
) -> dict[str, bytes]:
    """Write and return one PNG per example image: image, truth, all predictions, and what changed from the first model to
    `last`."""
    out.mkdir(parents=True, exist_ok=True)  # declared in dvc.yaml, also where there is no example
    found = {}
    for row in rows:
        files = {model.name: model.evaluated / "predictions" / f"{row.id}.png" for model in models}
        if not all(file.exists() for file in files.values()):
            continue
        image, truth = read_image(root / row.image, classes.value_range), read_label(root / row.label, classes)
        predictions = {name: read_label(file, classes.as_written()) for name, file in files.items()}
        picture = comparison(image, row.id, truth, predictions, classes, before=models[0].name, after=last.name)
        found[row.id] = png_bytes(picture, palette=True)
        write_bytes(out / f"{row.id}.png", found[row.id])
    return found
