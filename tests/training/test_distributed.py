"""Two processes over gloo learn what one does."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
import two_processes
from small_training import ALONE, a_recipe, new_model
from timm.layers import BatchNormAct2d
from torch import nn

from segsemi.core.config import MachineParams
from segsemi.core.errors import UserError
from segsemi.dsbn import convert_dsbn, strip_dsbn
from segsemi.runtime.distributed import Runtime, start_runtime
from segsemi.training.step import _check_share, synchronised

ROOT = Path(__file__).parents[2]


def start_on_two_machines(module: str, *arguments: object) -> None:
    """Start torchrun twice with one process each, as two machines do: here both on this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "--nnodes", "2", *meet]
    command = [*torchrun, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(run, [command] * 2):
            assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.pipeline
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Losses, validation, the batch norms' statistics and the weights; with padding, SAUG and pieces of a batch; no dropout."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    two_processes.main(tmp_path / "one", ALONE)
    start_on_two_machines("tests.two_processes", tmp_path / "two")
    before = {name: value.detach() for name, value in new_model().named_parameters()}
    for bn in ("dsbn", "trainable", "separate"):
        folders = [tmp_path / name / bn for name in ("one", "two")]
        (one, one_bn), (two, two_bn) = (json.loads((folder / "curve.json").read_text()) for folder in folders)
        assert len(one) == 2
        for a, b in zip(one, two, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
            assert b["val_miou"] == pytest.approx(a["val_miou"], abs=2e-3)
        assert len(one_bn) == len(two_bn) and (len(one_bn) > 40) == (bn == "dsbn")
        for a, b in zip(one_bn, two_bn, strict=True):
            assert a.pop("layer") == b.pop("layer") and b == pytest.approx(a, rel=1e-3, abs=1e-4)
        one_model, two_model = (safetensors.torch.load_file(folder / "model.safetensors") for folder in folders)
        moved = max(float((one_model[name] - before[name]).abs().max()) for name in before)
        apart = max(float((one_model[name] - two_model[name]).abs().max()) for name in before)
        assert moved > 1e-4
        assert apart < 0.02 * moved


def test_synchronised_layers_keep_the_names_of_weights_and_work_with_dsbn() -> None:
    """So a checkpoint fits any number of processes, and the saved model is a plain network."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4, act_layer=nn.PReLU))
    names, weight = list(network.state_dict()), network[1].weight
    synced = synchronised(network, Runtime(torch.device("cuda"), count=2))
    assert isinstance(synced[1], nn.SyncBatchNorm) and isinstance(synced[2], nn.SyncBatchNorm)
    assert list(synced.state_dict()) == names and synced[1].weight is weight
    assert list(strip_dsbn(convert_dsbn(synced)).state_dict()) == names


def test_several_processes_on_a_cpu_are_warned_of_their_batch_statistics() -> None:
    with pytest.warns(UserWarning, match="each process has the batch statistics of its own images"):
        synchronised(nn.BatchNorm2d(4), Runtime(torch.device("cpu"), count=2))


@pytest.mark.parametrize(("bn", "too_few"), [("dsbn", True), ("trainable", False)])
def test_a_single_image_per_process_and_batch_norm_is_refused_on_a_cpu(bn: str, too_few: bool) -> None:
    runtime = Runtime(torch.device("cpu"), count=2)
    recipe = a_recipe(1, bn=bn)  # 2 labelled and 2 pseudo-labelled images
    if too_few:
        with pytest.raises(UserError, match="student_1: 2 images through one batch norm are too few for 2 processes"):
            _check_share(recipe, runtime)
    else:
        _check_share(recipe, runtime)
    _check_share(recipe, Runtime(torch.device("cuda"), count=2))


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="machine.device 'cuda:1' names one GPU for 2 processes; use auto or cuda"):
        start_runtime(MachineParams(device="cuda:1", workers=0, cache_mb=0, precision="fp32", log="none")).__enter__()


def test_loaders_are_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    cpu = torch.device("cpu")
    assert Runtime(cpu, workers="auto").loader_processes == 0 and Runtime(cpu, workers=3).loader_processes == 3
    processes = [Runtime(gpu, workers="auto", here=here) for here in (1, 2, 4, 16)]
    assert [runtime.loader_processes for runtime in processes] == [8, 7, 3, 1]
    assert [replace(runtime, cache_mb=560).loader_cache_mb for runtime in processes] == [70, 40, 46, 35]
