"""What everything around the network costs: ratios of our code to bare passes of the network on tensors in memory.

python -m benchmarks.ratios                    # all rows; --only NAME ..., --rounds, --device

The images have the demo's size. Both sides of a ratio run in turns, and the median over the rounds counts.
Peak memory is measured on Linux's CPU or a CUDA GPU, each side in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segsemi.core.classes import write_label_png
from segsemi.core.config import load_params
from segsemi.core.recipe import student_recipe
from segsemi.data.batches import PartBatch, StepBatches, labelled_samples, pseudo_samples
from segsemi.data.images import read_image
from segsemi.data.loaders import load_items
from segsemi.data.manifest import Row
from segsemi.datasets import scenes
from segsemi.evaluate import write_evaluation
from segsemi.inference import predict_probabilities
from segsemi.losses import self_correction_loss
from segsemi.models.build import Architecture, SegmentationModel
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.runtime.cpu import fast_atrous_convolutions
from segsemi.runtime.device import choose_device, training_format
from segsemi.runtime.distributed import Runtime
from segsemi.training.loop import train

STEPS = 12  # of training in a round
HEIGHT, WIDTH, CROP = 192, 256, 128  # of the demo
LABELLED, UNLABELLED = 8, 16  # images
LARGE_CROP = 256  # for memory: at the demo's crops, weights and libraries weigh more than a step
LOSS_SHAPE = (8, 19, 512, 512)  # N, C, H, W


class Bench:
    """Embedded scenes in `folder`, which `main` draws, the demo's network and the student's recipe."""

    def __init__(self, folder: Path, device: torch.device, rounds: int = 0) -> None:
        self.folder, self.rounds = folder, rounds
        self.runtime = Runtime(device, "auto", "auto", cache_mb=2048)
        self.params = load_params()
        augment = self.params.augment.model_copy(update={"crop_size": CROP})
        options = {"batch_labelled": 4, "batch_pseudo": 4, "val_every": 0, "lr": 1e-6}
        self.recipe = student_recipe("student_1", self.params.student.model_copy(update=options), augment, seed=0)
        names = [f"{index:04d}" for index in range(LABELLED + UNLABELLED)]
        rows = [Row(n, "train", f"train/{n}.png", f"trainannot/{n}.png", HEIGHT, WIDTH, "", "") for n in names]
        self.labelled, self.unlabelled = rows[:LABELLED], rows[LABELLED:]

    def model(self) -> SegmentationModel:
        """Return a network with random weights, in training mode."""
        torch.manual_seed(0)
        model = SegmentationModel(Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), scenes.CLASSES).train()
        device = self.runtime.device
        return model.to(device=device, memory_format=training_format(device))  # type: ignore[call-overload]

    def batches(self) -> StepBatches:
        """Return a student's batches, which keep decoded images in memory from the first use on."""
        for row in self.unlabelled:
            write_label_png(self.folder / f"pseudo/{row.id}.png", np.zeros((HEIGHT, WIDTH), np.uint8), scenes.CLASSES)
        labelled = labelled_samples(self.labelled, self.folder)
        pseudo = pseudo_samples(self.unlabelled, self.folder, self.folder / "pseudo")
        return StepBatches(self.recipe, labelled, pseudo, scenes.CLASSES, self.runtime)

    def train(self, model: SegmentationModel, batches: StepBatches | list[list[PartBatch]], steps: int) -> None:
        """Train a student with the loop of the project."""
        recipe = self.recipe.model_copy(update={"steps": steps})
        with tempfile.TemporaryDirectory() as work:
            train(model, recipe, batches, (), self.runtime, Path(work))  # type: ignore[arg-type]  # any sequence serves

    def bare_pass(self, model: SegmentationModel, images: Tensor, targets: Tensor) -> None:
        """Forward and backward of all images at once, with torch's cross entropy."""
        model.zero_grad(set_to_none=True)
        with self.runtime.autocast():
            logits = model(images)
        F.cross_entropy(logits.float(), targets, ignore_index=255).backward()

    def seconds(self, run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if self.runtime.device.type != "cpu":
            torch.accelerator.synchronize(self.runtime.device)
        return time.perf_counter() - start

    def ratio(
        self, ours: Callable[[], object], bare: Callable[[], object], start: Callable[[], object] = lambda: None
    ) -> tuple[float, float]:
        """Return the median of seconds(ours) / seconds(bare), and that of seconds(bare); `start` is taken off ours."""
        start(), ours(), bare()  # warm up
        pairs = [(self.seconds(ours) - self.seconds(start), self.seconds(bare)) for _ in range(self.rounds)]
        return statistics.median(a / b for a, b in pairs), statistics.median(b for _, b in pairs)


def whole(batch: list[PartBatch], device: torch.device) -> tuple[Tensor, Tensor]:
    views, targets = zip(*(own.to(device) for own in batch), strict=True)
    return torch.cat([images for (images,) in views]), torch.cat(targets).long()


def student_step(bench: Bench) -> tuple[float, float]:
    """A step of the training loop, with SAUG, DSBN, SCL and SGD; against forward and backward on the same tensors.

    Both sides have the CPU's fast atrous convolutions. A training of one step, with its start and its checkpoint, is taken
    off: a long training writes one checkpoint a minute. On a GPU that training is long enough to fill the loaders' caches.
    """
    device = bench.runtime.device
    first, rest = (1, STEPS) if device.type == "cpu" else (5 * STEPS, 20 * STEPS)
    batches, ours, plain = bench.batches(), bench.model(), bench.model()
    ready = [whole(batch, device) for batch in load_items(batches, range(STEPS), bench.runtime)]

    def bare() -> None:
        for step in range(rest):
            bench.bare_pass(plain, *ready[step % STEPS])

    with fast_atrous_convolutions(plain) if device.type == "cpu" else nullcontext():
        return bench.ratio(
            lambda: bench.train(ours, batches, first + rest), bare, start=lambda: bench.train(ours, batches, first)
        )


def atrous(bench: Bench) -> tuple[float, float]:
    """Forward and backward with the CPU's fast atrous convolutions; against torch's own, which users of a model have."""
    fast, plain = bench.model(), bench.model()
    batches = [whole(batch, bench.runtime.device) for batch in load_items(bench.batches(), range(5), bench.runtime)]

    def run(model: SegmentationModel) -> None:
        for batch in batches:
            bench.bare_pass(model, *batch)

    with fast_atrous_convolutions(fast):
        return bench.ratio(lambda: run(fast), lambda: run(plain))


def pseudo_labels(bench: Bench) -> tuple[float, float]:
    """Images read, 5 scales with flips, PNGs written; against the ten bare forward passes, two of a scale in a batch."""
    model, rows, how = bench.model().eval(), bench.unlabelled[:4], bench.params.pseudo_label
    ready: list[Tensor] = []

    def record(images: Tensor) -> Tensor:
        ready.append(images)
        return torch.zeros(len(images), 2, *images.shape[-2:], device=images.device)

    for row in rows:
        predict_probabilities(record, model.as_batch(read_image(bench.folder / row.image)), how.scales, how.flip)  # type: ignore[arg-type]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "out"
            write_pseudo_labels(model, rows, bench.folder, out, how, work=Path(work), runtime=bench.runtime)

    @torch.inference_mode()
    def bare() -> None:
        with bench.runtime.autocast():
            for images in ready:
                model(images)

    return bench.ratio(ours, bare)


def evaluation(bench: Bench) -> tuple[float, float]:
    """Images and labels read, pixels counted; against the bare forward passes."""
    model, rows = bench.model().eval(), bench.labelled + bench.unlabelled
    ready = [model.as_batch(read_image(bench.folder / row.image)) for row in rows]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as work:
            folders = bench.folder, scenes.CLASSES, Path(work) / "out"
            how = {"weights": "", "work": Path(work), "runtime": bench.runtime}
            write_evaluation(model, rows, *folders, bench.params.evaluate, **how)

    @torch.inference_mode()
    def bare() -> None:
        for images in ready:
            model(images)

    return bench.ratio(ours, bare)


def imports(bench: Bench) -> tuple[float, float]:
    """A process that imports the script of a stage; against `import torch`."""

    def python(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    return bench.ratio(python("import stages.train_student"), python("import torch"))


def scl(bench: Bench) -> tuple[float, float]:
    """SCL, forward and backward, on logits of 8x19x512x512; against F.cross_entropy."""
    logits, target = logits_and_target(bench.runtime.device)

    def run(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        logits.grad = None
        loss(logits, target).backward()

    return bench.ratio(lambda: run(self_correction_loss), lambda: run(F.cross_entropy))


def logits_and_target(device: torch.device) -> tuple[Tensor, Tensor]:
    classes, images = LOSS_SHAPE[1], (LOSS_SHAPE[0], *LOSS_SHAPE[2:])
    return torch.randn(LOSS_SHAPE, device=device, requires_grad=True), torch.randint(classes, images, device=device)


def step_memory(bench: Bench) -> tuple[float, float]:
    """Peak memory of a student's steps on 4 + 4 crops of 256x256; against plain supervised steps on all 8 at once."""
    plain, ours = (in_own_process(step_peak, bench.runtime.device, which) for which in ("plain", "student"))
    return ours / plain, plain


def scl_memory(bench: Bench) -> tuple[float, float]:
    """Peak memory of SCL, forward and backward, beside its logits; against F.cross_entropy."""
    plain, ours = (in_own_process(loss_peak, bench.runtime.device, which) for which in ("plain", "scl"))
    return ours / plain, plain


def in_own_process(run: Callable[[torch.device, str], float], device: torch.device, which: str) -> float:
    """Return run(device, which) of a new process, which has no memory of an earlier measurement."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(run, device, which).result()


def step_peak(device: torch.device, which: str) -> float:
    """Return the GiB that three steps take beside the network's weights."""
    choose_device(str(device))
    bench, shape = Bench(Path(), device), (LARGE_CROP, LARGE_CROP)
    images = torch.randint(256, (4, 3, *shape), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(len(scenes.CLASSES), (4, *shape), dtype=torch.uint8)
    batch = [PartBatch(part, (images,), targets, ids=list("abcd")) for part in bench.recipe.parts]
    model, before = bench.model(), peak(device)
    if which == "student":
        bench.train(model, [batch] * 3, steps=3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
        for _ in range(3):
            bench.bare_pass(model, *whole(batch, device))
            optimizer.step()
    return peak(device) - before


def loss_peak(device: torch.device, which: str) -> float:
    """Return the GiB that a loss and its gradient take beside the logits."""
    choose_device(str(device))
    logits, target = logits_and_target(device)
    before = peak(device)
    (self_correction_loss if which == "scl" else F.cross_entropy)(logits, target).backward()
    return peak(device) - before


def peak(device: torch.device) -> float:
    """Return the peak memory of this process so far, in GiB: the allocator's on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


ROWS = (  # what is measured, its name, the target
    (student_step, "student step: loop, SAUG, DSBN, SCL, SGD", "1.25"),
    (pseudo_labels, "pseudo labels, 5 scales x 2 flips", "1.25"),
    (evaluation, "evaluation", "1.25"),
    (step_memory, "peak memory of a student's step", "1.1"),
    (imports, "import of a stage's script", "1.5"),
    (atrous, "fast atrous convolutions, forward + backward", ""),
    (scl, "SCL, forward + backward", ""),
    (scl_memory, "peak memory of SCL", ""),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row[0].__name__ for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--device", default="auto", help="as machine.device in params.yaml")
    args = parser.parse_args()
    device = choose_device(args.device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds")
    print("| row | what | ratio | target | the other side, s or GiB | took, s |\n" + "| --- " * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):  # without progress bars
        scenes.write(Path(folder), train=LABELLED + UNLABELLED, val=0, height=HEIGHT, width=WIDTH)
        bench = Bench(Path(folder), device, args.rounds)
        for run, what, target in ROWS:
            if run.__name__ in args.only:
                start = time.perf_counter()
                ratio, other = run(bench)
                took = time.perf_counter() - start
                print(f"| {run.__name__} | {what} | {ratio:.2f} | {target} | {other:.3f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
