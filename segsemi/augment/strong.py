"""Strong data augmentation for semantic segmentation, SAUG (paper, section 3.1 and Figure 1).

All operations are photometric: the label never changes. The names are those of Figure 1; the paper gives no magnitudes, so
the ranges are those of the authors' released code. There each linear range is read at one fixed index (20 of 40), which
leaves gamma 1.01 and hue 0, that is no change at all; here a value is drawn uniformly from the range for every image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import imgaug.augmenters as iaa
    import imgaug.random

# imgaug seeds its own generator from numpy's global one at first use; it must leave that alone, and we never use it.
imgaug.random.GLOBAL_RNG = imgaug.random.RNG(0)

Operation = Callable[..., np.ndarray]
"""(image uint8 HxWx3 RGB, rng: numpy Generator | None = None) -> uint8 HxWx3 RGB."""


def _imgaug(augmenter: Callable[..., Any], *args: Any, **kwargs: Any) -> Operation:
    def operation(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        seed = int((rng or np.random.default_rng()).integers(2**31))
        return augmenter(*args, seed=seed, **kwargs).augment_image(image)

    return operation


def _swap_red_and_blue(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


# (from, to): one value drawn uniformly an image; per_channel: one a colour channel.
OPERATIONS: Mapping[str, Operation] = {
    "contrast_gamma": _imgaug(iaa.GammaContrast, (0.5, 1.5), per_channel=True),
    "contrast_linear": _imgaug(iaa.LinearContrast, (0.5, 2.0), per_channel=True),
    "brightness": _imgaug(iaa.Add, (-20, 50)),
    "brightness_channel": _imgaug(iaa.Add, (-20, 50), per_channel=True),
    "equalize": _imgaug(iaa.HistogramEqualization),
    "hsv": _imgaug(iaa.AddToHueAndSaturation, (-20, 20), per_channel=True),
    "invert_channel": _swap_red_and_blue,
    "blur": _imgaug(iaa.GaussianBlur, (1.5, 2.0)),  # sigma, pixels
    "noise_gau": _imgaug(iaa.AdditiveGaussianNoise, scale=(0.03 * 255, 0.08 * 255)),
    "noise_pos": _imgaug(iaa.AdditivePoissonNoise, lam=(10.0, 15.0)),
    "Channel_shuffle": _imgaug(iaa.ChannelShuffle, 1.0),
    "dropout": _imgaug(iaa.Dropout, (0.2, 0.5), per_channel=True),  # share of pixels
    "coarse_dropout": _imgaug(iaa.CoarseDropout, 0.2, size_px=(2, 5), per_channel=True),  # a mask of 2..5 px, enlarged
    "multiply": _imgaug(iaa.Multiply, (0.25, 2.5), per_channel=True),
    "salt_pepper": _imgaug(iaa.SaltAndPepper, (0.0, 0.1), per_channel=True),
    "solarize": _imgaug(iaa.Solarize, p=1.0),
    "jpeg_compression": _imgaug(iaa.JpegCompression, compression=(85, 95)),
}


class StrongAugment:
    """Draws `num_ops` operations for every image and applies them one after the other.

    Args:
        num_ops: N of the paper's Figure 1.
        operations: the pool: names of OPERATIONS, or a mapping of name -> operation.
        rng: source of all randomness; a fresh, unseeded one if None.
        replace: draw with replacement and apply in drawn order, as `np.random.choice(Transforms, N)` of Figure 1 does;
            without, an operation comes at most once an image, in the pool's order (the released code).

    Raises:
        ValueError: for an unknown name, an empty pool, or more operations than the pool has without replacement.
    """

    def __init__(
        self,
        num_ops: int,
        operations: Mapping[str, Operation] | Iterable[str] = OPERATIONS,
        rng: np.random.Generator | None = None,
        *,
        replace: bool = True,
    ) -> None:
        if not isinstance(operations, Mapping):
            names = [operations] if isinstance(operations, str) else list(operations)
            unknown = [name for name in names if name not in OPERATIONS]
            if unknown:
                raise ValueError(f"unknown operations {unknown}; known: {', '.join(OPERATIONS)}")
            operations = {name: OPERATIONS[name] for name in names}
        if num_ops < 0 or not operations or (not replace and num_ops > len(operations)):
            raise ValueError(f"cannot draw {num_ops} operations from a pool of {len(operations)} (replace={replace})")
        self.num_ops = num_ops
        self.operations = dict(operations)
        self.rng = rng or np.random.default_rng()
        self.replace = replace

    def draw(self) -> list[str]:
        """The names of the operations for the next image, in the order in which they are applied."""
        pool = list(self.operations)
        drawn = self.rng.choice(len(pool), self.num_ops, replace=self.replace)
        return [pool[i] for i in (drawn if self.replace else sorted(drawn))]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 HxWx3 RGB -> uint8 HxWx3 RGB; the input is left as it was."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 image of shape (H, W, 3), found {image.dtype} {image.shape}")
        image = image.copy()
        for name in self.draw():
            image = self.operations[name](image, self.rng)
        return image
