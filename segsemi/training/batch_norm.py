"""Batch norm that sees the whole batch when it is spread over several processes, and dropout that knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segsemi.models.layers import replace_modules
from segsemi.training.dropout import SteadyDropout, steady_dropout


class SyncedBatchNorm(_BatchNorm):
    """A batch norm with the statistics of all processes' samples, sharing parameters and statistics with the original.

    What timm fuses into a batch norm (dropout, activation) follows it. `sync_layers` makes them.
    """

    def __init__(self, original: _BatchNorm) -> None:
        super().__init__(
            original.num_features, original.eps, original.momentum, original.affine, original.track_running_stats
        )
        self._parameters.update(original._parameters)
        self._buffers.update(original._buffers)
        self.originals = [original]  # in a list, so that it is no part of the network
        self.after = [name for name in ("drop", "act") if hasattr(original, name)]
        for name in self.after:
            self.add_module(name, getattr(original, name))
        self.train(original.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions from two on."""

    def normalised(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        x = self.normalised(input)
        for name in self.after:
            x = getattr(self, name)(x)
        return x


class _OnGPU(SyncedBatchNorm, nn.SyncBatchNorm):
    """torch's own."""

    def normalised(self, x: Tensor) -> Tensor:
        return nn.SyncBatchNorm.forward(self, x)


class _OnCPU(SyncedBatchNorm):
    """The same by its formula, since torch has none there (and DistributedDataParallel refuses it)."""

    def normalised(self, x: Tensor) -> Tensor:
        return self._by_formula(x) if self.training else super(SyncedBatchNorm, self).forward(x)

    def _by_formula(self, x: Tensor) -> Tensor:
        dtype, x = x.dtype, x.float()  # statistics need more than the 8 bits of bfloat16
        dims = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = _mean_over_processes(x.mean(dims))
        centred = x - mean.view(shape)
        variance = _mean_over_processes(centred.square().mean(dims))
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            factor = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean.detach(), factor)
            self.running_var.lerp_(variance.detach() * (count / max(count - 1, 1)), factor)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(dtype)
        return (centred * scale.view(shape)).to(dtype)


class _MeanOverProcesses(torch.autograd.Function):
    """The loss is the mean of the processes' losses, so the gradient of a mean over them is a mean over them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.detach().clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _MeanOverProcesses.forward(ctx, grad)


def _mean_over_processes(x: Tensor) -> Tensor:
    return _MeanOverProcesses.apply(x)


def sync_layers(network: nn.Module) -> None:
    """Put layers that see the whole batch in the place of every batch norm and dropout, in place; before `convert_dsbn`.

    A layer used in several places stays shared.
    """

    def synced(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, _BatchNorm):
            return None
        on_gpu = next(module.buffers(), module.weight).device.type == "cuda"
        return (_OnGPU if on_gpu else _OnCPU)(module)

    replace_modules(network, synced)
    steady_dropout(network)


def unsync_layers(network: nn.Module) -> None:
    """Put the original layers back, in place; after `strip_dsbn`."""
    replace_modules(
        network, lambda module: module.originals[0] if isinstance(module, SyncedBatchNorm | SteadyDropout) else None
    )


@contextmanager
def rows_of_batch(network: nn.Module, rows: list[int], total: int) -> Iterator[None]:
    """Within the block a forward pass gets samples `rows` of a batch of `total`."""
    layers = [module for module in network.modules() if isinstance(module, SteadyDropout)]
    for layer in layers:
        layer.rows = rows, total
    try:
        yield
    finally:
        for layer in layers:
            layer.rows = None
