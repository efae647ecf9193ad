"""Passes of a step side by side, the branches of DSBN that they use, and dropout that needs no order."""

import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tqdm
from conftest import ROOT
from segsemi.commands.memory import Memory
from segsemi.training.dropout import SteadyDropout, steady_dropout
from small_training import ALONE, CPU, batches, new_model, optim
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.utils import get_total_norm

from segsemi.commands.doctor import cost_lines, split_lines, step_seconds
from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.data.batches import Group, Part
from segsemi.datasets import DataSet, Entry
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.dsbn import branch_of, convert_dsbn, labelled_first
from segsemi.losses import LOSSES
from segsemi.models.build import Architecture
from segsemi.models.torchvision_ops import import_torchvision
from segsemi.runtime import pointwise
from segsemi.runtime.device import one_thread, threads_sharing_cores
from segsemi.runtime.distributed import Processes
from segsemi.training.loop import History, train
from segsemi.training.step import PassesSideBySide, StepPasses, step_passes

import_torchvision()  # before timm

from timm.layers import DropPath  # noqa: E402


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def chosen(groups: list[Group], pieces: int = 1, **options: Any) -> type:
    settings = {"pseudo_loss": "scl", "bn": "dsbn", "precision": "auto", "compiled": False, **options}
    model = settings.pop("model", None) or new_model()
    if settings["bn"] == "dsbn":
        convert_dsbn(model.network)
    processes = settings.pop("processes", ALONE)
    with step_passes(model, batches(groups, 1, pieces), processes, **settings) as passes:
        return type(passes)


@pytest.mark.parametrize("bn", ["dsbn", "fixed"])
def test_side_by_side_is_one_after_the_other_to_the_bit(
    bn: str,
    groups: list[Group],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    two_threads: None,
) -> None:
    """Losses, statistics and weights of two threads with a core each, and of one core; with dropout."""
    used, real = [], StepPasses.__call__
    monkeypatch.setattr(StepPasses, "__call__", lambda self, *args: used.append(type(self)) or real(self, *args))
    monkeypatch.setattr("segsemi.training.loop.CURVE_EVERY", 1)

    def trained(work: Path) -> tuple[History, dict[str, torch.Tensor]]:
        model = new_model()
        val = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
        options = {"pseudo_loss": "scl", "bn": bn, "processes": ALONE, "val": val}
        history = train(model, batches(groups, 3), optim(3, val_every=2), work=work, **options)  # type: ignore[arg-type]
        return history, model.state_dict()

    both, both_model = trained(tmp_path / "both")
    torch.set_num_threads(1)
    single, single_model = trained(tmp_path / "single")
    assert used == [PassesSideBySide] * 3 + [StepPasses] * 3
    assert both == single
    for name, value in both_model.items():
        assert torch.equal(value, single_model[name]), name


def test_both_passes_run_at_the_same_time(
    groups: list[Group],
    monkeypatch: pytest.MonkeyPatch,
    two_threads: None,
) -> None:
    together, real = threading.Barrier(2), StepPasses._loss

    def loss(*args: Any) -> torch.Tensor:
        assert torch.get_num_threads() == 1
        together.wait(timeout=60)  # breaks if one waits for the end of the other
        return real(*args)

    monkeypatch.setattr(StepPasses, "_loss", loss)
    model = new_model()
    convert_dsbn(model.network)
    own = batches(groups, 1)
    with step_passes(model, own, ALONE, pseudo_loss="ce", bn="dsbn", precision="fp32", compiled=False) as passes:
        assert float(passes(own[0], 0)) > 0


