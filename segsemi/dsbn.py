"""Distribution-specific batch normalization, DSBN (paper, section 3.2 and Figure 2).

A parallel batch norm (PBN) stands beside every batch norm and starts as its copy. In training the labelled part of a
batch goes through the standard BN, the pseudo-labelled, strongly augmented part through the PBN; at test time the PBN
is dropped. A forward pass of the concatenated batch serves both parts:

    convert_dsbn(network)
    with labelled_first(network, count=4):
        logits = network(torch.cat([labelled, pseudo_labelled]))
    strip_dsbn(network)

Two passes, with count=4 and the labelled images, then count=0 and the others, give the same gradients from half the memory.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segsemi.core.errors import UserError
from segsemi.models.layers import replace_modules


class DistributionSpecificBatchNorm(nn.Module):
    """Two batch norms in the place of one.

    Attributes:
        standard: the network's own batch norm (with the activation fused into it, if any).
        parallel: the PBN, a deep copy: own affine parameters, own running statistics.
        labelled: how many leading samples of the next batches are labelled; None: all go through `standard`.
    """

    def __init__(self, standard: nn.Module) -> None:
        super().__init__()
        self.standard = standard
        self.parallel = copy.deepcopy(standard)
        self.labelled: int | None = None
        self.training = standard.training

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...); within `labelled_first` split after the labelled samples."""
        count = self.labelled
        if count is None or count == x.shape[0]:
            return self.standard(x)
        if count > x.shape[0]:
            raise ValueError(f"labelled_first(count={count}), but the batch has only {x.shape[0]} samples")
        if count == 0:
            return self.parallel(x)
        # split: its backward pass is one copy, that of two slices two tensors of zeros and a sum
        first, second = x.split([count, x.shape[0] - count])
        return torch.cat([self.standard(first), self.parallel(second)])


def convert_dsbn(network: nn.Module) -> nn.Module:
    """Put a parallel batch norm, initialised from it, beside every batch norm of `network`, in place.

    Covers BatchNorm1d/2d/3d, SyncBatchNorm and what derives from them, such as timm's BatchNormAct2d (its activation is
    kept in both branches). A batch norm used in several places stays shared. Already converted ones are left alone.

    Returns:
        `network`, or its replacement if it is itself a batch norm.

    Raises:
        UserError: if there is no batch norm to convert.
    """

    def converted(module: nn.Module) -> nn.Module | None:
        if isinstance(module, DistributionSpecificBatchNorm):
            return module
        return DistributionSpecificBatchNorm(module) if isinstance(module, _BatchNorm) else None

    network = replace_modules(network, converted)
    if not any(isinstance(module, DistributionSpecificBatchNorm) for module in network.modules()):
        raise UserError(
            f"{type(network).__name__} has no batch norm, so DSBN does not apply: set student.bn to trainable"
        )
    return network


def strip_dsbn(network: nn.Module) -> nn.Module:
    """Drop every parallel batch norm, in place: the standard ones, the very same modules, take their old places.

    Returns:
        `network` (or the batch norm, if it is itself a DSBN): in eval mode equal to the last bit to what it was.
    """
    return replace_modules(
        network, lambda module: module.standard if isinstance(module, DistributionSpecificBatchNorm) else None
    )


@contextmanager
def labelled_first(network: nn.Module, count: int) -> Iterator[None]:
    """Within the block the first `count` samples of a batch go through the standard BN, the rest through the PBN.

    Outside it all samples go through the standard one. Blocks may be nested; an exception restores the state too.

    Raises:
        ValueError: if `count` is negative or `network` has no DSBN; in the forward pass, if the batch is smaller.
    """
    modules = [module for module in network.modules() if isinstance(module, DistributionSpecificBatchNorm)]
    if not modules:
        raise ValueError("labelled_first: the network has no DSBN; call convert_dsbn(network) first")
    if count < 0:
        raise ValueError(f"labelled_first: count must not be negative, found {count}")
    before = [module.labelled for module in modules]
    try:
        for module in modules:
            module.labelled = count
        yield
    finally:
        for module, labelled in zip(modules, before, strict=True):
            module.labelled = labelled


def bn_statistics(network: nn.Module) -> list[dict[str, str | float]]:
    """Return the running statistics of both batch norms, one dict per layer, in the network's order (paper, Figure 4).

    Keys: layer; mean_standard, mean_parallel, variance_standard, variance_parallel: averaged over the channels. Empty
    without DSBN.
    """
    rows: list[dict[str, str | float]] = []
    for name, module in network.named_modules():
        if not isinstance(module, DistributionSpecificBatchNorm) or module.standard.running_mean is None:
            continue
        branches: dict[str, Any] = {"standard": module.standard, "parallel": module.parallel}
        values = {f"mean_{key}": branch.running_mean for key, branch in branches.items()}
        values |= {f"variance_{key}": branch.running_var for key, branch in branches.items()}
        rows.append({"layer": name, **{key: float(f"{value.double().mean():.6g}") for key, value in values.items()}})
    return rows
