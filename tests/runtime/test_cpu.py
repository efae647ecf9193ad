"""Atrous depthwise convolutions against torch's own atrous convolution."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.runtime.cpu import AtrousDepthwiseConv2d, fast_atrous_convolutions


def conv(rate: int, kernel: int, *, bias: bool, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    arguments = {"padding": rate * (kernel // 2), "dilation": rate, "groups": 6, "bias": bias, **options}
    return nn.Conv2d(6, arguments.pop("out_channels", 6), kernel, **arguments).double()  # type: ignore[arg-type]


def replaced(original: nn.Conv2d) -> nn.Conv2d:
    """A copy with the class that it has within the block."""
    conv = copy.deepcopy(original)
    with fast_atrous_convolutions(nn.Sequential(conv)):
        kind = type(conv)
    conv.__class__ = kind
    return conv


def gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = module(x)
    weights = torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)  # another one for every output
    return y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])


@pytest.mark.parametrize(("rate", "kernel", "bias"), [(2, 5, False), (3, 3, True), (6, 5, True), (12, 3, False)])
@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (7, 30), (3, 5)])  # the last: smaller than the filter
def test_equals_the_convolution_it_replaces(rate: int, kernel: int, shape: tuple[int, int], bias: bool) -> None:
    original = conv(rate, kernel, bias=bias)
    ours = replaced(original)
    assert isinstance(ours, AtrousDepthwiseConv2d)
    x = torch.randn(2, 6, *shape, dtype=torch.float64)
    for found, expected in zip(gradients(ours, x), gradients(original, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(ours(x), original(x))  # outside training it is the same operation
    rows = ours.eval()(x.requires_grad_())  # as torch.onnx.export calls it
    assert rows.grad_fn is not None and rows.grad_fn.name().startswith("Convolution")


@pytest.mark.parametrize(
    ("rate", "shape", "calls"),
    [
        (2, (16, 16), [((3, 3), 1)]),  # space to batch
        (12, (12, 12), []),  # only the middle of the filter sees the image: a factor
        (12, (12, 13), [((1, 3), 12)]),
        (12, (25, 12), [((3, 1), 12)]),
    ],
)
def test_training_computes_no_more_than_sees_the_image(
    rate: int, shape: tuple[int, int], calls: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    real = F.conv2d

    def conv2d(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen.append((tuple(weight.shape[-2:]), kwargs.get("dilation", 1)))
        return real(x, weight, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "conv2d", conv2d)
    replaced(conv(rate, 3, bias=False))(torch.randn(1, 6, *shape, dtype=torch.float64))
    assert seen == calls


def test_after_the_block_and_after_an_error_layers_are_plain_again() -> None:
    network = nn.Sequential(conv(2, 3, bias=True), nn.Conv2d(6, 6, 3))
    with pytest.raises(KeyboardInterrupt), fast_atrous_convolutions(network):
        assert [type(layer) for layer in network] == [AtrousDepthwiseConv2d, nn.Conv2d]
        raise KeyboardInterrupt
    assert [type(layer) for layer in network] == [nn.Conv2d, nn.Conv2d]


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 1, "padding": 1},
        {"groups": 2},
        {"out_channels": 12},
        {"stride": 2},
        {"padding": 1},
        {"padding_mode": "reflect"},
        {"dilation": (2, 3), "padding": (2, 3)},
    ],
)
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    original = conv(2, 3, bias=False, **options)
    assert type(replaced(original)) is nn.Conv2d
