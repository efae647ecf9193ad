"""Atrous depthwise convolutions in other ways, where the CPU's own backward pass is slow.

An encoder whose stride is taken out again (output_stride 16) dilates depthwise convolutions. oneDNN has no fast backward pass
for them in channels_last: three layers of EfficientNet-Lite0 took two thirds of a training step. An atrous convolution of
rate d is d x d plain ones, each on every d-th pixel (space to batch, as in TensorFlow's DeepLab), and plain ones are fast.
Taps that reach beyond a small map, such as those of ASPP's rates 12 and 18 on one of 8x8, see nothing but zeros; they cost
as much as the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.models.layers import conv_as, replace_modules


class AtrousDepthwiseConv2d(nn.Conv2d):
    """A Conv2d of stride 1 and `same` padding, one filter a channel, with one rate for rows and columns.

    Equal to the Conv2d that it was made from, up to rounding; only training on the CPU goes another way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        rate, (height, width) = self.dilation[0], x.shape[-2:]
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
    """(N, C, H, W) -> (N rate^2, C, H / rate, W / rate), in channels_last order."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height // rate, rate, width // rate, rate, channels)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // rate, width // rate, channels).permute(0, 3, 1, 2)


def _from_batch(x: Tensor, rate: int) -> Tensor:
    """The inverse of `_to_batch`."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n // rate**2, rate, rate, height, width, channels)
    x = x.permute(0, 3, 1, 4, 2, 5).reshape(n // rate**2, height * rate, width * rate, channels)
    return x.permute(0, 3, 1, 2)


def replace_atrous(network: nn.Module) -> None:
    """Put an `AtrousDepthwiseConv2d` with the same parameters in the place of every Conv2d that is one, in place."""

    def replace(layer: nn.Module) -> nn.Module | None:
        return conv_as(AtrousDepthwiseConv2d, layer) if type(layer) is nn.Conv2d and _fits(layer) else None

    replace_modules(network, replace)


def _fits(conv: nn.Conv2d) -> bool:
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
