"""Look before a long run: machine, params and data, and what the run will take. `python -m segsemi doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch

from segsemi.commands.memory import Memory, step_memory
from segsemi.commands.predict import laid_over
from segsemi.core.classes import Classes, colourise
from segsemi.core.config import ModelParams, Params, total_steps
from segsemi.core.errors import UserError
from segsemi.core.paths import data_root
from segsemi.core.pictures import captioned, grid, save_png, shrunk
from segsemi.data.images import read_image, read_label, require_equal_size
from segsemi.data.manifest import Row
from segsemi.datasets import DataSet, find_dataset, scenes
from segsemi.datasets.split import split_as
from segsemi.dsbn import branch_of
from segsemi.models.build import SegmentationModel, architecture_of
from segsemi.runtime.device import autocast, choose_device, threads_sharing_cores, training_format
from segsemi.training.step import worth_side_by_side

SAMPLE = 200  # labels that are read for the shares of the classes
PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "pyimgaug", "numpy", "dvc")


def machine_lines(params: Params) -> Iterator[str]:
    """Versions, device, processor cores and free disk."""
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package}: not installed; pip install {package}"
    device = choose_device(params.machine.device)
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    yield f"device {device}{name}, {os.cpu_count()} cores, {shutil.disk_usage('.').free / 2**30:.1f} GiB of disk free"


def find_data(params: Params) -> DataSet:
    """The data set that params name.

    Raises:
        UserError: it is not as expected; the embedded one has not been written yet.
    """
    root = data_root(params.data)
    if params.data.embedded and not root.exists():
        raise UserError("the embedded data set is not there yet: `dvc repro prepare` writes it")
    return find_dataset(params.data.name, root, val_fraction=params.data.val_fraction, seed=params.seed)


def data_lines(data: DataSet, root: Path) -> Iterator[str]:
    """Images and labels of each subset, sizes, and each class's share of the pixels, from an even sample of the labels.

    Raises:
        UserError: a file of the sample is broken.
    """
    counts = Counter((entry.subset, entry.label is not None) for entry in data.entries)
    for subset in sorted({entry.subset for entry in data.entries}):
        yield f"{subset}: {counts[subset, True]} images with a label, {counts[subset, False]} without"
    labelled = [entry for entry in data.entries if entry.label is not None]
    labelled = [entry for entry in labelled if entry.subset != "extra"] or labelled  # extra ones are rough, if any
    chosen = [labelled[index] for index in _even(len(labelled), SAMPLE)]
    pixels, sizes = np.zeros(256, np.int64), Counter[tuple[int, int]]()
    for entry in chosen:
        assert entry.label is not None
        label = read_label(root / entry.label, data.classes)
        pixels += np.bincount(label.ravel(), minlength=256)
        sizes[label.shape[0], label.shape[1]] += 1
    most = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(3))
    yield f"sizes, height x width, in a sample of {len(chosen)} labels: {most}{' ...' if len(sizes) > 3 else ''}"
    for id_, name in enumerate(data.classes.names):
        note = "  <- no pixel in the sample" if pixels[id_] == 0 else ""
        yield f"class {id_:3d} {name:20s} {100 * pixels[id_] / pixels.sum():6.2f} % of the pixels{note}"
    yield f"no class (ignored)        {100 * pixels[data.classes.ignore_index] / pixels.sum():6.2f} %"


def split_lines(params: Params, data: DataSet) -> Iterator[str]:
    """How many images will be labelled and unlabelled, without mended labels, and what lacks images for what params want.

    Raises:
        UserError: see `split_rows`.
    """
    rows = [
        Row(entry.id, entry.subset, str(entry.image), str(entry.label or ""), 0, 0, "", "") for entry in data.entries
    ]
    split = split_as(rows, params.split, seed=params.seed)
    yield f"split: {len(split.labelled)} labelled and {len(split.unlabelled)} unlabelled images"
    if not split.unlabelled and params.rounds and params.student.batch_pseudo:
        yield "warning: students have no unlabelled image to learn from: lower split.fraction, or set rounds: {}"
    measured = split.test if params.evaluate.subset == "test" else split.val
    if not any(row.label for row in measured):
        yield f"warning: evaluate.subset is {params.evaluate.subset}, where no image has a label"


def _even(length: int, number: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, num=min(number, length), dtype=int)).tolist() if length else []


def save_nine(data: DataSet, root: Path, path: Path) -> None:
    """A picture of nine labelled images with their labels laid over them, each at most 320 pixels wide."""
    labelled = [entry for entry in data.entries if entry.label is not None]
    panel = []
    for index in _even(len(labelled), 9):
        entry = labelled[index]
        assert entry.label is not None
        picture = _laid_over(root / entry.image, root / entry.label, data.classes)
        panel.append(captioned(shrunk(picture, 320), entry.id))
    if panel:
        save_png(path, grid(panel, columns=3))


def _laid_over(image: Path, label: Path, classes: Classes) -> np.ndarray:
    pixels, ids = read_image(image), read_label(label, classes)
    require_equal_size(pixels, ids, label)
    return laid_over(pixels, colourise(ids, classes))


def cost_lines(params: Params, data: DataSet) -> Iterator[str]:
    """Memory, disk and time that `dvc repro` will take; time last, since it runs real steps, which may not fit."""
    weights = 0
    for name, step in _steps(params).items():
        memory = _memory(step, params, data.classes)
        yield f"{name}: {memory.step / 2**30:.1f} GiB and about a quarter more for a step; raise {name}.accumulate for less"
        weights = max(weights, memory.weights)
    models = 1 + len(params.rounds) + len(params.baselines)
    disk = 2 * weights * models + 6 * weights  # in workspace and cache; two checkpoints with momentum and DSBN
    yield f"disk for models and checkpoints: {disk / 2**20:.0f} MiB"
    free = shutil.disk_usage(".").free
    if free < 2 * disk:
        yield f"warning: only {free / 2**20:.0f} MiB free"
    try:
        seconds = step_seconds(params, data.classes)
    except UserError as error:
        yield f"time unknown: {error}"
        return
    for name in seconds:
        yield f"{name}: {seconds[name]:.2f} s a step of computing, {getattr(params, name).steps} steps"
    counts = {"teacher": params.teacher.steps, "student": params.student.steps * len(params.rounds)}
    for student in params.baselines.values():
        counts["teacher"] += total_steps(
            params.rounds, student, teacher_steps=params.teacher.steps, student_steps=params.student.steps
        )
    total = sum(seconds[name] * counts[name] for name in counts)
    yield f"training in all: {total / 60:.0f} minutes and more (loading, pseudo labels, evaluation)"


def step_seconds(params: Params, classes: Classes) -> dict[str, float]:
    """Seconds of computing in one step of teacher and student, from three steps on made-up images of the right size.

    Raises:
        UserError: there is not the memory for one.
    """
    return {name: _seconds_of(step, params, classes) for name, step in _steps(params).items()}


def training_seconds(trainings: Iterable[tuple[Params, str, int]]) -> float:
    """Seconds of computing in trainings: params, teacher or student, and steps of each; steps that are alike are measured once.

    Raises:
        UserError: see `find_data` and `step_seconds`.
    """
    measured: dict[str, float] = {}
    total = 0.0
    for params, name, steps in trainings:
        step = _steps(params)[name]
        key = repr((step, params.augment.crop_size, params.machine, params.data))
        if key not in measured:
            measured[key] = _seconds_of(step, params, _classes(params))
        total += steps * measured[key]
    return total


def _classes(params: Params) -> Classes:
    """Those of the data set; the embedded one's are known before it is written."""
    return scenes.CLASSES if params.data.embedded else find_data(params).classes


