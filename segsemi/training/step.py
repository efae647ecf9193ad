"""One training step: forward, loss and backward of a batch (paper, algorithm 1, lines 8 and 9)."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from segsemi.core.errors import UserError
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import PartBatch
from segsemi.dsbn import DistributionSpecificBatchNorm, convert_dsbn, labelled_first
from segsemi.losses import LOSSES
from segsemi.models.build import SegmentationModel
from segsemi.runtime.device import training_format
from segsemi.runtime.distributed import Runtime
from segsemi.training.examples import Examples, examples_of
from segsemi.training.perturb import perturbed_features


def training_step(
    network: nn.Module, teacher: nn.Module, batch: Sequence[PartBatch], step: int, recipe: Recipe, runtime: Runtime
) -> Tensor:
    """Add the gradients of a batch's loss, CE(y*, y) + SCL(y~*, y~), to those of the parameters.

    Parts that DSBN keeps apart go through the network one after the other, each followed by its backward pass: the same
    gradients as those of the concatenated batch, in the memory of the larger part.

    Args:
        network: as `training_network` returns it.
        teacher: predicts the targets where the recipe does not take stored ones.
        step: the number of the step, from which the random numbers of dropout and mixing follow.

    Returns:
        The loss, a scalar. The mean over the processes is the loss of the whole batch.
    """
    examples = examples_of(batch, teacher, step, recipe, runtime)
    set_train_mode(network, recipe)  # after a validation, or where the network was its own teacher
    passes = list(_passes(examples, recipe))
    total = torch.zeros((), device=runtime.device)
    for index, parts in enumerate(passes):
        torch.manual_seed(derive_seed(recipe.seed, recipe.name, "step", step, index, runtime.rank))
        x = torch.cat([own.images for own in parts]).contiguous(memory_format=training_format(runtime.device))
        with (
            _batch_norm_of(parts, network, recipe),
            _averaged(network, last=index == len(passes) - 1),
            perturbed_features(network, parts[0].perturb),
        ):
            with runtime.autocast():
                logits = network(x)  # (N, C, H, W)
            loss = torch.zeros((), device=runtime.device)
            for own, scores in zip(parts, logits.split([len(own.images) for own in parts]), strict=True):
                criterion = LOSSES[recipe.loss if own.part.pseudo else "ce"]
                loss = loss + (own.weights * criterion(scores, own.targets, reduction="none")).sum()
            loss.backward()
        total += loss.detach()
    return total


def _passes(examples: Sequence[Examples], recipe: Recipe) -> Iterator[list[Examples]]:
    """Yield the parts that go through the network together, for each piece of the batch (`accumulate`).

    With bn `trainable` these are all parts, whose images share one batch norm; else the weak and the strong ones in turn.
    Views with perturbed features go alone.
    """
    for index in range(recipe.accumulate):
        groups: dict[tuple[bool, str], list[Examples]] = {}
        for own in examples:
            apart = own.part.parallel and recipe.bn != "trainable"
            groups.setdefault((apart, own.perturb), []).append(own.piece(index, recipe.accumulate))
        yield from groups.values()


def _batch_norm_of(parts: list[Examples], network: nn.Module, recipe: Recipe) -> AbstractContextManager[None]:
    """With DSBN, send all images of a pass through the standard batch norm, or all through the parallel one."""
    if recipe.bn != "dsbn":
        return nullcontext()
    return labelled_first(network, 0 if parts[0].part.parallel else sum(len(own.images) for own in parts))


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
        images[part.parallel and recipe.bn != "trainable"] += part.images
    fewest, all_fixed = min(images.values()), recipe.bn == "fixed" and recipe.init == "teacher"
    if runtime.device.type == "cpu" and not all_fixed and fewest < 2 * runtime.count * recipe.accumulate:
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
    """Set training mode; with bn `fixed`, batch norms with trained statistics stay in eval mode: a new decoder has none."""
    network.train()
    if recipe.bn == "fixed":
        model: nn.Module = getattr(network, "module", network)
        trained = model if recipe.init == "teacher" else model.get_submodule("network.encoder")
        for module in trained.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
