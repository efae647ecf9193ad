"""What everything around the network costs: ratios against the bare network on data in memory, measured in one run,
each row in a process of its own.

python -m benchmarks.ratios                    # all rows; --only NAME ... for some, --rounds N, --device, --precision
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from segsemi.training.student import student_groups
from torch import Tensor

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import load_params
from segsemi.data.batches import Part, StepBatches, labelled_samples, pseudo_samples
from segsemi.data.images import LabelledPairs, read_image
from segsemi.data.loaders import batch_loader
from segsemi.data.manifest import Row
from segsemi.datasets import check_entries, find_dataset, scenes
from segsemi.dsbn import convert_dsbn, labelled_first, strip_dsbn
from segsemi.inference import evaluate_model, predict_probabilities
from segsemi.losses import LOSSES, Loss
from segsemi.models.build import Architecture, SegmentationModel
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.runtime.device import autocast, choose_device
from segsemi.runtime.distributed import Processes
from segsemi.training.loop import train
from segsemi.training.step import StepPasses, step_passes

STEPS = 40  # of training in one round
IMAGES = 8  # of inference in one round


class Bench:
    """The embedded data set in a temporary folder, a network, and a way to time two things side by side."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        rounds: int,
        *,
        precision: str = "auto",
        height: int = 192,
        width: int = 256,
        crop_size: int = 128,
    ) -> None:
        self.folder, self.device, self.rounds, self.precision = folder, device, rounds, precision
        self.params = load_params()
        self.augment = self.params.augment.model_copy(update={"crop_size": crop_size})
        scenes.write(folder, train=24, val=IMAGES, height=height, width=width)
        found = find_dataset("synthetic", folder, val_fraction=0.2, seed=0)
        self.classes: Classes = found.classes
        rows = check_entries(folder, found.entries, found.classes, warn=lambda _: None)
        self.train_rows = [row for row in rows if row.subset == "train"]
        self.val_rows: list[Row] = [row for row in rows if row.subset == "val"]
        for row in self.train_rows[8:]:
            write_label_png(folder / f"pseudo/{row.id}.png", np.zeros((row.height, row.width), np.uint8), self.classes)

    def model(self) -> SegmentationModel:
        torch.manual_seed(0)
        model = SegmentationModel(Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), self.classes)
        return model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def model_with_dsbn(self) -> SegmentationModel:
        model = self.model().train()
        convert_dsbn(model.network)
        return model

    @contextmanager
    def larger(self) -> Iterator[Bench]:
        """The same with images of 384x512 and crops of 256: four times the pixels of the demo's."""
        with tempfile.TemporaryDirectory() as folder:
            options = {"precision": self.precision, "height": 384, "width": 512, "crop_size": 256}
            yield Bench(Path(folder), self.device, self.rounds, **options)  # type: ignore[arg-type]

    def batches(self, steps: int) -> StepBatches:
        """Those of a student; decoded images stay in memory from the first use on."""
        labelled = labelled_samples(self.train_rows[:8], self.folder)
        pseudo = pseudo_samples(self.train_rows[8:], self.folder, self.folder / "pseudo")
        groups = student_groups(self.params.student, labelled, pseudo, self.classes)
        return StepBatches(groups, self.augment, steps=steps, seed=0, stage="benchmark", cache_mb=2048)

    def train(self, model: SegmentationModel, batches: StepBatches) -> None:
        """A student's training with SAUG, DSBN and SCL, from step 0, without measurements."""
        params = self.params.student.model_copy(update={"steps": batches.steps, "val_every": 0})
        processes = Processes(self.device)
        with tempfile.TemporaryDirectory() as work:
            train(
                model,
                batches,
                params,
                pseudo_loss="scl",
                bn="dsbn",
                work=Path(work),
                processes=processes,
                workers=processes.loaders(self.params.machine.workers),
                precision=self.precision,
            )

    def passes(self, model: SegmentationModel) -> AbstractContextManager[StepPasses]:
        """As training puts the parts of a student's step through a network with DSBN."""
        options = {"pseudo_loss": "scl", "bn": "dsbn", "precision": self.precision, "compiled": False}
        return step_passes(model, self.batches(1), Processes(self.device), **options)  # type: ignore[arg-type]

    def seconds(self, run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter() - start

    def ratio(
        self, ours: Callable[[], object], bare: Callable[[], object], start: Callable[[], object] = lambda: None
    ) -> tuple[float, float]:
        """The median over the rounds of seconds(ours) / seconds(bare), one after the other, and that of the bare ones.

        Args:
            start: a part of ours that is not to be counted.
        """
        start(), ours(), bare()  # warm up
        pairs = [(self.seconds(ours) - self.seconds(start), self.seconds(bare)) for _ in range(self.rounds)]
        return statistics.median(a / b for a, b in pairs), statistics.median(b for _, b in pairs)


def student_step(bench: Bench) -> tuple[float, float]:
    """A step of training: SAUG, DSBN, SCL, optimizer; against forward and backward of the plain network on the same tensors.

    Without what a training does once, at its start and at its end, and without files that are read for the first time: on a
    CPU decoded images are kept from the warm-up on, on a GPU each loader decodes them within its first 40 steps. Checkpoints,
    of which there is one a minute at most, take 2 % at most of a long training.
    """
    loader = batch_loader(bench.batches(STEPS), start=0, workers=0)
    ready = [whole(batch, bench.device) for batch in islice(loader, STEPS)]
    ours, plain = bench.model(), bench.model().train()

    def bare(times: int = 1) -> None:
        for images, targets in ready * times:
            plain.zero_grad(set_to_none=True)
            with autocast(bench.device, bench.precision):
                logits = plain(images)
            F.cross_entropy(logits.float(), targets, ignore_index=255).backward()

    begun, rounds = (1, 1) if bench.device.type == "cpu" else (STEPS, 10)
    beginning = partial(bench.train, ours, bench.batches(begun))
    whole_training = partial(bench.train, ours, bench.batches(begun + rounds * STEPS))
    return bench.ratio(whole_training, lambda: bare(rounds), start=beginning)


def large_student_step(bench: Bench) -> tuple[float, float]:
    """The same with larger images."""
    with bench.larger() as larger:
        return student_step(larger)


def whole(batch: list[Part], device: torch.device) -> tuple[Tensor, Tensor]:
    images, targets = zip(*(part.on(device) for part in batch), strict=True)
    return torch.cat(images), torch.cat(targets).long()


def dsbn_concatenated(bench: Bench) -> tuple[float, float]:
    """Forward and backward of 8 images of 256x256, DSBN, both parts in one pass; against plain batch norm, the same loss."""
    model = bench.model_with_dsbn()

    def together(batch: list[Part]) -> None:
        images, targets = whole(batch, bench.device)
        with labelled_first(model, 4), autocast(bench.device, bench.precision):
            logits = model(images)
        F.cross_entropy(logits.float(), targets).backward()

    return dsbn_ratio(bench, model, together)


def dsbn_by_parts(bench: Bench) -> tuple[float, float]:
    """The parts as training puts them through, with its losses: on a CPU side by side, else one after the other."""
    model = bench.model_with_dsbn()
    with bench.passes(model) as passes:
        return dsbn_ratio(bench, model, lambda batch: passes(batch, 0))


def dsbn_ratio(bench: Bench, ours: SegmentationModel, step: Callable[[list[Part]], object]) -> tuple[float, float]:
    batch, plain = parts_of_256(len(bench.classes)), bench.model().train()

    def with_dsbn() -> None:
        ours.zero_grad(set_to_none=True)
        step(batch)

    def without() -> None:
        plain.zero_grad(set_to_none=True)
        images, targets = whole(batch, bench.device)
        with autocast(bench.device, bench.precision):
            logits = plain(images)
        F.cross_entropy(logits.float(), targets).backward()

    return bench.ratio(with_dsbn, without)


def parts_of_256(num_classes: int) -> list[Part]:
    """4 labelled and 4 pseudo-labelled images."""
    images = torch.randint(256, (8, 3, 256, 256), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(num_classes, (8, 256, 256), dtype=torch.uint8)
    return [
        Part(images[rows], targets[rows], list("abcd"), pseudo=parallel, parallel=parallel)
        for rows, parallel in ((slice(0, 4), False), (slice(4, 8), True))
    ]


def stripped(bench: Bench) -> tuple[float, float]:
    """The network after strip_dsbn in eval mode; against one that never had DSBN."""
    images = torch.rand(4, 3, 192, 256, device=bench.device).contiguous(memory_format=torch.channels_last)
    ours, plain = bench.model().eval(), bench.model().eval()
    strip_dsbn(convert_dsbn(ours.network))
    with torch.inference_mode():
        return bench.ratio(lambda: ours(images), lambda: plain(images))


def scl(bench: Bench) -> tuple[float, float]:
    """SCL forward and backward on logits of 8x19x512x512; against F.cross_entropy. On a CPU both wait for fresh memory."""
    return loss_ratio(bench, LOSSES["scl"])


def warm_scl(bench: Bench) -> tuple[float, float]:
    """The same with memory that the process has already; on a GPU there is no other."""
    if bench.device.type == "cpu":
        blocks = [torch.ones(2**23) for _ in range(48)]  # 1.5 GiB, less than `_keep_memory` lets glibc give back
        del blocks
    return loss_ratio(bench, LOSSES["scl"])


def own_ce(bench: Bench) -> tuple[float, float]:
    """Our cross entropy, which is 0 where all pixels are ignored; against F.cross_entropy (8x19x512x512)."""
    return loss_ratio(bench, LOSSES["ce"])


def loss_ratio(bench: Bench, ours: Loss) -> tuple[float, float]:
    logits = torch.randn(8, 19, 512, 512, device=bench.device, requires_grad=True)
    target = torch.randint(19, (8, 512, 512), device=bench.device)

    def run(loss: Loss) -> None:
        logits.grad = None
        loss(logits, target).backward()

    return bench.ratio(lambda: run(ours), lambda: run(F.cross_entropy))


def pseudo_labels(bench: Bench) -> tuple[float, float]:
    """5 scales with flips, PNGs written; against the ten bare forward passes (two a scale in one batch)."""
    model, scales = bench.model().eval(), bench.params.pseudo_label.scales
    rows = bench.train_rows[:IMAGES]
    ready = [scaled_pairs(model, row, bench, scales) for row in rows]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            out, work = Path(folder) / "out", Path(folder) / "work"
            work.mkdir()
            options = {"scales": scales, "flip": True, "processes": Processes(bench.device), "progress": "bench"}
            write_pseudo_labels(model, rows, bench.folder, out, **options, work=work, precision=bench.precision)

    @torch.inference_mode()
    def bare() -> None:
        with autocast(bench.device, bench.precision):
            for batches in ready:
                for batch in batches:
                    model(batch)

    return bench.ratio(ours, bare)


def large_pseudo_labels(bench: Bench) -> tuple[float, float]:
    """The same with larger images."""
    with bench.larger() as larger:
        return pseudo_labels(larger)


def scaled_pairs(model: SegmentationModel, row: Row, bench: Bench, scales: Sequence[float]) -> list[Tensor]:
    seen: list[Tensor] = []

    def record(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 2, *images.shape[-2:], device=images.device)

    predict_probabilities(record, model.as_batch(read_image(bench.folder / row.image)), scales, True)  # type: ignore[arg-type]
    return seen


def evaluation(bench: Bench, rows: Sequence[Row] | None = None) -> tuple[float, float]:
    """Images read, predictions counted; against the bare forward passes."""
    model = bench.model().eval()
    pairs = LabelledPairs(rows or bench.val_rows, bench.folder, bench.classes)
    ready = [model.as_batch(image) for image, _ in pairs]

    @torch.inference_mode()
    def bare() -> None:
        for batch in ready:
            model(batch)

    return bench.ratio(lambda: evaluate_model(model, pairs, num_classes=len(bench.classes)), bare)


def large_evaluation(bench: Bench) -> tuple[float, float]:
    """The same with larger images."""
    with bench.larger() as larger:
        return evaluation(larger)


def photo_evaluation(bench: Bench) -> tuple[float, float]:
    """The same as JPEGs, which photographs mostly are: the embedded scenes' PNGs, full of noise, take long to read."""
    with bench.larger() as larger:
        rows = [replace(row, image=f"{row.id}.jpg") for row in larger.val_rows]
        for row, old in zip(rows, larger.val_rows, strict=True):
            Image.fromarray(read_image(larger.folder / old.image)).save(larger.folder / row.image, quality=95)
        return evaluation(larger, rows)


def step_memory(bench: Bench) -> tuple[float, float]:
    """Peak memory of a student's step above that of a plain supervised step, both from their start; GiB of the plain one."""

    how = f"{str(bench.device)!r}, {bench.precision!r}"
    (plain,), (ours,) = (alone(f"print_step_peak({dsbn}, {how})") for dsbn in (False, True))
    return ours / plain, plain


def scl_memory(bench: Bench) -> tuple[float, float]:
    """Peak memory of SCL, forward and backward, above its logits (8x19x512x512); against F.cross_entropy; GiB of that."""
    (plain,), (ours,) = (alone(f"print_loss_peak({name!r}, {str(bench.device)!r})") for name in (None, "scl"))
    return ours / plain, plain


def alone(call: str) -> list[float]:
    """The numbers that a function of this module prints, in a process of its own: what ran before leaves it no memory."""
    code = f"from benchmarks import ratios; ratios.{call}"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()]


def print_loss_peak(name: str | None, kind: str) -> None:
    """GiB that a loss and its gradient take beside the logits; None: F.cross_entropy."""
    device = choose_device(kind)
    logits = torch.randn(8, 19, 512, 512, device=device, requires_grad=True)
    target = torch.randint(19, (8, 512, 512), device=device)
    before = used(device)
    (F.cross_entropy if name is None else LOSSES[name])(logits, target).backward()
    print(used(device) - before)


def print_step_peak(dsbn: bool, kind: str, precision: str) -> None:
    """GiB that three steps on 8 images of 256x256 take in a process of their own."""
    device = choose_device(kind)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), device, 1, precision=precision)
        model = bench.model_with_dsbn() if dsbn else bench.model().train()
        batch = parts_of_256(len(bench.classes))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
        before = used(device)
        with bench.passes(model) if dsbn else nullcontext() as passes:
            for _ in range(3):
                optimizer.zero_grad(set_to_none=True)
                if passes is not None:
                    passes(batch, 0)
                else:
                    images, targets = whole(batch, device)
                    with autocast(device, precision):
                        logits = model(images)
                    F.cross_entropy(logits.float(), targets).backward()
                optimizer.step()
    print(used(device) - before)


