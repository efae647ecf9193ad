"""Merge all measurements into reports/: the few numbers that people compare, the tables behind them, and one page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from segsemi.core.classes import Classes
from segsemi.core.config import FINAL
from segsemi.core.files import read_json, visible_files, write_bytes, write_json, write_text
from segsemi.core.paths import FINAL_MODEL, model_files
from segsemi.core.pictures import save_png
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row, evenly_spread
from segsemi.reporting import figures
from segsemi.reporting.comparison import comparison, pseudo_label_panels, side_by_side
from segsemi.reporting.measured import Measured, percent
from segsemi.reporting.page import render
from segsemi.reporting.verdict import final_model, gains, warnings

BY_CLASS = ("iou", "dice", "precision", "recall")
EXTREMES = 2  # images with the lowest and with the highest mIoU that the page shows


def write_report(
    models: Sequence[Measured],
    classes: Classes,
    rows: Sequence[Row],
    unlabelled: Sequence[Row],
    root: Path,
    facts: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    examples: int,
) -> str:
    """Write metrics.json, CSVs, table.md, pictures in examples/ and pseudo_labels/, and index.html.

    Args:
        models: in the order of the report, `teacher` first; the confusion matrix is that of the last student.
        rows: the images that were evaluated; their paths start at `root`.
        unlabelled: the unlabelled images, with their labels where hidden labels are known.
        facts: what to state at the head of the page.
        settings: params and versions to list on the page.
        out: the folder of the report. saug.png and */tables.html, if there, become part of the page.
        examples: number of images in examples/. The page shows those with the lowest and highest mIoU, too.

    Returns:
        The table, as plain text for the terminal.
    """
    last = final_model(models)
    numbers: dict[str, Any] = {FINAL: {"model": last.name, "miou": percent(last.metrics["miou"])}}
    write_json(out / "metrics.json", numbers | {model.name: _key_numbers(model) for model in models})
    by_class = pd.DataFrame(
        {"model": model.name, "class": name, **{key: percent(model.metrics[key][name]) for key in BY_CLASS}}
        for model in models
        for name in classes.names
    ).astype(dict.fromkeys(BY_CLASS, float))
    _write_csv(out / "per_class.csv", by_class)
    curves = pd.concat([model.curve.assign(model=model.name) for model in models])
    curves = curves.assign(val_miou=(100 * curves["val_miou"]).round(2))[["model", "step", "loss", "lr", "val_miou"]]
    _write_csv(out / "curves.csv", curves)
    # one empty row of a model without validation, so that it keeps its colour in dvc's plots
    validated = curves["val_miou"].notna()
    unvalidated = ~curves["model"].isin(curves["model"][validated]) & ~curves["model"].duplicated(keep="last")
    _write_csv(out / "validation.csv", curves[validated | unvalidated][["model", "step", "val_miou"]])
    confusion = _confusion(last)
    _write_csv(out / "confusion.csv", confusion[["truth", "prediction", "percent"]])
    table = summary_table(models)
    write_text(out / "table.md", table.to_markdown(index=False, disable_numparse=True) + "\n")
    saug, tables = out / "saug.png", sorted(out.glob("*/tables.html"))
    page = render(
        "report.html",
        tables={path.parent.name: quote(path.relative_to(out).as_posix()) for path in tables},
        facts=facts,
        settings=settings,
        last=last,
        models=models,
        gains=gains(models),
        warnings=warnings(models, len(rows)),
        table=table.to_html(index=False, border=0),
        colours=dict(zip(classes.names, classes.colours, strict=True)),
        void=tuple(classes.palette()[classes.ignore_index].tolist()),
        by_class={name: found.set_index("model").to_dict("index") for name, found in by_class.groupby("class")},
        shares=confusion.groupby("truth")["pixels"].sum() / max(confusion["pixels"].sum(), 1),
        curves=_curves(models, curves),
        confusion=figures.confusion(confusion),
        calibration=figures.calibration(pd.read_csv(last.evaluated / "calibration.csv")),
        bn=None if last.bn is None else figures.bn_branches(last.bn),
        saug=read_image(saug) if saug.exists() else None,
        examples=list(_examples(models, last, classes, rows, root, out / "examples", examples)),
        pseudo_labels=list(_pseudo_labels(last, classes, unlabelled, root, out / "pseudo_labels")),
    )
    write_text(out / "index.html", page)
    return table.to_string(index=False)


def write_final_model(model: Measured) -> None:
    """Copy the weights of a model to FINAL_MODEL, and model.json with its name and metrics in it."""
    weights, description = model_files(model.name)
    write_bytes(FINAL_MODEL / weights.name, weights.read_bytes())
    measured = {"name": model.name, "metrics": model.metrics}
    write_json(FINAL_MODEL / description.name, read_json(description) | measured)


def _curves(models: Sequence[Measured], curves: pd.DataFrame) -> dict[str, str]:
    """Return heading -> SVG of the losses, one figure per kind of loss, of validation mIoU and of mIoU over the rounds."""
    colours, found = figures.colours([model.name for model in models]), dict[str, str]()
    for loss in dict.fromkeys(model.loss for model in models):
        own = curves[curves["model"].isin([model.name for model in models if model.loss == loss])]
        found[f"Training loss: {loss}"] = figures.curves(own, "loss", "training loss", colours)
    if curves["val_miou"].notna().any():
        found["Validation mIoU"] = figures.curves(curves, "val_miou", "validation mIoU, percent", colours)
    if len(models) > 1:
        numbers = [{"model": model.name, "teacher": model.teacher, **_key_numbers(model)} for model in models]
        found["Rounds"] = figures.rounds(numbers, colours)
    return found


def _key_numbers(model: Measured) -> dict[str, float | None]:
    """Return the few numbers, in percent, that `dvc metrics` shows and compares."""
    keys = {"miou": "miou", "dice": "mean_dice", "pixel_accuracy": "pixel_accuracy", "ece": "calibration_error"}
    numbers = {name: percent(model.metrics[key]) for name, key in keys.items()}
    if "miou" in model.quality:
        numbers["pseudo_label_miou"] = percent(model.quality["miou"])
    return numbers


def summary_table(models: Sequence[Measured]) -> pd.DataFrame:
    """Return one row per model: its budget, mIoU, gain on its teacher and the quality of its pseudo labels."""
    mious = {model.name: model.metrics["miou"] for model in models}
    rows = []
    for model in models:
        miou, before = mious[model.name], mious.get(model.teacher or "")
        rows.append(
            {
                "model": model.name,
                "steps in all": str(model.training["steps_in_all"]),
                "images in all": str(model.training["images_in_all"]),
                "mIoU": _cell(miou),
                "gain on its teacher": "" if before is None or miou is None else f"{100 * (miou - before):+.2f}",
                "mean Dice": _cell(model.metrics["mean_dice"]),
                "pixel accuracy": _cell(model.metrics["pixel_accuracy"]),
                "mIoU of its pseudo labels": _cell(model.quality.get("miou")),
            }
        )
    return pd.DataFrame(rows)


def _cell(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _confusion(model: Measured) -> pd.DataFrame:
    """Return the confusion matrix as one row per cell, in pixels and in percent of the truth's pixels."""
    cells = pd.read_csv(model.evaluated / "confusion.csv", keep_default_na=False)  # a class may be named "None"
    total = cells.groupby("truth")["pixels"].transform("sum")
    return cells.assign(percent=(100 * cells["pixels"] / total.where(total > 0)).round(2))


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _examples(
    models: Sequence[Measured], last: Measured, classes: Classes, rows: Sequence[Row], root: Path, out: Path, count: int
) -> Iterator[dict[str, Any]]:
    """Yield id, place and panels of some images, from the lowest to the highest mIoU of `last`.

    Writes `count` of them, the same in every run, to `out`.
    """
    out.mkdir(parents=True, exist_ok=True)  # declared in dvc.yaml, also where there is no example
    mious, files = last.image_mious.sort_values(kind="stable"), {row.id: row for row in rows}  # NaN comes last
    everywhere, known = [row.id for row in evenly_spread(rows, count)], list(mious.dropna().index)
    worst, best = (known[:EXTREMES], known[-EXTREMES:]) if count else ([], [])
    for name in [name for name in mious.index if name in {*everywhere, *worst, *best}]:
        row = files[name]
        image, truth = read_image(root / row.image, classes.value_range), read_label(root / row.label, classes)
        predictions = {
            model.name: read_label(model.evaluated / "predictions" / f"{name}.png", classes.as_written())
            for model in models
        }
        panels = comparison(image, truth, predictions, classes, before=models[0].name, after=last.name)
        if name in everywhere:
            save_png(out / f"{name}.png", side_by_side(panels), palette=True)
        place = "among the worst" if name in worst else "among the best" if name in best else ""
        own = {model.name: model.image_mious[name] for model in models}
        yield {"id": name, "place": place, "panels": panels, "mious": own}


def _pseudo_labels(
    model: Measured, classes: Classes, unlabelled: Sequence[Row], root: Path, out: Path
) -> Iterator[dict[str, Any]]:
    """Yield and write to `out` the pseudo labels from which `model` learnt, as far as stage pseudo_quality kept them."""
    out.mkdir(parents=True, exist_ok=True)
    files = {row.id: row for row in unlabelled}
    for path in visible_files(model.pseudo / "confidence", (".png",)) if model.pseudo else ():
        row, name = files[path.stem], path.stem
        label, sure = read_label(path.parents[1] / path.name, classes.as_written()), read_image(path)[..., 0]
        truth, wrong = None, None
        if row.label:
            truth = read_label(root / row.label, classes)
            counted = truth != classes.ignore_index
            wrong = float(np.mean(label[counted] != truth[counted])) if counted.any() else None
        panels = pseudo_label_panels(read_image(root / row.image, classes.value_range), label, sure, truth, classes)
        save_png(out / f"{name}.png", side_by_side(panels), palette=True)
        yield {"id": name, "confidence": float(sure.mean()) / 255, "wrong": wrong, "panels": panels}
