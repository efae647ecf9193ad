"""Strong data augmentation for semantic segmentation, SAUG (paper, section 3.1 and Figure 1).

All operations are photometric: the label never changes. The names are those of Figure 1. The paper gives no magnitudes, so
the ranges are those of the authors' released code. That code reads each linear range at one fixed index (20 of 40), where
gamma is 1.01 and hue 0: no change at all. Here a value is drawn uniformly from the range for every image.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import cv2
import numpy as np
from scipy.special import ndtri, pdtr

Operation = Callable[..., np.ndarray]
"""(image uint8 HxWx3 RGB, rng: numpy Generator | None = None) -> uint8 HxWx3 RGB."""


# The operations have the distributions of imgaug's, with which the tests compare them, and are several times as fast: by
# tables of 256 values where a pixel's new value depends only on the old one, by OpenCV's functions, and with noise from few
# random bits. imgaug itself is not needed: it asks for the build of OpenCV that does not load on a server without a screen.

Generator = np.random.Generator
LEVELS = np.arange(256, dtype=np.float32)


def _by_table(table: Callable[[Generator], np.ndarray]) -> Operation:
    """Return the operation of `table`, which draws (256, 3) floats: the new value of each old one, per channel."""

    def operation(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
        values = np.rint(table(rng or np.random.default_rng())).clip(0, 255).astype(np.uint8)
        return _looked_up(image, values.T)

    return operation


def _looked_up(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Map each channel by its table, (3, 256) uint8; OpenCV does one after the other faster than all at once."""
    planes = [cv2.LUT(plane, table) for plane, table in zip(cv2.split(image), tables, strict=True)]
    return cv2.merge(planes)


def _contrast_gamma(rng: Generator) -> np.ndarray:
    return 255 * (LEVELS[:, None] / 255) ** rng.uniform(0.5, 1.5, 3)


def _contrast_linear(rng: Generator) -> np.ndarray:
    return 127 + rng.uniform(0.5, 2.0, 3) * (LEVELS[:, None] - 127)


def _multiply(rng: Generator) -> np.ndarray:
    return LEVELS[:, None] * rng.uniform(0.25, 2.5, 3)


# OpenCV adds and subtracts fast what is not negative.


