"""Keys and names of runs, and what stops them; dvc itself is tried in test_command.py."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from test_grid import VALUES, cells

from segsemi.core.errors import UserError
from segsemi.experiments import run as runs
from segsemi.experiments.grid import Cell


def key_of(cell: Cell, code: str = "code") -> str:
    return runs.run_keys([cell], code)[0]


def test_key_follows_params_and_code_but_not_the_machine() -> None:
    first, other = cells("losses")[:2]
    assert len({key_of(first), key_of(other), key_of(first, "newer"), key_of(cells("losses", seeds=[1])[0])}) == 4
    assert key_of(first) == key_of(cells("losses", extra=["machine.workers=3"])[0])


def test_key_follows_the_data_but_not_where_they_lie(tmp_path: Path) -> None:
    for name in ("data", "corrected"):
        (tmp_path / name).mkdir()
    split = {"corrected": str(tmp_path / "corrected"), "labelled_list": str(tmp_path / "list.txt")}
    weights = {"encoder_weights": str(tmp_path / "weights.pt")}

    def key(root: str = "data") -> str:
        changes = {"data": {"name": "camvid", "root": str(tmp_path / root)}, "split": split, "model": weights}
        return key_of(cells("table5", VALUES | {name: VALUES[name] | change for name, change in changes.items()})[0])

    (tmp_path / "list.txt").touch()
    keys = [key()]
    for name in ("data/a.png", "data/a.png", "corrected/B.PNG", "corrected/B.PNG", "list.txt"):
        with (tmp_path / name).open("a") as file:
            file.write("# more\n")
        keys.append(key())
    for line in ("0001", "0002"):  # of one size
        (tmp_path / "data/val.txt").write_text(line)
        keys.append(key())
    assert len(set(keys)) == 8 and key() == keys[-1]
    with pytest.raises(UserError, match=r"data.root: no folder .*moved"):
        key("moved")
    (tmp_path / "moved").symlink_to(tmp_path / "data")
    (tmp_path / "weights.pt").touch()  # its content does not count, as for dvc
    assert key("moved") == keys[-1]


def test_code_counts_on_which_a_measuring_stage_depends(tmp_path: Path) -> None:
    for source in ("segsemi", "stages"):
        shutil.copytree(ROOT / source, tmp_path / source)
    pipeline = shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    before = runs.code_hash(pipeline)
    assert before == runs.code_hash(ROOT / "dvc.yaml")
    for name, counts in (("reporting/page.py", False), ("losses.py", True), ("models/build.py", True)):
        with (tmp_path / "segsemi" / name).open("a") as file:
            file.write("# more\n")
        before, last = runs.code_hash(pipeline), before
        assert (before != last) == counts
    with pytest.raises(UserError, match="dvc.yaml not found: run from the root"):
        runs.code_hash(tmp_path / "none/dvc.yaml")


def test_what_a_copy_of_the_repository_would_lack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cells("losses")
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    for name in ("data/corrected/straße.PNG", "data/labelled.txt", "segsemi/new.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
        with pytest.raises(UserError, match=f"{name} is not in git.*git add {name}"):
            runs.check_ready(table)
        subprocess.run(["git", "add", name], check=True)
    Path("segsemi/README.md").touch()
    runs.check_ready(table)
    Path("dvc.yaml").write_text("stages: {prepare: {cmd: x, outs: [data/prepared]}}")
    out = f"{{path: data/prepared, hash: md5, md5: {'a' * 32}.dir}}"
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages: {{prepare: {{cmd: x, outs: [{out}]}}}}")  # as in a fresh clone
    with pytest.raises(UserError, match="cache lacks 1 outputs of dvc.lock, such as data/prepared/"):
        runs.check_ready(table)


def test_only_one_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with runs.alone(), pytest.raises(UserError, match="already runs here"), runs.alone():
        pass
    with runs.alone():
        pass
