"""1x1 convolutions of a thread with one core against torch's own, which go another way."""

import copy

import pytest
import torch
from segsemi.runtime.pointwise import PointwiseConv2d, replace_pointwise
from torch import Tensor, nn
from torch.profiler import profile

from segsemi.datasets import scenes
from segsemi.models.build import Architecture, SegmentationModel, build_model
from segsemi.runtime import pointwise
from segsemi.runtime.device import one_thread

ARCHITECTURE = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)
ONEDNN = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


@pytest.fixture
def network() -> SegmentationModel:
    return build_model(ARCHITECTURE, scenes.CLASSES, encoder_weights="imagenet", seed=0)


def replaced(original: nn.Conv2d) -> nn.Module:
    network = nn.Sequential(copy.deepcopy(original))
    replace_pointwise(network)
    return network[0]


def gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = module(x)
    weights = torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)  # another one for every output
    return y, *torch.autograd.grad((y * weights).sum() / y.numel(), [x, *module.parameters()])


def operators(module: nn.Module, x: Tensor) -> set[str]:
    with profile() as seen:
        module(x)
    return {event.key for event in seen.key_averages() if "conv" in event.key}


@pytest.mark.parametrize("shape", [(2, 24, 40, 40), (1, 24, 40, 33), (4, 24, 16, 16), (1, 24, 1, 1), (3, 24, 1, 1)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_equals_the_convolution_it_replaces(shape: tuple[int, ...], bias: bool, order: torch.memory_format) -> None:
    torch.manual_seed(0)
    original = nn.Conv2d(24, 40, 1, bias=bias).to(memory_format=order)  # type: ignore[call-overload]
    ours = replaced(original)
    assert isinstance(ours, PointwiseConv2d)
    x = torch.randn(shape).contiguous(memory_format=order)
    exact = gradients(copy.deepcopy(original).double(), x.double())
    with one_thread():
        for found, expected in zip(gradients(ours, x), exact, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        in_double = gradients(ours.double(), x.double())
        for found, expected in zip(in_double, exact, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not ONEDNN, reason="this torch has no oneDNN or no MKL")
def test_one_core_takes_onednn_for_large_maps() -> None:
    original = nn.Conv2d(24, 40, 1)
    ours = replaced(original)
    with one_thread():
        for shape in ((2, 24, 23, 23), (1, 24, 33, 32)):
            assert "aten::mkldnn_convolution" in operators(ours, torch.rand(shape))
            assert "aten::mkldnn_convolution" not in operators(original, torch.rand(shape))
        for shape in ((1, 24, 32, 32), (4, 24, 16, 16)):
            assert operators(ours, torch.rand(shape)) == operators(original, torch.rand(shape))
    few = replaced(nn.Conv2d(4, 40, 1))
    with one_thread():  # torch's dilated convolution without oneDNN is the slowest
        assert "aten::slow_conv_dilated2d" not in operators(few, torch.rand(1, 4, 60, 60))
    assert "aten::slow_conv_dilated2d" in operators(nn.Conv2d(4, 40, 1, dilation=2), torch.rand(1, 4, 60, 60))


@pytest.mark.skipif(not ONEDNN, reason="this torch has no oneDNN or no MKL")
def test_large_maps_of_the_network_go_by_onednn(network: SegmentationModel) -> None:
    pixels: list[int] = []
    with one_thread(), profile(record_shapes=True) as seen:
        network.train()(torch.rand(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)).sum().backward()
    for event in seen.events():
        if "slow_conv" in event.name:
            shapes = [shape for shape in event.input_shapes if len(shape) == 4 and shape[-2:] != [1, 1]]
            pixels += [shape[0] * shape[2] * shape[3] for shape in shapes]
    assert pixels and max(pixels) <= 1024


def test_what_is_exported_is_a_plain_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "_better_by_onednn", lambda x: pytest.fail("asked within a graph"))
    with one_thread():
        exported = torch.export.export(nn.Sequential(replaced(nn.Conv2d(24, 40, 1))), (torch.rand(2, 24, 40, 80),))
    calls = [node for node in exported.graph.nodes if "conv" in str(node.target)]
    assert len(calls) == 1 and [2, 2] not in calls[0].args


@pytest.mark.parametrize("case", ["without oneDNN", "bfloat16", "autocast", "unbatched"])
def test_other_input_is_left_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = nn.Conv2d(24, 40, 1)
    ours, x = replaced(original), torch.rand(2, 24, 40, 80)
    taken: list[object] = []
    real = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: taken.append(x) or real(self, x))
    with one_thread():
        if case == "without oneDNN":
            with torch.backends.mkldnn.flags(enabled=False):
                ours(x)
        elif case == "bfloat16":
            ours.bfloat16()(x.bfloat16())
        elif case == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                ours(x)
        else:
            ours(x[0])
    assert len(taken) == 1


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"stride": 2}, {"groups": 2}, {"padding": 1}, {"padding": 1, "padding_mode": "reflect"}],
)
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    original = nn.Conv2d(24, 40, **{"kernel_size": 1, **options})  # type: ignore[arg-type]
    assert type(replaced(original)) is nn.Conv2d


def test_parameters_and_their_names_stay_and_a_shared_one_stays_shared() -> None:
    shared = nn.Conv2d(24, 24, 1).eval()
    network = nn.Sequential(shared, nn.Sequential(shared))
    replace_pointwise(network)
    assert isinstance(network[0], PointwiseConv2d) and network[0] is network[1][0]
    assert network[0].weight is shared.weight and network[0].bias is shared.bias and not network[0].training
    assert list(nn.Sequential(network[0]).state_dict()) == ["0.weight", "0.bias"]
