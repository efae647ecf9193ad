"""`segsemi init`: what it makes of images and labels, and a project with the library from its wheel."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from conftest import RAW, ROOT, TINY, Project, copy_project
from PIL import Image
from ruamel.yaml import YAML

from segsemi.commands.cli import main
from segsemi.commands.init import own_pipeline, settings
from segsemi.core.config import load_params
from segsemi.core.errors import UserError
from segsemi.datasets import check_entries, find_dataset
from segsemi.datasets.guess import guess_classes, link_images

GREY, RED = (90, 90, 90), (200, 0, 0)


def pair(
    folder: Path, values: list, mode: str = "L", label: str = "sub/{}.png", palette: tuple = (*GREY, *RED)
) -> tuple[Path, Path]:
    """Write four labelled images and an unlabelled one; each label shows all `values`, in stripes."""
    for number in range(5):
        image = folder / f"pictures/sub/{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)).save(image)
        if number < 4:
            path = folder / "masks" / label.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            stripes = np.array(values, np.uint8)[np.arange(48) * len(values) // 48]
            mask = Image.fromarray(np.repeat(stripes[None], 40, axis=0)).convert("L" if mode == "P" else mode)
            if mode == "P":
                mask.putpalette(palette)
            mask.save(path)
    return folder / "pictures", folder / "masks"


TWO = ["background", "foreground"]
VOC = [[0, 0, 0], [128, 0, 0]]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0, 1], {}, {"names": TWO, "colours": VOC}),
        ([0, 1], {"mode": "RGB"}, {"names": TWO, "colours": VOC}),
        ([0, 1, 255], {}, {"names": TWO, "colours": VOC}),
        ([0, 255], {}, {"names": TWO, "colours": VOC, "ids": [0, 255], "ignore_ids": []}),
        ([0, 255], {"mode": "1"}, {"names": TWO, "colours": VOC}),
        ([5, 7], {"label": "sub/{}_gt.png"}, {"ids": [5, 7], "label_suffix": "_gt"}),
        ([0, 1, 2], {"label": "sub/{}.tif"}, {"names": ["class_0", "class_1", "class_2"]}),
        ([GREY, GREY, RED], {"mode": "RGB"}, {"names": TWO, "colours": [[*GREY], [*RED]], "labels": "colours"}),
        ([0, 1], {"mode": "P"}, {"names": TWO, "colours": VOC}),  # a palette's positions are the ids
        (
            [0, 1],
            {"mode": "P", "palette": (128, 0, 0, 0, 128, 0)},
            {"names": TWO, "colours": VOC},
        ),  # as VOC's other ids
    ],
)
def test_init_links_images_and_labels_and_guesses_their_classes(
    values: list, options: dict, expected: dict, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    pictures, masks = pair(tmp_path, values, **options)
    found = link_images([pictures], masks, root)
    assert found.classes == {**found.classes, **expected} and len(found.lines) >= len(found.classes["names"])
    (root / "classes.json").write_text(json.dumps(found.classes))
    data, names = find_dataset("folder", root, val_fraction=0.25, seed=0), {path.name for path in root.iterdir()}
    assert not data.notes and names == {"classes.json", "images", "labels", "unlabelled"}
    rows = check_entries(root, data.entries, data.classes, pytest.fail)
    assert sorted(row.subset for row in rows) == ["extra", "train", "train", "train", "val"]
    assert [len(found.labelled), len(found.unlabelled)] == [4, 1] and (root / "images/sub/0.jpg").is_symlink()


def test_palettes_of_their_own_for_each_file_are_colours(tmp_path: Path) -> None:
    """As quantize makes them: one id is another class in each file."""
    _, masks = pair(tmp_path, [GREY, RED, RED], mode="RGB")
    for path in sorted(masks.rglob("*.png"))[:2]:
        with Image.open(path) as image:
            shown = np.asarray(image).copy()
        shown[:, :32] = (0, 0, 99)
        Image.fromarray(shown).save(path)
    for path in masks.rglob("*.png"):
        with Image.open(path) as image:
            image.quantize(4).save(path)
    found = guess_classes(sorted(masks.rglob("*.png")))[0]
    assert found["labels"] == "colours" and sorted(found["colours"]) == [[0, 0, 99], [*GREY], [*RED]]


def test_white_of_one_bit_is_that_of_the_other_masks(tmp_path: Path) -> None:
    _, masks = pair(tmp_path, [0, 255])
    with Image.open(masks / "sub/0.png") as image:
        image.convert("1").save(masks / "sub/0.png")
    found = guess_classes(sorted(masks.rglob("*.png")))[0]
    assert (found["ids"], found["ignore_ids"]) == ([0, 255], [])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("nowhere", "masks", "nowhere is no folder"),
        ("pictures", "pictures/sub", "one holds the other"),
        ("masks", "pictures", "has no .png"),
        ("other", "masks", "4 of 4 labels have no image of their name"),
        ("pictures again", "masks", "have one name"),
        ("pictures", "shades", "the labels have 200 different values"),
        (None, "masks", "--labels needs --images"),
    ],
)
def test_init_refuses_what_it_cannot_make_a_project_of(
    images: str | None, labels: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(tmp_path, [0, 1])
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "other/x.png")
    (tmp_path / "shades/sub").mkdir(parents=True)
    Image.fromarray(np.arange(200, dtype=np.uint8)[None]).save(tmp_path / "shades/sub/1.png")
    shutil.copytree(tmp_path / "pictures", tmp_path / "again")
    options = ["--images", *(str(tmp_path / name) for name in images.split())] if images else []
    assert main(["init", str(tmp_path / "p"), *options, "--labels", str(tmp_path / labels)]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "p").exists()


def test_what_dvc_refuses_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".dvc").mkdir()
    assert main(["init", str(tmp_path)]) == 1
    assert re.search(r"dvc init in .*'\.dvc' exists", capsys.readouterr().err)


def test_settings_suit_the_images(tmp_path: Path) -> None:
    pair(tmp_path, [0, 1])
    few, many = sorted((tmp_path / "pictures").rglob("*.jpg")), [tmp_path / "pictures/sub/0.jpg"] * 350
    assert settings(few, [])["teacher"]["steps"] == 1000 and settings([], [])["student"]["steps"] == 2000
    found = settings(many, many)
    assert (found["teacher"]["steps"], found["student"]["steps"], found["augment"]["crop_size"]) == (3500, 4000, 32)
    assert (found["student"]["strong"], settings([], [])["student"]["strong"]) == ("colour", "saug")
    with pytest.raises(UserError, match="smoothed"):
        guess_classes(few)  # noise


def test_stages_of_a_project_depend_on_requirements_instead_of_on_the_library() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    ours, own = (YAML(typ="safe").load(part)["stages"] for part in (text, own_pipeline(text)))
    for name, stage in ours.items():
        before, after = (part.get("do", part) for part in (stage, own[name]))
        rest = [dep for dep in before["deps"] if not dep.startswith("segsemi/")]
        assert after["deps"].count("requirements.txt") == 1
        assert [dep for dep in after["deps"] if dep != "requirements.txt"] == rest
        assert {**after, "deps": 0} == {**before, "deps": 0}


@pytest.mark.pipeline
def test_a_project_runs_with_the_library_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    source, python = copy_project(tmp_path / "source"), tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "-q"]
    source.run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), ".")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    source.run(*pip, "--python", str(python), "install", "--no-deps", "--no-compile", str(wheel))
    (site,) = tmp_path.glob("venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # torch and the like
    packed = site / "segsemi/project"
    files = [path for path in packed.rglob("*") if path.is_file()]
    assert len(files) > 20 and not [
        path for path in files if path.read_bytes() != (source.folder / path.relative_to(packed)).read_bytes()
    ]

    images, labels = (source.folder / RAW / name for name in ("train", "trainannot"))
    for path in sorted(labels.iterdir())[8:]:
        path.unlink()
    source.python = python
    init = ("init", str(tmp_path / "project"), "--images", str(images), "--labels", str(labels))
    assert "8 images with a label, 4 without" in source.run(str(python.with_name("segsemi")), *init)
    project = Project(tmp_path / "project", python)
    params = load_params(project.folder / "params.yaml")
    assert (params.student.batch_labelled, params.student.batch_pseudo, params.split.fraction) == (8, 8, 1.0)
    project.set_params({name: values for name, values in TINY.items() if name not in ("data", "split")})
    params_file = project.folder / "params.yaml"
    rounds = "rounds:\n  student_1: teacher\n  student_2: student_1\n"
    params_file.write_text(params_file.read_text().replace(rounds, "rounds: {}\n"))
    project.run("dvc", "add", "data/raw")
    ran = ["check_params", "prepare", "split", "show_saug", "train_teacher", "evaluate_teacher", "report"]
    assert sorted(project.repro()) == sorted(ran)
    project.commit()
    tracked = project.run("git", "ls-files", "data").split()
    assert tracked == ["data/corrected/README.md", "data/labelled.txt", "data/raw.dvc"]
    assert project.repro() == [] and project.run("git", "status", "--porcelain") == ""


def test_init_keeps_files_that_are_there_and_names_skipped_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = pair(tmp_path, [0, 1])
    shutil.copy(sorted(pictures.rglob("*.jpg"))[0], masks / "sub/9.jpg")
    project = tmp_path / "p"
    project.mkdir()
    (project / "README.md").write_text("mine")
    (project / ".gitignore").write_text("secrets.env\n")
    assert main(["init", str(project), "--images", str(pictures), "--labels", str(masks)]) == 0
    ignored = (project / ".gitignore").read_text().splitlines()
    assert (project / "README.md").read_text() == "mine" and {"secrets.env", "/data/raw/", "/models/"} <= {*ignored}
    assert "1 files in" in (said := capsys.readouterr().err) and "1 .jpg (first 9.jpg)" in said
