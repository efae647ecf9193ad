"""Atrous depthwise convolutions by space-to-batch, where the CPU's own backward pass is slow.

An encoder whose stride is taken out again (output_stride 16) dilates depthwise convolutions. oneDNN has no fast backward pass
for them in channels_last: three layers of EfficientNet-Lite0 took two thirds of a training step. An atrous convolution of
rate d is d x d plain ones, each on every d-th pixel (space to batch, as in TensorFlow's DeepLab), and plain ones are fast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.dsbn import replace_modules


class AtrousDepthwiseConv2d(nn.Conv2d):
    """A Conv2d of stride 1 and `same` padding, one filter a channel, with one rate for rows and columns.

    Equal to the Conv2d that it was made from, up to rounding; only training on the CPU goes another way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        rate = self.dilation[0]
        training = self.training and torch.is_grad_enabled()
        # a map of less than two pixels a phase would mostly be padding
        if x.device.type != "cpu" or not training or min(x.shape[-2:]) < 2 * rate:
            return super().forward(x)
        height, width = x.shape[-2:]
        x = _to_batch(F.pad(x, (0, -width % rate, 0, -height % rate)), rate)
        side = self.kernel_size[0] // 2
        x = F.conv2d(x, self.weight, self.bias, padding=side, groups=self.groups)
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
    replace_modules(network, lambda layer: _converted(layer) if type(layer) is nn.Conv2d and _fits(layer) else layer)


def _fits(conv: nn.Conv2d) -> bool:
    rate, kernel = conv.dilation[0], conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels > 1
        and rate > 1
        and kernel % 2 == 1
        and conv.stride == (1, 1)
        and conv.dilation == (rate, rate)
        and conv.kernel_size == (kernel, kernel)
        and conv.padding == (rate * (kernel // 2),) * 2
        and conv.padding_mode == "zeros"
    )


def _converted(conv: nn.Conv2d) -> AtrousDepthwiseConv2d:
    new = AtrousDepthwiseConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
        device="meta",
    )
    new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)