def _brightness(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    value = float((rng or np.random.default_rng()).integers(-20, 50, endpoint=True))
    return (cv2.subtract if value < 0 else cv2.add)(image, np.full(4, abs(value)))


def _brightness_channel(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    values = (rng or np.random.default_rng()).integers(-20, 50, 3, endpoint=True)
    more, less = (np.append(part.clip(min=0), 0).astype(np.float64) for part in (values, -values))
    result = cv2.add(image, more)
    return cv2.subtract(result, less, dst=result)


def _solarize(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Invert values at or above a threshold, drawn from 64..192."""
    values = image.reshape(len(image), -1)
    threshold = int((rng or np.random.default_rng()).uniform(64, 192))
    _, inverted = cv2.threshold(values, threshold - 1, 255, cv2.THRESH_BINARY)  # OpenCV's is strictly above
    return cv2.bitwise_xor(values, inverted, dst=inverted).reshape(image.shape)


def _equalize(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Equalise the histogram of the lightness, L of Lab."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    cv2.insertChannel(cv2.equalizeHist(cv2.extractChannel(lab, 0)), lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)


def _hue_and_saturation(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Add a number from -20..20 to each of hue and saturation; 255 is once round the hues, of which OpenCV counts 180."""
    hue, saturation = (rng or np.random.default_rng()).integers(-20, 20, 2, endpoint=True)
    levels = np.arange(256)
    tables = [(levels + int(hue / 255 * 180)) % 180, (levels + saturation).clip(0, 255), levels]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(_looked_up(hsv, np.stack(tables).astype(np.uint8)), cv2.COLOR_HSV2RGB)


def _swap_red_and_blue(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def _shuffle_channels(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    return np.ascontiguousarray(image[..., (rng or np.random.default_rng()).permutation(3)])


def _blur(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Blur with a Gaussian whose sigma is drawn from 1.5..2 pixels; as imgaug's, the kernel is 3.3 sigma wide, and odd."""
    sigma = (rng or np.random.default_rng()).uniform(1.5, 2.0)
    side = max(int(3.3 * sigma), 5) | 1
    return cv2.GaussianBlur(image, (side, side), sigma)


def _random_16_bits(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16).reshape(shape)


# A distribution as a table: its inverse cumulative function at the middles of 2^16 equal parts. Looking numbers up by 16
# random bits takes a tenth of the time of drawing them.
MIDDLES = (np.arange(2**16) + 0.5) / 2**16
NORMAL = ndtri(MIDDLES).astype(np.float32)  # ends at 4.2 standard deviations
ARCSINE = np.rint(255 * np.sin(np.pi / 2 * MIDDLES) ** 2).astype(np.uint8)  # 255 Beta(1/2, 1/2)


def _plus(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Add (H, W) int16 to all channels of a pixel."""
    return cv2.add(image, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)


def _noise_gaussian(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Add a normal number to all channels of a pixel; the image's standard deviation is drawn from 0.03..0.08 of 255."""
    rng = rng or np.random.default_rng()
    table = np.rint(rng.uniform(0.03 * 255, 0.08 * 255) * NORMAL).astype(np.int16)
    return _plus(image, table[_random_16_bits(rng, image.shape[:2])])


def _noise_poisson(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Add a Poisson number of random sign to all channels of a pixel; the image's mean is drawn from 10..15."""
    rng = rng or np.random.default_rng()
    cumulative = pdtr(np.arange(80), rng.uniform(10, 15))  # a Poisson number of mean 15 is above 79 once in 10^30
    table = np.searchsorted(cumulative, MIDDLES).astype(np.int16)
    pixels = image.shape[0] * image.shape[1]
    signs = np.unpackbits(np.frombuffer(rng.bytes(pixels // 8 + 1), np.uint8), count=pixels).astype(np.int16)
    return _plus(image, (table[_random_16_bits(rng, (pixels,))] * (2 * signs - 1)).reshape(image.shape[:2]))


def _dropout(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Set a share of the values, per channel, to 0; the image's share is drawn from 0.2..0.5."""
    rng = rng or np.random.default_rng()
    share = rng.uniform(0.2, 0.5)
    return image * (_random_16_bits(rng, image.shape) >= share * 2**16)


def _salt_and_pepper(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Replace a share of the values, per channel, by 255 Beta(1/2, 1/2); the image's share is drawn from 0..0.1."""
    rng = rng or np.random.default_rng()
    share = rng.uniform(0.0, 0.1)
    chosen = np.flatnonzero(_random_16_bits(rng, (image.size,)) < share * 2**16)
    result = image.copy().reshape(-1)
    result[chosen] = ARCSINE[_random_16_bits(rng, (len(chosen),))]
    return result.reshape(image.shape)


def _coarse_dropout(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Set rectangles, per channel, to 0: a fifth of the cells of a grid whose sides are drawn from 2..5, at least 3."""
    rng = rng or np.random.default_rng()
    rows, columns = np.maximum(rng.integers(2, 5, 2, endpoint=True), 3)
    kept = np.where(rng.random((rows, columns, 3)) < 0.2, 0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    lines = cv2.resize(kept, (width, int(rows)), interpolation=cv2.INTER_NEAREST)  # one for each row of cells
    mask = lines[np.arange(height) * rows // height]
    return cv2.bitwise_and(image, mask, dst=mask)


def _jpeg(image: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Compress as JPEG; imgaug's compression, a whole number, is drawn from 85..94: quality 17 to 8."""
    compression = (rng or np.random.default_rng()).integers(85, 95)
    quality = round(1 + 99 * (1 - compression / 101))
    _, file = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


OPERATIONS: Mapping[str, Operation] = {
    "contrast_gamma": _by_table(_contrast_gamma),
    "contrast_linear": _by_table(_contrast_linear),
    "brightness": _brightness,
    "brightness_channel": _brightness_channel,
    "equalize": _equalize,
    "hsv": _hue_and_saturation,
    "invert_channel": _swap_red_and_blue,
    "blur": _blur,
    "noise_gau": _noise_gaussian,
    "noise_pos": _noise_poisson,
    "Channel_shuffle": _shuffle_channels,
    "dropout": _dropout,
    "coarse_dropout": _coarse_dropout,
    "multiply": _by_table(_multiply),
    "salt_pepper": _salt_and_pepper,
    "solarize": _solarize,
    "jpeg_compression": _jpeg,
}


def pool_without(names: Collection[str]) -> dict[str, Operation]:
    """Return all operations except those named."""
    return {name: operation for name, operation in OPERATIONS.items() if name not in names}


class StrongAugment:
    """Draw `num_ops` operations for every image and apply them one after the other.

    Args:
        num_ops: N of the paper's Figure 1.
        operations: the pool: names of OPERATIONS, or a mapping of name -> operation.
        rng: source of all randomness; a fresh, unseeded one if None.
        replace: draw with replacement and apply in drawn order, as `np.random.choice(Transforms, N)` of Figure 1 does;
            without, each operation occurs at most once per image, in the pool's order (the released code).

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
        """Return the names of the operations for the next image, in the order in which they are applied."""
        pool = list(self.operations)
        drawn = self.rng.choice(len(pool), self.num_ops, replace=self.replace)
        return [pool[i] for i in (drawn if self.replace else sorted(drawn))]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return an augmented copy, (H, W, 3) uint8 RGB, of an image, (H, W, 3) uint8 RGB."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 image of shape (H, W, 3), found {image.dtype} {image.shape}")
        image = image.copy()
        for name in self.draw():
            image = self.operations[name](image, self.rng)
        return image
