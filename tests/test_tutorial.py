"""docs/tutorial.md, followed from its first block to its last, on tiny images."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, copy_project
from ruamel.yaml import YAML

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), flags=re.DOTALL)
SMALLER = {
    "height=160, width=208": "height=48, width=64",
    "range(64)": "[*range(12), 30, 31, 32, 60]",
    "suggest -n 5": "suggest -n 1",  # the other images must stay unlabelled
    "dvc repro\ndvc metrics": "dvc repro split\ndvc metrics",  # after a correction; the rest would take another minute
}
TINY = {
    "augment": {"crop_size": 48},
    "teacher": {"steps": 2, "batch_size": 2, "val_every": 0},
    "student": {"steps": 2, "batch_labelled": 2, "batch_pseudo": 2, "val_every": 0},
    "pseudo_label": {"scales": [1.0], "flip": False},
}
ONE_ROUND = ("  student_1: teacher\n  student_2: student_1\n", "  student_2: teacher\n")


def first_id(path: str) -> str:
    with Path(path).open(newline="") as file:
        return next(csv.DictReader(file))["id"]


@pytest.mark.pipeline
def test_every_block_of_the_tutorial_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    names: dict[str, np.ndarray] = {}
    printed = ""
    for language, block in BLOCKS:
        for text, smaller in SMALLER.items():
            block = block.replace(text, smaller)
        if language == "python":
            exec(compile(block, "docs/tutorial.md", "exec"), names)
        elif language == "yaml":
            project.set_params({**YAML(typ="safe").load(block), **TINY})
            params = Path("params.yaml").read_text()
            assert ONE_ROUND[0] in params
            Path("params.yaml").write_text(params.replace(*ONE_ROUND))
        elif "activate" not in block:
            printed += project.run("bash", "-ec", block)
    assert "train: 4 images with a label" in printed and "class   8 car" in printed
    assert Path("nine.png").stat().st_size > 1000
    assert sorted(path.name for path in Path("out").iterdir()) == ["street_60.png", "street_60_overlay.png"]
    assert names["label"].shape == (48, 64) and names["label"].max() < 11
    assert first_id("data/split/corrected.csv") == first_id("suggestions/suggestions.csv")
    assert project.run("git", "status", "--porcelain", "params.yaml", "reports", "data/corrected") == ""
