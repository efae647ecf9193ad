"""The confusion matrix and what is derived from it, against scikit-learn."""

import json

import numpy as np
import pytest
import sklearn.metrics
import torch

from segsemi.metrics import ConfusionMatrix

CLASSES = 5


def example(seed: int = 0, ignored: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth (2, 20, 30): more often right than wrong, some pixels ignored."""
    rng = np.random.default_rng(seed)
    target = rng.integers(CLASSES, size=(2, 20, 30), dtype=np.uint8)
    prediction = np.where(rng.random(target.shape) < 0.6, target, rng.integers(CLASSES, size=target.shape))
    target[rng.random(target.shape) < ignored] = 255
    return prediction.astype(np.uint8), target


def counted(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return target[target != 255], prediction[target != 255]


def confusion(prediction: np.ndarray, target: np.ndarray) -> ConfusionMatrix:
    result = ConfusionMatrix(CLASSES, 255)
    result.update(prediction, target)
    return result


def test_equals_scikit_learn() -> None:
    prediction, target = example()
    kept = prediction.copy(), target.copy()
    result, (truth, predicted) = confusion(prediction, target), counted(prediction, target)
    assert np.array_equal(prediction, kept[0]) and np.array_equal(target, kept[1])
    np.testing.assert_array_equal(result.matrix, sklearn.metrics.confusion_matrix(truth, predicted))
    np.testing.assert_allclose(result.iou(), sklearn.metrics.jaccard_score(truth, predicted, average=None))
    np.testing.assert_allclose(result.dice(), sklearn.metrics.f1_score(truth, predicted, average=None))
    np.testing.assert_allclose(result.precision(), sklearn.metrics.precision_score(truth, predicted, average=None))
    np.testing.assert_allclose(result.recall(), sklearn.metrics.recall_score(truth, predicted, average=None))
    assert result.miou() == pytest.approx(sklearn.metrics.jaccard_score(truth, predicted, average="macro"))
    assert result.pixel_accuracy() == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))


@pytest.mark.parametrize("ignore_index", [255, 77])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_tensors_and_arrays_count_alike(dtype: torch.dtype, ignore_index: int) -> None:
    prediction, target = example()
    result, other = ConfusionMatrix(CLASSES, ignore_index), np.where(target == 255, ignore_index, target)
    result.update(torch.from_numpy(prediction).to(dtype), torch.from_numpy(other).to(dtype))
    np.testing.assert_array_equal(result.matrix, confusion(prediction, target).matrix)


def test_updates_add_up() -> None:
    """Image by image, of several sizes, equals all pixels at once: the mean is not one of images."""
    prediction, target = example()
    result = ConfusionMatrix(CLASSES)
    result.update(prediction[0], target[0])
    result.update(prediction[1, :7], target[1, :7])
    result.update(prediction[1, 7:, :, None], target[1, 7:, :, None])
    np.testing.assert_array_equal(result.matrix, confusion(prediction, target).matrix)


@pytest.mark.parametrize(("num_classes", "ignore_index"), [(5, 255), (250, 3), (255, 255), (256, -1), (300, 400)])
def test_bytes_count_as_other_integers_do(num_classes: int, ignore_index: int) -> None:
    """Errors too: ids up to 255 are looked at, some of them ignored."""
    rng = np.random.default_rng(0)
    counted = 0
    for highest in (num_classes, 256):
        prediction, target = rng.integers(min(highest, 256), size=(2, 40, 50), dtype=np.uint8)
        outcomes: list[object] = []
        for dtype in (np.uint8, np.int64):
            result = ConfusionMatrix(num_classes, ignore_index)
            try:
                result.update(prediction.astype(dtype), target.astype(dtype))
                counted += result.matrix.sum()
                outcomes.append(result.matrix.tolist())
            except ValueError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
    assert counted > 0


def test_nothing_counted_is_not_a_number() -> None:
    result = ConfusionMatrix(3)
    assert np.isnan(result.iou()).all() and np.isnan(result.miou()) and np.isnan(result.pixel_accuracy())
    result.update(np.zeros((2, 2), int), np.full((2, 2), 255))
    assert np.isnan(result.miou()) and result.matrix.sum() == 0


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([[0, 1]], [0, 1], r"shape \(1, 2\), target \(2,\)"),
        ([0, 5, 1], [0, 1, 1], r"prediction has ids \[5\] outside 0..4"),
        ([0, 255], [0, 1], r"prediction has ids \[255\]"),
        ([0, 1], [0, 17], r"target has ids \[17\] outside 0..4"),
        ([0, 1], [0, -1], r"target has ids \[-1\]"),
        ([0.0, 1.0], [0, 1], "prediction must hold integer class ids, found dtype float64"),
        ([0, 1], [True, False], "target must hold integer class ids, found dtype bool"),
    ],
)
def test_wrong_input_is_refused_and_not_counted(prediction: list[float], target: list[float], message: str) -> None:
    result = ConfusionMatrix(CLASSES)
    with pytest.raises(ValueError, match=message):
        result.update(np.array(prediction), np.array(target))
    assert result.matrix.sum() == 0
    with pytest.raises(ValueError, match="at least 1, found 0"):
        ConfusionMatrix(0)


def test_an_ignored_pixel_may_be_predicted_as_anything() -> None:
    result = ConfusionMatrix(2)
    result.update(np.array([1, 200]), np.array([1, 255]))
    assert result.matrix.tolist() == [[0, 0], [0, 1]]


def test_summary_is_json_with_null_for_what_is_undefined() -> None:
    """Class b is predicted and never true, c is true and never predicted, d is neither."""
    result, names = ConfusionMatrix(4), ["a", "b", "c", "d"]
    empty = json.loads(json.dumps(result.summary(names), allow_nan=False))
    whole, by_class = ("miou", "mean_dice", "pixel_accuracy"), ("iou", "dice", "precision", "recall")
    assert empty == dict.fromkeys(whole) | {metric: dict.fromkeys(names) for metric in by_class}
    result.update(np.array([0, 1, 0]), np.array([0, 0, 2]))
    assert result.matrix.tolist() == [[1, 1, 0, 0], [0] * 4, [1, 0, 0, 0], [0] * 4]  # row: truth
    assert json.loads(json.dumps(result.summary(names), allow_nan=False)) == {
        "miou": 0.111111,
        "mean_dice": 0.166667,
        "pixel_accuracy": 0.333333,
        "iou": {"a": 0.333333, "b": 0.0, "c": 0.0, "d": None},
        "dice": {"a": 0.5, "b": 0.0, "c": 0.0, "d": None},
        "precision": {"a": 0.5, "b": 0.0, "c": None, "d": None},
        "recall": {"a": 0.5, "b": None, "c": 0.0, "d": None},
    }
    with pytest.raises(ValueError):
        result.summary(["a", "b"])
