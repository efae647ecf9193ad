"""Data sets, manifest, split and batches."""

from __future__ import annotations

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
from PIL import Image

from segsemi.augment.strong import StrongAugment
from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import SAUG_OPERATIONS, AugmentParams
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash
from segsemi.data.batches import Group, Sample, StepBatches, labelled_samples, pseudo_samples
from segsemi.data.images import read_image, read_label
from segsemi.data.loaders import batch_loader
from segsemi.data.manifest import COLUMNS, Row, read_rows, write_rows
from segsemi.datasets import check_entries, scenes
from segsemi.datasets.camvid import CAMVID, find_camvid
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.datasets.split import read_corrected, read_list, split_rows, write_split

AUGMENT = AugmentParams(short_side=None, crop_size=40, scale_min=0.5, scale_max=2.0, flip=True)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four training and two validation images in CamVid's layout."""
    folder = tmp_path / "raw"
    scenes.write(folder, train=4, val=2, height=48, width=64, seed=3)
    return folder


def manifest(raw: Path) -> list[Row]:
    return check_entries(raw, find_camvid(raw).entries, SCENES, warn=lambda _: None)


def test_manifest_lists_every_image_with_unique_ids_and_survives_the_disk(raw: Path, tmp_path: Path) -> None:
    rows = manifest(raw)
    assert [row.subset for row in rows] == ["train"] * 4 + ["val"] * 2
    assert len({row.id for row in rows}) == 6
    assert {(row.height, row.width) for row in rows} == {(48, 64)}
    write_rows(tmp_path / "manifest.csv", rows)
    assert read_rows(tmp_path / "manifest.csv") == rows


def test_unique_stems_are_the_ids(raw: Path) -> None:
    for folder in ("val", "valannot"):
        for path in (raw / folder).iterdir():
            path.rename(path.with_name(f"v{path.name}"))
    assert [entry.id for entry in find_camvid(raw).entries] == ["0000", "0001", "0002", "0003", "v0000", "v0001"]


def test_camvid_void_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 10, 11]], dtype=np.uint8)).save(tmp_path / "label.png")
    assert read_label(tmp_path / "label.png", CAMVID).tolist() == [[0, 10, 255]]


def rows_of(count: int) -> list[Row]:
    train = [
        Row(f"t{i:04d}", "train", f"train/t{i:04d}.png", f"trainannot/t{i:04d}.png", 4, 4, "a", "b")
        for i in range(count)
    ]
    extra = [Row("e", "extra", "extra/e.png", "", 4, 4, "a", "")]
    return [*train, *extra, Row("v", "val", "val/v.png", "valannot/v.png", 4, 4, "a", "b")]


@pytest.mark.parametrize(("fraction", "expected"), [(1 / 8, 46), (1 / 4, 92), (1 / 2, 184), (1.0, 367), (0.01, 4)])
def test_fraction_of_camvid_gives_as_many_labels(fraction: float, expected: int) -> None:
    split = split_rows(rows_of(367), fraction=fraction, seed=0)
    assert len(split.labelled) == expected
    assert len(split.labelled) + len(split.unlabelled) == 368 and len(split.val) == 1
    assert "e" in {row.id for row in split.unlabelled}


def test_split_depends_on_the_seed_and_smaller_ones_lie_within_larger() -> None:
    rows = rows_of(100)

    def ids(count: int, seed: int) -> set[str]:
        return {row.id for row in split_rows(rows, count=count, seed=seed).labelled}

    assert ids(10, 1) == ids(10, 1) != ids(10, 2)
    assert ids(10, 1) < ids(20, 1) < ids(50, 1)


@pytest.mark.parametrize("choice", [{"fraction": 0.001}, {"count": 101}, {"ids": ["nobody"]}])
def test_impossible_split_is_refused(choice: dict) -> None:
    with pytest.raises(UserError, match=r"split\."):
        split_rows(rows_of(100), seed=0, **choice)


