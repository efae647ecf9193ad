"""Training batches: a function of seed, name and step alone; what each part holds; loader processes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import ROOT
from small_training import AUGMENT, CPU, LABELLED, PSEUDO, Data, a_recipe, small_data

from segsemi.augment.strong import StrongAugment
from segsemi.core.classes import write_label_png
from segsemi.core.config import SAUG_OPERATIONS
from segsemi.core.errors import UserError
from segsemi.core.pictures import save_png
from segsemi.core.recipe import Recipe
from segsemi.data.batches import Sample, StepBatches, labelled_samples
from segsemi.data.images import read_image, read_label
from segsemi.data.loaders import load_items
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES
from segsemi.runtime.distributed import Runtime

WITHOUT_CHANGE = AUGMENT.model_copy(update={"scale_min": 1.0, "scale_max": 1.0, "flip": False})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """2 labelled and 2 pseudo-labelled images of 48x64; the pseudo labels are class 3 everywhere."""
    return small_data(tmp_path_factory.mktemp("raw"), height=48)


def make(recipe: Recipe, labelled: list[Sample], pseudo: list[Sample], cache_mb: int = 10) -> StepBatches:
    return StepBatches(recipe, labelled, pseudo, CLASSES, Runtime(CPU, cache_mb=cache_mb))


def test_a_batch_has_all_parts_and_pseudo_labels_come_from_the_pngs(data: Data) -> None:
    labelled, pseudo = make(a_recipe(6), *data)[0]
    assert (labelled.part, pseudo.part) == (LABELLED, PSEUDO)
    (images,), targets = labelled.to(CPU)
    assert images.shape == (2, 3, 64, 64) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, labelled.views[0].float() / 255) and images.min() >= 0 and 0.5 < images.max() <= 1
    assert pseudo.views[0].dtype == targets.dtype == torch.uint8 and targets.shape == (2, 64, 64)
    assert set(pseudo.targets.unique().tolist()) <= {3, 255}
    assert set(pseudo.ids) == {"train_0002", "train_0003"} and set(labelled.ids) == {"train_0000", "train_0001"}


def test_pseudo_labels_below_the_threshold_are_ignored(data: Data) -> None:
    """From the confidence beside the pseudo label, in 8 bits; labels of the data set have none."""
    for sample in data.pseudo:
        sure = np.full((48, 64), 255, np.uint8)
        sure[:16] = round(0.7 * 255)
        assert sample.confidence is not None
        save_png(sample.confidence, sure)
    for threshold, ignored in ((0.0, 16), (0.69, 16), (0.71, 32)):
        labelled, pseudo = make(a_recipe(1, augment=WITHOUT_CHANGE, threshold=threshold), *data)[0]
        assert [int((label == 255).sum()) // 64 for label in pseudo.targets] == [ignored] * 2, threshold
        assert torch.equal(labelled.targets, make(a_recipe(1, augment=WITHOUT_CHANGE), *data)[0][0].targets)


def test_weak_and_strong_parts_of_the_same_images_leave_the_cache_as_it_is(data: Data) -> None:
    augment = AUGMENT.model_copy(update={"short_side": 32})
    recipe = a_recipe(4, augment=augment, parts=(LABELLED, LABELLED._replace(name="strong", strong=True)))
    cached, fresh = (make(recipe, *data, cache_mb=mb) for mb in (10, 0))
    for step in range(4):
        for a, b in zip(cached[step], fresh[step], strict=True):
            assert a.views[0].equal(b.views[0])


def test_every_image_gets_its_own_augmentation_anew_in_each_epoch_and_part(data: Data) -> None:
    parts = tuple(LABELLED._replace(name=name, images=1) for name in ("a", "b"))
    augment = AUGMENT.model_copy(update={"crop_size": 40})
    batches = make(a_recipe(3, parts=parts, augment=augment), data.labelled[:1], [])
    crops = [own.views[0] for step in range(3) for own in batches[step]]
    assert all(not a.equal(b) for index, a in enumerate(crops) for b in crops[:index])


def test_every_epoch_part_name_and_seed_has_an_order_of_its_own(data: Data) -> None:
    """In each of which every sample comes once."""
    samples = [replace(data.labelled[0], id=str(index)) for index in range(8)]

    def orders(part: str, **changes: object) -> list[str]:
        batches = make(a_recipe(8, parts=(LABELLED._replace(name=part),), **changes), samples, [])
        ids = "".join(id_ for step in range(8) for id_ in batches[step][0].ids)
        return [ids[:8], ids[8:]]

    found = [*orders("a"), *orders("b"), *orders("a", seed=6), *orders("a", name="student_2")]
    assert len(set(found)) == 8 and {"".join(sorted(order)) for order in found} == {"01234567"}


def test_saug_gets_its_params_and_the_image_at_the_networks_size(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool, tuple[int, ...]]] = []

    class Recorded(StrongAugment):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            seen.append((self.num_ops, self.replace, image.shape))
            assert [name for name in SAUG_OPERATIONS if name not in self.operations] == ["hsv"]
            return super().__call__(image)

    monkeypatch.setattr("segsemi.data.batches.StrongAugment", Recorded)
    saug = {"saug_ops": 5, "saug_replace": False, "saug_without": ("hsv",)}
    make(a_recipe(1, augment=AUGMENT.model_copy(update={"short_side": 32}), **saug), *data)[0]
    assert seen == [(5, False, (32, 43, 3))] * 2  # of the pseudo-labelled images alone


def test_strong_augmentation_changes_the_image_and_never_the_label(data: Data) -> None:
    sample = data.labelled[0]
    image, label = read_image(sample.image), read_label(sample.label, CLASSES)
    for strong in (False, True):
        part = LABELLED._replace(images=1, strong=strong)
        batches = make(a_recipe(8, augment=WITHOUT_CHANGE, parts=(part,)), [sample], [])
        for step in range(8):
            (own,) = batches[step]
            assert np.array_equal(own.targets[0, :48].numpy(), label)
            assert np.array_equal(own.views[0][0, :, :48].permute(1, 2, 0).numpy(), image) == (not strong)


def test_views_of_an_unlabelled_image_share_their_geometry_and_need_no_mask(data: Data) -> None:
    """Without strong augmentation all views are equal to the pixel, whatever the scale, the crop and the flip."""
    samples = [replace(sample, label=None) for sample in data.pseudo]
    geometry = AUGMENT.model_copy(update={"scale_min": 0.5, "scale_max": 2.0, "crop_size": 48})
    part = PSEUDO._replace(strong=False)
    seen = set()
    for strong in ("none", "colour", "saug"):
        parts = (LABELLED, part._replace(strong=strong != "none"))
        changes = {"targets": "ema", "ema": 0.9, "views": 2, "strong": strong, "parts": parts, "loss": "ce"}
        batches = make(a_recipe(4, augment=geometry, **changes), data.labelled, samples)
        for step in range(4):
            first, second, weak = batches[step][1].views
            padding = batches[step][1].targets == 255
            assert set(batches[step][1].targets.unique().tolist()) <= {0, 255}
            assert torch.equal(torch.stack([first, second]), torch.stack([weak, weak])) == (strong == "none")
            seen.add((step, weak.numpy().tobytes(), padding.numpy().tobytes()))
    assert len(seen) == 4  # weak views and padding do not depend on the strong ones


def test_labels_that_we_wrote_are_read_as_written(data: Data, tmp_path: Path) -> None:
    """Not as the data set's own label files, whose ids may be others. Corrected labels come after the labelled ones."""
    rows = [Row(s.id, "train", str(s.image), str(s.label), 48, 64, "", "") for s in data.labelled]
    write_label_png(tmp_path / "corrected/x.png", np.full((48, 64), 7, dtype=np.uint8), CLASSES)
    samples = labelled_samples(rows[:1], Path("/"), [replace(rows[1], label="corrected/x.png")], tmp_path)
    assert [sample.id for sample in samples] == ["train_0000", "train_0001"]
    shifted = replace(CLASSES, file_ids=tuple(range(100, 111)))
    corrected, pseudo = StepBatches(a_recipe(1), samples[1:], data.pseudo, shifted, Runtime(CPU))[0]
    for batch, written in ((corrected, 7), (pseudo, 3)):
        assert set(batch.targets.unique().tolist()) <= {written, 255}
    with pytest.raises(UserError, match="outside"):
        StepBatches(a_recipe(1), *data, shifted, Runtime(CPU))[0]


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({}, 4, "2 labelled images per batch do not divide among 4 processes with 1 pieces"),
        ({"accumulate": 4}, 1, "2 labelled images per batch do not divide among 1 processes with 4 pieces"),
        ({"mix": "cutmix"}, 2, "mix cutmix needs 2 pseudo images in each of 2 processes, found 2"),
    ],
)
def test_a_share_too_small_is_refused(changes: dict[str, object], processes: int, message: str, data: Data) -> None:
    with pytest.raises(UserError, match=f"student_1: {message}"):
        StepBatches(a_recipe(1, **changes), *data, CLASSES, Runtime(CPU, count=processes))


