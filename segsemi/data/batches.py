"""Training batches by step number: parts of labelled and pseudo-labelled images, each augmented in its own way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segsemi.augment.colour import colour_augment
from segsemi.augment.strong import StrongAugment, pool_without
from segsemi.augment.weak import weak_augment
from segsemi.core.classes import Classes
from segsemi.core.config import Part
from segsemi.core.errors import UserError
from segsemi.core.recipe import Recipe
from segsemi.core.resize import resize_image, resize_label, scaled_to_short_side
from segsemi.core.seeds import derive_rng
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.runtime.distributed import Runtime


@dataclass(frozen=True)
class Sample:
    """One training image and the label to learn from, by path; None: the target is predicted while training.

    `written`: the label has class ids as this project writes them, not as the data set does. `confidence`: that of a pseudo
    label, in 8 bits, 255 for 1.
    """

    id: str
    image: Path
    label: Path | None
    written: bool = False
    confidence: Path | None = None


@dataclass(frozen=True)
class PartBatch:
    """The images of one `part` in a batch.

    views: V tensors (N, 3, crop, crop), uint8 RGB in channels_last: a quarter of what floats would take on the way from loader
    processes to a GPU. The images to learn from: 1, or more strong views of the same crop; and, where the targets are
    predicted, the weak view behind them.
    targets: (N, crop, crop) uint8; where they are predicted, 255 where there is no image and 0 elsewhere; ids: N image ids.
    """

    part: Part
    views: tuple[Tensor, ...]
    targets: Tensor
    ids: list[str]

    def to(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Return views, float32 in 0..1, and targets on `device`, without waiting for the copy out of pinned memory."""
        free = device.type == "cuda"
        views = [view.to(device, non_blocking=free).float().div_(255) for view in self.views]
        return views, self.targets.to(device, non_blocking=free)

    def pin_memory(self) -> PartBatch:
        """Return a copy in page-locked memory, from which a GPU reads while the CPU goes on; DataLoader calls it."""
        views = tuple(view.pin_memory() for view in self.views)
        return replace(self, views=views, targets=self.targets.pin_memory())


