"""Bad input at a stage: one line that names the file, key or value, exit code 1, no traceback, nothing half-written.

Values of params have a table of their own in test_config.py; a full disk and lack of memory are in test_interrupt.py.
"""

import ast
import importlib
import json
import os
import re
import shutil
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY, Project
from PIL import Image

from segsemi.core.errors import run_stage
from segsemi.core.files import write_json
from segsemi.datasets import scenes

CAMVID, FOLDER = "data/raw/tiny", "data/raw/mine"
PREPARED, SPLIT = ("check_params", "prepare"), ("check_params", "prepare", "split")
TEACHER = (*SPLIT, "train_teacher")
ONE_STEP = {"steps": 1, "batch_size": 2, "val_every": 0}


@dataclass(frozen=True)
class Case:
    """`spoil` is done to the project after the stages `before` have run; then `stage` must say `message`."""

    message: str
    spoil: Callable[[], object] = lambda: None
    params: dict[str, dict[str, object]] = field(default_factory=dict)
    before: tuple[str, ...] = ("check_params",)
    stage: str = "prepare"
    absent: str = "data/prepared/manifest.csv"


at_check = partial(Case, before=(), stage="check_params", absent="data/params_checked.txt")
at_split = partial(Case, before=PREPARED, stage="split", absent="data/split/labelled.csv")
at_teacher = partial(Case, before=SPLIT, stage="train_teacher", absent="models/teacher")
at_evaluate = partial(Case, before=TEACHER, stage="evaluate --model teacher", absent="data/evaluated/teacher")


def array(path: str, value: np.ndarray) -> None:
    Image.fromarray(value).save(path)


def full(path: str, value: int) -> None:
    array(path, np.full((48, 64), value, np.uint8))


def palette_png(path: str, value: int) -> None:
    image = Image.fromarray(np.full((48, 64), value, dtype=np.uint8))
    image.putpalette([90] * 768)
    image.save(path)


def bomb(path: str) -> None:
    """Write the beginning of a PNG of more than 2**30 pixels."""
    header, data = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0), b"IDAT"
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def link(path: str) -> None:
    Path(path).symlink_to("/nowhere/x.png")


def cut(path: str, length: int = 300) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:length])


def as_jpeg(path: str) -> None:
    with Image.open(path) as image:
        image.save(Path(path).with_suffix(".jpg"))
    Path(path).unlink()


def all_labels(value: Callable[[np.ndarray], np.ndarray], folder: str) -> None:
    for path in Path(folder).glob("*.png"):
        with Image.open(path) as image:
            label = np.asarray(image)
        array(str(path), value(label))


def other_network() -> None:
    path = Path("models/teacher/model.json")
    description = json.loads(path.read_text())
    description["architecture"]["encoder"] = "resnet18"
    path.write_text(json.dumps(description))


