"""Check machine, params and data before a long run, and measure a training step. `python -m segsemi doctor`."""

import argparse
import copy
import importlib.metadata
import math
import os
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from segsemi.commands.predict import laid_over
from segsemi.core.classes import Classes
from segsemi.core.config import EvaluateParams, ModelParams, Params, PseudoLabelParams, load_params
from segsemi.core.errors import UserError
from segsemi.core.paths import data_root
from segsemi.core.pictures import captioned, grid, save_png, shrunk
from segsemi.core.recipe import Recipe, baseline_recipe, student_recipe, supervised_recipe
from segsemi.core.resize import scaled_to_short_side
from segsemi.data.batches import PartBatch
from segsemi.data.images import LabelledPairs, require_size
from segsemi.data.manifest import evenly_spread
from segsemi.datasets import DataSet, find_dataset
from segsemi.datasets.entries import Checked, odd_lines, read_entries, read_lines, refuse
from segsemi.datasets.split import Split, plan_warnings, split_rows
from segsemi.inference import predict_probabilities
from segsemi.models.build import SegmentationModel, architecture_of
from segsemi.runtime.cpu import fast_atrous_convolutions
from segsemi.runtime.device import choose_device
from segsemi.runtime.distributed import Runtime
from segsemi.training.optimiser import make_optimizer
from segsemi.training.step import training_network, training_step

SAMPLE = 200  # labels to read for the shares of the classes
PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "opencv-python-headless", "numpy", "dvc")


def run(args: argparse.Namespace) -> int:
    """Print all lines; return the exit code."""
    params = load_params(args.params)
    print(f"{args.params}: valid")
    for line in examine(params, args.picture):
        print(line, flush=True)
    return 0


def examine(params: Params, picture: Path | None) -> Iterator[str]:
    """Yield lines about machine, data, split and costs; write nine images to `picture`.

    Raises:
        UserError: the data set is not as expected.
    """
    yield from machine_lines(params)
    root = data_root(params.data)
    if params.data.embedded and not root.exists():
        raise UserError("the embedded data set does not exist yet; write it with `dvc repro prepare`")
    data = find_dataset(params.data.name, root, val_fraction=params.data.val_fraction, seed=params.seed)
    sample = read_sample(data, root, skip_broken=params.data.skip_broken)
    yield from data_lines(data, sample)
    listed = read_lines(Path(params.split.labelled_list), may_be_empty=True)
    split = split_rows(data.entries, params.split, listed, seed=params.seed)
    yield from split_lines(params, split)
    if picture:
        save_nine(data, root, picture)
        yield f"picture: {picture}"
    height, width = np.median([(item.row.height, item.row.width) for item in sample], axis=0).astype(int).tolist()
    yield from cost_lines(params, data.classes, split, (height, width))


def machine_lines(params: Params) -> Iterator[str]:
    """Yield versions, device, processor cores and free disk."""
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package}: not installed; pip install {package}"
    device = choose_device(params.machine.device)
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    yield f"device {device}{name}, {os.cpu_count()} cores, {shutil.disk_usage('.').free / 2**30:.1f} GiB of disk free"


