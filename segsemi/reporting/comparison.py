"""Predictions of several models on the same images, side by side (paper, Figure 7)."""

from collections.abc import Mapping

import numpy as np

from segsemi.core.classes import Classes, colourise
from segsemi.core.pictures import GAP, captioned, grid, shrunk

WIDTH = 1280  # pixels; such pictures are kept in git


def comparison(
    image: np.ndarray,
    caption: str,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    classes: Classes,
    *,
    before: str,
    after: str,
    width: int = WIDTH,
) -> np.ndarray:
    """Draw an image, its truth, each model's prediction, and what changed, side by side.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) class ids, like each of the `predictions` by its model's name.
        before, after: the names of two of them that are compared; if they are one, nothing is.
        width: of the whole at most, in pixels.

    Returns:
        (H', W', 3) uint8.
    """
    panel = [(caption, image), ("truth", colourise(truth, classes))]
    panel += [(name, colourise(prediction, classes)) for name, prediction in predictions.items()]
    if before != after:
        difference = changed(truth, predictions[before], predictions[after], classes.ignore_index)
        panel.append((f"better, worse: {after}", difference))
    each = (width + GAP) // len(panel) - GAP
    return grid([captioned(shrunk(picture, each), text) for text, picture in panel], columns=len(panel))


def changed(truth: np.ndarray, before: np.ndarray, after: np.ndarray, ignore_index: int) -> np.ndarray:
    """Draw where two predictions differ.

    Args:
        truth, before, after: (H, W) class ids.

    Returns:
        (H, W, 3) uint8: green where `after` corrects an error of `before`, red where it makes one; the truth's ignored pixels
        and all others are grey.
    """
    counted = truth != ignore_index
    picture = np.full((*truth.shape, 3), 225, dtype=np.uint8)
    picture[counted & (before != truth) & (after == truth)] = (42, 127, 63)
    picture[counted & (before == truth) & (after != truth)] = (179, 64, 47)
    return picture