class StepBatches(Dataset[list[PartBatch]]):
    """Training batches: item s is that of step s, a function of (seed, name, s) only, in any worker or resumed run.

    Every part runs through its samples in shuffled epochs. Decoded images are kept in memory up to runtime.loader_cache_mb.

    Args:
        labelled, pseudo: the images whose labels are from the data set, or pseudo labels.
        runtime: of several processes each makes its share, which is the same share of every piece of a batch.

    Raises:
        UserError: a part has no samples, or does not divide among the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        labelled: Sequence[Sample],
        pseudo: Sequence[Sample],
        classes: Classes,
        runtime: Runtime,
    ) -> None:
        self.recipe, self.classes = recipe, classes
        self.rank, self.count = runtime.rank, runtime.count
        self.samples = {False: labelled, True: pseudo}
        for part in recipe.parts:
            self._check(part)
        self._weak = partial(
            weak_augment,
            crop_size=recipe.augment.crop_size,
            scale_range=(recipe.augment.scale_min, recipe.augment.scale_max),
            flip=recipe.augment.flip,
            ignore_index=classes.ignore_index,
        )
        self._cache: dict[Sample, tuple[np.ndarray, np.ndarray]] = {}
        self._cache_left = runtime.loader_cache_mb * 2**20
        self._orders: dict[str, tuple[int, np.ndarray]] = {}  # part -> epoch and order of its samples

    def _check(self, part: Part) -> None:
        name, accumulate, there = self.recipe.name, self.recipe.accumulate, len(self.samples[part.pseudo])
        if part.images % (accumulate * self.count):
            raise UserError(
                f"{name}: {part.images} {part.name} images per batch do not divide among {self.count} processes with "
                f"{accumulate} pieces each; change the batch size, accumulate or the number of processes"
            )
        if part.pseudo and self.recipe.mix != "none" and part.images < 2 * self.count:
            raise UserError(
                f"{name}: mix {self.recipe.mix} needs 2 {part.name} images in each of {self.count} processes, found "
                f"{part.images} in all; raise the batch size, or set mix to none"
            )
        if not there:
            raise UserError(
                f"{name}: there is no {part.name} image to train on; lower split.fraction, add unlabelled images, or set "
                "rounds: {} in params.yaml"
            )
        if part.images > there:
            print(
                f"warning: {name}: a batch of {part.images} from {there} {part.name} images has some of them twice; lower "
                "the batch size",
                file=sys.stderr,
            )

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> list[PartBatch]:
        return [self._part(part, step) for part in self.recipe.parts]

    def _part(self, part: Part, step: int) -> PartBatch:
        images, targets, ids = [], [], []
        for position in self._positions(part, step):
            sample = self._sample_at(part, position)
            seen, label = self._augmented(part, sample, position)
            images.append(seen)
            targets.append(label)
            ids.append(sample.id)
        # N times V views (H, W, 3) -> V tensors (N, 3, H, W)
        views = tuple(torch.from_numpy(np.stack(same)).permute(0, 3, 1, 2) for same in zip(*images, strict=True))
        return PartBatch(part, views, torch.from_numpy(np.stack(targets)), ids)

    def _positions(self, part: Part, step: int) -> list[int]:
        """Return this process's positions among the part's samples, counted over all epochs: equal shares of each piece."""
        pieces = self.recipe.accumulate
        own = part.images // (pieces * self.count)
        first = step * part.images + self.rank * own
        return [first + piece * self.count * own + index for piece in range(pieces) for index in range(own)]

    def _sample_at(self, part: Part, position: int) -> Sample:
        samples = self.samples[part.pseudo]
        epoch, index = divmod(position, len(samples))
        drawn, order = self._orders.get(part.name, (None, None))
        if order is None or drawn != epoch:  # once per epoch, not once per image
            order = derive_rng(self.recipe.seed, self.recipe.name, part.name, "epoch", epoch).permutation(len(samples))
            self._orders[part.name] = epoch, order
        return samples[order[index]]

    def _augmented(self, part: Part, sample: Sample, position: int) -> tuple[list[np.ndarray], np.ndarray]:
        image, label = self._read(sample)
        rng = derive_rng(self.recipe.seed, self.recipe.name, part.name, "augment", position)
        if sample.label is None:  # strong views of the weak one, which the targets are predicted for
            weak, valid = self._weak(image, label, rng)
            return [*(self._strong(weak, rng) if part.strong else weak for _ in range(self.recipe.views)), weak], valid
        image, label = self._weak(self._strong(image, rng) if part.strong else image, label, rng)
        return [image], label

    def _strong(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        recipe = self.recipe
        if recipe.strong == "colour":
            return colour_augment(image, rng)
        pool = pool_without(recipe.saug_without)
        return StrongAugment(recipe.saug_ops, pool, rng, replace=recipe.saug_replace)(image)

    def _read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Return image and label at `augment.short_side`, so that blur and noise of SAUG have the network's pixels."""
        if sample in self._cache:
            return self._cache[sample]
        classes = self.classes.as_written() if sample.written else self.classes
        image = read_image(sample.image, classes.value_range)
        label = read_label(sample.label, classes) if sample.label else np.zeros(image.shape[:2], np.uint8)
        if self.recipe.threshold > 0 and sample.confidence is not None:
            label[read_image(sample.confidence)[..., 0] < 255 * self.recipe.threshold] = self.classes.ignore_index
        size = scaled_to_short_side(image.shape[0], image.shape[1], self.recipe.augment.short_side)
        image, label = resize_image(image, *size), resize_label(label, *size)
        used = image.nbytes + label.nbytes
        if used <= self._cache_left:
            self._cache_left -= used
            self._cache[sample] = image, label
        return image, label


def labelled_samples(
    rows: Sequence[Row], root: Path, corrected: Sequence[Row] = (), lists: Path = Path()
) -> list[Sample]:
    """Return rows with their own labels, then those with corrected pseudo labels.

    Paths start at `root`, those of corrected labels at `lists`, the folder of the split.
    """
    own = [Sample(row.id, root / row.image, root / row.label) for row in rows]
    return own + [Sample(row.id, root / row.image, lists / row.label, written=True) for row in corrected]


def pseudo_samples(rows: Sequence[Row], root: Path, pseudo: Path) -> list[Sample]:
    """Return unlabelled rows with pseudo/ID.png as their labels and pseudo/confidence/ID.png as their confidence."""
    return [
        Sample(row.id, root / row.image, pseudo / f"{row.id}.png", True, pseudo / "confidence" / f"{row.id}.png")
        for row in rows
    ]


def unlabelled_samples(rows: Sequence[Row], root: Path) -> list[Sample]:
    """Return unlabelled rows without labels: their targets are predicted while training."""
    return [Sample(row.id, root / row.image, None) for row in rows]
