"""Distribution-specific batch normalization: conversion, the split of the batch, and the way back to a plain network."""

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segsemi.core.errors import UserError
from segsemi.dsbn import DistributionSpecificBatchNorm, bn_statistics, convert_dsbn, labelled_first, strip_dsbn


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after some training: no parameter or statistic at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name in ("weight", "running_var"):
                    tensor.data.uniform_(0.5, 2.0, generator=generator)
                elif name in ("bias", "running_mean"):
                    tensor.data.normal_(generator=generator)
    return network


def draw(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


class Net(nn.Module):
    """Convolutions, batch norms at two depths, a fused one, and one of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.ModuleDict({"conv": nn.Conv2d(4, 5, 3, padding=1), "norm": BatchNormAct2d(5)})
        self.neck = nn.Linear(5, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block["norm"](self.block["conv"](self.first(x)))
        return self.norm(self.neck(x.mean((2, 3))))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return randomise(Net().double())


def norms(network: nn.Module) -> list[DistributionSpecificBatchNorm]:
    return [module for module in network.modules() if isinstance(module, DistributionSpecificBatchNorm)]


def with_parallel_norms(network: nn.Module) -> nn.Module:
    """A plain copy of a converted network whose batch norms are the parallel ones."""
    network = copy.deepcopy(network)
    for module in norms(network):
        module.standard = module.parallel
    return strip_dsbn(network)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (6, 3)),
        (nn.BatchNorm1d(3), (6, 3, 7)),
        (nn.BatchNorm2d(3), (6, 3, 5, 4)),
        (nn.BatchNorm3d(3), (6, 3, 2, 3, 4)),
        (nn.SyncBatchNorm(3), (6, 3, 5, 4)),
        (BatchNormAct2d(3), (6, 3, 5, 4)),
        (BatchNormAct2d(3, act_layer=nn.Hardtanh, inplace=False), (6, 3, 5, 4)),
        (nn.BatchNorm2d(3, momentum=None), (6, 3, 5, 4)),
        (nn.BatchNorm2d(3, affine=False), (6, 3, 5, 4)),
        (nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 5, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else f"{len(value)}d",
)
def test_every_kind_of_batch_norm_is_split(norm: nn.Module, shape: tuple[int, ...]) -> None:
    """By two norms that begin as copies and do not share their state; in training and in eval mode, and without touching the
    input (fused activations work in place)."""
    norm = randomise(copy.deepcopy(norm).double())
    first, second = copy.deepcopy(norm), copy.deepcopy(norm)
    converted = convert_dsbn(nn.Sequential(norm))
    for train in (True, True, False):
        converted.train(train), first.train(train), second.train(train)
        x = draw(*shape)
        kept = x.clone()
        with labelled_first(converted, 2):
            result = converted(x)
        assert torch.equal(result, torch.cat([first(x[:2]), second(x[2:] + 0.0)]))
        assert torch.equal(x, kept)
    for count, plain in ((6, first), (0, second)):
        with labelled_first(converted, count):
            assert torch.equal(converted(x), plain(x + 0.0))
    (module,) = norms(converted)
    for own, plain in ((module.standard, first), (module.parallel, second)):
        assert own.state_dict().keys() == plain.state_dict().keys()
        assert all(torch.equal(value, plain.state_dict()[key]) for key, value in own.state_dict().items())


def test_one_forward_equals_two_networks(net: nn.Module) -> None:
    """Outputs, statistics and gradients, over two steps, so that the two norms differ in the second."""
    convert_dsbn(net)
    for step in range(2):
        labelled, pseudo = draw(3, 3, 6, 7, seed=step), draw(5, 3, 6, 7, seed=10 + step, shift=2.0)
        first, second = strip_dsbn(copy.deepcopy(net)), with_parallel_norms(net)
        net.zero_grad()
        with labelled_first(net, len(labelled)):
            result = net(torch.cat([labelled, pseudo]))
        expected = torch.cat([first(labelled), second(pseudo)])
        torch.testing.assert_close(result, expected)
        result.sin().sum().backward()
        expected.sin().sum().backward()

        together, one, two = (dict(network.named_parameters()) for network in (net, first, second))
        for name, parameter in one.items():
            stem, _, leaf = name.rpartition(".")
            if f"{stem}.standard.{leaf}" in together:
                torch.testing.assert_close(together[f"{stem}.standard.{leaf}"].grad, parameter.grad)
                torch.testing.assert_close(together[f"{stem}.parallel.{leaf}"].grad, two[name].grad)
            else:  # shared by both parts: the gradients add up
                assert parameter.grad is not None and two[name].grad is not None
                torch.testing.assert_close(together[name].grad, parameter.grad + two[name].grad)
        torch.testing.assert_close(dict(strip_dsbn(copy.deepcopy(net)).named_buffers()), dict(first.named_buffers()))
        torch.testing.assert_close(dict(with_parallel_norms(net).named_buffers()), dict(second.named_buffers()))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.05 * parameter.grad


def test_outside_the_block_all_goes_through_the_standard_norm(net: nn.Module) -> None:
    plain, x = copy.deepcopy(net), draw(4, 3, 6, 6)
    convert_dsbn(net)
    with labelled_first(net, 0):
        net(x + 1.0)  # the two norms differ now
    assert torch.equal(net(x), plain(x))
    net.eval(), plain.eval()
    assert torch.equal(net(x), plain(x))


def test_wrong_use_is_refused(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="no DSBN"), labelled_first(net, 1):
        pass
    convert_dsbn(net)
    with pytest.raises(ValueError, match="not be negative, found -1"), labelled_first(net, -1):
        pass
    with pytest.raises(ValueError, match=r"count=5\), but the batch has only 4"), labelled_first(net, 5):
        net(draw(4, 3, 6, 6))
    with pytest.raises(
        UserError, match="Linear has no batch norm, so DSBN does not apply: set student.bn to trainable"
    ):
        convert_dsbn(nn.Linear(2, 2))


def test_blocks_nest_and_an_exception_restores_the_state(net: nn.Module) -> None:
    convert_dsbn(net)
    with labelled_first(net, 3):
        with pytest.raises(KeyError), labelled_first(net, 1):
            assert {module.labelled for module in norms(net)} == {1}
            raise KeyError
        assert {module.labelled for module in norms(net)} == {3}
    assert {module.labelled for module in norms(net)} == {None}


def test_a_shared_batch_norm_stays_shared() -> None:
    norm = nn.BatchNorm2d(3)
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), norm)
    network = nn.ModuleDict({"a": nn.Sequential(norm, inner, norm), "b": norm, "c": inner})
    keys = list(network.state_dict())
    convert_dsbn(network)
    places = (network["a"][0], network["a"][2], network["a"][1][1], network["b"], network["c"][1])
    assert len({id(place) for place in places}) == 1 and isinstance(places[0], DistributionSpecificBatchNorm)
    strip_dsbn(network)
    places = (network["a"][0], network["a"][2], network["a"][1][1], network["b"], network["c"][1])
    assert all(place is norm for place in places)
    assert list(network.state_dict()) == keys


@pytest.mark.parametrize("train", [True, False])
def test_type_mode_and_trainability_are_kept(train: bool) -> None:
    """Of a batch norm that is the whole network, too."""
    norm = nn.BatchNorm2d(3).double().train(train)
    norm.weight.requires_grad_(False)
    module = convert_dsbn(norm)
    assert isinstance(module, DistributionSpecificBatchNorm) and module.standard is norm is strip_dsbn(module)
    assert [part.training for part in module.modules()] == [train] * 3
    for part in (module.standard, module.parallel):
        assert isinstance(part, nn.BatchNorm2d)
        assert part.weight.dtype == part.running_var.dtype == torch.float64
        assert not part.weight.requires_grad and part.bias.requires_grad


@pytest.mark.parametrize("convert", [convert_dsbn, lambda network: network], ids=["converted", "plain"])
def test_strip_gives_the_original_modules_back(convert: Callable[[nn.Module], nn.Module], net: nn.Module) -> None:
    modules, keys = dict(net.named_modules()), list(net.state_dict())
    assert strip_dsbn(convert(net)) is net
    assert {name: id(module) for name, module in net.named_modules()} == {n: id(m) for n, m in modules.items()}
    assert list(net.state_dict()) == keys


def test_statistics_of_both_branches() -> None:
    """Against the formulas, channel by channel, for one batch norm with momentum 1: the statistics are the batch's."""
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, momentum=1.0), nn.ReLU())
    assert bn_statistics(network) == []
    convert_dsbn(network)
    batch = torch.randn(6, 3, 8, 8) * torch.tensor([1.0, 1, 3, 3, 3, 3]).view(6, 1, 1, 1) + 0.5
    with labelled_first(network, 2):
        network(batch)
    x = network[0](batch).detach().double()
    (row,) = bn_statistics(network)
    parts = [part.transpose(0, 1).flatten(1) for part in (x[:2], x[2:])]
    means, variances = [part.mean(1) for part in parts], [part.var(1) for part in parts]
    assert row["layer"] == "1"
    expected = [means[0].mean(), means[1].mean(), variances[0].mean(), variances[1].mean()]
    assert list(row.values())[1:] == pytest.approx([float(value) for value in expected], rel=1e-4)
