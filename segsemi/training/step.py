"""One training step: forward, loss and backward of a batch (paper, algorithm 1, lines 8 and 9)."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from segsemi.core.classes import IGNORE_INDEX
from segsemi.core.errors import UserError
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import PartBatch
from segsemi.dsbn import DistributionSpecificBatchNorm, convert_dsbn, labelled_first
from segsemi.losses import LOSSES, OVER_ALL_PIXELS
from segsemi.models.build import SegmentationModel
from segsemi.runtime.device import training_format
from segsemi.runtime.distributed import Runtime


def training_step(
    network: nn.Module, batch: Sequence[PartBatch], step: int, recipe: Recipe, runtime: Runtime
) -> Tensor:
    """Add the gradients of a batch's loss, CE(y*, y) + SCL(y~*, y~), to those of the parameters.

    Parts that DSBN keeps apart go through the network one after the other, each followed by its backward pass: the same
    gradients as those of the concatenated batch, in the memory of the larger part.

    Args:
        network: as `training_network` returns it.
        step: the number of the step, from which dropout's random numbers follow.

    Returns:
        The loss, a scalar. The mean over the processes is the loss of the whole batch.
    """
    weights = _pixel_weights(batch, recipe, runtime)
    passes = list(_passes(batch, recipe))
    total = torch.zeros((), device=runtime.device)
    for index, parts in enumerate(passes):
        torch.manual_seed(derive_seed(recipe.seed, recipe.name, "step", step, index, runtime.rank))
        inputs, targets = zip(*(own.to(runtime.device) for own in parts), strict=True)
        x = torch.cat(inputs).contiguous(memory_format=training_format(runtime.device))  # (N, 3, H, W)
        last = index == len(passes) - 1
        with _batch_norm_of(parts, network, recipe), _averaged(network, last):
            with runtime.autocast():
                logits = network(x)  # (N, C, H, W)
            loss = torch.zeros((), device=runtime.device)
            for own, scores, labels in zip(parts, logits.split([len(own.ids) for own in parts]), targets, strict=True):
                criterion = LOSSES[recipe.loss if own.part.pseudo else "ce"]
                loss = loss + weights[own.part.name] * criterion(scores, labels, reduction="none").sum()
            loss.backward()
        total += loss.detach()
    return total


def _pixel_weights(batch: Sequence[PartBatch], recipe: Recipe, runtime: Runtime) -> dict[str, Tensor]:
    """Return the weight of a pixel's loss for each part.

    The loss of a part is the mean over its pixels, whatever piece or process they are in. A part counts by its images among
    those of its kind.
    """
    images, counted = Counter[bool](), []
    for own in batch:
        images[own.part.pseudo] += own.part.images
        over_all = own.part.pseudo and recipe.loss in OVER_ALL_PIXELS
        counted.append(own.targets.numel() if over_all else int((own.targets != IGNORE_INDEX).sum()))
    pixels = runtime.mean(torch.tensor(counted, dtype=torch.float32, device=runtime.device))
    weights = torch.where(pixels > 0, 1 / pixels, 0)
    return {o.part.name: o.part.images / images[o.part.pseudo] * w for o, w in zip(batch, weights, strict=True)}


def _passes(batch: Sequence[PartBatch], recipe: Recipe) -> Iterator[list[PartBatch]]:
    """Yield the parts that go through the network together, for each piece of the batch (`accumulate`).

    With bn `trainable` these are all parts, whose images share one batch norm; else the weak and the strong ones in turn.
    """
    for index in range(recipe.accumulate):
        pieces = [own.piece(index, recipe.accumulate) for own in batch]
        if recipe.bn == "trainable":
            yield pieces
        else:
            groups = ([own for own in pieces if own.part.parallel == parallel] for parallel in (False, True))
            yield from (group for group in groups if group)


def _batch_norm_of(parts: list[PartBatch], network: nn.Module, recipe: Recipe) -> AbstractContextManager[None]:
    """With DSBN, send all images of a pass through the standard batch norm, or all through the parallel one."""
    if recipe.bn != "dsbn":
        return nullcontext()
    return labelled_first(network, 0 if parts[0].part.parallel else sum(len(own.ids) for own in parts))


def _averaged(network: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Average the gradients over the processes in the last backward pass of a step, not in those before it."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def training_network(model: SegmentationModel, recipe: Recipe, runtime: Runtime) -> nn.Module:
    """Bring `model` to the device, with the batch norms of the recipe, and return what the training steps call.

    With several processes that is a DistributedDataParallel, on GPUs with batch statistics over all processes.
    """
    model.to(device=runtime.device, memory_format=training_format(runtime.device))  # type: ignore[call-overload]
    if runtime.count > 1:
        _check_share(recipe, runtime)
        model.network = synchronised(model.network, runtime)
    if recipe.bn == "dsbn":
        convert_dsbn(model.network)
        if runtime.first:
            doubled, encoders = (
                sum(isinstance(module, DistributionSpecificBatchNorm) for module in network.modules())
                for network in (model, model.encoder)
            )
            print(f"{recipe.name}: DSBN doubles {doubled} batch norms, {encoders} of them in the encoder")
    if runtime.count == 1:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for it, torch 2.11 has not
        # a pass does not use the batch norms of the other parts, and some networks have layers that they do not use
        return DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )


def _check_share(recipe: Recipe, runtime: Runtime) -> None:
    """Refuse batches of which a process on the CPU has a single image: batch norm needs two for its statistics."""
    images = Counter[bool]()
    for part in recipe.parts:
        images[part.parallel and recipe.bn == "dsbn"] += part.images
    fewest = min(images.values())
    if runtime.device.type == "cpu" and recipe.bn != "fixed" and fewest < 2 * runtime.count * recipe.accumulate:
        raise UserError(
            f"{recipe.name}: {fewest} images through one batch norm are too few for {runtime.count} processes on the CPU with "
            f"{recipe.accumulate} pieces each; each needs 2: raise the batch size, or start fewer processes"
        )


def synchronised(network: nn.Module, runtime: Runtime) -> nn.Module:
    """Return the network with batch norms that see the batch of all processes; torch has none for the CPU."""
    if runtime.device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(network)
    if runtime.first:
        warnings.warn("on the CPU each process has the batch statistics of its own images", stacklevel=2)
    return network


def set_train_mode(network: nn.Module, recipe: Recipe) -> None:
    """Set training mode; with bn `fixed`, batch norms stay in eval mode."""
    network.train()
    if recipe.bn == "fixed":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