def test_list_file_chooses_by_id_or_path(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# comment only\n\n")
    assert read_list(path) is None
    path.write_text("# three ways\nt0001\ntrain/t0003.png trainannot/t0003.png\nt0000.png\n")
    split = split_rows(rows_of(5), ids=read_list(path), seed=0)
    assert [row.id for row in split.labelled] == ["t0000", "t0001", "t0003"]
    with pytest.raises(UserError, match="missing.txt"):
        read_list(tmp_path / "missing.txt")


PUBLISHED = [  # lines of the lists that the field shares
    ("leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png", "ulm_0_1"),
    ("/data/cityscapes/leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png\t/data/gt.png", "ulm_0_1"),
    ("leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png,gtFine/train/ulm/x.png", "ulm_0_1"),
    ("ulm_0_1_leftImg8bit", "ulm_0_1"),
    ("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png", "2007_000032"),
    ("2007_000032", "2007_000032"),
    ("day 1/a cat.jpg", "day 1__a cat"),
    ("day 1/a cat", "day 1__a cat"),
    ("images/day 2/a cat.jpg labels/day 2/a cat.png", "day 2__a cat"),
]


def listed_rows() -> list[Row]:
    images = {
        "ulm_0_1": "leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png",
        "2007_000032": "VOC2012/JPEGImages/2007_000032.jpg",
        "day 1__a cat": "images/day 1/a cat.jpg",
        "day 2__a cat": "images/day 2/a cat.jpg",
    }
    return [Row(id_, "train", image, "label.png", 4, 4, "a", "b") for id_, image in images.items()]


@pytest.mark.parametrize(("line", "expected"), PUBLISHED)
def test_lists_as_the_field_shares_them(line: str, expected: str) -> None:
    assert [row.id for row in split_rows(listed_rows(), ids=[line], seed=0).labelled] == [expected]


def test_a_whole_id_is_never_ambiguous() -> None:
    rows = [
        Row(id_, "train", image, "l.png", 4, 4, "a", "b") for id_, image in (("x", "x.png"), ("sub__x", "sub/x.png"))
    ]
    assert [row.id for row in split_rows(rows, ids=["x"], seed=0).labelled] == ["x"]
    with pytest.raises(UserError, match="no training image"):  # a dot in a name is no ending
        split_rows(rows, ids=["x.v2"], seed=0)


@pytest.mark.parametrize("line", ["a cat.jpg", "/", "other/2007_000033.jpg", "."])
def test_list_line_of_two_or_no_images_is_refused(line: str) -> None:
    with pytest.raises(UserError, match=r"split.labelled_list.*(day 1__a cat, day 2__a cat|no training image)"):
        split_rows(listed_rows(), ids=[line], seed=0)


def test_unlabelled_list_has_no_trace_of_labels(tmp_path: Path) -> None:
    write_split(split_rows(rows_of(8), count=2, seed=0), tmp_path)
    assert "label" not in (tmp_path / "unlabelled.csv").read_text().splitlines()[0]
    assert "annot" not in (tmp_path / "unlabelled.csv").read_text()
    assert [row.label for row in read_rows(tmp_path / "unlabelled.csv")] == [""] * 7
    assert (tmp_path / "labelled.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(read_rows(tmp_path / "hidden.csv")) == 6  # the extra image has no label to hide


def test_mended_labels_count_as_labelled_and_are_read_as_written(tmp_path: Path) -> None:
    raw, mended, lists = tmp_path / "raw", tmp_path / "mended", tmp_path / "lists"
    scenes.write(raw, train=4, val=2, height=48, width=64, seed=3)
    rows = manifest(raw)
    for name, value in (("train_0001", 7), ("train_0003", 255)):
        write_label_png(mended / f"{name}.png", np.full((48, 64), value, dtype=np.uint8), SCENES)
    (mended / "README.md").write_text("no label")
    files = read_corrected(mended, rows, SCENES)
    split = split_rows(rows, ids=["train_0000", "train_0003"], corrected=files, seed=0)
    write_split(split, lists, files)
    assert [row.id for row in read_rows(lists / "labelled.csv")] == ["train_0000", "train_0003"]  # its own label wins
    assert [row.id for row in read_rows(lists / "unlabelled.csv")] == ["train_0002"]
    assert [row.id for row in read_rows(lists / "hidden.csv")] == ["train_0002"]
    (row,) = corrected = read_rows(lists / "corrected.csv")
    assert row.id == "train_0001" and row.label_hash == file_hash(mended / "train_0001.png")
    samples = labelled_samples(read_rows(lists / "labelled.csv"), raw, corrected, lists)
    assert [sample.id for sample in samples] == ["train_0000", "train_0003", "train_0001"]
    shifted = Classes(SCENES.names, SCENES.colours, file_ids=tuple(range(100, 111)))  # the data set's own ids
    batches = StepBatches([Group("labelled", samples[2:], 1, shifted)], AUGMENT, steps=1, seed=0, stage="s", cache_mb=1)
    assert set(batches[0][0].targets.unique().tolist()) <= {7, 255}


@pytest.mark.parametrize(
    ("name", "size", "value", "message"),
    [
        ("train_9999", (48, 64), 1, r"train_9999\.png: no training image has the id"),
        ("val_0000", (48, 64), 1, r"val_0000\.png: no training image has the id"),
        ("train_0001", (48, 60), 1, r"train_0001\.png is 48x60, its image 48x64"),
        ("train_0001", (48, 64), 11, r"train_0001\.png has ids \[11\] outside 0\.\.10"),
    ],
)
def test_wrong_mended_label_is_refused(
    raw: Path, tmp_path: Path, name: str, size: tuple[int, int], value: int, message: str
) -> None:
    write_label_png(tmp_path / "mended" / f"{name}.png", np.full(size, value, dtype=np.uint8), SCENES)
    with pytest.raises(UserError, match=message):
        read_corrected(tmp_path / "mended", manifest(raw), SCENES)


def test_missing_folder_of_mended_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.corrected: there is no folder"):
        read_corrected(tmp_path / "nowhere", [], SCENES)


def test_two_mended_labels_of_one_image_are_refused(raw: Path, tmp_path: Path) -> None:
    for ending in ("png", "PNG"):
        (tmp_path / f"twice/train_0001.{ending}").parent.mkdir(exist_ok=True)
        (tmp_path / f"twice/train_0001.{ending}").touch()
    with pytest.raises(UserError, match=r"train_0001\.PNG and .*train_0001\.png are labels of the same image"):
        read_corrected(tmp_path / "twice", manifest(raw), SCENES)


def groups(raw: Path, tmp_path: Path) -> list[Group]:
    rows = manifest(raw)
    for row in rows[2:4]:
        write_label_png(tmp_path / "pseudo" / f"{row.id}.png", np.full((48, 64), 7, dtype=np.uint8), SCENES)
    return [
        Group("labelled", labelled_samples(rows[:2], raw), 2, SCENES),
        Group("pseudo", pseudo_samples(rows[2:4], raw, tmp_path / "pseudo"), 1, SCENES, pseudo=True, strong_ops=3),
    ]


def make(groups: list[Group], **changes: object) -> StepBatches:
    options: dict = {"augment": AUGMENT, "steps": 6, "seed": 5, "stage": "student_1", "cache_mb": 10, **changes}
    return StepBatches(groups, **options)


def test_batch_has_a_part_of_each_group_and_pseudo_labels_come_from_the_pngs(raw: Path, tmp_path: Path) -> None:
    labelled, pseudo = make(groups(raw, tmp_path))[0]
    assert (labelled.pseudo, pseudo.pseudo) == (False, True)
    images, targets = labelled.on(torch.device("cpu"))
    assert images.shape == (2, 3, 40, 40) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, labelled.images.float() / 255) and images.min() >= 0 and 0.5 < images.max() <= 1
    assert pseudo.images.shape == (1, 3, 40, 40) and pseudo.images.dtype == torch.uint8
    assert targets.shape == (2, 40, 40) and targets.dtype == torch.uint8
    assert set(pseudo.targets.unique().tolist()) <= {7, 255}
    assert pseudo.ids[0] in {"train_0002", "train_0003"} and set(labelled.ids) == {"train_0000", "train_0001"}


def test_weak_and_strong_groups_of_the_same_images_keep_apart_in_the_cache(raw: Path, tmp_path: Path) -> None:
    """Where `short_side` shrinks, SAUG starts from the full image and the weak part from the small one."""
    samples = groups(raw, tmp_path)[0].samples
    both = [Group("weak", samples, 2, SCENES), Group("strong", samples, 2, SCENES, parallel=True, strong_ops=1)]
    augment = AUGMENT.model_copy(update={"short_side": 32})
    cached, fresh = (make(both, augment=augment, cache_mb=mb) for mb in (10, 0))
    for step in range(4):
        for a, b in zip(cached[step], fresh[step], strict=True):
            assert a.images.equal(b.images) and a.parallel == b.parallel


def test_every_image_gets_its_own_augmentation_anew_in_each_epoch_and_group(raw: Path, tmp_path: Path) -> None:
    (sample, *_) = groups(raw, tmp_path)[0].samples
    both = [Group(name, [sample], 1, SCENES) for name in ("a", "b")]
    crops = [part.images for step in range(3) for part in make(both)[step]]
    assert all(not a.equal(b) for index, a in enumerate(crops) for b in crops[:index])


def test_every_epoch_group_and_seed_has_an_order_of_its_own(raw: Path, tmp_path: Path) -> None:
    one = groups(raw, tmp_path)[0].samples[0]
    samples = [replace(one, id=str(index)) for index in range(8)]

    def orders(name: str, **options: object) -> list[str]:
        batches = make([Group(name, samples, 8, SCENES)], steps=2, **options)
        return ["".join(batches[epoch][0].ids) for epoch in range(2)]

    found = [*orders("a"), *orders("b"), *orders("a", seed=6), *orders("a", stage="student_2")]
    assert len(set(found)) == 8 and {"".join(sorted(order)) for order in found} == {"01234567"}


def test_saug_gets_its_params_and_the_image_at_its_own_size(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool, tuple[int, ...]]] = []

    class Recorded(StrongAugment):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            seen.append((self.num_ops, len(self.operations), self.replace, image.shape))
            return super().__call__(image)

    monkeypatch.setattr("segsemi.augment.strong.StrongAugment", Recorded)
    group = replace(groups(raw, tmp_path)[0], strong_ops=5, replace=False, without=["hsv"])
    (part,) = make([group], augment=AUGMENT.model_copy(update={"short_side": 32}))[0]
    assert seen == [(5, 16, False, (48, 64, 3))] * 2 and part.images.shape == (2, 3, 40, 40)


