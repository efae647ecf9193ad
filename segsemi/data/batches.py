"""Training batches by step number: parts of labelled and pseudo-labelled images, each augmented in its own way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segsemi.augment.weak import weak_augment
from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams
from segsemi.core.errors import UserError
from segsemi.core.resize import resize_pair, scaled_to_short_side
from segsemi.core.seeds import derive_rng
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row


@dataclass(frozen=True)
class Sample:
    """One training image and the label to learn from, by path.

    `written`: the label has class ids as this project writes them, not as the data set does.
    """

    id: str
    image: Path
    label: Path
    written: bool = False


@dataclass(frozen=True)
class Group:
    """Images of one kind, of which every batch has a part, for example the labelled ones.

    Attributes:
        name: keeps the group's random choices apart from the others'.
        pseudo: whether its labels are pseudo labels.
        parallel: whether it goes through the parallel batch norm of DSBN, where the network has that.
        classes: those of the data set.
        strong_ops: number of SAUG operations before the weak augmentation; 0: weak only.
        replace: whether SAUG draws with replacement.
        without: operations of SAUG that are left out.
    """

    name: str
    samples: Sequence[Sample]
    batch_size: int
    classes: Classes
    pseudo: bool = False
    parallel: bool = False
    strong_ops: int = 0
    replace: bool = True
    without: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """What a batch has of one group.

    images: (N, 3, crop, crop) uint8 RGB, in channels_last: a fifth of what floats would take on the way from loader processes
    to a GPU; targets: (N, crop, crop) uint8; ids: N image ids; pseudo and parallel as in `Group`.
    """

    images: Tensor
    targets: Tensor
    ids: list[str]
    pseudo: bool
    parallel: bool

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images, float32 in 0..1, and targets there; out of pinned memory without waiting for them."""
        free = device.type == "cuda"
        return self.images.to(device, non_blocking=free).float().div_(255), self.targets.to(device, non_blocking=free)

    def pin_memory(self) -> Part:
        """The same in page-locked memory, from which a GPU reads while the CPU goes on; the data loader calls it."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())

    def piece(self, index: int, count: int) -> Part:
        """The index-th of `count` equal pieces (N is a multiple of `count`)."""
        own = len(self.ids) // count
        rows = slice(index * own, (index + 1) * own)
        return replace(self, images=self.images[rows], targets=self.targets[rows], ids=self.ids[rows])


def rows_in_whole(parts: Sequence[Part], rank: int, count: int) -> tuple[list[int], int]:
    """Where these samples, one after the other, stand among those of `count` processes, and how many there are in all.

    All processes have as many of each part, and the whole has each part's samples by rank.
    """
    rows: list[int] = []
    before = 0
    for part in parts:
        own = len(part.ids)
        rows += range(count * before + rank * own, count * before + (rank + 1) * own)
        before += own
    return rows, count * before


class StepBatches(Dataset[list[Part]]):
    """Item s is the batch of step s, a function of (seed, stage, s) alone: any worker, or a resumed run, makes the same.

    Every group runs through its samples in shuffled epochs. Decoded images are kept in memory up to `cache_mb`.

    Args:
        pieces: in how many each part will be cut (`Part.piece`).
        rank, processes: makes only the share of one of several processes, which is the same share of every piece.

    Raises:
        UserError: a group that takes part in the batches has no samples, or does not divide among the processes.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        augment: AugmentParams,
        *,
        steps: int,
        seed: int,
        stage: str,
        cache_mb: int,
        pieces: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        used = [group for group in groups if group.batch_size > 0]
        for group in used:
            if group.batch_size % (pieces * processes):
                raise UserError(
                    f"{stage}: {group.batch_size} {group.name} images a batch do not divide among {processes} processes "
                    f"with {pieces} pieces each; change the batch size, accumulate or the number of processes"
                )
            if not group.samples:
                raise UserError(
                    f"{stage}: there is no {group.name} image to train on; lower split.fraction, add unlabelled images, or "
                    "set rounds: {} in params.yaml"
                )
            if group.batch_size > len(group.samples):
                print(
                    f"warning: {stage}: a batch of {group.batch_size} from {len(group.samples)} {group.name} images has some "
                    "of them twice; lower the batch size",
                    file=sys.stderr,
                )
        self.groups = used
        self.augment = augment
        self.steps = steps
        self.seed = seed
        self.stage = stage
        self.pieces, self.rank, self.processes = pieces, rank, processes
        self._cache: dict[tuple[Sample, bool], tuple[np.ndarray, np.ndarray]] = {}
        self._cache_left = cache_mb * 2**20
        self._orders: dict[str, tuple[int, np.ndarray]] = {}  # group -> epoch and order of its samples

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[Part]:
        return [self._part(group, step) for group in self.groups]

    def _part(self, group: Group, step: int) -> Part:
        images, targets, ids = [], [], []
        for position in self._positions(group, step):
            sample = self._sample_at(group, position)
            image, label = self._augmented(group, sample, position)
            images.append(image)
            targets.append(label)
            ids.append(sample.id)
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (N, H, W, 3) -> (N, 3, H, W)
        return Part(batch, torch.from_numpy(np.stack(targets)), ids, group.pseudo, group.parallel)

    def _positions(self, group: Group, step: int) -> list[int]:
        """Of the group's samples, counted over all epochs, those of this process: the same share of each piece."""
        own = group.batch_size // (self.pieces * self.processes)
        first = step * group.batch_size + self.rank * own
        return [first + piece * self.processes * own + index for piece in range(self.pieces) for index in range(own)]

    def _sample_at(self, group: Group, position: int) -> Sample:
        epoch, index = divmod(position, len(group.samples))
        drawn, order = self._orders.get(group.name, (None, None))
        if order is None or drawn != epoch:  # once an epoch, not once an image
            order = derive_rng(self.seed, self.stage, group.name, "epoch", epoch).permutation(len(group.samples))
            self._orders[group.name] = epoch, order
        return group.samples[order[index]]

    def _augmented(self, group: Group, sample: Sample, position: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._read(group, sample)
        rng = derive_rng(self.seed, self.stage, group.name, "augment", position)
        if group.strong_ops:
            from segsemi.augment.strong import StrongAugment, pool_without  # imports imgaug, which a teacher needs not

            # On the image at its own size, before it shrinks: blur and noise are measured in pixels.
            image = StrongAugment(group.strong_ops, pool_without(group.without), rng, replace=group.replace)(image)
            image, _ = resize_pair(image, None, *label.shape)
        return weak_augment(
            image,
            label,
            rng,
            crop_size=self.augment.crop_size,
            scale_range=(self.augment.scale_min, self.augment.scale_max),
            flip=self.augment.flip,
            ignore_index=group.classes.ignore_index,
        )

    def _read(self, group: Group, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The label at the size at which the network sees it, and the image too, unless SAUG comes first."""
        key = sample, group.strong_ops > 0
        if key in self._cache:
            return self._cache[key]
        classes = group.classes.as_written() if sample.written else group.classes
        image, label = read_image(sample.image), read_label(sample.label, classes)
        size = scaled_to_short_side(image.shape[0], image.shape[1], self.augment.short_side)
        small, small_label = resize_pair(image, label, *size)
        assert small_label is not None
        pair = (image if group.strong_ops else small), small_label
        used = pair[0].nbytes + pair[1].nbytes
        if used <= self._cache_left:
            self._cache_left -= used
            self._cache[key] = pair
        return pair


def labelled_samples(
    rows: Sequence[Row], root: Path, corrected: Sequence[Row] = (), lists: Path = Path()
) -> list[Sample]:
    """Rows with their own labels, then those with mended pseudo labels.

    Paths start at `root`, those of mended labels at `lists`, the folder of the split.
    """
    own = [Sample(row.id, root / row.image, root / row.label) for row in rows]
    return own + [Sample(row.id, root / row.image, lists / row.label, written=True) for row in corrected]


def pseudo_samples(rows: Sequence[Row], root: Path, pseudo: Path) -> list[Sample]:
    """Unlabelled rows with pseudo/ID.png as their labels."""
    return [Sample(row.id, root / row.image, pseudo / f"{row.id}.png", written=True) for row in rows]
