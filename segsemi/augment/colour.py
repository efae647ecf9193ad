"""The strong augmentation of FixMatch and its relatives: colour jitter, greyscale and blur (as in UniMatch's code)."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

JITTER, GREY, BLUR = 0.8, 0.2, 0.5  # probabilities
HUE = 0.25  # of the circle, in both directions
RADIUS = (0.1, 2.0)  # of the blur, pixels


def colour_augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Jitter brightness, contrast, saturation and hue in random order, then perhaps make grey, then perhaps blur.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        An image like it; nothing moves.
    """
    picture = Image.fromarray(image)
    if rng.random() < JITTER:
        factors, turn = rng.uniform(0.5, 1.5, 3), rng.uniform(-HUE, HUE)
        steps: list[Callable[[Image.Image], Image.Image]] = [
            lambda p: ImageEnhance.Brightness(p).enhance(factors[0]),
            lambda p: ImageEnhance.Contrast(p).enhance(factors[1]),
            lambda p: ImageEnhance.Color(p).enhance(factors[2]),
            lambda p: _turned(p, turn),
        ]
        for index in rng.permutation(4):
            picture = steps[index](picture)
    if rng.random() < GREY:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < BLUR:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*RADIUS)))
    return np.array(picture)


def _turned(picture: Image.Image, turn: float) -> Image.Image:
    """Add `turn`, a share of the circle, to the hue."""
    hsv = np.array(picture.convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * 255) % 256)  # wraps round, as hues do
    return Image.fromarray(hsv, "HSV").convert("RGB")
