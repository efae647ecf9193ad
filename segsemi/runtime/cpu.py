"""Faster training on a CPU, by a third: atrous convolutions as space-to-batch, and memory that is kept for reuse.

An encoder with output stride 16 dilates its last depthwise convolutions. oneDNN has no fast backward pass for them in
channels_last: three layers of EfficientNet-Lite0 took two thirds of a training step. An atrous convolution of rate d equals
d x d plain ones, each on every d-th pixel (space to batch, as in TensorFlow's DeepLab), and plain ones are fast.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AtrousDepthwiseConv2d(nn.Conv2d):
    """A Conv2d of stride 1 and `same` padding, one filter per channel, with one rate for rows and columns.

    Its output equals that of Conv2d up to rounding; only training on the CPU is computed in another way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (N, C, H, W), of equal shape."""
        if x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        rate, (height, width) = self.dilation[0], x.shape[-2:]
        # taps beyond a small map, such as those of ASPP's rates 12 and 18 on one of 8x8, see nothing but zeros
        rows, columns = (min(self.kernel_size[0] // 2, (length - 1) // rate) for length in (height, width))
        middle = self.kernel_size[0] // 2
        weight = self.weight[..., middle - rows : middle + rows + 1, middle - columns : middle + columns + 1]
        if rows == columns == 0:
            scaled = x * weight[:, 0]
            return scaled if self.bias is None else scaled + self.bias[:, None, None]
        if min(height, width) < 2 * rate:  # a phase of less than two pixels would mostly be padding
            padding = (rate * rows, rate * columns)
            return F.conv2d(x, weight, self.bias, padding=padding, dilation=rate, groups=self.groups)
        x = _to_batch(F.pad(x, (0, -width % rate, 0, -height % rate)), rate)
        x = F.conv2d(x, weight, self.bias, padding=(rows, columns), groups=self.groups)
        return _from_batch(x, rate)[..., :height, :width]


def _to_batch(x: Tensor, rate: int) -> Tensor:
    """Return (N, C, H, W) as (N rate^2, C, H / rate, W / rate), in channels_last order."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height // rate, rate, width // rate, rate, channels)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // rate, width // rate, channels).permute(0, 3, 1, 2)


def _from_batch(x: Tensor, rate: int) -> Tensor:
    """Undo `_to_batch`."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n // rate**2, rate, rate, height, width, channels)
    x = x.permute(0, 3, 1, 4, 2, 5).reshape(n // rate**2, height * rate, width * rate, channels)
    return x.permute(0, 3, 1, 2)


@contextmanager
def fast_atrous_convolutions(network: nn.Module) -> Iterator[None]:
    """Within the block every atrous depthwise convolution of `network` is an `AtrousDepthwiseConv2d`, after it plain again.

    The very same modules change their class, so parameters, names and optimiser stay as they are.
    """
    layers = [module for module in network.modules() if type(module) is nn.Conv2d and _is_atrous_depthwise(module)]
    for layer in layers:
        layer.__class__ = AtrousDepthwiseConv2d
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Conv2d


def _is_atrous_depthwise(conv: nn.Conv2d) -> bool:
    rate, kernel = conv.dilation[0], conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and rate > 1
        and kernel % 2 == 1
        and conv.stride == (1, 1)
        and conv.dilation == (rate, rate)
        and conv.kernel_size == (kernel, kernel)
        and conv.padding == (rate * (kernel // 2),) * 2
        and conv.padding_mode == "zeros"
    )


def keep_memory() -> None:
    """Let glibc keep freed blocks of up to 64 MiB, as torch does on a GPU; with another C library, do nothing.

    Otherwise every tensor of more than a few MiB is mapped and unmapped anew: a training step lost a fifth of its time to
    page faults. Larger blocks would tear holes into the heap.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    if mallopt(mmap_threshold, 64 * 2**20) or mallopt(mmap_threshold, 32 * 2**20):  # older versions stop at 32 MiB
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(arena_max, 1)  # the thread of the backward pass reuses what the forward pass freed