@pytest.mark.parametrize("bn", ["dsbn", "fixed", "trainable"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_computes_on_its_device_alone_and_waits_for_it_nowhere(
    groups: list[Group], monkeypatch: pytest.MonkeyPatch, loss: str, bn: str
) -> None:
    """As on a GPU: torch's meta device takes no tensor of the CPU, and has no values that could be asked for."""
    monkeypatch.setattr("segsemi.training.step.autocast", lambda *_: nullcontext())  # it has no autocast
    model, own, processes = new_model(), batches(groups, 1), Processes(torch.device("meta"))
    if bn == "dsbn":
        convert_dsbn(model.network)
    model.to("meta")
    with step_passes(model, own, processes, pseudo_loss=loss, bn=bn, precision="fp32", compiled=False) as passes:
        assert type(passes) is StepPasses
        assert passes(own[0], 0).is_meta
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 10 and all(gradient.is_meta for gradient in gradients)
    assert get_total_norm(gradients).is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(gradients[0].sum())


def test_where_passes_run_side_by_side(
    groups: list[Group],
    monkeypatch: pytest.MonkeyPatch,
    two_threads: None,
) -> None:
    """Only where a CPU has two passes of about the same size, threads, memory, and nothing that needs their order."""
    assert chosen(groups) is chosen(groups, bn="fixed") is PassesSideBySide
    assert chosen(groups, bn="trainable") is StepPasses
    assert chosen(groups, pieces=2) is StepPasses
    assert chosen(groups[:1]) is StepPasses
    assert chosen(groups, precision="bf16") is StepPasses
    assert chosen(groups, compiled=True) is StepPasses
    weak = Group("weak", groups[0].samples, 2, groups[0].classes)
    assert chosen([*groups, weak]) is StepPasses  # 4 and 2
    monkeypatch.setattr("segsemi.training.step.PIXELS_SIDE_BY_SIDE", 4 * 64 * 64)
    assert chosen(groups) is PassesSideBySide
    monkeypatch.setattr("segsemi.training.step.PIXELS_SIDE_BY_SIDE", 4 * 64 * 64 - 1)
    assert chosen(groups) is StepPasses
    monkeypatch.undo()
    monkeypatch.setattr(
        "segsemi.training.step._wrapped", lambda model, *_: model
    )  # which would ask for the other process
    assert chosen(groups, processes=Processes(CPU, count=2)) is StepPasses
    for threads, kind in ((1, StepPasses), (3, StepPasses), (4, PassesSideBySide)):
        torch.set_num_threads(threads)
        assert chosen(groups) is kind


def test_an_error_of_one_pass_ends_the_step(
    groups: list[Group],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    two_threads: None,
) -> None:
    """Lack of memory, say; no thread is left."""
    real, before = StepPasses._loss, set(threading.enumerate())

    def loss(self: StepPasses, network: nn.Module, parts: list[Part], images: dict[bool, int]) -> torch.Tensor:
        if parts[0].parallel:
            raise RuntimeError("out of memory")
        return real(self, network, parts, images)

    monkeypatch.setattr(StepPasses, "_loss", loss)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(new_model(), batches(groups, 3), optim(3), pseudo_loss="ce", bn="dsbn", work=tmp_path, processes=ALONE)
    left = {thread for thread in threading.enumerate() if not isinstance(thread, tqdm.TMonitor)} - before
    assert not left and torch.get_num_threads() == 2


def test_threads_that_cannot_begin_are_an_error(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    """Not a wait without end for the second of two."""
    real, started = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"), threads_sharing_cores(2):
        pass
    started[0].join(timeout=60)
    assert not started[0].is_alive() and torch.get_num_threads() == 2


@pytest.mark.parametrize(("size", "images"), [(64, 8), (2048, 4)])
def test_doctor_counts_the_memory_of_both_passes_where_they_run_side_by_side(
    size: int, images: int, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    params = load_params(ROOT / "params.yaml")
    augment = params.augment.model_copy(update={"crop_size": size})
    params = params.model_copy(update={"augment": augment})
    asked: list[int] = []

    def memory(architecture: Architecture, classes: Classes, *, batch: int, crop_size: int) -> Memory:
        asked.append(batch)
        return Memory(1, 1)

    monkeypatch.setattr("segsemi.commands.doctor.step_memory", memory)
    monkeypatch.setattr("segsemi.commands.doctor.step_seconds", lambda *_: {"teacher": 1.0, "student": 1.0})
    list(cost_lines(params, DataSet(SCENES, [])))
    assert asked == [params.teacher.batch_size, images]


def test_doctor_runs_no_step_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(ROOT / "params.yaml")
    monkeypatch.setattr("segsemi.commands.doctor._free_memory", lambda _: 2**20)
    monkeypatch.setattr("segsemi.commands.doctor._seconds_of_a_pass", lambda *_, **__: pytest.fail("a step was run"))
    last = list(cost_lines(params, DataSet(SCENES, [])))[-1]
    assert re.fullmatch(r"time unknown: a step takes \d\.\d GiB, and 0\.0 are free on \w+", last)


@pytest.mark.parametrize(
    ("subsets", "changes", "expected"),
    [
        (["train"] * 8 + ["val"], {}, ["split: 1 labelled and 7 unlabelled images"]),
        (
            ["train"] * 8 + ["val"],
            {"split": {"fraction": 1.0}},
            ["split: 8 labelled and 0 unlabelled images", "no unlabelled"],
        ),
        (
            ["train"] * 8 + ["val"],
            {"split": {"fraction": 1.0}, "student": {"batch_pseudo": 0}},
            ["split: 8 labelled and 0 unlabelled images"],
        ),
        (
            ["train"] * 8 + ["extra", "val"],
            {"evaluate": {"subset": "test"}},
            ["split: 1 labelled and 8 unlabelled images", "evaluate.subset is test, where no image has a label"],
        ),
    ],
)
def test_doctor_tells_what_the_split_will_be(
    subsets: list[str], changes: dict[str, dict[str, object]], expected: list[str]
) -> None:
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(
        update={name: getattr(params, name).model_copy(update=values) for name, values in changes.items()}
    )
    entries = [Entry(str(i), subset, Path(f"{i}.jpg"), Path(f"{i}.png")) for i, subset in enumerate(subsets)]
    lines = list(split_lines(params, DataSet(SCENES, entries)))
    assert len(lines) == len(expected) and all(part in line for part, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize(("bn", "threads", "seconds"), [("dsbn", 2, 4), ("dsbn", 1, 8), ("trainable", 2, 8)])
def test_doctor_times_passes_side_by_side_at_the_same_time(
    bn: str, threads: int, seconds: float, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    """A pass of n images is said to take n seconds; of 4 + 4."""
    torch.set_num_threads(threads)
    params = load_params(ROOT / "params.yaml")
    student = params.student.model_copy(update={"batch_labelled": 4, "batch_pseudo": 4, "bn": bn})
    params = params.model_copy(update={"student": student})
    monkeypatch.setattr("segsemi.commands.doctor._seconds_of_a_pass", lambda model, batch, **options: batch)
    assert step_seconds(params, SCENES)["student"] == seconds


def test_compiled_passes_compute_what_others_do(
    groups: list[Group], monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    """Loss, gradients and statistics, with a backend that needs no C++ compiler; each branch of DSBN is one graph at most."""
    torch.set_num_threads(1)  # else one is side by side, and its sums have another order
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))

    def after_two_steps(compiled: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
        model = new_model().train()
        convert_dsbn(model.network)
        options: dict[str, Any] = {"pseudo_loss": "scl", "bn": "dsbn", "precision": "fp32", "compiled": compiled}
        own = batches(groups, 2)
        with step_passes(model, own, ALONE, **options) as passes:
            losses = [float(passes(own[step], step)) for step in range(2)]
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        return losses, dict(model.named_buffers()) | gradients

    # as in what is compiled, which leaves torch the choice
    monkeypatch.setattr(pointwise, "_better_by_onednn", lambda x: False)
    losses, state = after_two_steps(compiled=False)
    monkeypatch.setattr(pointwise, "_better_by_onednn", lambda x: pytest.fail("asked within a graph"))
    assert counter.frame_count == 0
    compiled_losses, compiled_state = after_two_steps(compiled=True)
    assert 1 <= counter.frame_count <= 2
    assert compiled_losses == pytest.approx(losses, rel=1e-5)
    assert compiled_state.keys() == state.keys()
    for name, value in compiled_state.items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5)


def test_a_network_that_draws_random_numbers_of_its_own_keeps_the_order(
    groups: list[Group],
    two_threads: None,
) -> None:
    """As EfficientNet of segmentation-models-pytorch does; the question leaves its batch norms as they are."""

    class Noisy(nn.Identity):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input + torch.rand(()) if self.training else input

    model = new_model()
    model.network.segmentation_head.append(Noisy())
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert chosen(groups, model=model) is StepPasses
    own = {name.replace(".standard", ""): value for name, value in model.named_buffers() if ".parallel" not in name}
    assert own.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in own.items())


def test_branches_share_everything_but_the_batch_norm() -> None:
    """Outputs, gradients and statistics are those of the network within `labelled_first`."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 4, 1), norm)  # one norm in two places
    convert_dsbn(network)
    network[1].parallel.weight.data.fill_(2.0)
    branches = [branch_of(network, parallel=parallel) for parallel in (False, True)]
    own = {id(tensor) for tensor in [*network.parameters(), *network.buffers()]}
    for branch, kept in zip(branches, (network[1].standard, network[1].parallel), strict=True):
        assert {id(tensor) for tensor in [*branch.parameters(), *branch.buffers()]} <= own
        assert branch[1] is branch[4] and branch[1].weight is kept.weight and branch[0] is not network[0]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(4, 3, 6, 6)
    results = []
    for way in ("branches", "labelled_first"):
        network.load_state_dict(state)
        network.zero_grad(set_to_none=True)
        if way == "branches":
            outputs = [branch(part) for branch, part in zip(branches, x.split(2), strict=True)]
        else:
            outputs = []
            for count, part in zip((2, 0), x.split(2), strict=True):
                with labelled_first(network, count):
                    outputs.append(network(part))
        sum(output.square().mean() for output in outputs).backward()  # type: ignore[union-attr]
        gradients = [parameter.grad for parameter in network.parameters()]
        results.append([*outputs, *gradients, *(value.clone() for value in network.state_dict().values())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(results[0][0], branches[1](x[:2]))  # they do differ


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.4), nn.Dropout2d(0.4), DropPath(0.4), DropPath(0.4, scale_by_keep=False)], ids=str
)
def test_steady_dropout_draws_as_torch_does(layer: nn.Module, layout: torch.memory_format) -> None:
    """From its own generator, whatever others draw; for a part of a batch, what the whole batch has there."""
    network = nn.Sequential(layer)
    (steady,) = steady_dropout(network)
    assert network[0] is steady and isinstance(steady, SteadyDropout)
    x = torch.randn(6, 5, 4, 3).contiguous(memory_format=layout)
    torch.manual_seed(7)
    expected = layer(x)
    assert not torch.equal(expected, x)
    torch.manual_seed(7)
    assert torch.equal(network(x), expected)
    steady.rows = [0, 1, 4], 6
    torch.manual_seed(7)
    assert torch.equal(network(x[[0, 1, 4]]), expected[[0, 1, 4]])
    steady.rows = None
    steady.generator = torch.Generator().manual_seed(7)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(network(x), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.eval()(x) is x or torch.equal(network(x), x)


def test_steady_dropout_leaves_alone_what_drops_nothing_or_everything() -> None:
    network = nn.Sequential(nn.Dropout(0.0), nn.Dropout(1.0), DropPath(0.0), nn.ReLU())
    layers = list(network)
    assert steady_dropout(network) == [] and list(network) == layers


def test_threads_share_the_cores_and_new_ones_have_them_all(two_threads: None) -> None:
    torch.set_num_threads(4)
    with threads_sharing_cores(2) as pool:
        together = threading.Barrier(2)

        def threads(_: int) -> int:
            F.relu(torch.randn(400, 400))  # an operator that uses them
            together.wait(timeout=60)
            return torch.get_num_threads()

        assert list(pool.map(threads, range(2))) == [2, 2]
        assert torch.get_num_threads() == 4
        other: list[int] = []
        thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert other == [4]
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4
