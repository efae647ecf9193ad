"""Two processes over gloo learn what one does."""

import copy
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from segsemi.models.torchvision_ops import import_torchvision

import_torchvision()  # before timm

from timm.layers import BatchNormAct2d  # noqa: E402

from segsemi.core.errors import UserError  # noqa: E402
from segsemi.data.batches import Part, rows_in_whole  # noqa: E402
from segsemi.dsbn import convert_dsbn, strip_dsbn  # noqa: E402
from segsemi.runtime.distributed import Processes, start_processes  # noqa: E402
from segsemi.training.batch_norm import SyncedBatchNorm, _OnGPU, sync_layers, unsync_layers  # noqa: E402
from segsemi.training.dropout import SteadyDropout  # noqa: E402

ROOT = Path(__file__).parents[2]


def python(*arguments: object, processes: int = 1, machines: int = 1) -> None:
    """One command a machine, as each would start its share of the processes: here all on this one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes // machines)]
    if machines > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free.getsockname()[1]}"]
        launcher = [*torchrun, "--nnodes", str(machines), *meet, "--local_addr", "127.0.0.1"]
    else:
        launcher = [*torchrun, "--standalone"] if processes > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, *map(str, arguments)]
    run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    with ThreadPoolExecutor(machines) as pool:
        for done in pool.map(run, [command] * machines):
            assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("accumulate", "loss", "bn", "machines"),
    [(1, "scl", "dsbn", 2), (2, "scl_released", "trainable", 1), (2, "ce", "dsbn", 1)],
)
def test_two_processes_train_as_one(tmp_path: Path, accumulate: int, loss: str, bn: str, machines: int) -> None:
    """Losses, validation, the batch norms' statistics and the weights; with dropout, padding, SAUG and pieces of a batch."""
    results = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        options = {"processes": processes, "machines": min(processes, machines)}
        python("-m", "tests.two_processes", out, accumulate, loss, bn, **options)
        curve, statistics = json.loads((out / "curve.json").read_text())
        results.append((curve, statistics, safetensors.torch.load_file(out / "model.safetensors")))
    (one, one_bn, one_model), (two, two_bn, two_model) = results
    assert len(one) == 3
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["val_miou"] == pytest.approx(a["val_miou"], abs=2e-3)
    assert len(one_bn) == len(two_bn) and (len(one_bn) > 40) == (bn == "dsbn")
    for a, b in zip(one_bn, two_bn, strict=True):
        assert b == {
            key: pytest.approx(value, rel=1e-3, abs=1e-4) if key != "layer" else value for key, value in a.items()
        }
    before = safetensors.torch.load_file(tmp_path / "1" / "before.safetensors")
    learnt = [name for name in before if "running" not in name and "num_batches" not in name]
    moved = max(float((one_model[name] - before[name]).abs().max()) for name in learnt)
    apart = max(float((one_model[name] - two_model[name]).abs().max()) for name in learnt)
    assert moved > 1e-4
    assert apart < 0.02 * moved


def test_a_process_takes_the_same_part_of_every_piece() -> None:
    """Rows of the whole piece, labelled ones first: 2 of 4 labelled, 1 of 2 pseudo-labelled in each of two processes."""
    none = torch.zeros(0)
    parts = [Part(none, none, ["a", "b"], False, False), Part(none, none, ["c"], True, True)]
    assert rows_in_whole(parts, 0, 2) == ([0, 1, 4], 6)
    assert rows_in_whole(parts, 1, 2) == ([2, 3, 5], 6)
    assert rows_in_whole(parts[1:], 1, 2) == ([1], 2)


def test_synced_layers_keep_the_names_of_weights_and_the_modules() -> None:
    """So a checkpoint fits any number of processes, and training ends as the plain network."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4, act_layer=nn.PReLU), nn.Dropout(0.5)
    )
    modules, names = list(network), list(network.state_dict())
    shared = nn.ModuleList([network, nn.Sequential(network[1])])
    sync_layers(shared)
    assert [isinstance(module, SyncedBatchNorm | SteadyDropout) for module in network] == [False, True, True, True]
    assert network[1] is shared[1][0]  # shared before, shared now
    assert list(network.state_dict()) == names
    convert_dsbn(network)
    strip_dsbn(network)
    unsync_layers(shared)
    assert [a is b for a, b in zip(network, modules, strict=True)] == [True] * 4
    assert list(network.state_dict()) == names


def test_synced_layers_of_one_process_in_eval_mode_change_nothing() -> None:
    network = nn.Sequential(BatchNormAct2d(4), nn.Dropout2d(0.5)).eval()
    x = torch.randn(2, 4, 3, 3)
    expected = network(x)
    sync_layers(network)
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_of_gpus_is_the_original_where_there_is_one_process(training: bool) -> None:
    """Its output and statistics; what it does with more needs GPUs."""
    original = BatchNormAct2d(4, act_layer=nn.PReLU).train(training)
    x = torch.randn(5, 4, 3, 3)
    layer = _OnGPU(copy.deepcopy(original))
    assert torch.equal(layer(x), original(x))
    for name, value in original.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value), name


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="machine.device 'cuda:1' names one GPU for 2 processes; use auto or cuda"):
        start_processes("cuda:1").__enter__()


def test_loaders_are_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert Processes(torch.device("cpu")).loaders("auto") == 0 and Processes(torch.device("cpu")).loaders(3) == 3
    assert [Processes(gpu, here=here).loaders("auto") for here in (1, 2, 4, 16)] == [8, 7, 3, 1]