def test_a_part_without_images_is_refused_and_one_with_few_is_warned_of(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"there is no pseudo image to train on; .*rounds: \{\}"):
        make(a_recipe(1), data.labelled, [])
    make(a_recipe(1), data.labelled[:1], data.pseudo)
    assert "a batch of 2 from 1 labelled images has some of them twice" in capsys.readouterr().err


def test_processes_share_each_piece_of_a_batch(data: Data) -> None:
    samples = [replace(data.labelled[0], id=str(index)) for index in range(8)]
    recipe = a_recipe(1, accumulate=2, parts=(LABELLED._replace(images=8),))
    whole = make(recipe, samples, [])[0][0].ids
    first, second = (
        StepBatches(recipe, samples, [], CLASSES, Runtime(CPU, rank=rank, count=2))[0][0].ids for rank in (0, 1)
    )
    assert first == whole[:2] + whole[4:6] and second == whole[2:4] + whole[6:]


@pytest.mark.parametrize(("cache_mb", "kept"), [(0, 0), (1, 2), (2, 4)])
def test_decoded_images_are_kept_as_far_as_the_cache_goes(
    cache_mb: int, kept: int, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images, of which two fit into a MiB."""
    decoded: list[Path] = []

    def large(path: Path, *_: object) -> np.ndarray:
        decoded.append(path)
        return np.zeros((300, 400, 3), np.uint8)  # with its label 480,000 bytes

    monkeypatch.setattr("segsemi.data.batches.read_image", large)
    monkeypatch.setattr("segsemi.data.batches.read_label", lambda *_: np.zeros((300, 400), np.uint8))
    four = [*data.labelled, *data.pseudo]
    batches = make(a_recipe(3, parts=(LABELLED._replace(images=4),)), four, [], cache_mb=cache_mb)
    for step in range(3):
        batches[step]
    assert len(decoded) == 4 + 2 * (4 - kept)


def test_batches_depend_on_seed_and_name_not_on_workers_start_or_cache(data: Data) -> None:
    reference = [make(a_recipe(6), *data)[step] for step in range(6)]

    def same(batches: StepBatches, workers: int = 0, start: int = 0) -> bool:
        got = list(load_items(batches, range(start, 6), Runtime(CPU, workers=workers)))
        return all(
            x.views[0].equal(y.views[0]) and x.targets.equal(y.targets) and x.ids == y.ids
            for a, b in zip(got, reference[start:], strict=True)
            for x, y in zip(a, b, strict=True)
        )

    here = make(a_recipe(6), *data)
    assert same(here) and same(here, workers=2) and same(here, start=4)
    assert same(make(a_recipe(6), *data, cache_mb=0)) and same(pickle.loads(pickle.dumps(here)))  # as workers get them
    assert not same(make(a_recipe(6, seed=6), *data)) and not same(make(a_recipe(6, name="student_2"), *data))


FAILING = """
import pickle, sys, torch
from segsemi.core.errors import run_stage
from segsemi.data.loaders import load_items
from segsemi.runtime.distributed import Runtime
batches = pickle.load(open(sys.argv[1], "rb"))
run_stage(lambda: list(load_items(batches, range(6), Runtime(torch.device("cpu"), workers=2))))
"""


def test_an_error_of_a_loader_process_ends_the_run_with_one_line(data: Data, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    batches = make(a_recipe(6), [replace(sample, image=broken) for sample in data.labelled], data.pseudo)
    (tmp_path / "batches").write_bytes(pickle.dumps(batches))
    command = [sys.executable, "-c", FAILING, str(tmp_path / "batches")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 1 and f"error: image {broken} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


LOADING = """
import os, pickle, signal, sys, torch
from segsemi.data.loaders import load_items
from segsemi.runtime.distributed import Runtime
def main():
    runtime = Runtime(torch.device('cuda'), workers=2, count=2)
    batches = iter(load_items(pickle.load(open(sys.argv[1], 'rb')), range(1000), runtime))
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'noted\\n'))  # print would fail in the middle of a print
    next(batches), next(batches)  # both loaders are there
    print('begun', flush=True)
    sys.stdin.readline()
    for _ in range(10):
        next(batches)
    print('went on', flush=True)
    sys.stdin.readline()
if __name__ == '__main__':
    main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torchrun's processes on GPUs are Linux's")
@pytest.mark.filterwarnings("ignore")
def test_loaders_of_several_gpus_outlive_a_stop_and_not_their_process(data: Data, tmp_path: Path) -> None:
    """A stop reaches all processes of the group, and a training asks for batches until it has agreed with the others."""
    (tmp_path / "batches").write_bytes(pickle.dumps(make(a_recipe(1000), *data)))
    (tmp_path / "load.py").write_text(LOADING)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "load.py"), str(tmp_path / "batches")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as training:
        watchdog = threading.Timer(120, training.kill)
        watchdog.start()
        assert training.stdin is not None and training.stdout is not None
        assert training.stdout.readline() == "begun\n"
        others = psutil.Process(training.pid).children(recursive=True)
        assert len(others) == 4  # the tracker of resources, the server, and two loaders
        os.killpg(training.pid, signal.SIGTERM)
        assert training.stdout.readline() == "noted\n"
        training.stdin.write("\n")
        training.stdin.flush()
        assert training.stdout.readline() == "went on\n"
        training.kill()
        watchdog.cancel()
    _, alive = psutil.wait_procs(others, timeout=60)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert not alive
