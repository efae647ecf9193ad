"""CutMix and ClassMix: where the pixels of a mixed image come from; and the colour augmentation of those methods."""

import numpy as np
import torch

from segsemi.augment.colour import colour_augment
from segsemi.augment.mix import classmix_masks, cutmix_masks, mixed


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_mixed_image_is_its_partners_inside_the_mask_and_its_own_outside() -> None:
    images, ids = torch.rand(3, 3, 20, 30), torch.arange(3).view(3, 1, 1).expand(3, 20, 30)
    masks = cutmix_masks(3, 20, 30, rng(1))
    assert masks.any() and not masks.all()
    image, label = mixed(images, masks), mixed(ids, masks)
    for index in range(3):
        partner = (index + 1) % 3
        inside = masks[index]
        assert torch.equal(image[index][:, inside], images[partner][:, inside])
        assert torch.equal(image[index][:, ~inside], images[index][:, ~inside])
        assert set(label[index][inside].tolist()) <= {partner} and set(label[index][~inside].tolist()) == {index}


def test_boxes_have_the_published_sizes() -> None:
    """UniMatch: every second image, 2 to 40 percent; French et al.: all images, one half, of any shape and place."""
    masks = cutmix_masks(2000, 40, 60, rng())
    areas = masks.float().mean((1, 2))
    boxes = areas[areas > 0]
    assert 0.45 < len(boxes) / len(masks) < 0.55
    assert 0.01 < boxes.min() < 0.05 and 0.33 < boxes.max() <= 0.4 and 0.15 < boxes.mean() < 0.22
    half = cutmix_masks(500, 40, 60, rng(), half=True)
    assert ((half.float().mean((1, 2)) - 0.5).abs() < 0.02).all()
    heights = half.any(2).sum(1)
    assert heights.min() < 23 and heights.max() > 38 and half[:, 0].any() and half[:, -1].any()
    for mask in (*masks[:50], *half[:50]):  # a box: the product of its rows and columns
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None])


def test_classmix_keeps_half_of_an_images_classes() -> None:
    ids = torch.arange(5).repeat_interleave(8).view(1, 5, 8).repeat(2, 1, 1)
    ignored = torch.zeros_like(ids, dtype=torch.bool)
    ignored[0, 4] = True  # class 4 is nowhere else
    seen = set()
    for seed in range(60):
        own = ~classmix_masks(ids, ignored, rng(seed))
        classes = [tuple(ids[index][own[index]].unique().tolist()) for index in range(2)]
        assert [len(found) for found in classes] == [2, 2]  # half of 4, and of 5, rounded down
        assert torch.equal(own[1], torch.isin(ids[1], torch.tensor(classes[1]))) and not own[0][ignored[0]].any()
        seen.add(classes[1])
    assert len(seen) == 10
    alone = torch.zeros(2, 4, 4, dtype=torch.long)
    assert classmix_masks(alone, alone > 0, rng()).all()  # of one class nothing is kept


def test_colour_augmentation_moves_nothing_and_keeps_a_share_of_images() -> None:
    image = rng().integers(0, 256, (24, 32, 3), dtype=np.uint8)
    results = [colour_augment(image, rng(seed)) for seed in range(400)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    unchanged = np.mean([np.array_equal(result, image) for result in results])
    grey = np.mean([(result[..., :1] == result).all() for result in results])
    assert 0.04 < unchanged < 0.13  # 0.2 * 0.8 * 0.5
    assert 0.14 < grey < 0.27
    edge = np.zeros((24, 32, 3), np.uint8)
    edge[:, 16:] = 200
    assert all(np.ptp(colour_augment(edge, rng(seed))[:, :9], axis=(0, 1)).max() == 0 for seed in range(50))
    assert np.array_equal(colour_augment(image, rng(3)), colour_augment(image, rng(3)))
