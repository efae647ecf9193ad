"""Measure a model on labelled images: mIoU, per-class IoU, pixel accuracy, confusion matrix, some predictions."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segsemi.core.classes import Classes, write_label_png
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
    *,
    scales: Sequence[float],
    flip: bool,
    window: int | None,
    examples: int,
    work: Path,
    runtime: Runtime,
    progress: str,
) -> None:
    """Evaluate on `rows`, at the labels' own size; write to `out`: metrics.json, confusion.csv, and for
    some images, the report's examples, predictions/ID.png (class ids).

    The examples are spread evenly over the rows, so that every model shows the same images.

    Args:
        work: a folder for the state of an interrupted run, which goes on from there.

    Raises:
        UserError: if there are no rows.
    """
    if not rows:
        raise UserError("evaluate.subset: the data set has no labelled image there; choose val, or another data set")
    pairs = LabelledPairs(rows, root, classes)
    shown = set(np.linspace(0, len(rows) - 1, num=min(examples, len(rows)), dtype=int).tolist())

    state, confusion = work / "confusion.json", ConfusionMatrix(len(classes), classes.ignore_index)
    start, saved = 0, time.monotonic()
    if has_content(state):  # of an interrupted run
        counted = json.loads(state.read_text())
        start, confusion.matrix[:] = counted["images"], counted["matrix"]
    loader = load_items(pairs, range(start, len(rows)), runtime)
    bar = progress_bar(loader, initial=start, total=len(rows), desc=f"evaluate {progress}", unit="image")
    for index, (image, label) in enumerate(bar, start=start):
        prediction = predict_label(model, image, scales, flip, window)
        confusion.update(prediction, label)
        if index in shown:
            write_label_png(work / "predictions" / f"{rows[index].id}.png", prediction, classes)
        if time.monotonic() - saved > STATE_SECONDS or index + 1 == len(rows):
            write_json(state, {"images": index + 1, "matrix": confusion.matrix.tolist()})
            saved = time.monotonic()
    if (work / "predictions").exists():
        half = shutil.ignore_patterns(".*")  # files that a kill left half written
        shutil.copytree(work / "predictions", out / "predictions", ignore=half, dirs_exist_ok=True)
    metrics = {"images": len(rows), **confusion.summary(classes.names)}
    write_json(out / "metrics.json", metrics)
    cells = [
        {"truth": truth, "prediction": prediction, "pixels": int(count)}
        for truth, counts in zip(classes.names, confusion.matrix, strict=True)
        for prediction, count in zip(classes.names, counts, strict=True)
    ]
    write_csv(out / "confusion.csv", ["truth", "prediction", "pixels"], cells)
