"""Large 1x1 convolutions by oneDNN, also in a thread that has one core of the CPU.

There torch takes a matrix product of MKL instead, which is as fast on Intel's processors but not on others: on an AMD EPYC
forward and backward passes of such convolutions took one and a half times as long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.models.layers import conv_as, replace_modules

FEW = 1024  # pixels of a batch: for no more, MKL's product is faster, since oneDNN puts the weights in order anew each time
SMALL = 20480  # values: for a single image of no more, torch never takes oneDNN (its Convolution.cpp, use_mkldnn)


class PointwiseConv2d(nn.Conv2d):
    """A Conv2d of kernel 1x1 and stride 1, equal to the Conv2d that it was made from, up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W); a plain convolution where it is compiled or exported."""
        if torch.compiler.is_compiling() or not _better_by_onednn(x):
            return super().forward(x)
        # a kernel of one tap is the same at any dilation, and torch takes oneDNN for a dilated one
        return F.conv2d(x, self.weight, self.bias, dilation=2)


def _better_by_onednn(x: Tensor) -> bool:
    """Whether torch would take MKL's product for it, and has oneDNN, which is faster for so many pixels."""
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    one_core = x.device.type == "cpu" and torch.get_num_threads() == 1
    large = x.ndim == 4 and x.numel() > max(SMALL, FEW * x.shape[1])
    return one_core and exact and large and torch.backends.mkl.is_available() and _has_onednn()


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def replace_pointwise(network: nn.Module) -> None:
    """Put a `PointwiseConv2d` with the same parameters in the place of every Conv2d that is one, in place."""

    def replace(layer: nn.Module) -> nn.Module | None:
        return conv_as(PointwiseConv2d, layer) if type(layer) is nn.Conv2d and _fits(layer) else None

    replace_modules(network, replace)


def _fits(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return shape == ((1, 1), (1, 1), (0, 0), (1, 1)) and conv.groups == 1
