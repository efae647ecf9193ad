"""The synthetic street scenes: determinism, class content, file layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsemi.datasets import scenes as synthetic

SCENES = 30
SMALLEST_SHARE = 0.001  # of all pixels, for every class
THIN_SHARE = 0.03  # the most that a thin or small class may cover
THIN_CLASSES = ("pole", "sign", "fence", "pedestrian", "bicyclist")


def rng(index: int, seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, 0, index])


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [synthetic.scene(rng(index)) for index in range(SCENES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.write(folder, train=6, val=4, height=48, width=64)
    return folder


def test_classes_and_colours_agree() -> None:
    assert len(synthetic.CLASSES) == len(synthetic.COLOURS) == len(set(synthetic.CLASSES))
    assert len(set(synthetic.COLOURS)) == len(synthetic.COLOURS)


@pytest.mark.parametrize(("height", "width"), [(192, 256), (48, 64), (96, 128), (100, 150), (32, 32)])
def test_shapes_and_types(height: int, width: int) -> None:
    for index in range(4):
        image, label = synthetic.scene(rng(index), height, width)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert label.shape == (height, width) and label.dtype == np.uint8


def test_same_seed_gives_the_same_scene() -> None:
    for first, second in zip(synthetic.scene(rng(3)), synthetic.scene(rng(3)), strict=True):
        np.testing.assert_array_equal(first, second)


def test_other_index_or_seed_gives_another_scene() -> None:
    image, label = synthetic.scene(rng(3), 48, 64)
    for other in (rng(4), rng(3, seed=1)):
        other_image, other_label = synthetic.scene(other, 48, 64)
        assert (image != other_image).any() and (label != other_label).any()


def test_only_known_ids(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    ids = {int(value) for _, label in scenes for value in np.unique(label)}
    assert ids == {*range(len(synthetic.CLASSES)), synthetic.IGNORE_INDEX}


def test_every_class_occurs_and_small_ones_stay_small(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    labels = np.stack([label for _, label in scenes])
    share = {name: float((labels == class_id).mean()) for class_id, name in enumerate(synthetic.CLASSES)}
    assert min(share.values()) > SMALLEST_SHARE, share
    assert max(share[name] for name in THIN_CLASSES) < THIN_SHARE, share
    assert share["road"] > 0.15 and share["sky"] > 0.05
    assert (labels == synthetic.IGNORE_INDEX).mean() < 0.05


def test_small_classes_are_in_most_images(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for name in ("pole", "sign", "pedestrian", "bicyclist", "fence"):
        class_id = synthetic.CLASSES.index(name)
        assert np.mean([(label == class_id).any() for _, label in scenes]) > 0.5, name


def test_files_have_the_camvid_layout(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["train", "trainannot", "val", "valannot"]
    for subset, count in (("train", 6), ("val", 4)):
        names = [f"{index:04d}.png" for index in range(count)]
        for part, mode in ((subset, "RGB"), (f"{subset}annot", "L")):
            assert sorted(path.name for path in (folder / part).iterdir()) == names
            for name in names:
                with Image.open(folder / part / name) as picture:
                    assert picture.mode == mode and picture.size == (64, 48)


def test_files_hold_the_scenes(folder: Path) -> None:
    for number, subset in enumerate(synthetic.SUBSETS):
        image, label = synthetic.scene(np.random.default_rng([0, number, 2]), 48, 64)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / subset / "0002.png")), image)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{subset}annot" / "0002.png")), label)


def test_same_seed_gives_the_same_bytes_for_any_count(folder: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path, train=3, val=2, height=48, width=64)
    for path in sorted(tmp_path.rglob("*.png")):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_other_seed_gives_other_files(folder: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path, train=1, val=1, height=48, width=64, seed=1)
    for path in sorted(tmp_path.rglob("*.png")):
        assert path.read_bytes() != (folder / path.relative_to(tmp_path)).read_bytes()


def test_all_images_differ(folder: Path) -> None:
    contents = [path.read_bytes() for subset in synthetic.SUBSETS for path in (folder / subset).iterdir()]
    assert len(set(contents)) == len(contents) == 10
