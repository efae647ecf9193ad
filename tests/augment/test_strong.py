"""SAUG: the seventeen operations of the paper's Figure 1, and how they are drawn and applied."""

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from segsemi.augment.strong import OPERATIONS, StrongAugment, pool_without
from segsemi.core.config import SAUG_OPERATIONS
from segsemi.datasets import scenes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import imgaug.augmenters as iaa

ALWAYS_ALIKE = {"equalize", "invert_channel"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A dim street scene with noise: every operation has something to do on it."""
    image, _ = scenes.scene(rng(5))
    noisy = image[-120:-9, :151].astype(float) * 0.8 + 10 + rng().normal(0, 3, (111, 151, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def test_the_pool_is_that_of_figure_1() -> None:
    assert list(OPERATIONS) == list(SAUG_OPERATIONS) and len(OPERATIONS) == 17
    assert list(pool_without(["hsv", "blur"])) == [name for name in OPERATIONS if name not in ("hsv", "blur")]


def test_channels_are_shuffled_in_all_orders_alike() -> None:
    image = np.full((4, 4, 3), (1, 2, 3), np.uint8)
    orders = Counter(tuple(OPERATIONS["Channel_shuffle"](image, rng(seed))[0, 0].tolist()) for seed in range(600))
    assert len(orders) == 6 and all(60 < count < 145 for count in orders.values())  # 100 each, and 4 deviations


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_a_function_of_image_and_generator(name: str, photo: np.ndarray) -> None:
    operation, kept = OPERATIONS[name], photo.copy()
    results = [operation(photo, rng(seed)) for seed in range(8)]
    assert np.array_equal(results[1], operation(photo, rng(1)))
    assert len({result.tobytes() for result in results}) >= (1 if name in ALWAYS_ALIKE else 3)
    assert all(result.shape == photo.shape and result.dtype == np.uint8 for result in results)
    changed = sum(not np.array_equal(result, photo) for result in results)
    assert changed >= (4 if name == "Channel_shuffle" else 7)  # a shuffle into the old order, or + 0, may come
    assert np.array_equal(photo, kept) and not any(np.shares_memory(result, photo) for result in results)
    assert operation(photo).shape == photo.shape  # a generator of its own
    for size in ((37, 53), (2, 3), (1, 7)):
        result = operation(np.ascontiguousarray(photo[: size[0], : size[1]]), rng())
        assert result.shape == (*size, 3) and result.dtype == np.uint8
    view = photo[::2, ::-1, ::-1]  # every other row, mirrored, channels reversed
    assert not view.flags.c_contiguous
    assert np.array_equal(operation(view, rng(3)), operation(np.ascontiguousarray(view), rng(3)))


# An independent implementation of the same distributions.
IMGAUG = {
    "contrast_gamma": iaa.GammaContrast((0.5, 1.5), per_channel=True),
    "contrast_linear": iaa.LinearContrast((0.5, 2.0), per_channel=True),
    "brightness": iaa.Add((-20, 50)),
    "brightness_channel": iaa.Add((-20, 50), per_channel=True),
    "noise_gau": iaa.AdditiveGaussianNoise(scale=(0.03 * 255, 0.08 * 255)),
    "noise_pos": iaa.AdditivePoissonNoise((10.0, 15.0)),
    "dropout": iaa.Dropout((0.2, 0.5), per_channel=True),
    "coarse_dropout": iaa.CoarseDropout(0.2, size_px=(2, 5), per_channel=True),
    "multiply": iaa.Multiply((0.25, 2.5), per_channel=True),
    "salt_pepper": iaa.SaltAndPepper((0.0, 0.1), per_channel=True),
    "solarize": iaa.Solarize(p=1.0),
}


# The same with the numbers that ours draws from a generator. OpenCV's JPEG codec and Pillow's are both libjpeg-turbo.
EXACT: dict[str, Callable[[np.random.Generator], iaa.Augmenter]] = {
    "equalize": lambda chance: iaa.HistogramEqualization(),
    "hsv": lambda chance: iaa.AddToHueAndSaturation(None, *chance.integers(-20, 20, 2, endpoint=True).tolist()),
    "blur": lambda chance: iaa.GaussianBlur(sigma=float(chance.uniform(1.5, 2.0))),
    "jpeg_compression": lambda chance: iaa.JpegCompression(compression=int(chance.integers(85, 95))),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:imgaug", "ignore::DeprecationWarning:imageio")
@pytest.mark.parametrize("name", EXACT)
def test_operation_is_imgaugs_to_the_pixel(name: str, photo: np.ndarray) -> None:
    for seed in range(5):
        expected = EXACT[name](rng(seed)).augment_image(photo)
        assert np.array_equal(OPERATIONS[name](photo, rng(seed)), expected)


@pytest.mark.parametrize("name", IMGAUG)
def test_distribution_is_that_of_imgaug(name: str) -> None:
    """Two-sample tests over many images: of one pixel's new value, and of spread, shape and sign within an image."""
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    image[4:] = 170
    generator, number = rng(7), 1500
    ours = np.stack([OPERATIONS[name](image, generator) for _ in range(number)]).astype(float)
    other = iaa.Sequential([IMGAUG[name]], seed=3)
    theirs = np.stack([other.augment_image(image) for _ in range(number)]).astype(float)
    for statistic in (
        lambda x: x[:, 0, 0, 0],
        lambda x: x[:, 7, 7, 2],
        lambda x: x[:, :4].std((1, 2, 3)),
        lambda x: x[..., 0].mean((1, 2)) - x[..., 1].mean((1, 2)),
        lambda x: 4 * np.abs(x[:, :4] - 100).mean((1, 2, 3)),
        lambda x: 100 * np.abs(x[:, :4] - 100).mean((1, 2, 3)) / (1 + x[:, :4].std((1, 2, 3))),  # shape of noise
        lambda x: 100 * np.sign(x[:, :4] - 100).mean((1, 2, 3)),
    ):
        a, b = np.sort(statistic(ours)), np.sort(statistic(theirs))
        # the largest gap between the cumulative distributions, forgiving a rounding of half a level
        grid = np.unique(np.concatenate([a, b]))
        below = [np.searchsorted(x, grid + shift, side="right") / len(x) for x in (a, b) for shift in (-1.01, 1.01)]
        gap = np.maximum(below[0] - below[3], below[2] - below[1]).max()
        assert gap < 1.95 * np.sqrt(2 / number)  # Kolmogorov-Smirnov, one in a thousand


def test_coarse_dropout_drops_cells_of_a_grid() -> None:
    """A fifth of them, each channel apart, of 3 to 5 rows and columns that differ in size by a pixel at most."""
    image = np.full((61, 83, 3), 100, dtype=np.uint8)
    results = [OPERATIONS["coarse_dropout"](image, rng(seed)) for seed in range(400)]
    assert np.mean([result == 0 for result in results]) == pytest.approx(0.2, abs=0.02)
    for result in results:
        rows = [np.flatnonzero(np.diff(result.astype(int), axis=axis).any((1 - axis, 2))) + 1 for axis in (0, 1)]
        for edges, length in zip(rows, image.shape[:2], strict=True):
            assert any({round(k * length / n + 0.49) for k in range(1, n)} >= set(edges.tolist()) for n in (3, 4, 5))


def test_numpys_global_generator_is_left_alone(photo: np.ndarray) -> None:
    before = np.random.get_state()  # noqa: NPY002
    for operation in OPERATIONS.values():
        operation(photo, rng())
    StrongAugment(3, rng=rng())(photo)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_augmentation_repeats_with_its_generator(photo: np.ndarray) -> None:
    kept = photo.copy()
    first, again = StrongAugment(3, rng=rng(4)), StrongAugment(3, rng=rng(4))
    images = [first(photo) for _ in range(4)]
    assert all(np.array_equal(image, again(photo)) for image in images)
    assert len({image.tobytes() for image in images}) == 4  # every image gets its own draw
    assert np.array_equal(photo, kept)
    assert not np.array_equal(StrongAugment(3, rng=rng(5))(photo), images[0])
    copied = StrongAugment(0)(photo)
    assert np.array_equal(copied, photo) and not np.shares_memory(copied, photo)


@pytest.mark.parametrize("replace", [True, False])
def test_operations_are_applied_in_the_order_of_the_draw(replace: bool) -> None:
    """With replacement as they were drawn, without it in the pool's order (released code)."""
    pool = {name: lambda image, _, name=name: image * 3 + np.uint8(ord(name)) for name in "abcdef"}
    augment, drawn = (StrongAugment(4, pool, rng(1), replace=replace) for _ in range(2))
    orders = [drawn.draw() for _ in range(20)]
    for order in orders:
        expected = 0
        for name in order:
            expected = (expected * 3 + ord(name)) % 256
        assert (augment(np.zeros((2, 2, 3), np.uint8)) == expected).all()
    assert any(order != sorted(order) for order in orders) == replace


@pytest.mark.parametrize("replace", [True, False])
def test_draws_are_uniform_at_every_place_and_repeat_only_with_replacement(replace: bool) -> None:
    augment = StrongAugment(3, rng=rng(7), replace=replace)
    draws = np.array([augment.draw() for _ in range(3400)])
    repeats = np.mean([len(set(draw)) < 3 for draw in draws])
    assert repeats == pytest.approx(1 - 16 / 17 * 15 / 17 if replace else 0, abs=0.03)
    for place in range(3) if replace else [slice(None)]:  # without replacement a place is no longer a draw
        _, counts = np.unique(draws[:, place], return_counts=True)
        assert len(counts) == 17
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_pool_restricted_by_names(photo: np.ndarray) -> None:
    augment = StrongAugment(5, ["invert_channel"], rng())
    assert np.array_equal(augment(photo), photo[..., ::-1])  # an odd number of swaps
    augment = StrongAugment(3, ("blur", "hsv"), rng())
    assert {name for _ in range(20) for name in augment.draw()} == {"blur", "hsv"}
    assert list(StrongAugment(1, "solarize", rng()).operations) == ["solarize"]


@pytest.mark.parametrize(
    ("num_ops", "pool", "replace", "message"),
    [
        (3, ["blur", "blurr"], True, r"unknown operations \['blurr'\]; known: contrast_gamma, "),
        (3, [], True, "3 operations from a pool of 0"),
        (3, {}, True, "3 operations from a pool of 0"),
        (-1, ["blur"], True, "cannot draw -1"),
        (3, ["blur", "hsv"], False, r"3 operations from a pool of 2 \(replace=False\)"),
    ],
)
def test_impossible_pools_are_refused(num_ops: int, pool: list[str], replace: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StrongAugment(num_ops, pool, rng(), replace=replace)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3), np.float32)],
    ids=["grey", "rgba", "float"],
)
def test_other_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a uint8 image of shape \(H, W, 3\), found"):
        StrongAugment(1, rng=rng())(image)
