"""The embedded street scenes: determinism, share of each class, files that an ordinary reader finds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsemi.core.classes import IGNORE_INDEX
from segsemi.datasets import scenes

SMALLEST_SHARE = 0.001  # of all pixels, for every class
THIN_SHARE = 0.03  # the most that a thin or small class may cover
THIN_CLASSES = ("pole", "sign", "fence", "pedestrian", "bicyclist")
NAMES = scenes.CLASSES.names


def rng(index: int, seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, 0, index])


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.stack([scenes.scene(rng(index))[1] for index in range(30)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, train=4, val=3, height=48, width=64)
    return folder


@pytest.mark.parametrize(("height", "width"), [(192, 256), (48, 64), (100, 150), (32, 32)])
def test_scene_depends_on_the_generator_alone(height: int, width: int) -> None:
    image, label = scenes.scene(rng(3), height, width)
    assert image.shape == (height, width, 3) and label.shape == (height, width)
    assert image.dtype == label.dtype == np.uint8
    again = scenes.scene(rng(3), height, width)
    assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])
    for other in (rng(4), rng(3, seed=1)):
        other_image, other_label = scenes.scene(other, height, width)
        assert (image != other_image).any() and (label != other_label).any()


def test_every_class_occurs_and_small_ones_stay_small(labels: np.ndarray) -> None:
    assert set(np.unique(labels)) == {*range(len(NAMES)), IGNORE_INDEX}
    share = {name: float((labels == class_id).mean()) for class_id, name in enumerate(NAMES)}
    assert min(share.values()) > SMALLEST_SHARE, share
    assert max(share[name] for name in THIN_CLASSES) < THIN_SHARE, share
    assert share["road"] > 0.15 and share["sky"] > 0.05
    assert (labels == IGNORE_INDEX).mean() < 0.05
    for name in THIN_CLASSES:
        assert (labels == NAMES.index(name)).any(axis=(1, 2)).mean() > 0.5, f"{name} is missing in most images"


def test_files_have_the_camvid_layout_and_hold_the_scenes(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    counts = {"train": 4, "trainannot": 4, "val": 3, "valannot": 3}
    assert files == {f"{part}/{index:04d}.png" for part, count in counts.items() for index in range(count)}
    for number, subset in enumerate(("train", "val")):
        expected = scenes.scene(np.random.default_rng([0, number, 2]), 48, 64)
        for part, array, mode in zip((subset, f"{subset}annot"), expected, ("RGB", "L"), strict=True):
            with Image.open(folder / part / "0002.png") as picture:
                assert picture.mode == mode and np.array_equal(np.asarray(picture), array)


@pytest.mark.parametrize("seed", [0, 1])
def test_files_depend_on_the_seed_and_not_on_the_count(seed: int, folder: Path, tmp_path: Path) -> None:
    scenes.write(tmp_path, train=3, val=2, height=48, width=64, seed=seed)
    for path in sorted(tmp_path.rglob("*.png")):
        assert (path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()) == (seed == 0)