def _seconds_of(step: _Step, params: Params, classes: Classes) -> float:
    device = choose_device(params.machine.device)
    needed, free = _memory(step, params, classes).step, _free_memory(device)
    if needed > free:
        raise UserError(f"a step takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free on {device}")
    model = SegmentationModel(architecture_of(step.network, params.augment), classes)
    model.to(device=device, memory_format=training_format(device)).train()  # type: ignore[call-overload]
    seconds_of_a_pass = partial(
        _seconds_of_a_pass, size=params.augment.crop_size, device=device, precision=params.machine.precision
    )
    if not step.side_by_side:
        return sum(seconds_of_a_pass(model, batch) for batch in step.passes) * step.pieces
    branches = [branch_of(model, parallel=parallel) for parallel in (False, True)]
    with threads_sharing_cores(2) as pool:
        return max(pool.map(seconds_of_a_pass, branches, step.passes))


def _memory(step: _Step, params: Params, classes: Classes) -> Memory:
    architecture = architecture_of(step.network, params.augment)
    batch = sum(step.passes) if step.side_by_side else max(step.passes)
    return step_memory(architecture, classes, batch=batch, crop_size=params.augment.crop_size)


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


class _Step(NamedTuple):
    """What a training step of teacher or student does.

    Attributes:
        passes: the images that go through the network at a time, of one piece of the batch.
        pieces: how many of those a batch has.
        side_by_side: whether the passes are done at the same time.
    """

    network: ModelParams
    passes: list[int]
    pieces: int
    side_by_side: bool


def _steps(params: Params) -> dict[str, _Step]:
    machine, teacher, student = params.machine, params.teacher, params.student
    own = params.student_model if student.init == "pretrained" else params.model
    # fixed batch norms can do with one image at a time, those measured here can not
    passes = [max(2, batch) for batch in student.passes]
    device = choose_device(machine.device)
    side_by_side = student.accumulate == 1 and worth_side_by_side(
        passes, params.augment.crop_size, device, precision=machine.precision, compiled=machine.compile
    )
    return {
        "teacher": _Step(params.model, [teacher.batch_size // teacher.accumulate], teacher.accumulate, False),
        "student": _Step(own, passes, student.accumulate, side_by_side),
    }


def _seconds_of_a_pass(model: torch.nn.Module, batch: int, size: int, device: torch.device, precision: str) -> float:
    images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=training_format(device))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with autocast(device, precision):
            logits = model(images)
        logits.float().square().mean().backward()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