def read_sample(data: DataSet, root: Path, *, skip_broken: bool) -> list[Checked]:
    """Read some images with their labels, and some without.

    Raises:
        UserError: files are broken.
    """
    labelled = [entry for entry in data.entries if entry.label and entry.subset != "extra"]  # extra ones are rough
    chosen = labelled or [entry for entry in data.entries if entry.label]
    without = [entry for entry in data.entries if not entry.label]
    found = read_entries(root, evenly_spread(chosen, SAMPLE) + evenly_spread(without, SAMPLE // 4), data.classes)
    refuse([item for item in found if item.error and (item.row.label or not skip_broken)])
    return [item for item in found if not item.error]


def data_lines(data: DataSet, sample: Sequence[Checked]) -> Iterator[str]:
    """Yield images and labels of each subset, sizes, each class's share of the pixels, and warnings, from a sample."""
    counts = Counter((entry.subset, bool(entry.label)) for entry in data.entries)
    for subset in sorted({entry.subset for entry in data.entries}):
        yield f"{subset}: {counts[subset, True]} images with a label, {counts[subset, False]} without"
    yield from data.notes
    pixels = np.sum([item.counts for item in sample], axis=0)
    sizes = Counter((item.row.height, item.row.width) for item in sample)
    most = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(3))
    yield f"sizes, height x width, in a sample of {len(sample)} images: {most}{' ...' if len(sizes) > 3 else ''}"
    percent = 100 * pixels / max(1, pixels.sum())
    for id_, name in enumerate(data.classes.names):
        note = "" if pixels[id_] else "  <- no pixel in the sample"
        yield f"class {id_:3d} {name:20s} {percent[id_]:6.2f} % of the pixels{note}"
    yield f"no class (ignored)        {percent[data.classes.ignore_index]:6.2f} %"
    for line in odd_lines(sample, data.classes):
        yield f"{line} (in the sample)"


def split_lines(params: Params, split: Split) -> Iterator[str]:
    """Yield how many images will be labelled and unlabelled, not counting corrected labels, and warnings."""
    yield f"split: {len(split.labelled)} labelled and {len(split.unlabelled)} unlabelled images"
    student = params.student
    for warning in plan_warnings(split, rounds=params.rounds, steps=student.steps, batch_pseudo=student.batch_pseudo):
        yield f"warning: {warning}"
    measured = split.test if params.evaluate.subset == "test" else split.val
    if not any(row.label for row in measured):
        yield f"warning: evaluate.subset is {params.evaluate.subset}, where no image has a label"


def save_nine(data: DataSet, root: Path, path: Path) -> None:
    """Write a picture of nine labelled images with their labels laid over them, each at most 320 pixels wide."""
    chosen, panel = evenly_spread([entry for entry in data.entries if entry.label], 9), []
    for entry, (image, label) in zip(chosen, LabelledPairs(chosen, root, data.classes), strict=True):
        require_size(label, image.shape[:2], root / entry.label)
        panel.append(captioned(shrunk(laid_over(image, label, data.classes), 320), entry.id))
    if panel:
        save_png(path, grid(panel, columns=3))


def cost_lines(params: Params, classes: Classes, split: Split, size: tuple[int, int]) -> Iterator[str]:
    """Yield time and memory of a training step, the time of a prediction, both measured here, and the time of the run.

    `size` is the (height, width) of a usual image.
    """
    student = student_recipe("student", params.student, params.augment, params.seed)
    own = params.student_model if params.student.init == "pretrained" else params.model
    planned = [(supervised_recipe("teacher", params.teacher, params.augment, params.seed), params.model, 1)]
    planned += [(student, own, len(params.rounds))] if params.rounds else []
    planned += [(baseline_recipe(name, params), params.model, 1) for name in params.baselines]
    total, validations = 0.0, 0
    for recipe, network, number in planned:
        yield f"{recipe.name}: trying one step. If the process is killed here, memory is too small: raise accumulate"
        seconds, memory = step_cost(params, recipe, network, classes)
        steps = recipe.steps * number
        yield f"{recipe.name}: {seconds:.2f} s per step and {memory / 2**30:.1f} GiB of memory, {steps} steps in all"
        total += seconds * steps
        validations += steps // recipe.val_every if recipe.val_every else 0
    one = prediction_cost(params, classes, size)
    pseudo = one * _passes(params.pseudo_label) * len(split.unlabelled) * len(params.rounds)
    models, settings = 1 + len(params.rounds) + len(params.baselines), params.evaluate
    measured = len(split.test if settings.subset == "test" else split.val)
    evaluation = one * (_passes(settings) * measured * models + validations * len(split.val))
    yield (
        f"predicting: {one:.2f} s for an image of {size[0]}x{size[1]} at scale 1; pseudo labels of {len(split.unlabelled)} "
        f"images in {len(params.rounds)} rounds {pseudo / 60:.0f} minutes, evaluation {evaluation / 60:.0f} minutes"
    )
    yield f"in all: {(total + pseudo + evaluation) / 60:.0f} minutes and more (loading, writing)"


def _passes(settings: PseudoLabelParams | EvaluateParams) -> float:
    """Return the pixels that go through the network for each pixel of an image."""
    return sum(scale**2 for scale in settings.scales) * (2 if settings.flip else 1)


def prediction_cost(params: Params, classes: Classes, size: tuple[int, int]) -> float:
    """Return the seconds of a prediction for an image of `size` at scale 1, from one of at most 512x512 pixels."""
    device, seen = choose_device(params.machine.device), scaled_to_short_side(*size, params.augment.short_side)
    side = [min(length, 512) for length in seen]
    model = SegmentationModel(architecture_of(params.model, params.augment), classes).to(device).eval()
    image = torch.rand(1, 3, *side, device=device)
    seconds = second_call(lambda: predict_probabilities(model, image), device)
    return seconds * math.prod(seen) / math.prod(side)


def second_call(work: Callable[[], object], device: torch.device) -> float:
    """Call `work` twice and return the seconds of the second call; the first one also prepares things."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds = time.perf_counter() - start
    return seconds


def step_cost(params: Params, recipe: Recipe, network: ModelParams, classes: Classes) -> tuple[float, int]:
    """Run two training steps of a recipe on made-up images.

    Returns:
        The seconds that the second one took, and the bytes of memory: on a GPU those that torch allocated, else the most that
        this process has used so far.
    """
    device, size = choose_device(params.machine.device), recipe.augment.crop_size
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runtime = Runtime(device, params.machine.precision)
    model = SegmentationModel(architecture_of(network, recipe.augment), classes)
    trained, optimizer = training_network(model, recipe, runtime), make_optimizer(model, recipe)
    average = copy.deepcopy(model) if recipe.ema else model
    batch = []
    for part in recipe.parts:
        images = torch.randint(256, (part.images, 3, size, size), dtype=torch.uint8)
        targets = torch.zeros(part.images, size, size, dtype=torch.uint8)
        views = recipe.views + 1 if part.pseudo and recipe.targets != "stored" else 1
        batch.append(PartBatch(part, (images,) * views, targets, [""] * part.images))

    def step() -> None:
        training_step(trained, average.eval(), batch, 0, recipe, runtime)
        optimizer.step()
        optimizer.zero_grad()

    with fast_atrous_convolutions(model):
        seconds = second_call(step, device)
    if device.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
