"""What `doctor` says of data, split and costs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from dvc.utils.hydra import apply_overrides
from PIL import Image
from ruamel.yaml import YAML

from segsemi.commands.cli import main
from segsemi.commands.doctor import cost_lines, split_lines
from segsemi.core.config import load_params, load_values, parse_params
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.datasets.split import split_rows


def test_doctor_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, rng = tmp_path / "own", np.random.default_rng(0)
    label = np.repeat(np.array([0, 0, 1, 255], np.uint8), 500).reshape(40, 50)
    for folder in ("images", "labels", "unlabelled"):
        (root / folder).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(label).save(root / f"labels/{index}.png")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(root / "unlabelled/x.png")
    names = {"names": ["ground", "cat", "dog"], "colours": [[0, 0, 0], [255, 0, 0], [0, 0, 255]]}
    (root / "classes.json").write_text(json.dumps(names))
    values, path, picture = load_values(ROOT / "params.yaml"), tmp_path / "params.yaml", tmp_path / "nine.png"
    values["data"].update(name="folder", root=str(root))
    values["augment"]["crop_size"] = 32
    values["student"].update(bn="fixed", batch_labelled=1, batch_pseudo=1)  # one image goes through at a time
    YAML().dump(values, path)
    assert main(["doctor", "--params", str(path), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "train: 8 images with a label" in out and "val: 2 images with a label" in out
    assert "extra: 0 images with a label, 1 without" in out
    assert re.search(r"class   0 ground +50\.00 %", out) and re.search(r"class   2 dog +0\.00 %.*no pixel", out)
    assert re.search(r"no class \(ignored\) +25\.00 %", out)
    memory = re.findall(r"(?:teacher|student): \d+\.\d\d s per step and (\d+\.\d) GiB of memory", out)
    assert len(memory) == 2 and all(0.2 < float(gib) < 20 for gib in memory)
    with Image.open(picture) as nine:
        assert nine.width > 3 * 50

    Image.fromarray(label[:, :49]).save(root / "labels/0.png")
    assert main(["doctor", "--params", str(path), "--picture", str(picture)]) == 1
    assert "0.png is 40x49, its image 40x50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "extra", "expected"),
    [
        ([], 0, ["split: 1 labelled and 7 unlabelled images"]),
        (["split.fraction=1"], 0, ["split: 8 labelled and 0 unlabelled images", "no image is unlabelled"]),
        (["split.fraction=1", "student.batch_pseudo=0", "student.bn=fixed"], 0, ["split: 8 labelled and 0 unlabelled"]),
        (
            ["evaluate.subset=test"],
            1,
            ["split: 1 labelled and 8 unlabelled images", "is test, where no image has a label"],
        ),
        (
            ["student.steps=100"],
            1000,
            [
                "split: 1 labelled and 1007 unlabelled images",
                "each round draws 400 pseudo-labelled images (student.steps x student.batch_pseudo) of 1007",
                "the validation set has 1 image, too few to compare models",
            ],
        ),
    ],
)
def test_doctor_tells_what_the_split_will_be(
    overrides: list[str], extra: int, expected: list[str], tmp_path: Path
) -> None:
    path = shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(path, overrides)
    subsets = ["train"] * 8 + ["extra"] * extra + ["val"] * (1 if extra == 1000 else 10)
    entries = [Row(str(i), subset, f"{i}.jpg", f"{i}.png") for i, subset in enumerate(subsets)]
    params = load_params(path)
    lines = list(split_lines(params, split_rows(entries, params.split, [], seed=0)))
    assert len(lines) == len(expected) and all(part in line for part, line in zip(expected, lines, strict=True))


def test_doctor_estimates_pseudo_labels_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segsemi.commands.doctor.step_cost", lambda *_: (1.0, 2**30))
    monkeypatch.setattr("segsemi.commands.doctor.prediction_cost", lambda *_: 0.01)
    params = parse_params(load_values(ROOT / "params.yaml"))
    subsets = ["train"] * 400 + ["extra"] * 5000 + ["val"] * 60
    split = split_rows([Row(str(i), subset, "a", "b") for i, subset in enumerate(subsets)], params.split, [], seed=0)
    lines = list(cost_lines(params, SCENES, split, (160, 208)))
    pseudo = 0.01 * 2 * (0.5**2 + 0.75**2 + 1 + 1.5**2 + 1.75**2) * 5350 * 2 / 60
    evaluation = 0.01 * 60 * (3 + 2 + 4) / 60  # three models, and val_every: twice the teacher and twice each student
    assert f"in 2 rounds {pseudo:.0f} minutes, evaluation {evaluation:.0f} minutes" in lines[-2]
    assert f"in all: {(100 + 360) / 60 + pseudo + evaluation:.0f} minutes" in lines[-1]
