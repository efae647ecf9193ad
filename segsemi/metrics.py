"""Segmentation metrics from one confusion matrix (rows truth, columns prediction), and calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15  # of confidence (Guo et al. 2017)


class ConfusionMatrix:
    """Pixel counts over images, from which every metric is derived.

    Attributes:
        matrix: (num_classes, num_classes) int64, matrix[t, p] = pixels of truth t predicted as p.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, found {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, prediction: Any, target: Any) -> None:
        """Count one image or batch.

        Args:
            prediction: class ids, any shape, integer array or tensor.
            target: class ids of the same shape; pixels equal to `ignore_index` do not count.

        Raises:
            ValueError: shapes differ, or an id of a counted pixel is outside 0..num_classes-1.
        """
        prediction, target = _integers(prediction, "prediction"), _integers(target, "target")
        if prediction.shape != target.shape:
            raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}; they must be equal")
        if prediction.dtype == target.dtype == np.uint8 and self.num_classes <= 256:
            return self._update_bytes(prediction, target)
        counted = target != self.ignore_index
        prediction, target = prediction[counted].astype(np.int64), target[counted].astype(np.int64)
        self._check(prediction=prediction, target=target)
        counts = np.bincount(target * self.num_classes + prediction, minlength=self.num_classes**2)
        self.matrix += counts.reshape(self.num_classes, self.num_classes)

    def _update_bytes(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Count uint8 ids six times as fast: count all pairs of bytes first, then check them."""
        pairs = target.astype(np.uint16)
        pairs <<= 8
        pairs |= prediction
        counts = np.bincount(pairs.ravel(), minlength=2**16).reshape(256, 256)
        if 0 <= self.ignore_index < 256:
            counts[self.ignore_index] = 0
        targets, predictions = np.nonzero(counts)
        self._check(prediction=predictions, target=targets)
        self.matrix += counts[: self.num_classes, : self.num_classes]

    def _check(self, **ids: np.ndarray) -> None:
        for name, values in ids.items():
            wrong = np.unique(values[(values < 0) | (values >= self.num_classes)])
            if wrong.size:
                raise ValueError(f"{name} has ids {wrong[:5].tolist()} outside 0..{self.num_classes - 1}")

    def iou(self) -> np.ndarray:
        """(num_classes,) float64: TP / (TP + FP + FN); NaN for a class in neither truth nor prediction."""
        right = np.diag(self.matrix)
        return _ratio(right, self.matrix.sum(0) + self.matrix.sum(1) - right)

    def dice(self) -> np.ndarray:
        """(num_classes,) float64: 2 TP / (2 TP + FP + FN), also called F1; NaN for a class in neither truth nor prediction."""
        return _ratio(2 * np.diag(self.matrix), self.matrix.sum(0) + self.matrix.sum(1))

    def precision(self) -> np.ndarray:
        """(num_classes,) float64: TP / (TP + FP); NaN for a class that was never predicted."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(0))

    def recall(self) -> np.ndarray:
        """(num_classes,) float64: TP / (TP + FN); NaN for a class that the truth lacks."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(1))

    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction; NaN when nothing was counted."""
        return _mean(self.iou())

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels predicted correctly; NaN when nothing was counted."""
        total = int(self.matrix.sum())
        return float(np.trace(self.matrix)) / total if total else float("nan")

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Return all metrics, to 6 digits; None where not defined (JSON has no NaN).

        Keys: miou, mean_dice, pixel_accuracy; and iou, dice, precision, recall, each a dict class name -> value.
        """
        whole = {"miou": self.miou(), "mean_dice": _mean(self.dice()), "pixel_accuracy": self.pixel_accuracy()}
        by_class = {"iou": self.iou(), "dice": self.dice(), "precision": self.precision(), "recall": self.recall()}
        return {name: rounded(value) for name, value in whole.items()} | {
            name: dict(zip(names, map(rounded, values), strict=True)) for name, values in by_class.items()
        }


def reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count predictions by their confidence, in BINS bins of equal width; tables of several images add up.

    Args:
        confidence: (N,), the probability of each predicted class; a bin includes its upper end.
        right: (N,) bool, whether it is the true class.

    Returns:
        (BINS, 3) float64: number of predictions, sum of their confidence, number of right ones.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = [np.bincount(bins, weights, minlength=BINS) for weights in (None, confidence, right)]
    return np.stack(counts, axis=1).astype(np.float64)


def expected_calibration_error(table: np.ndarray) -> float:
    """Return the mean distance of confidence and accuracy over the bins of `reliability`, weighted by their counts.

    It is NaN if nothing was counted (Guo et al. 2017, equation 3).
    """
    total = table[:, 0].sum()
    return float(np.abs(table[:, 1] - table[:, 2]).sum() / total) if total else float("nan")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def rounded(value: float) -> float | None:
    """Return a number to 6 digits; None for NaN, which JSON lacks."""
    return None if np.isnan(value) else round(float(value), 6)


def _integers(values: Any, name: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on any device
        values = values.detach().cpu().numpy()
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integer class ids, found dtype {values.dtype}; take the argmax first")
    return values
