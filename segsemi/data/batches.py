"""Training batches by step number: [labelled, pseudo-labelled], each augmented in its own way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segsemi.augment.weak import resize_pair, scaled_to_short_side, weak_augment
from segsemi.config import AugmentParams
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.errors import UserError
from segsemi.palette import Classes
from segsemi.rng import derive_rng


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
    """Images of one kind in every batch, for example the labelled ones.

    Attributes:
        name: keeps the group's random choices apart from the others'.
        pseudo: whether its labels are pseudo labels.
        classes: those of the data set.
        strong_ops: number of SAUG operations before the weak augmentation; 0: weak only.
        replace: whether SAUG draws with replacement.
    """

    name: str
    samples: Sequence[Sample]
    batch_size: int
    classes: Classes
    pseudo: bool = False
    strong_ops: int = 0
    replace: bool = True


@dataclass(frozen=True)
class Batch:
    """images: (N, 3, crop, crop) float32 RGB in 0..1; targets: (N, crop, crop) int64; ids: N image ids.

    The first `labelled` samples have labels, the rest pseudo labels.
    """

    images: Tensor
    targets: Tensor
    ids: list[str]
    labelled: int

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a GPU reads while the CPU goes on; the data loader calls it."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.ids, self.labelled)

    def rows(self, rank: int, count: int) -> tuple[list[int], int]:
        """Where the samples of this share stand in the whole batch of `count` processes, and how many that has."""
        labelled, pseudo = self.labelled, len(self.ids) - self.labelled
        first = count * labelled + rank * pseudo
        return [*range(rank * labelled, (rank + 1) * labelled), *range(first, first + pseudo)], count * len(self.ids)

    def pieces(self, count: int) -> Iterator[Batch]:
        """The batch cut into `count` equal ones, each with its share of labelled samples (both multiples of `count`)."""
        if count == 1:
            yield self  # no copy: it may lie in pinned memory
            return
        size, labelled = len(self.ids) // count, self.labelled // count
        for index in range(count):
            start = self.labelled + index * (size - labelled)
            chosen = [*range(index * labelled, (index + 1) * labelled), *range(start, start + size - labelled)]
            yield Batch(self.images[chosen], self.targets[chosen], [self.ids[i] for i in chosen], labelled)


class StepBatches(Dataset[Batch]):
    """Item s is the batch of step s, a function of (seed, stage, s) alone: any worker, or a resumed run, makes the same.

    Every group runs through its samples in shuffled epochs. Decoded images are kept in memory up to `cache_mb`.

    Args:
        pieces: in how many the batches will be cut (`Batch.pieces`).
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
                    f"{stage}: there is no {group.name} image to train on; set its batch size to 0, lower split.fraction or "
                    "drop the rounds"
                )
            if group.batch_size > len(group.samples):
                print(
                    f"warning: {stage}: a batch of {group.batch_size} from {len(group.samples)} {group.name} images has some "
                    "of them twice; lower the batch size",
                    file=sys.stderr,
                )
        self.groups = sorted(used, key=lambda group: group.pseudo)  # labelled first
        self.augment = augment
        self.steps = steps
        self.seed = seed
        self.stage = stage
        self.share = pieces, rank, processes
        self._cache: dict[Sample, tuple[np.ndarray, np.ndarray]] = {}
        self._cache_left = cache_mb * 2**20
        self._orders: dict[str, tuple[int, np.ndarray]] = {}  # group -> epoch and order of its samples

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        images, targets, ids = [], [], []
        for group in self.groups:
            for position in self._positions(step, group):
                sample = self._sample_at(group, position)
                image, label = self._augmented(group, sample, position)
                images.append(image)
                targets.append(label)
                ids.append(sample.id)
        # (N, H, W, 3) uint8 -> (N, 3, H, W) float32
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)
        labelled = sum(len(self._positions(step, group)) for group in self.groups if not group.pseudo)
        return Batch(batch, torch.from_numpy(np.stack(targets)).long(), ids, labelled)

    def _positions(self, step: int, group: Group) -> list[int]:
        """Of the group's samples, counted over all epochs, those of this share of the batch: the same part of each piece."""
        pieces, rank, processes = self.share
        own = group.batch_size // (pieces * processes)
        starts = [step * group.batch_size + (piece * processes + rank) * own for piece in range(pieces)]
        return [start + index for start in starts for index in range(own)]

    def _sample_at(self, group: Group, position: int) -> Sample:
        epoch, index = divmod(position, len(group.samples))
        if (
            group.name not in self._orders or self._orders[group.name][0] != epoch
        ):  # drawn once an epoch, not once an image
            rng = derive_rng(self.seed, self.stage, group.name, "epoch", epoch)
            self._orders[group.name] = epoch, rng.permutation(len(group.samples))
        return group.samples[self._orders[group.name][1][index]]

    def _augmented(self, group: Group, sample: Sample, position: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._read(group, sample)
        rng = derive_rng(self.seed, self.stage, group.name, "augment", position)
        if group.strong_ops:
            from segsemi.augment.strong import StrongAugment  # imgaug takes half a second, and a teacher needs it not

            # On the image at its own size, before it shrinks: blur and noise are measured in pixels.
            image = StrongAugment(group.strong_ops, rng=rng, replace=group.replace)(image)
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
        if sample in self._cache:
            return self._cache[sample]
        classes = group.classes.as_written() if sample.written else group.classes
        image, label = read_image(sample.image), read_label(sample.label, classes)
        size = scaled_to_short_side(image.shape[0], image.shape[1], self.augment.short_side)
        small, small_label = resize_pair(image, label, *size)
        assert small_label is not None
        pair = (image if group.strong_ops else small), small_label
        used = pair[0].nbytes + pair[1].nbytes
        if used <= self._cache_left:
            self._cache_left -= used
            self._cache[sample] = pair
        return pair


def batch_loader(
    batches: StepBatches, *, start: int, workers: int, device: torch.device | None = None
) -> DataLoader[Batch]:
    """The batches from step `start` on, in order, made by `workers` processes (0: in this one), ready for `device`."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        worker_init_fn=_one_thread if workers else None,
        prefetch_factor=2 if workers else None,
        pin_memory=device is not None and device.type == "cuda",
    )


def _one_thread(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the main process ends its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # workers beside torch's threads: more threads than cores slow all of them down
    torch.set_num_threads(1)


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
