"""docs/own-data.md, followed word for word on a small folder, and the models shared with a colleague."""

import csv
import json
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import RAW, ROOT, Project, copy_project
from PIL import Image, ImageDraw
from ruamel.yaml import YAML

pytestmark = pytest.mark.pipeline

COMMANDS = [
    line.split("#")[0].strip()
    for line in (ROOT / "docs/own-data.md").read_text().splitlines()
    if re.match(r"    (python -m segsemi|dvc) ", line)
]


def draw_folder(project: Path) -> None:
    """Draw pictures of bright boxes: 0 to 5 annotated with labelme, 6 to 9 as COCO, the rest not at all."""
    generator = np.random.default_rng(0)
    for folder in ("data/raw/mydata/images", "data/raw/mydata/unlabelled", "pictures", "annotations"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    images, shapes = [], []
    for index in range(16):
        x, y = (int(value) for value in generator.integers(2, 30, size=2))
        picture = Image.fromarray(generator.integers(0, 90, (48, 64, 3), dtype=np.uint8))
        ImageDraw.Draw(picture).rectangle([x, y, x + 14, y + 12], fill=(230, 220, 40))
        picture.save(project / f"data/raw/mydata/{'images' if index < 12 else 'unlabelled'}/{index}.jpg")
        if index < 6:
            shape = {"label": "box", "points": [[x, y], [x + 14, y + 12]], "shape_type": "rectangle"}
            content = {"imageHeight": 48, "imageWidth": 64, "imagePath": f"{index}.jpg", "shapes": [shape]}
            (project / f"annotations/{index}.json").write_text(json.dumps(content))
        elif index < 10:
            polygon = [x, y, x + 15, y, x + 15, y + 13, x, y + 13]
            images.append({"id": index, "file_name": f"{index}.jpg", "height": 48, "width": 64})
            shapes.append({"id": index, "image_id": index, "category_id": 1, "segmentation": [polygon]})
    shutil.copy(project / "data/raw/mydata/images/0.jpg", project / "pictures/0.jpg")
    categories = [{"id": 0, "name": "background"}, {"id": 1, "name": "box"}]
    content = {"images": images, "annotations": shapes, "categories": categories}
    (project / "instances.json").write_text(json.dumps(content))


def ids_in(project: Project, path: str) -> list[str]:
    with (project.folder / path).open(newline="") as file:
        return [record["id"] for record in csv.DictReader(file)]


def test_the_page_works_word_for_word(tmp_path: Path) -> None:
    assert [command.split()[3 if "segsemi" in command else 1] for command in COMMANDS] == [
        *("labels", "labels", "doctor", "repro", "remote", "push", "predict", "export", "suggest", "repro")
    ]
    project = copy_project(tmp_path / "project")
    draw_folder(project.folder)
    page = (ROOT / "docs/own-data.md").read_text()
    (example,) = re.findall(r'    (\{"names": .*?\})\n\n', page, flags=re.DOTALL)
    assert json.loads(example)["names"][0] == "background"
    (block,) = re.findall(r"    data:\n(?:    .*\n)+", page)
    wanted = YAML(typ="safe").load(textwrap.dedent(block))
    assert wanted["data"] == {"name": "folder", "root": "data/raw/mydata"} and wanted["split"] == {"fraction": 1.0}
    wanted["augment"]["crop_size"] = 48
    project.set_params({**wanted, "rounds": {"student_2": "teacher"}})
    params = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(params.replace("  student_1: teacher\n", ""))
    mended = ""
    for command in COMMANDS:
        command = command.replace("/path/of/the/shared/folder", str(tmp_path / "shared"))
        if command.startswith("python -m segsemi labels coco"):  # the page's alternative: its own labels go beside
            command += " --background background"
        if command == "dvc repro" and mended:
            command += " train_teacher"  # the rest would take another minute
        output = project.run(*command.split())
        if " suggest" in command:
            assert len(ids_in(project, "suggestions/suggestions.csv")) == 6
            mended = ids_in(project, "suggestions/suggestions.csv")[0]
            shutil.copy(project.folder / f"data/pseudo/student_2/{mended}.png", project.folder / "data/corrected")
            before = project.bytes_of("models/teacher/model.safetensors")
        if " doctor" in command:
            assert "class   1 box" in output and "train: 8 images with a label, 0 without" in output
            assert "extra: 0 images with a label, 6 without" in output
            assert (project.folder / "nine.png").stat().st_size > 1000
    assert ids_in(project, "data/split/corrected.csv") == [mended]
    assert len(ids_in(project, "data/split/unlabelled.csv")) == 5
    assert project.bytes_of("models/teacher/model.safetensors") != before
    for file in ("reports/index.html", "out/0.png", "exported/model.onnx"):
        assert (project.folder / file).stat().st_size > 0
    with Image.open(project.folder / "out/0.png") as label:
        assert label.size == (64, 48) and label.mode == "P"
    assert len(list((tmp_path / "shared").rglob("*"))) > 20


def test_a_colleague_pulls_and_need_not_train(finished: Project, tmp_path: Path) -> None:
    project = finished
    try:
        project.run("dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "shared"))
        project.run("dvc", "push")
        project.run("git", "clone", "-q", str(project.folder), str(tmp_path / "clone"))
        colleague = Project(tmp_path / "clone")
        shutil.copytree(project.folder / RAW, colleague.folder / RAW)  # the data set is theirs
        colleague.run("dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "shared"))
        colleague.run("dvc", "pull")
        for name in ("models/student_2/model.safetensors", "data/pseudo/student_2/summary.csv", "reports/index.html"):
            assert colleague.bytes_of(name) == project.bytes_of(name)
        assert colleague.repro() == []
        assert colleague.run("git", "status", "--porcelain") == ""
    finally:
        (project.folder / ".dvc/config.local").unlink(missing_ok=True)
