"""Mix images with those of a partner, as online methods do: CutMix (French et al. 2020) and ClassMix (Olsson et al. 2021)."""

import numpy as np
import torch
from torch import Tensor

AREA = (0.02, 0.4)  # of the box, as a share of the image (UniMatch, Yang et al. 2023)
RATIO = (0.3, 1 / 0.3)  # of its height to its width
PROBABILITY = 0.5  # that an image gets a box


def cutmix_masks(count: int, height: int, width: int, rng: np.random.Generator, *, half: bool = False) -> Tensor:
    """Return where each image takes the pixels of its partner: (count, height, width) bool, a box or nothing.

    Args:
        half: every image has a box, of half its area and of any shape (French et al. 2020); else see the constants.
    """
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        if half:
            share = 0.5 ** rng.random()
            box_height, box_width = round(height * share), round(width * 0.5 / share)
        elif rng.random() < PROBABILITY:
            box_height, box_width = _box(height, width, rng)
        else:
            continue
        top, left = (int(rng.integers(room + 1)) for room in (height - box_height, width - box_width))
        mask[top : top + box_height, left : left + box_width] = True
    return masks


def _box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw height and width of a box that fits into the image."""
    while True:
        area, ratio = rng.uniform(*AREA) * height * width, rng.uniform(*RATIO)
        box = int(np.sqrt(area * ratio)), int(np.sqrt(area / ratio))
        if box[0] <= height and box[1] <= width:
            return box


def classmix_masks(ids: Tensor, ignored: Tensor, rng: np.random.Generator) -> Tensor:
    """Return where each image takes the pixels of its partner: everywhere but on half of its own classes.

    Args:
        ids: (N, H, W) predicted class ids.
        ignored: (N, H, W) bool; such pixels have no class, and their image keeps none of them.
    """
    kept = []
    for own, void in zip(ids, ignored, strict=True):
        present = own[~void].unique()
        chosen = present[torch.from_numpy(rng.permutation(len(present))[: len(present) // 2]).to(present.device)]
        kept.append(torch.isin(own, chosen) & ~void)
    return ~torch.stack(kept)


def mixed(own: Tensor, masks: Tensor) -> Tensor:
    """Return each image (or label, or confidence) with its partner's values inside the mask.

    The partner is the next one of the batch, the first one's of the last.

    Args:
        own: (N, H, W) or (N, C, H, W), N at least 2.
        masks: (N, H, W) bool.
    """
    return torch.where(masks if own.ndim == 3 else masks.unsqueeze(1), own.roll(-1, dims=0), own)
