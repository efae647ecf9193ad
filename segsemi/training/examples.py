"""The images and targets of a step: labels, stored pseudo labels, or predictions of the weak views; perhaps mixed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from segsemi.augment.mix import classmix_masks, cutmix_masks, mixed
from segsemi.core.classes import IGNORE_INDEX
from segsemi.core.config import Part
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_rng
from segsemi.data.batches import PartBatch
from segsemi.losses import OVER_ALL_PIXELS
from segsemi.runtime.device import training_format
from segsemi.runtime.distributed import Runtime


@dataclass(frozen=True)
class Examples:
    """Images of one part and their targets, on the device.

    images: (M, 3, H, W) float32 in 0..1, the views of an image one after the other; targets: (M, H, W) uint8, or
    (M, C, H, W) probabilities; weights: (M, H, W) float32, what the loss of a pixel counts in that of the step.
    """

    part: Part
    images: Tensor
    targets: Tensor
    weights: Tensor
    perturb: Literal["none", "dropout", "complementary"] = "none"

    def piece(self, index: int, count: int) -> "Examples":
        """Return the index-th of `count` equal pieces (their number divides that of the images)."""
        own = len(self.images) // count
        rows = slice(index * own, (index + 1) * own)
        return replace(self, images=self.images[rows], targets=self.targets[rows], weights=self.weights[rows])


def examples_of(
    batch: Sequence[PartBatch], teacher: nn.Module, step: int, recipe: Recipe, runtime: Runtime
) -> list[Examples]:
    """Return what a step learns from.

    The loss of a part is the mean over its pixels, whatever piece or process they are in; of predicted targets over those of
    images, however few are above the threshold. A part counts by its images among those of its kind.

    Args:
        teacher: predicts the targets, where the recipe does not take stored ones; it is set to eval mode for that.
    """
    images = Counter[bool]()
    for own in batch:
        images[own.part.pseudo] += own.part.images
    found: list[tuple[Examples, Tensor, float]] = []  # with the number of pixels that count, and the share of the loss
    for own in batch:
        rng = derive_rng(recipe.seed, recipe.name, own.part.name, "mix", step, runtime.rank)
        predicted = own.part.pseudo and recipe.targets != "stored"
        examples = _predicted(own, teacher, rng, recipe, runtime) if predicted else [_stored(own, rng, recipe, runtime)]
        share = own.part.images / images[own.part.pseudo] * (recipe.weight if own.part.pseudo else 1.0)
        found += [(part, pixels, share / len(examples)) for part, pixels in examples]
    counts = runtime.mean(torch.stack([pixels for _, pixels, _ in found]))
    return [
        replace(part, weights=part.weights * torch.where(count > 0, share / count, 0))
        for (part, _, share), count in zip(found, counts, strict=True)
    ]


def _stored(own: PartBatch, rng: np.random.Generator, recipe: Recipe, runtime: Runtime) -> tuple[Examples, Tensor]:
    (images,), targets = own.to(runtime.device)
    if own.part.pseudo and recipe.mix != "none":
        masks = _masks(recipe.mix, targets, targets == IGNORE_INDEX, rng)
        images, targets = mixed(images, masks), mixed(targets, masks)
    over_all = own.part.pseudo and recipe.loss in OVER_ALL_PIXELS
    weights = torch.ones_like(targets, dtype=torch.float32) if over_all else (targets != IGNORE_INDEX).float()
    return Examples(own.part, images, targets, weights), weights.sum()


def _predicted(
    own: PartBatch, teacher: nn.Module, rng: np.random.Generator, recipe: Recipe, runtime: Runtime
) -> list[tuple[Examples, Tensor]]:
    """Return the strong views, mixed, with the teacher's predictions of the weak ones; and these, with perturb `dropout`."""
    (*strong, weak), valid = own.to(runtime.device)
    with torch.no_grad(), runtime.autocast():
        logits = teacher.eval()(weak.contiguous(memory_format=training_format(runtime.device)))
    probabilities = logits.float().softmax(dim=1)  # (N, C, H, W)
    confidence, ids = probabilities.max(dim=1)
    padding = valid == IGNORE_INDEX
    targets = probabilities if recipe.soft else ids.to(torch.uint8).masked_fill(padding, IGNORE_INDEX)
    views = []
    for image in strong:
        masks = torch.zeros_like(padding) if recipe.mix == "none" else _masks(recipe.mix, ids, padding, rng)
        views.append([mixed(values, masks) for values in (image, targets, confidence, padding)])
    # V times (N, ...) -> (N V, ...), the views of an image one after the other
    images, mixed_targets, sure, outside = [torch.stack(same, dim=1).flatten(0, 1) for same in zip(*views, strict=True)]
    weights, pixels = _weights(sure, outside, recipe, runtime)
    perturb = recipe.perturb if recipe.perturb == "complementary" else "none"
    found = [(Examples(own.part, images, mixed_targets, weights, perturb), pixels)]
    if recipe.perturb == "dropout":
        weights, pixels = _weights(confidence, padding, recipe, runtime)
        found.append((Examples(own.part, weak, targets, weights, "dropout"), pixels))
    return found


def _weights(confidence: Tensor, padding: Tensor, recipe: Recipe, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return what each pixel counts, (M, H, W), for its confidence, and the number of pixels of images."""
    inside = (~padding).float()
    sure, pixels = inside * (confidence >= recipe.threshold), inside.sum()
    if recipe.confidence == "batch":
        sums = runtime.mean(torch.stack([sure.sum(), pixels]))
        sure = inside * (sums[0] / sums[1].clamp(min=1))
    return sure, pixels


def _masks(kind: str, ids: Tensor, ignored: Tensor, rng: np.random.Generator) -> Tensor:
    if kind == "classmix":
        return classmix_masks(ids, ignored, rng)
    count, height, width = ids.shape
    return cutmix_masks(count, height, width, rng, half=kind == "cutmix_half").to(ids.device)