def used(device: torch.device) -> float:
    """The peak so far, GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")  # getrusage's peak begins with that of the process that started this one
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 2**20  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def repro(bench: Bench) -> tuple[float, float]:
    """`dvc repro` with nothing to do, in the working folder; against one second. NaN where there is something to do."""
    status = subprocess.run(["dvc", "status"], check=True, capture_output=True, text=True).stdout
    if "up to date" not in status:
        return float("nan"), 1.0
    run = partial(subprocess.run, ["dvc", "repro", "-q"], check=True, stdout=sys.stderr)
    return statistics.median(bench.seconds(run) for _ in range(3)), 1.0


def imports(bench: Bench) -> tuple[float, float]:
    """Python that imports a training stage; against `import torch`."""

    def python(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    return bench.ratio(python("import stages.train_student"), python("import torch"))


ROWS = (
    (student_step, "student step, whole pipeline", 1.10),
    (large_student_step, "the same, images of 384x512, crops of 256", 1.10),
    (dsbn_by_parts, "DSBN, training step", 1.05),
    (dsbn_concatenated, "DSBN, training step, both parts in one pass", 1.05),
    (stripped, "stripped network, eval", 1.00),
    (scl, "SCL, forward + backward", 1.5),
    (warm_scl, "the same, in memory that was used before", 1.5),
    (own_ce, "our cross entropy", 1.5),
    (scl_memory, "peak memory of SCL", 1.3),
    (pseudo_labels, "pseudo labels, 5 scales x 2 flips", 1.10),
    (large_pseudo_labels, "the same, images of 384x512", 1.10),
    (evaluation, "evaluation", 1.10),
    (large_evaluation, "the same, images of 384x512", 1.10),
    (photo_evaluation, "the same, JPEGs of 384x512", 1.10),
    (step_memory, "peak memory of a student's step", 1.1),
    (imports, "import of a training stage", 1.5),
    (repro, "`dvc repro` with nothing to do, seconds", 3.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row[0].__name__ for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is taken")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of steps and pseudo labels, on both sides",
    )
    args = parser.parse_args()
    print(f"{args.device}, {args.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| what | ratio | target | the other side, s or GiB |\n| --- | --- | --- | --- |", flush=True)
    for run, what, target in ROWS:
        if run.__name__ in args.only:
            options = f"{args.device!r}, {args.rounds}, {args.precision!r}"
            ratio, seconds = alone(f"print_row(ratios.{run.__name__}, {options})")
            print(f"| {what} | {ratio:.2f} | {target:.2f} | {seconds:.3f} |", flush=True)


def print_row(run: Callable[[Bench], tuple[float, float]], kind: str, rounds: int, precision: str) -> None:
    """What a row measures."""
    with tempfile.TemporaryDirectory() as folder:
        print(*run(Bench(Path(folder), choose_device(kind), rounds, precision=precision)))


if __name__ == "__main__":
    main()
