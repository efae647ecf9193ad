"""Measure a model on labelled images: metrics of all pixels and of each image, confusion matrix, predictions."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import EvaluateParams
from segsemi.core.errors import UserError
from segsemi.core.files import has_content, write_csv, write_json
from segsemi.core.progress import progress_bar
from segsemi.data.images import LabelledPairs
from segsemi.data.loaders import load_items
from segsemi.data.manifest import Row
from segsemi.inference import predict_label
from segsemi.metrics import ConfusionMatrix
from segsemi.models.build import SegmentationModel
from segsemi.runtime.distributed import Runtime

STATE_SECONDS = 30.0


def write_evaluation(
    model: SegmentationModel,
    rows: Sequence[Row],
    root: Path,
    classes: Classes,
    out: Path,
    settings: EvaluateParams,
    *,
    weights: str,
    work: Path,
    runtime: Runtime,
) -> None:
    """Evaluate on `rows`, at the labels' own size.

    Writes to `out`: metrics.json, confusion.csv, images.csv (metrics of each image) and predictions/ID.png (class ids).

    Args:
        out: the folder of the model's results.
        weights: the hash of the model's weights, which metrics.json states.
        work: a folder for the state of an interrupted run, which goes on from there.

    Raises:
        UserError: if there are no rows.
    """
    if not rows:
        raise UserError("evaluate.subset: the data set has no labelled image there; choose val, or another data set")
    pairs = LabelledPairs(rows, root, classes)
    state, confusion = work / "confusion.json", ConfusionMatrix(len(classes), classes.ignore_index)
    images: list[dict[str, Any]] = []  # metrics of each
    saved = time.monotonic()
    if has_content(state):  # of an interrupted run
        counted = json.loads(state.read_text())
        images, confusion.matrix[:] = counted["images"], counted["matrix"]
    start = len(images)
    loader = load_items(pairs, range(start, len(rows)), runtime)
    bar = progress_bar(loader, initial=start, total=len(rows), desc=f"evaluate {out.name}", unit="image")
    how = settings.scales, settings.flip, settings.window
    for row, (image, label) in zip(rows[start:], bar, strict=True):
        prediction, own = predict_label(model, image, *how), ConfusionMatrix(len(classes))
        own.update(prediction, label)
        confusion.matrix += own.matrix
        write_label_png(work / "predictions" / f"{row.id}.png", prediction, classes)
        images.append({"id": row.id, **own.summary(classes.names)})
        if time.monotonic() - saved > STATE_SECONDS or len(images) == len(rows):
            write_json(state, {"images": images, "matrix": confusion.matrix.tolist()})
            saved = time.monotonic()
    half = shutil.ignore_patterns(".*")  # files that a kill left half written
    shutil.copytree(work / "predictions", out / "predictions", ignore=half, dirs_exist_ok=True)
    write_csv(out / "images.csv", ["id", "miou", "mean_dice", "pixel_accuracy"], images)
    facts = {"subset": settings.subset, "weights": weights, "images": len(rows)}
    write_json(out / "metrics.json", facts | confusion.summary(classes.names))
    cells = [
        {"truth": truth, "prediction": prediction, "pixels": int(count)}
        for truth, counts in zip(classes.names, confusion.matrix, strict=True)
        for prediction, count in zip(classes.names, counts, strict=True)
    ]
    write_csv(out / "confusion.csv", ["truth", "prediction", "pixels"], cells)
