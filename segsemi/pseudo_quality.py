"""The quality of pseudo labels, measured against hidden labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segsemi.core.classes import Classes
from segsemi.data.images import read_label
from segsemi.data.manifest import Row
from segsemi.metrics import ConfusionMatrix


def measure_quality(pseudo: Path, hidden: Sequence[Row], root: Path, classes: Classes) -> dict[str, Any]:
    """Compare pseudo labels with the labels that training never sees.

    Args:
        pseudo: the folder of ID.png.
        hidden: rows with the hidden labels; may be empty, for data without any.

    Returns:
        images; and, where there are any, miou, pixel_accuracy and iou (class name -> IoU, null where absent).
    """
    if not hidden:
        return {"images": 0}
    confusion = ConfusionMatrix(len(classes), classes.ignore_index)
    for row in hidden:
        label = read_label(root / row.label, classes)
        prediction = read_label(pseudo / f"{row.id}.png", classes.as_written())
        label[prediction == classes.ignore_index] = classes.ignore_index
        confusion.update(prediction, label)
    return {"images": len(hidden), **confusion.summary(classes.names)}
