"""Measure a model on labelled images: metrics of all pixels and of each image, confusion matrix, predictions."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import EvaluateParams
from segsemi.core.errors import UserError
from segsemi.core.files import has_content, write_csv, write_json, write_text
from segsemi.core.progress import progress_bar
from segsemi.data.images import LabelledPairs
from segsemi.data.loaders import load_items
from segsemi.data.manifest import Row
from segsemi.inference import predict_label
from segsemi.metrics import BINS, ConfusionMatrix, expected_calibration_error, reliability, rounded
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

    Writes to `out`: metrics.json, confusion.csv, images.csv (metrics of each image), calibration.csv (accuracy by confidence)
    and predictions/ID.png (class ids).

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
    images, calibration = list[dict[str, Any]](), np.zeros((BINS, 3))  # metrics of each; of all
    saved = time.monotonic()
    if has_content(state):  # of an interrupted run
        counted = json.loads(state.read_text())
        images, confusion.matrix[:], calibration[:] = counted["images"], counted["matrix"], counted["calibration"]
    start = len(images)
    loader = load_items(pairs, range(start, len(rows)), runtime)
    bar = progress_bar(loader, initial=start, total=len(rows), desc=f"evaluate {out.name}", unit="image")
    how = settings.scales, settings.flip, settings.window
    for row, (image, label) in zip(rows[start:], bar, strict=True):
        own = ConfusionMatrix(len(classes))
        prediction, confidence = predict_label(model, image, *how)
        own.update(prediction, label)
        confusion.matrix += own.matrix
        known = label != classes.ignore_index
        calibration += reliability(confidence[known], (prediction == label)[known])
        write_label_png(work / "predictions" / f"{row.id}.png", prediction, classes)
        images.append({"id": row.id, **own.summary(classes.names)})
        if time.monotonic() - saved > STATE_SECONDS or len(images) == len(rows):
            write_json(
                state, {"images": images, "matrix": confusion.matrix.tolist(), "calibration": calibration.tolist()}
            )
            saved = time.monotonic()
    half = shutil.ignore_patterns(".*")  # files that a kill left half written
    shutil.copytree(work / "predictions", out / "predictions", ignore=half, dirs_exist_ok=True)
    write_csv(out / "images.csv", ["id", "miou", "mean_dice", "pixel_accuracy"], images)
    facts: dict[str, Any] = {"subset": settings.subset, "weights": weights, "images": len(rows)}
    facts["calibration_error"] = rounded(expected_calibration_error(calibration))
    write_json(out / "metrics.json", facts | confusion.summary(classes.names))
    cells = [
        {"truth": truth, "prediction": prediction, "pixels": int(count)}
        for truth, counts in zip(classes.names, confusion.matrix, strict=True)
        for prediction, count in zip(classes.names, counts, strict=True)
    ]
    write_csv(out / "confusion.csv", ["truth", "prediction", "pixels"], cells)
    bins = pd.DataFrame(calibration, columns=["pixels", "confidence", "accuracy"])
    bins[["confidence", "accuracy"]] = bins[["confidence", "accuracy"]].div(bins["pixels"], axis=0)  # no pixel: empty
    write_text(out / "calibration.csv", bins.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
