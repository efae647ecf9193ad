"""Grids of experiments: their cells, their names, the table that comes out, and the real dvc."""

from __future__ import annotations

import base64
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from conftest import RAW, ROOT, Project
from dvc.utils.hydra import apply_overrides
from matplotlib.axes import Axes
from PIL import Image
from ruamel.yaml import YAML

from segsemi.commands.doctor import training_seconds
from segsemi.commands.experiment import Wanted, _public, show_cells
from segsemi.core.classes import Classes, colourise, write_label_png
from segsemi.core.config import load_values
from segsemi.core.errors import UserError
from segsemi.core.pictures import BAR, GAP, save_png
from segsemi.data.images import read_label
from segsemi.data.manifest import Row, write_rows
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.experiments.earlier import (
    Place,
    Settings,
    earlier_commands,
    earlier_lines,
    earlier_results,
    joined,
    settings_of,
    settings_path,
    shared,
    write_kept,
)
from segsemi.experiments.examples import legend, write_examples
from segsemi.experiments.grid import Cell, Grid, cells_of, grid_names, overridden, read_grid
from segsemi.experiments.page import write_page
from segsemi.experiments.results import COLUMNS, class_ious, collect, facts, validation_curves, write_figure
from segsemi.experiments.run import (
    alone,
    check_tracked,
    code_hash,
    file_keys,
    remaining_trainings,
    run_cells,
    run_keys,
    run_name,
)
from segsemi.experiments.tables import write_tables

VALUES = load_values(ROOT / "params.yaml")


NO_CLASSES = pd.DataFrame(columns=["row", "column", "seed", "class", "iou"])


def cells(name: str, seeds: tuple[int, ...] = (0,), **options: object) -> list[Cell]:
    return cells_of(read_grid(name)[0], VALUES, seeds=seeds, **options)  # type: ignore[arg-type]


WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")


def new_repository() -> None:
    """In the current folder, with a commit."""
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *WHO, "commit", "-q", "--allow-empty", "-m", "first"], check=True)


def key_of(cell: Cell, code: str) -> str:
    return run_keys([cell], code)[0]


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_gives_valid_params_that_dvc_gets_too(name: str, tmp_path: Path) -> None:
    for cell in cells(name):
        path = tmp_path / "params.yaml"
        shutil.copyfile(ROOT / "params.yaml", path)
        apply_overrides(path, list(cell.overrides))  # what `dvc exp run -S` does
        assert load_values(path) == overridden(VALUES, cell.overrides), cell


def test_table1_is_the_papers() -> None:
    table = {cell.row: cell.params for cell in cells("table1", columns=["1/4"])}
    students = {row: (p.student.saug, p.student.bn, p.student.loss, len(p.rounds)) for row, p in table.items()}
    assert {row: students[row] for row in ("ST", "+ SAUG", "+ DSBN", "+ SCL", "+ ITER")} == {
        "ST": ("none", "trainable", "ce", 1),
        "+ SAUG": ("pseudo", "trainable", "ce", 1),
        "+ DSBN": ("pseudo", "dsbn", "ce", 1),
        "+ SCL": ("pseudo", "dsbn", "scl", 1),
        "+ ITER": ("pseudo", "dsbn", "scl", 2),
    }
    everything = table.pop("all labels")
    assert everything.rounds == table["baseline"].rounds == {} and everything.split.fraction == 1.0
    assert {p.split.fraction for p in table.values()} == {0.25}
    assert table["labels only, as many steps as + ITER"].baselines == {"supervised": "student_2"}


def test_wishes_of_the_command_line_win_and_bad_ones_are_refused() -> None:
    cell = cells("table1", columns=["1/8", "1/8"], extra=["student.init=pretrained", "teacher.steps=7"])[0]
    assert (cell.params.student.init, cell.params.teacher.steps) == ("pretrained", 7)
    assert len(cells("table1", columns=["1/8", "1/8"])) == 9
    chosen = cells("table1", columns=["1/4"], rows=["ST", "+ SAUG", "ST"])
    assert chosen == [cell for cell in cells("table1", columns=["1/4"]) if cell.row in ("ST", "+ SAUG")]
    with pytest.raises(UserError, match=r"no row 'SAUG'; there are 'baseline', 'ST', '\+ SAUG'"):
        cells("table1", rows=["SAUG"])
    with pytest.raises(UserError, match="no column '1/3'; there are '1/8', '1/4', '1/2'"):
        cells("table1", columns=["1/3"])
    for extra, message in (
        ("techer.steps=7", "params.yaml has no 'techer.steps'"),
        ("teacher.setps=7", "did you mean steps"),
    ):
        with pytest.raises(UserError, match=message):
            cells("table1", extra=[extra])
    for bad in ("teacher.x.steps=7", "teacher={steps: 7}"):
        with pytest.raises(UserError, match="give one `section.key=value` for each key"):
            cells("table1", extra=[bad])
    for grid, bad in (
        ("losses", "student.loss=ce"),
        ("table1", "split.fraction=0.5"),
        ("table1", "split.count=23"),
        ("table1", "split.labelled_list=x.txt"),
        ("table1", "+rounds.student_3=student_2"),
        ("table1", "baselines.x=student_1"),
    ):
        with pytest.raises(UserError, match="in .* the grid's cells differ"):
            cells(grid, extra=[bad])
    with pytest.raises(UserError, match="give the seeds with --seeds"):
        cells("table1", extra=["seed=7"])
    with pytest.raises(UserError, match="one value for each key"):
        cells("table1", extra=["teacher.steps=1,2"])
    with pytest.raises(UserError, match="dvc cannot read it; quote the value"):
        cells("table1", extra=["data.root=/a (b"])
    with pytest.raises(
        UserError, match="no grid 'tabel1'; there are camvid_all, camvid_few, camvid_one_drive, camvid_settings"
    ):
        read_grid("tabel1")


def test_what_goes_with_an_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """student_model follows the cell's model; a count or a list would win over a fraction; roots are absolute."""
    student = cells("table3", extra=["model.encoder=resnet18"])[0].params
    assert (student.model.encoder, student.student_model.encoder) == ("resnet18", "resnet18")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labelled.txt").write_text("# none\n")
    counted = {
        **VALUES,
        "split": {**VALUES["split"], "count": 46},
        "data": {**VALUES["data"], "name": "camvid", "root": "raw"},
    }
    table = cells_of(read_grid("table2")[0], counted, seeds=[0, 0])
    assert len(table) == 4 and {cell.params.split.count for cell in table} == {None}
    assert {cell.params.data.root for cell in table} == {str(tmp_path / "raw")}
    with pytest.raises(UserError, match=r"data.root: no folder .*raw"):
        key_of(table[0], "code")
    (tmp_path / "raw").mkdir()
    before = key_of(table[0], "code")
    (tmp_path / "raw/a.png").write_bytes(b"1")
    filled = key_of(table[0], "code")
    assert filled != before  # the data count, not where they lie
    shutil.copytree(tmp_path / "raw", tmp_path / "Straßen (2)")
    counted["data"]["root"] = "Straßen (2)"
    moved = cells_of(read_grid("table2")[0], counted, seeds=[0])[0]
    assert moved.params.data.root == str(tmp_path / "Straßen (2)") and key_of(moved, "code") == filled
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    apply_overrides(tmp_path / "params.yaml", list(moved.overrides))
    assert load_values(tmp_path / "params.yaml")["data"]["root"] == moved.params.data.root
    before = filled
    (tmp_path / "data/labelled.txt").write_text("train_0001\n")
    assert key_of(table[0], "code") != before
    with pytest.raises(
        UserError, match=r"labelled_list data/labelled.txt names .* would win over split.fraction=0.125"
    ):
        cells_of(read_grid("table2")[0], counted, seeds=[0])
    with pytest.raises(UserError, match=r"would win over split.count=23; empty it"):
        cells_of(read_grid("camvid_few")[0], counted, seeds=[0], columns=["1/16"])
    path = tmp_path / "mine.yaml"
    path.write_text("# Mine\ncolumns: {all: [model.encoder=$a.b]}\nrows: {a: {model: teacher}}\nagainst: []\n")
    with pytest.raises(UserError, match=r"params.yaml has no 'a.b'"):
        cells_of(read_grid(str(path))[0], VALUES, seeds=[0])


def test_change_of_the_code_meanwhile_stops_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cells("losses")[0]
    monkeypatch.chdir(tmp_path)  # without a dvc.lock
    new_repository()
    with pytest.raises(UserError, match="changed meanwhile"):
        run_cells("losses", {"0": cell}, queue=False, unchanged=lambda: False, after=lambda: None)


@pytest.mark.parametrize("queue", [False, True])
def test_table_is_written_after_each_run_that_ends_well(
    queue: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip("abc", cells("losses"), strict=False))
    monkeypatch.chdir(tmp_path)
    new_repository()
    events: list[str] = []

    def run(command: Sequence[str]) -> int:
        events.append(command[command.index("--name") + 1])
        return int(len(events) == 1)  # the first one fails

    monkeypatch.setattr("segsemi.experiments.run._wait_for", run)
    monkeypatch.setattr("segsemi.experiments.run._printed", lambda *_: "")
    failed = run_cells("losses", table, queue=queue, unchanged=lambda: True, after=lambda: events.append("table"))
    names = [f"losses-{row}-1_8-seed0-{key}" for key, row in zip("abc", ("CE", "SCE", "SCL_paper"), strict=True)]
    assert failed == names[:1]
    assert events == (names if queue else [*names[:2], "table", names[2], "table"])


def test_grid_of_ones_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text, message in (
        ("columns: {all: []}\nrows: {a: {model: teacher}}\nagainst: [b]\n", "yaml: against: 'b' is no row$"),
        (
            "columns: {all: []}\nrows: {a: {model: teacher, round: 1}}\nagainst: []\n",
            "yaml: rows.a.round: Extra inputs",
        ),
        (
            "columns: {all: []}\nrows: {a: {model: teacher}}\nagainst: []\nexamples: [b]\n",
            "yaml: examples: 'b' is no row$",
        ),
        (
            "columns: {all: []}\nrows: {a: {model: teacher}}\nagainst: []\nladder: [a, b]\n",
            "yaml: ladder: 'b' is no row$",
        ),
        (
            "columns: {all: []}\nrows: {a: {model: teacher}}\nagainst: []\nexamples: [a, a]\n",
            "yaml: examples: name two rows or more",
        ),
        ("columns: {}\nrows: {a: {model: teacher}}\nagainst: []\n", "yaml: columns: Dictionary should have at least 1"),
    ):
        path.write_text(f"# Mine\n{text}")
        with pytest.raises(UserError, match=message):
            read_grid(str(path))
    path.write_text("# Mine\ncolumns: {all: []}\nrows: {a: {model: student_9}}\nagainst: []\n")
    grid, title = read_grid(str(path))
    assert title == "Mine"
    with pytest.raises(UserError, match="measures 'student_9', which its params do not train"):
        cells_of(grid, VALUES, seeds=[0])
    path.write_text("columns: {all: []}\nrows: {a: {model: teacher}}\nagainst: []\n")
    assert read_grid(str(path))[1] == "mine"
    path.write_bytes("# gr\u00f6\u00dfer\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"mine.yaml is not UTF-8"):
        read_grid(str(path))
    with pytest.raises(UserError, match=r"mine_classes.yaml: a table of that name would have files of another one's"):
        read_grid(str(path.rename(tmp_path / "mine_classes.yaml")))
    chain = "[student.steps=$teacher.steps, student.val_every=$student.steps, teacher.steps=7]"
    path.write_text(f"# Mine\ncolumns: {{all: {chain}}}\nrows: {{a: {{model: teacher}}}}\nagainst: []\n")
    (cell,) = cells_of(read_grid(str(path))[0], VALUES, seeds=[0])
    assert cell.params.student.steps == cell.params.student.val_every == 7
    for override in ("augment.short_side=", "teacher.steps=0x10"):
        with pytest.raises(UserError, match=rf"-S {override}: dvc takes '.*' for .*; write null for nothing"):
            cells("losses", extra=[override])


def places(table: Sequence[Cell], commit: str = "abc1234") -> pd.DataFrame:
    """What facts and settings read of a table: its cells."""
    return pd.DataFrame([{"row": cell.row, "column": cell.column, "commit": commit} for cell in table])


def test_facts_name_what_differs_between_the_finished_cells() -> None:
    schedule, table = cells("schedule"), cells("table1", columns=["1/8"])
    *_, network, steps = facts(schedule, places([schedule[0], schedule[2]]), ["experiment schedule"])
    assert (
        network == "synthetic, DeepLabV3Plus on tf_efficientnet_lite0, crop 128"
        and steps == "teacher 500 or 2000 steps"
    )
    both = pd.concat([places(table[:3]), places(table[3:], "def5678")])
    command, *_, steps = facts(table, both, ["experiment table1", "experiment table1 --seeds 3"])
    assert command == (
        "`python -m segsemi experiment table1`; `python -m segsemi experiment table1 --seeds 3`; code of abc1234 or def5678"
    )
    assert steps == "teacher 600 steps, each student 600"


def test_steps_in_all_count_the_teachers_too() -> None:
    table = {cell.row: cell.steps_in_all for cell in cells("table1", columns=["1/8"])}
    assert table["baseline"] == 600 and table["ST"] == table["+ SCL"] == 1200 and table["+ ITER"] == 1800
    assert table["labels only, as many steps as + SCL"] == 1200
    assert table["labels only, as many steps as + ITER"] == 1800
    # a new network that learns from labels alone has nothing from the teacher beside it
    alone = {cell.row: cell for cell in cells("table3")}
    assert alone["1/8 labels"].steps_in_all == alone["all labels + SAUG"].steps_in_all == 600
    assert alone["7/8 pseudo labels"].steps_in_all == 1200
    assert alone["7/8 pseudo labels"].learns_from_pseudo_labels and not alone["1/8 labels"].learns_from_pseudo_labels


def test_file_of_weights_counts_by_its_path(tmp_path: Path) -> None:
    """dvc does not watch its content either (params.yaml says so)."""
    keys = []
    for name, content in (("a", "1"), ("b", "1"), ("a", "2")):
        (tmp_path / name).write_text(content)
        keys.append(key_of(cells("losses", extra=[f"model.encoder_weights={tmp_path / name}"])[0], "code"))
    assert keys[0] == keys[2] != keys[1]


def test_key_follows_params_and_code_but_not_the_machine(tmp_path: Path) -> None:
    first, other = cells("losses")[:2]
    assert key_of(first, "code") == key_of(cells("losses")[0], "code") != key_of(other, "code")
    assert key_of(first, "code") != key_of(first, "newer")
    assert key_of(first, "code") == key_of(cells("losses", extra=["machine.workers=3"])[0], "code")
    name = run_name("losses", first, key_of(first, "code"))
    assert name == f"losses-CE-1_8-seed0-{key_of(first, 'code')}"
    assert run_name("\u5b9e\u9a8c", replace(first, row="..."), "0" * 12) == f"1_8-seed0-{'0' * 12}"
    assert run_name("x" * 300, first, "0" * 12) == f"{'x' * 200}-{'0' * 12}"  # git makes files of such names

    for source in ("dvc.yaml", "segsemi", "stages"):
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
        copy(ROOT / source, tmp_path / source)
    before = code_hash(tmp_path / "dvc.yaml")
    assert before == code_hash(ROOT / "dvc.yaml")
    with (tmp_path / "segsemi/reporting/page.py").open("a") as file:  # read by the report alone
        file.write("# more\n")
    assert code_hash(tmp_path / "dvc.yaml") == before
    with (tmp_path / "segsemi/losses.py").open("a") as file:
        file.write("# more\n")
    assert code_hash(tmp_path / "dvc.yaml") != before


def test_time_to_come_counts_every_model_once() -> None:
    table = cells("table1", seeds=(0, 1), columns=["1/8"])
    teacher, student = VALUES["teacher"]["steps"], VALUES["student"]["steps"]
    # A seed: two teachers (one of all labels), two baselines; students ST, SAUG, DSBN, and SCL, which is ITER's first one too.
    once = {"teacher": 4 * teacher + 3 * student, "student": 5 * student}

    def steps(missing: Sequence[Cell], done: Sequence[Cell]) -> dict[str, int]:
        todo = remaining_trainings(missing, done)
        return {kind: sum(number for _, other, number in todo if other == kind) for kind in once}

    assert steps(table, []) == {kind: 2 * number for kind, number in once.items()}
    assert steps(table[9:], table[:9]) == once
    assert steps(table[1:2], table[:1]) == {"teacher": 0, "student": student}
    (training,) = remaining_trainings(table[1:2], table[:1])
    assert training == (table[1].params, "student", student)


def test_time_to_come_is_that_of_each_cells_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are alike are measured once: an image of a pass is said to take a second."""
    asked: list[int] = []

    def seconds(model: object, batch: int, **_: object) -> float:
        asked.append(batch)
        return float(batch)

    monkeypatch.setattr("segsemi.commands.doctor._seconds_of_a_pass", seconds)
    monkeypatch.setattr("segsemi.commands.doctor.worth_side_by_side", lambda *_, **__: False)
    rows = ["batches of 2 + 6", "batches of 8 + 8", "CE", "SCE"]
    todo = remaining_trainings(cells("settings", rows=rows), [])
    teacher, student = VALUES["teacher"], VALUES["student"]
    images = 2 + 6 + 8 + 8 + 2 * (student["batch_labelled"] + student["batch_pseudo"])
    assert training_seconds(todo) == teacher["steps"] * teacher["batch_size"] + student["steps"] * images
    own = [student["batch_labelled"], student["batch_pseudo"]]
    assert sorted(asked) == sorted([teacher["batch_size"], 2, 6, 8, 8, *own])


def test_table_has_the_mean_the_deviation_and_the_paired_gain(tmp_path: Path) -> None:
    models = {
        "base": "teacher",
        "better": "student_1",
        "noisy": "student_1",
        "alone": "supervised",
        "more": "supervised",
    }
    grid = Grid.model_validate(
        {
            "columns": {"1/8": [], "1/4": []},
            "rows": {row: {"model": model} for row, model in {**models, "unmeasured": "student_1"}.items()},
            "against": ["base"],
            "ladder": ["base", "better", "noisy"],
        }
    )
    steps = {"base": 100, "better": 200, "noisy": 200, "alone": 300, "more": 200}
    learnt_from = {"noisy": [41.0, 42.0, None]}
    mious = {
        "base": [50.0, 52.0, 57.0],
        "better": [51.0, 53.5, 58.0],
        "noisy": [54.0, 50.0, 59.0],
        "alone": [53.0, 53.0, 53.0],
        "more": [50.0, 53.0, 57.0],
    }
    records = [
        {
            "row": row,
            "column": "1/8",
            "seed": seed,
            "steps": steps[row],
            "miou": value,
            "pseudo_label_miou": learnt_from.get(row, [None] * 3)[seed],
            "commit": "def5678" if row == "noisy" else "abc1234",
        }
        for row, values in mious.items()
        for seed, value in enumerate(values)
    ]
    base = {"row": "base", "column": "1/4", "steps": 50, "miou": 60.0, "pseudo_label_miou": None, "commit": "abc1234"}
    records += [{**base, "seed": 5}, {**base, "row": "better", "seed": 5, "steps": 70, "miou": 61.0}]
    settings: dict[Place, Settings] = {
        (row, column): {"teacher.lr": 0.01, "teacher.steps": 5, "split.count": None, "student.lr": number}
        for number, row in enumerate(mious)
        for column in ("1/8", "1/4")
    }
    classes = pd.DataFrame(
        [
            {"row": row, "column": column, "seed": seed, "class": name, "iou": value}
            for row, column, seed, values in (
                ("base", "1/8", 0, (40.0, None)),
                ("base", "1/8", 2, (45.3, None)),
                ("noisy", "1/8", 1, (30.06, 2.0)),
                ("better", "1/4", 5, (1.0, 0.0)),
            )
            for name, value in zip(("None", "car"), values, strict=True)
        ]
    )
    text = write_tables(grid, "Title", pd.DataFrame(records), classes, ["a fact"], settings, tmp_path / "table")
    assert (tmp_path / "table.md").read_text() == text and text.startswith("# Title\n\n- a fact\n")
    assert text.endswith("\n- teacher: lr 0.01, steps 5\n- split: count -\n")

    def table(heading: str) -> dict[str, list[str]]:
        lines = text.partition(f"{heading}\n\n" if heading else "says so.\n\n")[2].partition("\n\n")[0].splitlines()
        first, *rest = ([part.strip() for part in line.split("|")[1:-1]] for line in lines)
        assert first[-2:] == (["None", "car"] if "class" in heading else ["1/8", "1/4"])
        return {name: cells for name, *cells in rest[1:]}

    means = table("")
    assert means["base"] == ["100 or 50", f"53.00 ± {statistics.stdev(mious['base']):.2f} (3)", "60.00 (1)"]
    assert list(means) == list(mious)

    def gain(row: str, other: str) -> str:
        differences = np.subtract(mious[row], mious[other])
        p = scipy.stats.ttest_rel(mious[row], mious[other]).pvalue
        return f"{differences.mean():+.2f} ± {differences.std(ddof=1):.2f} (3; p = {p:.2f})"

    assert table("Gain on base:") == {
        "better": [gain("better", "base"), "+1.00 (1)"],
        "noisy": [gain("noisy", "base") + ", within the spread, different code", ""],
        "alone": [gain("alone", "base") + ", within the spread", ""],
        "more": [gain("more", "base") + ", within the spread", ""],
    }
    assert table("Gain of each on the one before:") == {
        "better, on base": [gain("better", "base"), "+1.00 (1)"],
        "noisy, on better": [gain("noisy", "better") + ", within the spread, different code", ""],
    }
    assert table("Gain on labels alone of **as many steps**:") == {  # `alone` had more, and 1/4 has none
        "better": [gain("better", "more"), ""],
        "noisy": [gain("noisy", "more") + ", within the spread, different code", ""],
    }
    pseudo = table("mIoU of the pseudo labels from which each learnt, against the hidden labels:")
    assert pseudo == {"noisy": ["41.50 ± 0.71 (2)", ""]}  # the others learnt from no pseudo labels
    assert table("IoU of each class, 1/8, mean over the runs that say it:") == {
        "base": ["2", f"{(40 + 45.3) / 2:.1f}", ""],  # no pixel of that class
        "noisy": ["1", "30.1", "2.0"],
    }
    assert table("IoU of each class, 1/4, mean over the runs that say it:") == {"better": ["1", "1.0", "0.0"]}
    summary = pd.read_csv(tmp_path / "table_summary.csv", keep_default_na=False, dtype=str).to_numpy().tolist()
    assert summary[:2] == [["base", "1/8", "3", "53.00", "3.61"], ["base", "1/4", "1", "60.00", ""]]
    other = settings | {("more", "1/8"): settings["more", "1/8"] | {"split.count": 5}}  # other labels
    again = write_tables(grid, "T", pd.DataFrame(records), classes, [], other, tmp_path / "other")
    assert "Gain on labels alone" not in again


def test_table_states_the_settings_that_count(tmp_path: Path) -> None:
    def stated(columns: list[str], rows: list[str], **values: object) -> str:
        table = cells("table1", seeds=(0,), columns=columns, rows=rows)
        settings = {place: own | values for place, own in kept_of(table).items()}
        grid = read_grid("table1")[0]
        text = write_tables(grid, "T", results_of(table, 50), NO_CLASSES, [], settings, tmp_path / "table")
        return text.partition("Settings that all cells share")[2]

    teachers = stated(["1/8"], ["baseline"])
    assert "- student:" not in teachers and "- pseudo_label:" not in teachers and "- student_model:" not in teachers
    assert "train_images" in teachers and "fraction 0.125" in teachers and "- teacher: steps" in teachers
    own = stated(["1/8"], ["baseline", "ST"], **{"data.name": "camvid", "split.count": 12})
    assert "- student: steps" in own and "- pseudo_label: scales" in own and "count 12" in own
    assert "train_images" not in own and "width" not in own and "- split: fraction" not in own


def results_of(table: Sequence[Cell], miou: float, commit: str = "abc1234") -> pd.DataFrame:
    """A result for each cell."""
    return pd.DataFrame(
        [
            {
                "row": cell.row,
                "column": cell.column,
                "seed": cell.seed,
                "model": cell.model,
                "steps": cell.steps_in_all,
            }
            | {"miou": miou + cell.seed, "pseudo_label_miou": None, "experiment": "0" * 10, "commit": commit}
            for cell in table
        ]
    )


def kept_of(table: Sequence[Cell]) -> dict[Place, Settings]:
    return settings_of(table, file_keys(table))


def earlier_of(path: Path, table: Sequence[Cell]) -> pd.DataFrame:
    return earlier_results(path, table, kept_of(table))


def write(path: Path, table: Sequence[Cell], results: pd.DataFrame, *commands: str, replace: bool = False) -> None:
    write_kept(path, kept_of(table), results, {}, commands, replace=replace)


def test_results_stay_when_others_come(tmp_path: Path) -> None:
    """Of other seeds, columns and code; of the same cell the new one counts."""
    path, grid = tmp_path / "figure3", read_grid("figure3")[0]
    first = cells("figure3", seeds=(0, 1), columns=["all"])
    assert earlier_of(path, first).empty and earlier_commands(path) == []
    write(path, first, results_of(first, 50, "12345e6"), "one")
    second = cells("figure3", seeds=(1, 2))
    new = results_of([cell for cell in second if cell.column in ("1", "all")], 60, "def5678")
    table = joined(earlier_of(path, second), new, grid)
    assert table["row"].tolist() == ["teacher", "student"] * 5
    assert list(zip(table["seed"], table["column"], strict=True))[::2] == [
        (0, "all"),
        (1, "1"),
        (1, "all"),
        (2, "1"),
        (2, "all"),
    ]
    assert table["miou"].tolist()[::2] == [50, 61, 61, 62, 62]
    assert table["commit"].tolist()[::2] == ["12345e6"] + ["def5678"] * 4  # no number
    assert earlier_commands(path) == ["one"]
    nothing = results_of([], 0).reindex(columns=COLUMNS)
    assert joined(earlier_of(path, second), nothing, grid)["miou"].tolist() == [50, 50, 51, 51]


@pytest.mark.parametrize("name", ["500", "None", "nan", "1e5", "-"])
def test_names_are_kept_as_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"# Mine\ncolumns: {{'{name}': []}}\nrows: {{'{name}': {{model: teacher}}}}\nagainst: []\n")
    table = cells_of(read_grid(str(path))[0], VALUES, seeds=[0])
    lines = pd.DataFrame([{"row": name, "column": name, "seed": 0, "class": name, "iou": None}])
    write_kept(tmp_path / "mine", kept_of(table), results_of(table, 50), {"classes": lines}, [], replace=False)
    assert earlier_of(tmp_path / "mine", table)[["row", "column"]].to_numpy().tolist() == [[name, name]]
    read = earlier_lines(tmp_path / "mine", "classes")
    assert read["class"].tolist() == read["row"].tolist() == [name] and read["iou"].isna().all()


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "figure3"
    table = cells("figure3", seeds=(0,), columns=["all"])
    common = shared(kept_of(table))
    assert common["teacher.steps"] == VALUES["teacher"]["steps"] and "machine.workers" not in common
    assert "seed" not in common and "data.root" not in common
    write(path, table, results_of(table, 50))
    assert len(earlier_of(path, cells("figure3", extra=["machine.workers=3", "data.root=/elsewhere"]))) == 2
    with pytest.raises(
        UserError, match=r"other settings: teacher.lr was 0.01, and is 0.5 now, in row .*; give -o .*or --replace"
    ):
        earlier_of(path, cells("figure3", extra=["teacher.lr=0.5"]))
    with pytest.raises(UserError, match="row 'teacher', column 'all', which the grid has not"):
        earlier_of(path, cells("figure3", columns=["1"]))
    other = [replace(table[0], model="student_1"), *table[1:]]
    with pytest.raises(UserError, match="other settings: model was teacher, and is student_1 now, in row 'teacher'"):
        earlier_of(path, other)
    fewer = results_of(table, 50).assign(steps=7)
    write(path, table, fewer)
    with pytest.raises(UserError, match="other settings: steps in all was 7, and is 600 now, in row 'teacher'"):
        earlier_of(path, table)
    settings_path(path).unlink()
    with pytest.raises(UserError, match=r"no figure3_settings.json says with which settings; give -o"):
        earlier_of(path, table)


def test_results_of_other_files_are_not_mixed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = cells("figure3", columns=["all"], extra=["data.name=camvid", f"data.root={data}"])
    write(tmp_path / "t", table, results_of(table, 50))
    assert len(earlier_of(tmp_path / "t", table)) == 2
    (data / "more.png").touch()
    with pytest.raises(UserError, match=r"other settings: data.files was \w{12}, and is \w{12} now"):
        earlier_of(tmp_path / "t", table)


def test_only_cells_that_were_asked_for_must_be_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "mine.yaml"
    roots = [f"{name}: [data.name=camvid, data.root={tmp_path / name}]" for name in ("a", "b")]
    path.write_text(f"# Mine\ncolumns: {{{', '.join(roots)}}}\nrows: {{t: {{model: teacher}}}}\nagainst: []\n")
    (tmp_path / "a").mkdir()

    def wanted(*columns: str, overrides: Sequence[str] = ()) -> Wanted:
        return Wanted(str(path), [0], columns, [], overrides, tmp_path, replace=False, words=[])

    one = wanted("a")
    assert one.whole == one.cells and one.earlier().empty
    write(tmp_path / "mine", one.cells, results_of(one.cells, 50))
    assert len(wanted("a").earlier()) == 1
    with pytest.raises(UserError, match=f"data.root: no folder {tmp_path / 'b'}"):
        wanted("a", "b").earlier()
    with pytest.raises(UserError, match="techer"):  # not what follows from it
        wanted("a", overrides=["techer.steps=7"]).earlier()


def test_a_dry_run_says_all_that_would_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("segsemi.commands.doctor._seconds_of_a_pass", lambda *_, **__: 0.5)
    monkeypatch.setattr("segsemi.experiments.run.finished_runs", dict)
    monkeypatch.setattr("segsemi.experiments.run.finished_names", dict)

    def refuse() -> None:
        raise UserError("no cache")

    monkeypatch.setattr("segsemi.experiments.run.check_tracked", lambda _: None)
    monkeypatch.setattr("segsemi.experiments.run.check_cache", refuse)
    table = cells("losses", extra=["teacher.lr=0.5"])
    write(tmp_path / "losses", table, results_of(table, 50))
    assert show_cells(Wanted("losses", [0], [], ["CE"], [], tmp_path, replace=False, words=[])) == 0
    *_, steps, minutes, first, second = capsys.readouterr().out.splitlines()
    assert steps.startswith("1 runs to do: 600 steps of teachers")
    assert minutes.startswith("about ")  # though the embedded data set may not have been written
    assert first.startswith("without --dry-run this is refused: ") and "teacher.lr was 0.5" in first
    assert second == "without --dry-run this is refused: no cache"
    show_cells(Wanted("losses", [0], [], ["CE"], [], tmp_path, replace=True, words=[]))
    assert capsys.readouterr().out.count("is refused") == 1  # a table begun anew


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t_settings.json", "<<<<<<< HEAD\n{}"),
        ("t_settings.json", "{}"),
        ("t.csv", "<<<<<<< HEAD\nrow,column\n"),
        ("t.csv", ""),
        ("t.csv", "row,column,seed,model,steps,miou\na,b,0,teacher,?,5\n"),
    ],
)
def test_a_merge_conflict_in_a_table_is_named(name: str, text: str, tmp_path: Path) -> None:
    table = cells("losses")
    write(tmp_path / "t", table, results_of(table, 50))
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} is no file of a table, perhaps after a merge"):
        earlier_of(tmp_path / "t", table)


def test_a_replaced_table_never_lies_beside_new_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cells("losses")
    write(tmp_path / "t", table, results_of(table, 50))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segsemi.experiments.earlier.write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "t", table, results_of(table, 60), replace=True)
    assert not (tmp_path / "t.csv").exists()


def test_a_recorded_command_names_no_folder_of_ones_own() -> None:
    words = [
        "experiment",
        "table1",
        "--columns",
        "one drive",
        "-S",
        "data.root=/home/me/camvid",
        "--replace",
        "--collect",
    ]
    assert _public(words) == "experiment table1 --columns 'one drive' -S data.root=camvid"
    for said, public in (
        (["-S", "data.root=/home/me/camvid/"], "-S data.root=camvid"),
        (["-S", "data.root='/home/me/my data'"], "-S 'data.root=my data'"),
        (["-Sdata.root=/home/me/camvid"], "-Sdata.root=camvid"),
        (["-S", "++data.root=/home/me/camvid"], "-S ++data.root=camvid"),
        (["-o", "/home/me/t"], "-o t"),
        (["-o/home/me/t"], "-ot"),
        (["--out=/home/me/t"], "--out=t"),
        (["-o", "reports/mine"], "-o reports/mine"),
        (["--rows", "1/8 labels"], "--rows '1/8 labels'"),
    ):
        assert _public(said) == public


def test_settings_tell_what_is_shared_from_what_is_not(tmp_path: Path) -> None:
    table = cells("figure3", seeds=(0,))
    common = shared(kept_of(table))
    write(tmp_path / "t", table, results_of(table, 50))
    assert common["pseudo_label.scales"] == [0.5, 0.75, 1.0, 1.5, 1.75] and "split.unlabelled_ratio" not in common
    saved = json.loads((tmp_path / "t_settings.json").read_text())
    assert saved["cells"]["student | 2"]["split.unlabelled_ratio"] == 2.0
    for cell in table:
        flat = saved["all"] | saved["cells"][f"{cell.row} | {cell.column}"]
        assert flat["student.lr"] == cell.params.student.lr
        assert flat["split.unlabelled_ratio"] == cell.params.split.unlabelled_ratio


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], list[float]]]:
    """Values and deviations of every error bar that is drawn from now on."""
    bars: list[tuple[list[float], list[float]]] = []
    real = Axes.errorbar

    def errorbar(self: Axes, x: Any, y: Any, yerr: Any = None, xerr: Any = None, **options: Any) -> Any:
        value, deviation = (x, xerr) if yerr is None else (y, yerr)
        bars.append(([*np.atleast_1d(value).tolist()], [*np.atleast_1d(deviation).tolist()]))
        return real(self, x, y, yerr=yerr, xerr=xerr, **options)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    return bars


MIOU = {  # not in the order of the table
    ("base", "1/4"): [60.0],
    ("base", "1/8"): [50.0, 52.0, 57.0],
    (r"SAUG < $\foo$", "1/8"): [51.0, 53.5, 58.0],
}


def learnt(row: str, miou: float) -> float | None:
    """mIoU of the pseudo labels from which a row learnt: only the last one did."""
    return miou - 2 if row == r"SAUG < $\foo$" else None


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("lines", [None, "rows", "columns"])
def test_figure_has_means_deviations_and_names(
    lines: str | None, validated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = dict.fromkeys(row for row, _ in MIOU)
    grid = Grid.model_validate(
        {
            "columns": {"1/8": [], "1/4": []},
            "rows": {key: {"model": "m"} for key in names},
            "against": [],
            "lines": lines,
        }
    )
    results = pd.DataFrame(
        [
            {
                "row": row,
                "column": column,
                "seed": seed,
                "steps": 1,
                "miou": value,
                "pseudo_label_miou": learnt(row, value),
            }
            for (row, column), values in MIOU.items()
            for seed, value in enumerate(values)
        ]
    )
    validation = pd.concat([results.assign(step=step, val_miou=results["miou"] - 10 / step) for step in (1, 2)])
    if not validated:  # val_every=0
        validation = validation[:0]
    bars = drawn(monkeypatch)
    write_figure(grid, results, validation, tmp_path / "table")
    means = {place: statistics.mean(values) for place, values in MIOU.items()}
    spread = {place: statistics.stdev(values) if len(values) > 1 else 0.0 for place, values in MIOU.items()}
    lines_of = {
        None: [[("base", "1/8")], [(r"SAUG < $\foo$", "1/8")], [("base", "1/4")]],
        "rows": [[("base", "1/8"), (r"SAUG < $\foo$", "1/8")], [("base", "1/4")]],
        "columns": [[("base", "1/8"), ("base", "1/4")], [(r"SAUG < $\foo$", "1/8")]],
    }[lines]
    pseudo = {None: [], "rows": [lines_of[0][1:]], "columns": [lines_of[-1]]}[lines]
    for line in pseudo:
        values, deviations = bars.pop(1 if lines == "rows" else -1)
        assert values == pytest.approx([means[place] - 2 for place in line])
        assert deviations == pytest.approx([spread[place] for place in line])
    for line, (values, deviations) in zip(lines_of, bars, strict=True):
        assert values == pytest.approx([means[place] for place in line])
        assert deviations == pytest.approx([spread[place] for place in line])
    root = ElementTree.parse(tmp_path / "table.svg").getroot()
    if lines is not None:  # no empty half
        width = float(root.attrib["width"].removesuffix("pt"))
        assert width == pytest.approx(72 * (11 if validated else 5.5), rel=0.01)
    text = " ".join(root.itertext())
    assert "base" in text and r"SAUG < $\foo$" in text and "1/4" in text
    assert ("validation mIoU" in text) == validated
    assert "![Title](table.svg)" in write_tables(grid, "Title", results, NO_CLASSES, [], {}, tmp_path / "table")


def test_page_has_all_tables_with_their_figures(tmp_path: Path) -> None:
    grid = Grid.model_validate(
        {
            "columns": {"1/8": []},
            "rows": {name: {"model": "m"} for name in ("<b> & c", "d")},
            "against": [],
            "examples": ["<b> & c", "d"],
        }
    )
    result = {"row": "<b> & c", "column": "1/8", "seed": 0, "steps": 1, "miou": 50.0, "pseudo_label_miou": None}
    results = pd.DataFrame([result])
    (tmp_path / "größe 2.svg").write_text("<svg><text>figure A</text></svg>")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "größe 2_examples.png")
    write_tables(grid, "A < B", results, NO_CLASSES, [], {}, tmp_path / "größe 2")
    write_tables(grid, "Lost", results, NO_CLASSES, [], {}, tmp_path / "b")
    for name in ("größe 2", "b"):
        (tmp_path / f"{name}.csv").touch()
    with (tmp_path / "b.md").open("a") as file:
        file.write("![lost < figure](b.svg)\n")
    (tmp_path / "README.md").write_text("# Not a table\n")
    page = write_page(tmp_path).read_text()
    png = base64.b64encode((tmp_path / "größe 2_examples.png").read_bytes()).decode()
    for part in (
        "<h1>A &lt; B</h1>",
        "<svg><text>figure A</text></svg>",
        f"data:image/png;base64,{png}",
        "<h1>Lost</h1>",
        "lost &lt; figure",
    ):
        assert page.count(part) == 1, part
    assert page.count("&lt;b&gt; &amp; c</td>") == page.count("50.00 (1)</td>") == 2
    assert ".svg" not in page and "Not a table" not in page  # nothing is read from beside it


def test_examples_are_of_the_first_seed_that_has_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded data; each row's picture is its own model's prediction, whatever the row is called."""
    classes = SCENES
    labels = {"teacher": 1, "student_1": 2, "student_2": 3}  # every pixel of a model's predictions
    rows = [Row(f"v{number}", "val", f"v{number}.png", f"v{number}_l.png", 20, 30, "", "") for number in range(3)]

    def fetch(revision: str, wanted: dict[Path, Path]) -> None:
        assert revision == "whole"
        for path, to in wanted.items():
            if path.name == "predictions":
                for row in rows[1:]:
                    label = np.full((20, 30), labels[path.parent.name], dtype=np.uint8)
                    write_label_png(to / f"{row.id}.png", label, classes)
            elif path.name == "classes.json":
                classes.save(to)
            elif path.name == "val.csv":
                write_rows(to, rows)
            elif path.stem.endswith("_l"):
                write_label_png(to, np.zeros((20, 30), dtype=np.uint8), classes)
            else:
                assert path.parent == Path("data/prepared")
                save_png(to, np.full((20, 30, 3), 90, dtype=np.uint8))

    monkeypatch.setattr("segsemi.experiments.examples._fetch", fetch)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# Mine\ncolumns: {a: [], b: [split.fraction=0.5]}\nagainst: []\nexamples: [a_b, a/b, ..]\n"
        "rows: {a/b: {model: student_1}, a_b: {model: teacher}, ..: {model: student_2, rounds: 2}}\n"
    )
    grid = read_grid(str(path))[0]
    table = cells_of(grid, VALUES, seeds=[0, 1], columns=["b", "a"])
    keys = [f"{cell.seed}{cell.column}{cell.row}" for cell in table]
    whole = {key: "whole" for key in keys if key.startswith("1")} | {"0aa/b": "part", "0ba/b": "part"}
    picture = tmp_path / "t_examples.png"
    write_examples(grid, table, keys, whole, tmp_path / "t")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    key = legend(classes, pixels.shape[1])
    assert pixels.shape == (2 * (20 + BAR) + GAP + BAR + len(key), 6 * (30 + GAP) - GAP, 3)
    named = pixels[BAR : BAR + len(key)].reshape(-1, 3)
    shares = [(named == colour).all(axis=1).sum() for colour in classes.colours]
    assert min(shares) >= 11 * 11 and max(shares) < 2 * 11 * 11  # greys of the letters count too
    colours = [list(classes.colours[id_]) for id_ in (0, 1, 2, 3)]
    assert pixels[-5, 15 :: 30 + GAP].tolist() == [[90] * 3, *colours, [225] * 3]

    few = {key: revision for key, revision in whole.items() if not key.endswith("..")}
    write_examples(grid, table, keys, few, tmp_path / "t", keep=True)
    assert picture.exists()
    write_examples(grid, table, keys, few, tmp_path / "t")
    assert not picture.exists()  # those of other runs do not stay
    other = cells_of(grid, VALUES | {"evaluate": {**VALUES["evaluate"], "examples": 0}}, seeds=[1])
    write_examples(grid, other, keys[6:], dict.fromkeys(keys[6:], "whole"), tmp_path / "t")
    assert not picture.exists()
    path.write_text(path.read_text().replace("rounds: 2", "rounds: 2, set: [data.height=96]"))
    grid = read_grid(str(path))[0]
    with pytest.raises(UserError, match=r"rows a_b, a/b, .. have different data"):
        write_examples(grid, cells_of(grid, VALUES, seeds=[0, 1], columns=["b", "a"]), keys, whole, tmp_path / "t")


def test_class_ious_are_those_of_each_cells_model(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "model,class,iou\nteacher,None,40.5\nteacher,car,\nstudent_1,None,50.5\nstudent_1,car,7\n"
    monkeypatch.setattr("segsemi.experiments.results.git", lambda *_: text)
    found = class_ious(cells("figure3", columns=["all"]), ["a", "b"], {"b": "r"})
    assert found.to_dict("list") == {
        "row": ["student"] * 2,
        "column": ["all"] * 2,
        "seed": [0, 0],
        "class": ["None", "car"],
        "iou": [50.5, 7.0],
    }
    assert np.isnan(class_ious(cells("figure3", columns=["all"]), ["a", "b"], {"a": "r"})["iou"].iloc[1])


def test_validation_curves_are_those_of_each_cells_model(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "r1": "model,step,val_miou\nteacher,2,40.5\nstudent_1,2,50.5\nstudent_1,4,51.0\n",
        "r2": "model,step,val_miou\n",  # val_every=0
    }
    monkeypatch.setattr("segsemi.experiments.results.git", lambda _, name: tables[name.partition(":")[0]])
    two = cells("figure3", columns=["all"])
    found = validation_curves(two, ["a", "a"], {"a": "r1"})
    assert found[["row", "step", "val_miou"]].to_numpy().tolist() == [
        ["teacher", 2.0, 40.5],
        ["student", 2.0, 50.5],
        ["student", 4.0, 51.0],
    ]
    for finished in ({"a": "r2"}, {}):
        empty = validation_curves(two, ["a", "a"], finished)
        assert empty.empty and empty["val_miou"].dtype == float


def test_table3_is_the_papers() -> None:
    """With DSBN and without it the same share of the images is strong, so that the two rows differ in DSBN alone."""
    for cell in cells("table3"):
        student, saug = cell.params.student, "SAUG" in cell.row
        assert student.bn == ("dsbn" if "DSBN" in cell.row else "trainable") and student.loss == "ce"
        only = student.batch_labelled if "pseudo" in cell.row else student.batch_pseudo
        assert only == 0 and cell.params.split.fraction == (1.0 if "all" in cell.row else 0.125)
        assert [part.strong for part in student.parts] == ([False, True] if saug else [False])
        assert (student.lr, student.steps) == (cell.params.teacher.lr, cell.params.teacher.steps)
        assert student.passes == ([4, 4] if "DSBN" in cell.row else [8])


def test_key_follows_the_files_of_links_and_mended_labels(tmp_path: Path) -> None:
    data, away, mended = (tmp_path / name for name in ("data", "away", "mended"))
    for folder in (data, away, mended):
        folder.mkdir()
    (data / "train").symlink_to(away)
    (data / "again").symlink_to(data)  # a circle
    (data / "lost").symlink_to(tmp_path / "nothing")
    values = {**VALUES, "data": {**VALUES["data"], "name": "camvid", "root": str(data)}}
    values["split"] = {**values["split"], "corrected": str(mended)}
    cell = cells_of(read_grid("losses")[0], values, seeds=[0])[0]
    keys = [key_of(cell, "code")]
    for path, text in ((away / "a.png", ""), (away / "a.png", "1"), (mended / "B.PNG", "2"), (mended / "B.PNG", "3")):
        path.write_text(text)
        keys.append(key_of(cell, "code"))
    assert len(set(keys)) == 5 and key_of(cell, "code") == keys[-1]


def test_files_that_git_does_not_know_stop_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cells("losses")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(UserError, match="need a commit to start from"):
        check_tracked(table)
    new_repository()
    check_tracked(table)
    names = ("README.md", "a.png", "stra\u00dfe.PNG")
    for name in (*(f"data/corrected/{name}" for name in names), "data/labelled.txt", "segsemi/new.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.suffix != ".md":
            with pytest.raises(UserError, match=f"{name} is not in git.*git add {name}"):
                check_tracked(table)
            subprocess.run(["git", "add", name], check=True)
        check_tracked(table)


def test_only_one_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc.yaml not found: run from the root"), alone():
        pass
    assert not list(tmp_path.iterdir())
    Path("dvc.yaml").touch()
    with alone(), pytest.raises(UserError, match=rf"already runs here \(process {os.getpid()}\)"), alone():
        pass
    with alone():
        pass


def committed(message: str) -> str:
    """The commit of all files of the current folder."""
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", *WHO, "commit", "-q", "-m", message], check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def test_results_are_those_of_the_cells_model_with_the_commit_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment is a commit on that from which it started; grids and params are no code."""
    two = cells("figure3", columns=["all"])
    assert [cell.model for cell in two] == ["teacher", "student_1"]
    monkeypatch.chdir(tmp_path)
    new_repository()
    for name in (
        "segsemi/training/loop.py",
        "segsemi/experiments/grids/mine.yaml",
        "stages/train.py",
        "dvc.yaml",
        "params.yaml",
        "README.md",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("first")
    code = committed("code")
    for name in ("README.md", "params.yaml", "segsemi/experiments/grids/mine.yaml"):
        Path(name).write_text("second")
    start = committed("no code")
    numbers = {
        "teacher": {"miou": 40.5, "pixel_accuracy": 80.0, "pseudo_label_miou": 1.0},  # as where a student had its name
        "student_1": {"miou": 50.5, "pixel_accuracy": 90.0, "pseudo_label_miou": 45.0},
    }
    Path("reports").mkdir()
    Path("reports/metrics.json").write_text(json.dumps(numbers))
    Path("params.yaml").write_text("third")
    plain = committed("experiment")
    subprocess.run(["git", "checkout", "-q", start], check=True)
    Path("reports").mkdir()
    Path("reports/metrics.json").write_text(json.dumps(numbers))
    Path("stages/train.py").write_text("changed")
    changed = committed("experiment of changed code")

    found = collect(two, ["a", "b"], {"a": plain, "b": changed})
    assert found["commit"].tolist() == [code[:7], f"{code[:7]} and changes"]
    assert found["experiment"].tolist() == [plain[:10], changed[:10]]
    assert found["miou"].tolist() == [40.5, 50.5] and found["pixel_accuracy"].tolist() == [80.0, 90.0]
    assert np.isnan(found["pseudo_label_miou"][0]) and found["pseudo_label_miou"][1] == 45.0
    assert found["steps"].tolist() == [cell.steps_in_all for cell in two]
    assert collect(two, ["a", "b"], {"b": plain})["row"].tolist() == [two[1].row]


def test_a_broken_experiment_is_named() -> None:
    with pytest.raises(UserError, match=r"experiment of commit 0{10} has no reports/metrics.json: .*dvc exp remove"):
        collect(cells("table1", columns=["1/8"])[:1], ["k"], {"k": "0" * 40})


GRID = """# Two cells of one teacher
columns:
  half: [split.fraction=0.5]
common: [student.steps=1, evaluate.examples=1]
rows:
  teacher: {model: teacher, rounds: 0}
  student: {model: student_1}
against: [teacher]
examples: [teacher, student]
"""


def check_examples(project: Project, name: str) -> None:
    """A caption, and a row of image, truth, two predictions and what changed."""
    row = pd.read_csv(project.folder / "data/split/val.csv").iloc[0]  # the only example
    classes = Classes.load(project.folder / "data/prepared/classes.json")
    truth = colourise(read_label(project.folder / RAW / row["label"], classes), classes).astype(int)
    with Image.open(project.folder / "reports/experiments" / name) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width, _ = truth.shape
    whole = 5 * (width + GAP) - GAP
    assert pixels.shape == (2 * BAR + len(legend(classes, whole)) + height, whole, 3)
    panels = [pixels[-height:, start : start + width] for start in range(0, pixels.shape[1], width + GAP)]
    differences = [np.abs(panel - truth).mean() for panel in panels]
    assert differences[1] < 3 < 10 < min(differences[:1] + differences[2:])  # 256 colours are not all


@pytest.mark.pipeline
def test_experiment_runs_what_is_missing_and_nothing_else(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    (project.folder / "mine.yaml").write_text(GRID)
    command = ("python", "-m", "segsemi", "experiment", "mine.yaml", "--seeds", "0")
    try:
        lock = project.folder / "dvc.lock"
        prepared = YAML(typ="safe").load(lock)["stages"]["prepare"]["outs"][0]["md5"]
        lock.write_text(lock.read_text().replace(prepared, f"{'0' * 32}.dir"))  # as in a fresh clone
        refused = project.run(*command, check=False)
        assert "cache does not have (data/prepared)" in refused and "rm dvc.lock" in refused
        lock.unlink()
        output = project.run(*command)
        project.run("git", "checkout", "-q", "dvc.lock")
        assert "2 of 2 cells" in output and output.count("Running stage 'train_student@student_1'") == 1
        assert "Running stage 'train_teacher'" not in output  # the default run's, from the run cache
        table = (project.folder / "reports/experiments/mine.md").read_text()
        csv = pd.read_csv(project.folder / "reports/experiments/mine.csv")
        assert "IoU of each class, half, mean over the runs that say it:" in table
        classes = pd.read_csv(project.folder / "reports/experiments/mine_classes.csv")
        for miou, (_, ious) in zip(csv["miou"], classes.groupby("row", sort=False)["iou"], strict=True):
            assert ious.mean() == pytest.approx(miou, abs=0.006)
        assert csv["model"].tolist() == ["teacher", "student_1"] and f"{csv['miou'][0]:.2f} (1)" in table
        assert "(mine.svg)" in table and "half" in (project.folder / "reports/experiments/mine.svg").read_text()
        check_examples(project, "mine_examples.png")
        page = (project.folder / "reports/experiments/tables.html").read_text()
        assert (
            page.count("<svg") == 1
            and page.count("data:image/png;base64,") == 1
            and f"{csv['miou'][0]:.2f} (1)" in page
        )
        assert project.run("git", "status", "--porcelain", "--", "params.yaml", "dvc.lock") == ""

        kept, away = project.folder / ".dvc/cache/files", project.folder / ".dvc/cache/away"
        kept.rename(away)  # as where another clone ran it
        try:
            output = project.run(*command, "--collect")
            assert "no examples: data/evaluated/teacher/predictions of the experiment of commit" in output
            assert "2 of 2 cells" in output and "_examples" not in output
        finally:
            shutil.rmtree(kept, ignore_errors=True)
            away.rename(kept)
        collecting = (*command, "--collect", "-o", "elsewhere")
        project.run(*collecting, "--columns", "half")
        project.run(*collecting, "--rows", "student")  # adds nothing
        csv_file = project.folder / "elsewhere/mine.csv"
        csv_file.write_text("".join(csv_file.read_text().splitlines(keepends=True)[:2]))  # as before the student's run
        project.run(*collecting)
        settings = json.loads((project.folder / "elsewhere/mine_settings.json").read_text())
        said = "experiment mine.yaml --seeds 0 -o elsewhere"
        assert settings["commands"] == [f"{said} --columns half", said]
        assert "Running stage" not in project.run(*command)
        names = [line for line in project.run("dvc", "exp", "list", "--name-only").split() if line.startswith("mine")]
        assert len(names) == 2
        project.run("dvc", "exp", "remove", next(name for name in names if "-student-" in name))
        dry = project.run(*command, "--dry-run").splitlines()
        assert dry[0].startswith("done  seed 0  half  teacher: teacher of mine-teacher-half-seed0-")
        assert dry[1].startswith("to do seed 0  half  student: student_1 of mine-student-half-seed0-")
        assert "(the table has it, by code of " in dry[1] and "the table" not in dry[0]
        assert dry[2].startswith("1 runs to do: 0 steps of")
        assert ": queued" not in project.run(*command, "--queue")
        assert project.run(*command, "--queue").count(": queued") == 1  # not twice
        project.run("dvc", "queue", "remove", "--all")
        output = project.run(*command)
        assert "[1/1] mine-student-half-seed0" in output and "2 of 2 cells" in output

        table = (project.folder / "reports/experiments/mine.md").read_text()
        wrong = project.run(*command, "-S", f"data.root={project.folder / RAW}x", check=False)
        assert "data.root: no folder" in wrong
        wrong = project.run(*command, "-S", "student.lr=0.02", check=False)
        assert "other settings: student.lr was 0.01, and is 0.02 now" in wrong
        assert (project.folder / "reports/experiments/mine.md").read_text() == table
    finally:
        shutil.rmtree(project.folder / "reports/experiments", ignore_errors=True)
        shutil.rmtree(project.folder / "elsewhere", ignore_errors=True)
        (project.folder / "mine.yaml").unlink()
