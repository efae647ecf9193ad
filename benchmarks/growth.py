"""Time and memory per image as a data set grows: generated images in CamVid's layout, each size in a process of its own.

python -m benchmarks.growth                 # --images 100 1000 20000
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from benchmarks.ratios import peak
from segsemi.core.config import PseudoLabelParams, load_params
from segsemi.core.recipe import student_recipe
from segsemi.data.batches import StepBatches, labelled_samples, pseudo_samples
from segsemi.data.manifest import read_rows, write_rows
from segsemi.datasets import check_entries, find_dataset
from segsemi.datasets.split import split_rows, write_split
from segsemi.models.build import Architecture, SegmentationModel
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.runtime.device import choose_device
from segsemi.runtime.distributed import Runtime
from segsemi.training.loop import train

STEPS = 100
WIDTH, HEIGHT = 64, 48
TIMES = ("prepare, µs", "split, µs", "pseudo label, µs", "step, µs")
PEAKS = ("MiB before", "after the split", "in all")
COLUMNS = ("images", *TIMES, *PEAKS)


def generate(root: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(11, size=(HEIGHT, WIDTH), dtype=np.uint8)
    for subset, count in (("train", images), ("val", 2)):
        images_folder, labels_folder = root / subset, root / f"{subset}annot"
        images_folder.mkdir(parents=True)
        labels_folder.mkdir()
        for number in range(count):
            colours = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
            cv2.imwrite(f"{images_folder}/{subset}_{number:06}.png", cv2.resize(colours, (WIDTH, HEIGHT)))
            cv2.imwrite(f"{labels_folder}/{subset}_{number:06}.png", label)


def measure(images: int) -> list[float]:
    """Return a row of the table: microseconds per image or step of each stage, and peaks of memory."""
    runtime = Runtime(choose_device("cpu"))  # without a cache of decoded images

    def timed(run: Callable[[], object], count: int) -> float:
        start = time.perf_counter()
        run()
        return 1e6 * (time.perf_counter() - start) / count

    with tempfile.TemporaryDirectory() as folder:
        out, root, work = Path(folder), Path(folder) / "raw", Path(folder) / "work"
        manifest, lists, pseudo = out / "manifest.csv", out / "split", out / "pseudo"
        generate(root, images)
        work.mkdir()
        found, before = find_dataset("camvid", root, val_fraction=0.2, seed=0), 1024 * peak(runtime.device)
        prepare = timed(lambda: write_rows(manifest, check_entries(root, found.entries, found.classes)), images)
        rows = read_rows(manifest)
        wanted = load_params().split.model_copy(update={"count": 8})
        split = timed(lambda: write_split(split_rows(rows, wanted, (), seed=0), lists), images)
        after_split, unlabelled = 1024 * peak(runtime.device), read_rows(lists / "unlabelled.csv")
        model = SegmentationModel(Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), found.classes).eval()
        once = PseudoLabelParams(scales=[1.0], flip=False)
        label = timed(
            lambda: write_pseudo_labels(model, unlabelled, root, pseudo, once, work=work, runtime=runtime),
            len(unlabelled),
        )
        params = load_params()
        student = params.student.model_copy(update={"steps": STEPS, "val_every": 0})
        recipe = student_recipe("growth", student, params.augment.model_copy(update={"crop_size": HEIGHT}), seed=0)
        labelled = labelled_samples(read_rows(lists / "labelled.csv"), root)
        batches = StepBatches(recipe, labelled, pseudo_samples(unlabelled, root, pseudo), found.classes, runtime)
        step = timed(lambda: train(model, recipe, batches, (), runtime, work), STEPS)
    return [images, prepare, split, label, step, before, after_split, 1024 * peak(runtime.device)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 20000])
    args = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n" + "| --- " * len(COLUMNS) + "|", flush=True)
    for images in args.images:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            row = process.submit(measure, images).result()
        print(f"| {' | '.join(f'{value:.0f}' for value in row)} |", flush=True)


if __name__ == "__main__":
    main()
