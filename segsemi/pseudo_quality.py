"""The quality of pseudo labels: confidence, share of each class, and errors where hidden labels tell."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segsemi.core.classes import Classes
from segsemi.core.files import write_json
from segsemi.data.images import read_label
from segsemi.data.manifest import Row, evenly_spread
from segsemi.metrics import ConfusionMatrix

EXAMPLES = 4


def write_quality(
    pseudo: Path, labelled: Sequence[Row], hidden: Sequence[Row], root: Path, classes: Classes, out: Path
) -> dict[str, Any]:
    """Compare pseudo labels with the labels of the labelled images, and with those that training never sees.

    Writes to `out`: quality.json, and EXAMPLES of the pseudo labels, ID.png and confidence/ID.png, for the report.

    Args:
        pseudo: the folder of ID.png, summary.csv and confidence/.
        labelled: rows with the labels of the labelled images.
        hidden: rows with the hidden labels; may be empty, for data without any.

    Returns:
        The content of quality.json. images: number of hidden labels. confidence, pseudo_labels, labels: mean probability of
        the chosen class, and class name -> share of the pixels, if there are pseudo labels. And the metrics of
        `ConfusionMatrix.summary`, if there are hidden labels.
    """
    quality: dict[str, Any] = {"images": len(hidden)}
    summary = pd.read_csv(pseudo / "summary.csv", dtype={"id": str}, na_filter=False).set_index("id")
    if len(summary):
        counts = np.zeros(256)
        for row in labelled:
            counts += np.bincount(read_label(root / row.label, classes).ravel(), minlength=256)
        confidence, *shares = summary.mean().round(6).tolist()
        quality |= {"confidence": confidence, "pseudo_labels": dict(zip(classes.names, shares, strict=True))}
        known = counts[: len(classes)] / max(counts[: len(classes)].sum(), 1)
        quality["labels"] = dict(zip(classes.names, known.round(6).tolist(), strict=True))
    if hidden:
        confusion = ConfusionMatrix(len(classes), classes.ignore_index)
        for row in hidden:
            label = read_label(root / row.label, classes)
            prediction = read_label(pseudo / f"{row.id}.png", classes.as_written())
            label[prediction == classes.ignore_index] = classes.ignore_index
            confusion.update(prediction, label)
        quality |= confusion.summary(classes.names)
    write_json(out / "quality.json", quality)
    (out / "confidence").mkdir(exist_ok=True)
    for name in evenly_spread(list(summary.index), EXAMPLES):
        for path in (f"{name}.png", f"confidence/{name}.png"):
            shutil.copyfile(pseudo / path, out / path)
    return quality