MINE = {"data": {"name": "folder", "root": FOLDER, "val_fraction": 0.25}}
T, A = f"{CAMVID}/train", f"{CAMVID}/trainannot"
CASES = {
    # the data set
    "missing folder": Case(r"folder data/raw/tiny/train not found", lambda: shutil.rmtree(T)),
    "no images": Case(r"data/raw/tiny/val.*no ", lambda: [path.unlink() for path in Path(f"{CAMVID}/val").iterdir()]),
    "image without label": Case(
        r"image data/raw/tiny/train/0002\.png has no label trainannot/0002\.png; add or remove",
        lambda: Path(f"{A}/0002.png").unlink(),
    ),
    "label without image": Case(
        r"label data/raw/tiny/trainannot/0002\.png has no image", lambda: Path(f"{T}/0002.png").unlink()
    ),
    "truncated PNG": Case(r"image data/raw/tiny/train/0001\.png cannot be read", lambda: cut(f"{T}/0001.png")),
    "truncated JPEG": Case(
        r"image data/raw/tiny/train/0001\.jpg cannot be read",
        lambda: [as_jpeg(f"{T}/0001.png"), cut(f"{T}/0001.jpg", 700)],
    ),
    "image bomb": Case(
        r"image data/raw/tiny/train/0001\.png cannot be read .*decompression bomb", lambda: bomb(f"{T}/0001.png")
    ),
    "ids beyond the classes": Case(r"0000\.png has ids \[34\] outside 0\.\.10", lambda: full(f"{A}/0000.png", 34)),
    "a link that leads nowhere": Case(
        r"1 link leads nowhere, first data/raw/tiny/train/x\.png", lambda: link(f"{T}/x.png")
    ),
    "links that lead nowhere, before dvc reads them": at_check(
        r"2 links lead nowhere, first data/raw/tiny/test", lambda: [link(f"{CAMVID}/test"), link(f"{T}/x.png")]
    ),
    "a data set of dvc's own": at_check(
        r"dvc refuses a data set with data/raw/tiny/\.dvcignore in it; set data\.root to a folder below",
        lambda: Path(f"{CAMVID}/.dvcignore").touch(),
    ),
    "a name in another encoding": Case(
        r"1 names are no UTF-8, first data/raw/tiny/train/\ufffd.*; rename them",
        lambda: Path(f"{T}/0001.png").rename(os.fsdecode(os.fsencode(T) + b"/\xe9.png")),
    ),
    "masks of 0 and 255": Case(
        r'data/raw/mine: the labels hold only background and ignored pixels; for masks of 0 and 255 write "ids": \[0, 255\]',
        lambda: all_labels(lambda label: 255 * label, f"{FOLDER}/labels"),
        MINE,
    ),
    # the split
    "a list of unknown images": at_split(
        r"split\.labelled_list names 'zebra', which is no training image",
        lambda: Path("data/labelled.txt").write_text("zebra\n"),
    ),
    "a mended label with another palette": at_split(
        r"data/corrected/train_0001\.png: colour 3 of its palette is \[90, 90, 90\], that of class 3 \(road\)",
        lambda: palette_png("data/corrected/train_0001.png", 3),
    ),
    "a broken manifest": at_split(
        r"data/prepared/manifest\.csv, line 2: .*; rerun the stage that writes it",
        lambda: Path("data/prepared/manifest.csv").write_text("id,subset,height\na,train,tall\n"),
    ),
    # training
    "params with a misspelt key": at_check(
        r"params\.yaml: teacher\.step: unknown key; did you mean steps\?", params={"teacher": {"step": 3}}
    ),
    "a label that vanished": at_teacher(r"label data/raw/tiny/trainannot/.* not found", lambda: shutil.rmtree(A)),
    "a loss that is not finite": at_teacher(
        r"at step 1, images .* (lower teacher\.lr|lr)", params={"teacher": {"lr": 1e30, "steps": 3}}
    ),
    "no weights of that name": at_check(
        r"model\.encoder_weights: data/none\.pth not found; use none, imagenet",
        params={"model": {"encoder_weights": "data/none.pth"}},
    ),
    "weights that vanished": at_teacher(
        r"model\.encoder_weights.*data/none\.pth",
        lambda: Project(Path()).set_params({"model": {"encoder_weights": "data/none.pth"}}),
    ),
    "no unlabelled image": at_split(
        r"no image is unlabelled, so students have none to learn from: lower split\.fraction",
        params={"split": {"fraction": 1.0}},
    ),
    # model files
    "a model cut short": Case(
        r"models/teacher/model\.safetensors is broken",
        lambda: cut("models/teacher/model.safetensors", 100_000),
        before=TEACHER,
        stage="pseudo_label --teacher teacher --student student_1",
        absent="data/pseudo/student_1",
    ),
    "a model of another architecture": at_evaluate(
        r"model\.safetensors does not fit the architecture in model\.json", other_network
    ),
    "no model": at_evaluate(r"models/teacher/model\.json not found.*dvc pull", lambda: shutil.rmtree("models/teacher")),
}


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a stage in this process, as `python -m stages.NAME` would; its exit code."""
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        run_stage(importlib.import_module(f"stages.{name}").main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml, a data set in CamVid's layout and one as `folder` wants it."""
    folder = tmp_path_factory.mktemp("bad")
    scenes.write(folder / CAMVID, train=6, val=2, height=48, width=64, seed=1)
    generator = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / FOLDER / part).mkdir(parents=True)
    for index in range(4):
        array(str(folder / FOLDER / f"images/{index}.png"), generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        array(str(folder / FOLDER / f"labels/{index}.png"), generator.integers(0, 2, (48, 64), dtype=np.uint8))
    two = {"names": ["background", "cat"], "colours": [[0, 0, 0], [255, 0, 0]]}
    write_json(folder / FOLDER / "classes.json", two)
    (folder / "data/corrected").mkdir()
    (folder / "data/labelled.txt").touch()
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    Project(folder).set_params({**TINY, "data": {"name": "camvid", "root": CAMVID}, "teacher": ONE_STEP})
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the template, as the working directory."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(Path())


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_line_and_leaves_nothing_half_written(
    name: str, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    project.set_params(case.params)
    for stage in case.before:
        assert run(stage, monkeypatch) == 0, capsys.readouterr().err
    capsys.readouterr()
    case.spoil()
    assert run(case.stage, monkeypatch) == 1
    said = capsys.readouterr().err
    (line,) = [part for part in said.replace("\r", "\n").splitlines() if part.startswith("error: ")]
    assert re.search(case.message, line), line
    assert "Traceback" not in said
    assert not Path(case.absent).exists()


def test_a_class_without_labelled_pixel_is_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    all_labels(lambda label: np.where(label == 4, 3, label).astype(np.uint8), A)
    assert run("check_params", monkeypatch) == run("prepare", monkeypatch) == 0
    said = capsys.readouterr()
    assert "warning: class 4 (pavement) has no pixel in train" in said.out + said.err


def test_all_broken_files_are_named_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set_params(MINE)
    for index in range(25):
        Path(f"{FOLDER}/images/u{index:02d}.png").write_text("no image")
    assert run("check_params", monkeypatch) == 0 and run("prepare", monkeypatch) == 1
    said = capsys.readouterr().err
    lines = said[said.index("error: ") :].splitlines()
    assert lines[0] == "error: 25 files are wrong:" and sum("u0" in line or "u1" in line for line in lines) == 20
    assert lines[21:] == [
        "  and 5 more; data/prepared/errors.txt lists all of them",
        "  data.skip_broken: true in params.yaml skips broken images that have no label",
    ]
    assert len(Path("data/prepared/errors.txt").read_text().splitlines()) == 25
    array(f"{FOLDER}/images/fine.png", np.zeros((48, 64, 3), np.uint8))
    project.set_params({"data": {"skip_broken": True}, "split": {"fraction": 1.0}})
    assert run("prepare", monkeypatch) == run("split", monkeypatch) == 0
    said = capsys.readouterr()
    assert (
        "data.skip_broken: 25 broken unlabelled images are skipped, first: image data/raw/mine/images/u00" in said.out
    )
    assert "1 unlabelled, 1 validation, 0 test, 25 skipped images" in said.out
    cut(f"{FOLDER}/labels/0.png", 50)
    assert run("prepare", monkeypatch) == 1  # what has a label is never skipped
    assert "error: label data/raw/mine/labels/0.png cannot be read" in capsys.readouterr().err


def test_no_stage_uses_the_network(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: list[object] = []

    def refuse(*arguments: object) -> None:
        wanted.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    student = "--teacher teacher --student student_1"
    for stage in (*TEACHER, f"pseudo_label {student}", f"train_student {student}", "evaluate --model student_1"):
        assert run(stage, monkeypatch) == 0, capsys.readouterr().err
    assert not wanted


def test_no_code_in_a_file_is_ever_run() -> None:
    """Tensors are read with weights_only or as safetensors, arrays without pickle, YAML by ruamel's safe or round-trip."""
    for path in [*ROOT.glob("segsemi/**/*.py"), *ROOT.glob("stages/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "yaml"}, path
            if isinstance(node, ast.Call):
                called, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert called not in ("eval", "exec") and options.get("allow_pickle") != "True", path
                assert called != "torch.load" or options.get("weights_only") == "True", path
                assert called != "YAML" or options.get("typ") != "'unsafe'", path