def test_pseudo_labels_are_read_as_we_write_them(raw: Path, tmp_path: Path) -> None:
    """Not as the data set's own label files, whose ids may be others."""
    classes = replace(SCENES, file_ids=tuple(range(10, 21)))
    labelled, pseudo = groups(raw, tmp_path)
    (part,) = make([replace(pseudo, classes=classes)])[0]
    assert 7 in part.targets
    with pytest.raises(UserError, match="outside"):
        make([replace(labelled, classes=classes)])[0]


def test_an_error_of_a_loader_process_ends_the_run(raw: Path, tmp_path: Path) -> None:
    parts = groups(raw, tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    samples = [replace(parts[0].samples[0], image=broken)]
    (tmp_path / "batches").write_bytes(pickle.dumps(make([replace(parts[0], samples=samples), *parts[1:]])))
    script = (
        "import pickle, sys\nfrom segsemi.data.loaders import batch_loader\nfrom segsemi.core.errors import run_stage\n"
        "def main():\n    batches = pickle.load(open(sys.argv[1], 'rb'))\n"
        "    for batch in batch_loader(batches, start=0, workers=2):\n        kept = batch\n"
        "if __name__ == '__main__':\n    run_stage(main)\n"
    )
    for shown in ({}, {"SEGSEMI_TRACEBACK": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "batches")],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | shown,
            cwd=ROOT,
        )
        assert done.returncode == 1 and f"image {broken} cannot be read" in done.stderr
        assert ("Traceback" in done.stderr) == bool(shown)


