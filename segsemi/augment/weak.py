"""Weak augmentation: random scale, crop and left-right flip (paper, section 4.1; Basic_transforms of Figure 1)."""

from __future__ import annotations

import cv2
import numpy as np

FILL = 128  # padding: 0 under a mean of 0.5, near it under ImageNet's


def resize_pair(
    image: np.ndarray, label: np.ndarray | None, height: int, width: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize an image (bilinear; pixel areas when shrinking a lot) and its label (nearest) to (height, width).

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8, or None.
    """
    if image.shape[:2] == (height, width):
        return image, label
    shrinks = height < image.shape[0] and width < image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if label is None:
        return resized, None
    # _EXACT: the same pixel centres as the bilinear image; plain INTER_NEAREST shifts labels by half a pixel.
    return resized, cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def scaled_to_short_side(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """The size at which an image enters the network: shrunk, never enlarged, so that its shorter side is `short_side`."""
    if short_side is None or min(height, width) <= short_side:
        return height, width
    factor = short_side / min(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def weak_augment(
    image: np.ndarray,
    label: np.ndarray,
    rng: np.random.Generator,
    *,
    crop_size: int,
    scale_range: tuple[float, float] = (0.5, 2.0),
    flip: bool = True,
    ignore_index: int = 255,
) -> tuple[np.ndarray, np.ndarray]:
    """Random scale, then a random crop (padded where the image is smaller), then a flip with probability 1/2.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids.

    Returns:
        image (crop_size, crop_size, 3) uint8 and label (crop_size, crop_size) uint8; padding is grey and ignore_index.
    """
    scale = rng.uniform(*scale_range)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image, scaled_label = resize_pair(image, label, height, width)
    assert scaled_label is not None
    top = int(rng.integers(max(height - crop_size, 0) + 1))
    left = int(rng.integers(max(width - crop_size, 0) + 1))
    image = image[top : top + crop_size, left : left + crop_size]
    label = scaled_label[top : top + crop_size, left : left + crop_size]
    pad_bottom, pad_right = crop_size - image.shape[0], crop_size - image.shape[1]
    if pad_bottom or pad_right:
        image = np.pad(image, ((0, pad_bottom), (0, pad_right), (0, 0)), constant_values=FILL)
        label = np.pad(label, ((0, pad_bottom), (0, pad_right)), constant_values=ignore_index)
    if flip and rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)
