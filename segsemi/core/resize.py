"""Resizing of images and their labels."""

import cv2
import numpy as np


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, at another size: bilinear, or the mean over pixel areas if both sides shrink."""
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a label, (H, W) uint8, at another size: the nearest pixel."""
    # _EXACT: the same pixel centres as the bilinear image; plain INTER_NEAREST shifts labels by half a pixel.
    return cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def scaled_to_short_side(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Return the size at which an image enters the network: its shorter side is `short_side` at most."""
    if short_side is None or min(height, width) <= short_side:
        return height, width
    factor = short_side / min(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))
