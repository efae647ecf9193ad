"""Dropout whose mask does not depend on where it is drawn: in one of several processes, or in a thread beside others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.models.layers import replace_modules
from segsemi.models.torchvision_ops import import_torchvision


class SteadyDropout(nn.Module):
    """In the place of a dropout of torch's or timm's; `steady_dropout` makes them.

    Args:
        dropout: F.dropout or the like: x, p, training -> x.
        dims: how many leading dimensions of x the mask has: 1 drops samples, 2 channels, None single values.
        scaled: what is kept grows by 1 / (1 - p).

    Attributes:
        rows: which samples of a larger batch the next forward pass gets, and how many there are in all; None: all.
        generator: where random numbers come from; None: torch's own generator, of which all threads take.
    """

    def __init__(
        self, original: nn.Module, dropout: Callable[..., Tensor], p: float, dims: int | None, scaled: bool = True
    ) -> None:
        super().__init__()
        self.originals = [original]  # in a list, so that it is no part of the network
        self.dropout, self.p, self.dims, self.scaled = dropout, p, dims, scaled
        self.rows: tuple[list[int], int] | None = None
        self.generator: torch.Generator | None = None
        self.train(original.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        if not self.training or (self.rows is None and self.generator is None):
            return self.dropout(x, self.p, self.training)
        rows, total = self.rows or (list(range(len(x))), len(x))
        if len(rows) != len(x):
            raise ValueError(f"dropout over {len(x)} parts of {len(rows)} images cannot be drawn for several processes")
        mask = self._mask(x, total)
        first, end = rows[0], rows[-1] + 1
        # on a GPU a list is a slow index
        return x * (mask[first:end] if rows == list(range(first, end)) else mask[rows])

    def _mask(self, x: Tensor, total: int) -> Tensor:
        """What `total` samples like those of x are multiplied by, as torch draws it for them."""
        if self.generator is not None and self.dims is not None:
            shape = [total, *x.shape[1 : self.dims], *[1] * (x.ndim - self.dims)]
        else:
            shape = [total, *x.shape[1:]]
        mask = x.new_empty(shape)
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            mask = mask.contiguous(memory_format=torch.channels_last)  # the order in which it is drawn
        if self.generator is None:
            return self.dropout(mask.fill_(1), self.p, True)
        mask.bernoulli_(1 - self.p, generator=self.generator)
        return mask.div_(1 - self.p) if self.scaled else mask


def _steady(module: nn.Module) -> SteadyDropout | None:
    """In the place of `module`, if it drops anything at random."""
    import_torchvision()
    from timm.layers import DropPath, drop_path

    if isinstance(module, DropPath) and 0 < (module.drop_prob or 0) < 1:
        dropout = partial(drop_path, scale_by_keep=module.scale_by_keep)
        return SteadyDropout(module, dropout, module.drop_prob, dims=1, scaled=module.scale_by_keep)
    if isinstance(module, nn.Dropout) and 0 < module.p < 1:
        return SteadyDropout(module, F.dropout, module.p, dims=None)
    if isinstance(module, nn.Dropout2d) and 0 < module.p < 1:
        return SteadyDropout(module, F.dropout2d, module.p, dims=2)
    return None


def steady_dropout(network: nn.Module) -> list[SteadyDropout]:
    """Put them in the place of every dropout of `network`, in place; one used in several places stays shared."""
    replace_modules(network, _steady)
    return [module for module in network.modules() if isinstance(module, SteadyDropout)]
