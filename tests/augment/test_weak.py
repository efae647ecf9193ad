"""Weak augmentation: image and label stay aligned through scaling, cropping, padding and flipping."""

import numpy as np
import pytest

from segsemi.augment.weak import FILL, weak_augment
from segsemi.core.resize import resize_image, resize_label

INK = 200  # value of the one channel that stands for a pixel's class; no channel: ignored


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Ids 0..2 and 255 in random rectangles, asymmetric."""
    chance = rng(seed)
    label = np.zeros((height, width), np.uint8)
    for number in range(12):
        top, left = chance.integers(height), chance.integers(width)
        label[top : top + chance.integers(3, 20), left : left + chance.integers(3, 20)] = (1, 2, 0, 255)[number % 4]
    return label


def painted(label: np.ndarray) -> np.ndarray:
    """The image of a label, from which the label can be read again."""
    return np.stack([np.where(label == c, INK, 0) for c in range(3)], axis=-1).astype(np.uint8)


def read_back(image: np.ndarray) -> np.ndarray:
    """Class ids of the pixels that no interpolation has mixed, 255 for ignored and padding, -1 for mixed ones."""
    ids = np.full(image.shape[:2], -1)
    for c in range(3):
        ids[(image == np.eye(3, dtype=int)[c] * INK).all(-1)] = c
    ids[(image == 0).all(-1) | (image == FILL).all(-1)] = 255
    return ids


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 0.5), (0.5, 2.0), (2.0, 2.0)])
@pytest.mark.parametrize("crop", [24, 48, 90])
def test_label_follows_the_image(scales: tuple[float, float], crop: int) -> None:
    for seed in range(5):
        label = blobs(53, 70, seed)
        image, new = weak_augment(painted(label), label, rng(seed), crop_size=crop, scale_range=scales)
        assert image.shape == (crop, crop, 3) and new.shape == (crop, crop)
        assert image.dtype == new.dtype == np.uint8
        assert image.flags.c_contiguous and new.flags.c_contiguous
        ids = read_back(image)
        sure = ids >= 0
        assert sure.mean() > 0.5
        np.testing.assert_array_equal(new[sure], ids[sure])
        assert set(np.unique(new)) <= set(np.unique(label)) | {255}


def test_padding_is_grey_and_ignored() -> None:
    """And a flip takes it from right to left."""
    label = np.zeros((20, 30), np.uint8)
    image, new = weak_augment(
        painted(label), label, rng(0), crop_size=40, scale_range=(1, 1), flip=False, ignore_index=77
    )
    inside = np.zeros((40, 40), bool)
    inside[:20, :30] = True
    np.testing.assert_array_equal(new, np.where(inside, 0, 77))
    assert (image[~inside] == FILL).all() and (image[inside] == (INK, 0, 0)).all()
    pairs = [weak_augment(painted(label), label, rng(s), crop_size=40, scale_range=(1, 1)) for s in range(9)]
    assert {new[0, 0] for _, new in pairs} == {0, 255}
    assert all(np.array_equal(new == 255, (image == FILL).all(-1)) for image, new in pairs)


def test_depends_on_its_generator_alone_and_leaves_its_inputs() -> None:
    """Also with views; and where nothing is to be done, the pair comes back."""
    image, label = rng(0).integers(256, size=(48, 48, 3), dtype=np.uint8), blobs(48, 48)
    kept = image.copy(), label.copy()

    def augmented(image: np.ndarray, label: np.ndarray, seed: int) -> bytes:
        return b"".join(part.tobytes() for part in weak_augment(image, label, rng(seed), crop_size=30))

    assert augmented(image, label, 5) == augmented(image, label, 5) != augmented(image, label, 6)
    views = image[:, ::-1], label[:, ::-1]
    assert augmented(*views, 5) == augmented(*(view.copy() for view in views), 5)
    same = weak_augment(image, label, rng(3), crop_size=48, scale_range=(1.0, 1.0), flip=False)
    for given, before, result in zip((image, label), kept, same, strict=True):
        np.testing.assert_array_equal(given, before)
        np.testing.assert_array_equal(result, before)


def test_flips_half_of_the_images_and_only_left_to_right() -> None:
    label, image = blobs(40, 40), rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    flips = 0
    for seed in range(400):
        new_image, new = weak_augment(image, label, rng(seed), crop_size=40, scale_range=(1, 1))
        flipped = not np.array_equal(new_image, image)
        flips += flipped
        if flipped:
            np.testing.assert_array_equal(new_image, image[:, ::-1])
            np.testing.assert_array_equal(new, label[:, ::-1])
    assert 160 < flips < 240


def test_crops_come_from_everywhere() -> None:
    """Each pixel holds its own position; every possible crop of a 7x9 image is drawn."""
    label = np.arange(63, dtype=np.uint8).reshape(7, 9)
    image = np.repeat(label[..., None], 3, axis=2)
    corners = set()
    for seed in range(300):
        new_image, new = weak_augment(image, label, rng(seed), crop_size=5, scale_range=(1, 1), flip=False)
        np.testing.assert_array_equal(new_image[..., 0], new)
        corner = int(new[0, 0])
        np.testing.assert_array_equal(new, label[corner // 9 :, corner % 9 :][:5, :5])
        corners.add(divmod(corner, 9))
    assert corners == {(top, left) for top in range(3) for left in range(5)}


def test_scales_cover_their_range() -> None:
    """Seen from the area that a small image takes in a large crop."""
    label = np.zeros((40, 40), np.uint8)
    scales = []
    for seed in range(300):
        _, new = weak_augment(painted(label), label, rng(seed), crop_size=90, scale_range=(0.5, 2.0))
        scales.append(np.sqrt((new == 0).sum()) / 40)
    assert 0.49 <= min(scales) < 0.55 and 1.95 < max(scales) <= 2.01
    thirds, _ = np.histogram(scales, bins=3, range=(0.49, 2.01))
    assert thirds.min() > 60 and thirds.max() < 140  # uniform


def centroid(weights: np.ndarray) -> np.ndarray:
    """In pixel centres as a share of height and width."""
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(rows * weights).sum(), (columns * weights).sum()]) / weights.sum() / weights.shape


@pytest.mark.parametrize("size", [(30, 41), (73, 100), (120, 170), (194, 266), (60, 200)])
def test_resizing_moves_neither_image_nor_label(size: tuple[int, int]) -> None:
    """A disc stays where it is, to a small part of a pixel, in both."""
    rows, columns = np.indices((97, 133))
    label = ((rows - 41.3) ** 2 + (columns - 77.6) ** 2 < 31**2).astype(np.uint8)
    image = resize_image(np.repeat(label[..., None] * np.uint8(250), 3, axis=2), *size)
    new = resize_label(label, *size)
    assert image.shape == (*size, 3) and new.shape == size
    expected = centroid(label.astype(float))
    pixels = np.array(size)
    assert (np.abs(centroid(image[..., 0].astype(float)) - expected) * pixels < 0.1).all()
    assert (np.abs(centroid(new.astype(float)) - expected) * pixels < 0.15).all()


def test_shrinking_averages_the_image() -> None:
    """Thin stripes become the grey that they are from afar; interpolation between two pixels would miss them."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::4] = 200
    assert np.abs(resize_image(image, 16, 16).astype(int) - 50).max() <= 1
