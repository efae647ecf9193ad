"""Weak augmentation: random scale, crop and left-right flip (paper, section 4.1; Basic_transforms of Figure 1)."""

import numpy as np

from segsemi.core.resize import resize_image, resize_label

FILL = 128  # padding: 0 under a mean of 0.5, near it under ImageNet's


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
    """Scale at random, crop at random (padding a smaller image), then flip with probability 1/2.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids.

    Returns:
        image (crop_size, crop_size, 3) uint8 and label (crop_size, crop_size) uint8; padding is grey and ignore_index.
    """
    scale = rng.uniform(*scale_range)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image, label = resize_image(image, height, width), resize_label(label, height, width)
    top = int(rng.integers(max(height - crop_size, 0) + 1))
    left = int(rng.integers(max(width - crop_size, 0) + 1))
    image = image[top : top + crop_size, left : left + crop_size]
    label = label[top : top + crop_size, left : left + crop_size]
    pad_bottom, pad_right = crop_size - image.shape[0], crop_size - image.shape[1]
    if pad_bottom or pad_right:
        image = np.pad(image, ((0, pad_bottom), (0, pad_right), (0, 0)), constant_values=FILL)
        label = np.pad(label, ((0, pad_bottom), (0, pad_right)), constant_values=ignore_index)
    if flip and rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)