LOADING = """
import pickle, signal, sys, torch
from segsemi.data.loaders import batch_loader
def main():
    batches = iter(batch_loader(pickle.load(open(sys.argv[1], 'rb')), start=0, workers=2, device=torch.device('cuda')))
    signal.signal(signal.SIGTERM, lambda *_: print('noted', flush=True))
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
def test_loaders_of_several_gpus_outlive_a_stop_and_not_their_process(raw: Path, tmp_path: Path) -> None:
    """A stop reaches all processes of the group, and who trains asks for batches until it has agreed with the others."""
    part = groups(raw, tmp_path)[0]
    (tmp_path / "batches").write_bytes(pickle.dumps(make([part], steps=1000, processes=2)))
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


def test_every_sample_comes_once_an_epoch(raw: Path, tmp_path: Path) -> None:
    batches = make(groups(raw, tmp_path))
    ids = [batches[step][1].ids[0] for step in range(6)]
    assert all(set(ids[i : i + 2]) == {"train_0002", "train_0003"} for i in (0, 2, 4))


@pytest.mark.parametrize(("cache_mb", "kept"), [(0, 0), (1, 2), (2, 4)])
def test_decoded_images_are_kept_as_far_as_the_cache_goes(
    cache_mb: int, kept: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images, of which two fit into a MiB."""
    four = [Group("labelled", labelled_samples(manifest(raw)[:4], raw), 4, SCENES)]
    decoded: list[Path] = []

    def large(path: Path) -> np.ndarray:
        decoded.append(path)
        return np.zeros((300, 400, 3), np.uint8)  # with its label 480,000 bytes

    monkeypatch.setattr("segsemi.data.batches.read_image", large)
    monkeypatch.setattr("segsemi.data.batches.read_label", lambda *_: np.zeros((300, 400), np.uint8))
    batches = make(four, cache_mb=cache_mb, augment=AUGMENT.model_copy(update={"short_side": None}))
    for step in range(3):
        batches[step]
    assert len(decoded) == 4 + 2 * (4 - kept)


