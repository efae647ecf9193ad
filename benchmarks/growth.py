"""Time and memory per image as a data set grows: generated images in the layout of CamVid, every size in a process of its own.

python -m benchmarks.growth                 # --images 100 1000 20000, --size 64 48
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from segsemi.training.student import student_groups
from torch import device

from segsemi.core.config import AugmentParams, load_params
from segsemi.data.batches import StepBatches, labelled_samples, pseudo_samples
from segsemi.data.manifest import read_rows, write_rows
from segsemi.datasets import check_entries, find_dataset
from segsemi.datasets.split import split_rows, write_split
from segsemi.models.build import Architecture, SegmentationModel
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.runtime.device import choose_device
from segsemi.runtime.distributed import Processes
from segsemi.training.loop import train

LABELLED = 8
STEPS = 100


def generate(root: Path, images: int, width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(11, size=(height, width), dtype=np.uint8)
    for subset, count in (("train", images), ("val", 2)):
        for folder in (root / subset, root / f"{subset}annot"):
            folder.mkdir(parents=True)
        for number in range(count):
            colours = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(root / subset / f"{subset}_{number:06}.png"), cv2.resize(colours, (width, height)))
            cv2.imwrite(str(root / f"{subset}annot" / f"{subset}_{number:06}.png"), label)


def measure(images: int, width: int, height: int) -> dict[str, float]:
    """Microseconds an image of each stage, milliseconds a student's step, and the peak of memory after each, in MiB."""
    result: dict[str, float] = {"images": images}

    def timed(name: str, run: Callable[[], object], unit: float, count: int) -> None:
        start = time.perf_counter()
        run()
        result[name] = (time.perf_counter() - start) / unit / count
        result[f"{name}_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "raw", Path(folder)
        generate(root, images, width, height)
        choose_device("cpu")
        found = find_dataset("camvid", root, val_fraction=0.2, seed=0)
        result["start_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        timed(
            "prepare",
            lambda: write_rows(out / "manifest.csv", check_entries(root, found.entries, found.classes)),
            1e-6,
            images,
        )
        rows = read_rows(out / "manifest.csv")
        timed("split", lambda: write_split(split_rows(rows, count=LABELLED, seed=0), out / "split"), 1e-6, images)
        unlabelled = read_rows(out / "split/unlabelled.csv")
        model = SegmentationModel(Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), found.classes).eval()
        alone, work, pseudo = Processes(device("cpu")), out / "work", out / "pseudo"
        work.mkdir()
        options = {"scales": [1.0], "flip": False, "processes": alone, "progress": f"{images} images"}
        timed(
            "pseudo_label",
            lambda: write_pseudo_labels(model, unlabelled, root, pseudo, work=work, **options),  # type: ignore[arg-type]
            1e-6,
            len(unlabelled),
        )
        params = load_params().student.model_copy(update={"steps": STEPS, "val_every": 0})
        labelled = labelled_samples(read_rows(out / "split/labelled.csv"), root)
        groups = student_groups(params, labelled, pseudo_samples(unlabelled, root, pseudo), found.classes)
        augment = AugmentParams(short_side=None, crop_size=48, scale_min=0.75, scale_max=1.5, flip=True)
        batches = StepBatches(groups, augment, steps=STEPS, seed=0, stage="growth", cache_mb=0)
        timed(
            "student_step",
            lambda: train(model, batches, params, pseudo_loss="scl", bn="dsbn", work=work, processes=alone),
            1e-3,
            STEPS,
        )
    return result


COLUMNS = {
    "images": "images",
    "prepare": "prepare, µs an image",
    "split": "split, µs an image",
    "pseudo_label": "pseudo label, µs an image",
    "student_step": "student, ms a step",
    "start_mib": "MiB before",
    "split_mib": "MiB after the split",
    "student_step_mib": "MiB in all",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 20000])
    parser.add_argument("--size", type=int, nargs=2, default=[64, 48], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # of this program's own processes
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.images[0], *args.size)))
        return
    print(f"| {' | '.join(COLUMNS.values())} |\n|{' --- |' * len(COLUMNS)}")
    for images in args.images:
        command = [
            sys.executable,
            "-m",
            "benchmarks.growth",
            "--one",
            "--images",
            str(images),
            "--size",
            *map(str, args.size),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {' | '.join(f'{found[name]:.0f}' for name in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
