"""Pictures of a report: predictions of several models on one image (paper, Figure 7), and pseudo labels."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from segsemi.core.classes import Classes, colourise
from segsemi.core.pictures import GAP, captioned, grid, marked, shrunk

WIDTH = 1280  # pixels; such pictures are kept in git
Panel = tuple[str, np.ndarray]  # caption and (H, W, 3) uint8


def side_by_side(panels: Sequence[Panel], width: int = WIDTH) -> np.ndarray:
    """Return panels under their captions in one picture of at most `width` pixels: (H, W, 3) uint8."""
    each = (width + GAP) // len(panels) - GAP
    return grid([captioned(shrunk(picture, each), text) for text, picture in panels], columns=len(panels))


def comparison(
    image: np.ndarray,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    classes: Classes,
    *,
    before: str,
    after: str,
) -> list[Panel]:
    """Return panels of an image, its truth, each model's prediction, and what changed.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) class ids, like each of the `predictions` by its model's name.
        before, after: the names of two of them that are compared; if they are one, nothing is.
    """
    panels = [("image", image), ("truth", colourise(truth, classes))]
    panels += [(name, colourise(prediction, classes)) for name, prediction in predictions.items()]
    if before != after:
        difference = changed(truth, predictions[before], predictions[after], classes.ignore_index)
        panels.append((f"better, worse: {after}", difference))
    return panels


def pseudo_label_panels(
    image: np.ndarray, label: np.ndarray, confidence: np.ndarray, truth: np.ndarray | None, classes: Classes
) -> list[Panel]:
    """Return panels of an image, its pseudo label, the confidence from dark to yellow, and errors where the truth is known.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) class ids, like `truth`.
        confidence: (H, W) uint8, the probability of the chosen class; 255 for 1.
    """
    sure = matplotlib.colormaps["viridis"](confidence, bytes=True)[..., :3]
    panels = [("image", image), ("pseudo label", colourise(label, classes)), ("confidence", sure)]
    if truth is not None:
        wrong = (truth != label) & (truth != classes.ignore_index)
        panels.append(("errors", marked(image, wrong)))
    return panels


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