def test_batches_depend_on_seed_and_stage_not_on_workers_start_or_cache(raw: Path, tmp_path: Path) -> None:
    parts = groups(raw, tmp_path)
    reference = [make(parts)[step] for step in range(6)]

    def same(a: StepBatches, workers: int = 0, start: int = 0) -> bool:
        got = list(batch_loader(a, start=start, workers=workers))
        return all(
            x.images.equal(y.images) and x.targets.equal(y.targets) and x.ids == y.ids
            for a, b in zip(got, reference[start:], strict=True)
            for x, y in zip(a, b, strict=True)
        )

    assert same(make(parts)) and same(make(parts), workers=2) and same(make(parts), start=4)
    assert same(make(parts, cache_mb=0)) and same(pickle.loads(pickle.dumps(make(parts))))  # as workers get them
    assert not same(make(parts, seed=6)) and not same(make(parts, stage="student_2"))


def test_strong_augmentation_changes_the_image_and_never_the_label(raw: Path, tmp_path: Path) -> None:
    plain = groups(raw, tmp_path)
    label = read_label(plain[0].samples[0].label, SCENES)
    one = Sample("x", plain[0].samples[0].image, plain[0].samples[0].label)
    augment = AugmentParams(short_side=None, crop_size=64, scale_min=1.0, scale_max=1.0, flip=False)
    for ops in (0, 3):
        batches = StepBatches(
            [Group("g", [one], 1, SCENES, strong_ops=ops)], augment, steps=8, seed=0, stage="s", cache_mb=1
        )
        image = read_image(one.image).transpose(2, 0, 1).astype(np.float32) / 255
        for step in range(8):
            (part,) = batches[step]
            assert np.array_equal(part.targets[0, :48].numpy(), label)
            images, _ = part.on(torch.device("cpu"))
            assert np.allclose(images[0, :, :48].numpy(), image, atol=1e-6) == (ops == 0)


def test_operations_that_are_left_out_are_never_drawn(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "orange.png"
    Image.fromarray(np.full((48, 64, 3), (255, 128, 0), np.uint8)).save(path)
    sample = Sample("x", path, groups(raw, tmp_path)[0].samples[0].label)
    augment = AugmentParams(short_side=None, crop_size=48, scale_min=1.0, scale_max=1.0, flip=False)
    others = [name for name in SAUG_OPERATIONS if name != "invert_channel"]
    group = Group("g", [sample], 1, SCENES, strong_ops=1, without=others)
    batches = StepBatches([group], augment, steps=8, seed=0, stage="s", cache_mb=1)
    for step in range(8):
        (part,) = batches[step]
        assert (part.images[0] == torch.tensor([0, 128, 255], dtype=torch.uint8)[:, None, None]).all()


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    rgb = np.repeat(grey[..., None], 3, axis=2)
    half = np.dstack([rgb, np.full((6, 8), 128, np.uint8)])
    files = {
        "grey": Image.fromarray(grey),
        "sixteen": Image.fromarray(grey.astype(np.uint16) * 256 + 77),
        "opaque": Image.fromarray(np.dstack([rgb, np.full((6, 8), 255, np.uint8)])),
    }
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), rgb), name
    Image.fromarray(half).save(tmp_path / "half.png")
    mixed = (rgb * (128 / 255) + 255 * (127 / 255)).round()
    assert np.abs(read_image(tmp_path / "half.png") - mixed).max() <= 1
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float\.tif cannot be read \(its pixels are floating-point"):
        read_image(tmp_path / "float.tif")
