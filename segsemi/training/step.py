"""The forward and backward passes of a training step (paper, algorithm 1, lines 8 and 9)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from segsemi.core.seeds import derive_seed
from segsemi.data.batches import Part, StepBatches, rows_in_whole
from segsemi.dsbn import branch_of, labelled_first
from segsemi.losses import LOSSES, cross_entropy
from segsemi.models.build import SegmentationModel
from segsemi.runtime.device import autocast, threads_sharing_cores, training_format
from segsemi.runtime.distributed import Processes
from segsemi.training.batch_norm import rows_of_batch
from segsemi.training.dropout import steady_dropout

PIXELS_SIDE_BY_SIDE = 2**20  # of a step's images: 16 crops of 256. Above, memory is dearer than time
SHARE_SIDE_BY_SIDE = 0.6  # of a step's images in one pass, at most: else its cores work on when the others are done


@dataclass(frozen=True)
class StepPasses:
    """Puts a step's batch through the network and back, one pass after the other.

    What DSBN keeps apart takes two passes. Each is followed by its backward pass, so they take the memory of the larger one.
    """

    model: SegmentationModel
    network: nn.Module  # what is called for it: compiled, or with gradients averaged over the processes
    batches: StepBatches
    processes: Processes
    pseudo_loss: str
    bn: str
    precision: str

    def __call__(self, batch: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of the batch's loss to those of the parameters.

        Args:
            batch: as `batches` makes it.
            step: the number of the step, from which dropout's random numbers follow.

        Returns:
            The loss, CE(y*, y) + SCL(y~*, y~), a scalar. Of several processes, the mean of their losses is that of the whole
            batch.
        """
        images = {kind: sum(len(part.ids) for part in batch if part.pseudo == kind) for kind in (False, True)}
        passes = _passes(batch, self.batches.pieces, together=self.bn == "trainable")
        seeds = [
            derive_seed(self.batches.seed, self.batches.stage, "step", step, index) for index in range(len(passes))
        ]
        return torch.stack(self._losses(passes, seeds, images)).sum()

    def _losses(self, passes: list[list[Part]], seeds: list[int], images: Mapping[bool, int]) -> list[Tensor]:
        set_train_mode(self.model, self.bn)
        losses = []
        for parts, seed in zip(passes, seeds, strict=True):
            torch.manual_seed(seed)
            with self._pass(parts, last=parts is passes[-1]):
                losses.append(self._gradient(self.network, parts, images))
        return losses

    @contextmanager
    def _pass(self, parts: list[Part], *, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of some parts; the last one of a step brings the processes together."""
        with ExitStack() as stack:
            if self.bn == "dsbn":
                labelled = 0 if parts[0].parallel else sum(len(part.ids) for part in parts)
                stack.enter_context(labelled_first(self.model, labelled))
            if self.processes.count > 1:
                rows, total = rows_in_whole(parts, self.processes.rank, self.processes.count)
                stack.enter_context(rows_of_batch(self.model, rows, total))
                if not last:
                    stack.enter_context(self.network.no_sync())  # type: ignore[operator]  # DistributedDataParallel
            yield

    def _gradient(self, network: nn.Module, parts: list[Part], images: Mapping[bool, int]) -> Tensor:
        loss = self._loss(network, parts, images)
        loss.backward()
        return loss.detach()

    def _loss(self, network: nn.Module, parts: list[Part], images: Mapping[bool, int]) -> Tensor:
        """What some parts of a batch add to its loss: each counts by its share of the batch's images of its kind.

        Args:
            images: how many images of the batch have pseudo labels (True), and how many have labels (False).
        """
        device = self.processes.device
        inputs, targets = zip(*(part.on(device) for part in parts), strict=True)
        x = torch.cat(inputs) if len(inputs) > 1 else inputs[0]
        with autocast(device, self.precision):
            logits = network(x.contiguous(memory_format=training_format(device)))
        losses = []
        for part, own, labels in zip(parts, logits.split([len(part.ids) for part in parts]), targets, strict=True):
            loss = LOSSES[self.pseudo_loss] if part.pseudo else cross_entropy
            losses.append(loss(own, labels, mean_count=self.processes.mean) * (len(part.ids) / images[part.pseudo]))
        return torch.stack(losses).sum()


@dataclass(frozen=True)
class PassesSideBySide(StepPasses):
    """The same with both passes of a step at the same time, each in a thread with half of the cores.

    All cores on one small batch wait for each other in every layer.

    Attributes:
        branches: Part.parallel -> its branch of the network, and where its dropout takes random numbers from.
    """

    branches: Mapping[bool, tuple[nn.Module, torch.Generator]]
    pool: ThreadPoolExecutor

    def _losses(self, passes: list[list[Part]], seeds: list[int], images: Mapping[bool, int]) -> list[Tensor]:
        futures = []
        for parts, seed in zip(passes, seeds, strict=True):
            network, generator = self.branches[parts[0].parallel]
            generator.manual_seed(seed)
            futures.append(self.pool.submit(self._gradient, network, parts, images))
        return [future.result() for future in futures]  # a sum of two gradients is the same in either order


@contextmanager
def step_passes(
    model: SegmentationModel,
    batches: StepBatches,
    processes: Processes,
    *,
    pseudo_loss: str,
    bn: str,
    precision: str,
    compiled: bool,
) -> Iterator[StepPasses]:
    """The way in which a training's steps go fastest here; arguments as `segsemi.training.loop.train` takes them."""
    options = (batches, processes, pseudo_loss, bn, precision)
    images = [sum(group.batch_size for group in batches.groups if group.parallel == kind) for kind in (False, True)]
    possible = processes.count == 1 and bn != "trainable" and batches.pieces == 1
    size, device = batches.augment.crop_size, processes.device
    if possible and worth_side_by_side(images, size, device, precision=precision, compiled=compiled):
        branches = {parallel: _branch(model, bn, parallel) for parallel in (False, True)}
        if not _draws_elsewhere(branches[False][0], size):
            with threads_sharing_cores(2) as pool:
                yield PassesSideBySide(model, model, *options, branches, pool)
            return
    yield StepPasses(model, _wrapped(model, processes, compiled), *options)


def worth_side_by_side(
    passes: Sequence[int], crop_size: int, device: torch.device, *, precision: str, compiled: bool
) -> bool:
    """Whether a step's passes of so many images each are done faster at the same time, with memory for all.

    Of several pieces of a batch (accumulate) they are not: those are to save memory.
    """
    if device.type != "cpu" or compiled or precision == "bf16":  # autocast's casts are shared by all threads
        return False
    if len(passes) != 2 or torch.get_num_threads() % 2:  # an odd core would be idle
        return False
    fair = max(passes) <= SHARE_SIDE_BY_SIDE * sum(passes)
    return fair and sum(passes) * crop_size**2 <= PIXELS_SIDE_BY_SIDE


def _branch(model: SegmentationModel, bn: str, parallel: bool) -> tuple[nn.Module, torch.Generator]:
    branch, generator = branch_of(model, parallel=parallel), torch.Generator()
    for dropout in steady_dropout(branch):
        dropout.generator = generator
    set_train_mode(branch, bn)
    return branch, generator


@torch.no_grad()
def _draws_elsewhere(network: nn.Module, crop_size: int) -> bool:
    """Whether its forward pass takes random numbers of which all threads take, in an order that nobody knows."""
    buffers = list(network.buffers())
    kept, before = [buffer.clone() for buffer in buffers], torch.get_rng_state()
    network(torch.zeros(2, 3, crop_size, crop_size))
    for buffer, value in zip(buffers, kept, strict=True):
        buffer.copy_(value)
    return not torch.equal(torch.get_rng_state(), before)


def set_train_mode(network: nn.Module, bn: str) -> None:
    """Training mode; with bn `fixed`, batch norms stay in eval mode."""
    if not network.training:
        network.train()
    if bn == "fixed":
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module.training:
                module.eval()


def _passes(batch: Sequence[Part], pieces: int, *, together: bool) -> list[list[Part]]:
    """What goes through the network at a time: all of a piece, or what DSBN keeps apart; only a batch norm that all images
    share needs them together."""
    passes = []
    for index in range(pieces):
        parts = [part.piece(index, pieces) for part in batch]
        if together:
            passes.append(parts)
        else:
            passes += [[part for part in parts if part.parallel == parallel] for parallel in (False, True)]
    return [parts for parts in passes if parts]


def _wrapped(model: SegmentationModel, processes: Processes, compiled: bool) -> nn.Module:
    """What the training steps call: the model, compiled if asked for, its gradients averaged over the processes."""
    if processes.count == 1:
        return torch.compile(model) if compiled else model  # type: ignore[return-value]
    if compiled and processes.first:
        print(
            "machine.compile is left out with several processes: batch norm over them breaks each graph",
            file=sys.stderr,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for it, torch 2.11 has not
        # buffers are equal already: statistics are those of the whole batch
        # some networks have layers that they do not use
        return DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )
