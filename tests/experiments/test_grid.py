"""Grids: every cell has the params that the grid says, and dvc makes the same of its overrides."""

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from dvc.utils.hydra import apply_overrides

from segsemi.core.config import Params, load_params, load_values, method_of
from segsemi.core.consistency import METHODS
from segsemi.core.errors import UserError
from segsemi.experiments.grid import Cell, cells_of, grid_names, read_grid

VALUES = load_values(ROOT / "params.yaml")
HEAD = "columns: {all: []}\nrows: {a: {model: teacher}}\n"


def cells(name: str, values: dict[str, Any] = VALUES, **options: Any) -> list[Cell]:
    return cells_of(read_grid(name)[0], values, **{"seeds": [0], **options})


def params_of_dvc(cell: Cell, folder: Path) -> Params:
    """What `dvc exp run -S` makes of params.yaml."""
    path = folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    apply_overrides(path, list(cell.overrides))
    return load_params(path)


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_gives_valid_params_that_dvc_gets_too(name: str, tmp_path: Path) -> None:
    found = cells(name)  # all of them are valid
    assert all(cell.params == params_of_dvc(cell, tmp_path) for cell in found[:: max(1, len(found) // 5)])


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


def test_table3_is_the_papers() -> None:
    """Rows with and without DSBN have the same share of strong images, so that they differ in DSBN alone."""
    for cell in cells("table3", extra=["model.encoder=resnet18", "teacher.steps=7"]):
        params, student, saug = cell.params, cell.params.student, "SAUG" in cell.row
        assert student.bn == ("dsbn" if "DSBN" in cell.row else "trainable") and student.loss == "ce"
        assert (student.saug != "none") == saug and student.saug_share == 0.5
        only = student.batch_labelled if "pseudo" in cell.row else student.batch_pseudo
        assert only == 0 and student.batch_labelled + student.batch_pseudo == params.teacher.batch_size
        assert params.split.fraction == (1.0 if "all" in cell.row else 0.125)
        assert (student.lr, student.steps, params.student_model) == (params.teacher.lr, 7, params.model)


def test_methods_are_the_published_ones_whatever_params_yaml_says() -> None:
    values = deepcopy(VALUES)
    values["consistency"] |= {"threshold": 0.0, "strong": "none"}  # as a preset leaves them
    values["student"] |= {"mix": "cutmix", "threshold": 0.5}
    found = [cell for cell in cells("methods", values) if cell.model in METHODS and "DSBN" not in cell.row]
    assert {cell.model for cell in found} == METHODS.keys() and len(found) == 2 * len(METHODS)  # two budgets
    assert all(method_of(cell.params, cell.model) == METHODS[cell.model] for cell in found)
    (paper,) = (cell.params.student for cell in cells("methods", values) if cell.row == "+ SCL (paper)")
    assert (paper.mix, paper.threshold, paper.strong, paper.loss) == ("none", 0.0, "saug", "scl")


def test_overrides_of_the_command_line_win_and_cells_can_be_chosen() -> None:
    first = cells("table1", columns=["1/8", "1/8"], extra=["student.init=pretrained", "teacher.steps=7"])[0]
    assert (first.params.student.init, first.params.teacher.steps) == ("pretrained", 7)
    assert len(cells("table1", columns=["1/8", "1/8"])) == 12
    chosen = cells("table1", seeds=[3, 4, 3], columns=["1/4"], rows=["ST", "+ SAUG", "ST"])
    assert [(cell.seed, cell.row) for cell in chosen] == [(3, "ST"), (3, "+ SAUG"), (4, "ST"), (4, "+ SAUG")]
    assert [cell.params.seed for cell in chosen] == [3, 3, 4, 4]


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ("tabel1", {}, "no grid 'tabel1'; there are camvid_all, camvid_few"),
        ("table1", {"rows": ["SAUG"]}, r"no row 'SAUG'; there are 'baseline', 'ST', '\+ SAUG'"),
        ("table1", {"extra": ["techer.steps=7"]}, "Could not override 'techer.steps'"),
        ("table1", {"extra": ["teacher.steps=1,2"]}, "dvc refuses .*teacher.steps=1,2"),
        ("table1", {"extra": ["seed=7"]}, "in seed the grid's cells differ; choose cells with --seeds"),
        ("losses", {"extra": ["student.loss=ce"]}, "in student.loss the grid's cells differ"),
        ("table1", {"extra": ["split.count=23"]}, "in split.count the grid's cells differ"),
        ("table1", {"extra": ["+rounds.student_3=student_2"]}, "in rounds.student_3 the grid's cells differ"),
    ],
)
def test_wrong_choices_are_refused(grid: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells(grid, **options)


def test_a_fraction_of_the_labels_is_not_overruled(tmp_path: Path) -> None:
    """split.count and a list of labelled images would win over it."""
    listed = tmp_path / "labelled.txt"
    listed.write_text("# none\n")
    values = VALUES | {"split": VALUES["split"] | {"count": 46, "labelled_list": str(listed)}}
    assert {cell.params.split.count for cell in cells("table2", values)} == {None}
    listed.write_text("train_0001\n")
    for name in ("table2", "camvid_settings"):
        with pytest.raises(UserError, match=f"split.labelled_list {listed} names images and would win"):
            cells(name, values)


def test_paths_are_absolute_and_dvc_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in copies of the repository must find them."""
    monkeypatch.chdir(tmp_path)
    Path("w's.pt").touch()
    changes = {"data": {"name": "camvid", "root": "Straßen, (2)"}, "model": {"encoder_weights": "w's.pt"}}
    changes["split"] = {"labelled_list": "w's.pt"}
    cell = cells("table2", VALUES | {name: VALUES[name] | change for name, change in changes.items()})[0]
    for params in (cell.params, params_of_dvc(cell, tmp_path)):
        assert params.data.root == str(tmp_path / "Straßen, (2)")
        assert params.model.encoder_weights == str(tmp_path / "w's.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}against: [b]\n", "yaml: .*against: 'b' is no row$"),
        (f"{HEAD}against: []\nexamples: [a]\n", "yaml: examples: unknown key; known keys: columns"),
        ("columns: {}\nrows: {a: {model: teacher}}\nagainst: []\n", "yaml: columns: Dictionary should have at least 1"),
        ("columns: {all: []}\nrows: {a: {model: student_9}}\nagainst: []\n", "measures 'student_9', which its params"),
    ],
)
def test_a_grid_of_the_users_own_is_checked(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        cells(str(path))


def test_budgets_count_the_teachers_too() -> None:
    extra = ["teacher.steps=5", "student.steps=3", "student.batch_labelled=8"]  # and 4 with pseudo labels
    table = {cell.row: tuple(cell.budget) for cell in cells("table1", columns=["1/8"], extra=extra)}
    assert table == {
        "baseline": (5, 40),
        **dict.fromkeys(["ST", "+ SAUG", "+ DSBN", "+ SCL"], (8, 76)),
        "+ ITER": (11, 112),
        "warm restart, no pseudo labels": (8, 64),
        "labels only, as many steps as + SCL": (8, 64),
        "labels only, as many images as + SCL": (10, 80),
        "labels only, as many steps as + ITER": (11, 88),
        "labels only, as many images as + ITER": (14, 112),
        "all labels": (5, 40),
    }
    # A new network that learns from labels alone has nothing from the teacher beside it.
    alone = {cell.row: cell.budget.steps for cell in cells("table3", extra=["teacher.steps=5"])}
    assert alone["1/8 labels"] == 5 and alone["7/8 pseudo labels"] == 10
