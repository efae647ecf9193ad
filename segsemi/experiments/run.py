"""Run the cells of a grid as dvc experiments (`python -m segsemi experiment`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segsemi.core.config import Params, total_steps
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, visible_pngs
from segsemi.core.git import git
from segsemi.experiments.grid import Cell
from segsemi.runtime.work_folder import locked

_LONGEST = 200  # characters of a name before its key: git makes a file of that name


def run_keys(cells: Sequence[Cell], code: str) -> list[str]:
    """12 hexadecimal digits each, equal for equal params, code and data: cells of equal keys need the same run.

    `machine` is left out: it is where and how to run. Of the data set names and sizes of its files count, not where it
    lies; of the list of labelled images and of mended labels the content; of a file of weights the path, as for dvc.
    """
    return [
        _digest([code, cell.params.model_dump(exclude={"machine": True, "data": {"root"}}), *files])
        for cell, files in zip(cells, _files(cells), strict=True)
    ]


def file_keys(cells: Sequence[Cell]) -> list[str]:
    """12 hexadecimal digits each, equal for equal files, of which the params do not tell: see `run_keys`."""
    return [_digest(files) for files in _files(cells)]


def has_data(cell: Cell) -> bool:
    """Whether the folder of its data set is there; the embedded one need not be."""
    root = _root(cell)
    return root is None or root.is_dir()


def _root(cell: Cell) -> Path | None:
    """The folder of its data set; None for the embedded one, which the params say in full."""
    return None if cell.params.data.name == "synthetic" else Path(cell.params.data.root)


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _files(cells: Sequence[Cell]) -> list[list[Any]]:
    """Of each cell the listing of its data set, the list of labelled images, and the mended labels."""
    roots = [_root(cell) for cell in cells]
    data = {root: _listing(root) for root in set(roots) if root is not None}
    pairs = [(cell.params.split.labelled_list, cell.params.split.corrected) for cell in cells]
    read = {pair: [_list_of_labelled(Path(pair[0])), _mended(Path(pair[1]))] for pair in set(pairs)}
    return [[data[root] if root else "", *read[pair]] for root, pair in zip(roots, pairs, strict=True)]


def _list_of_labelled(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _mended(folder: Path) -> list[str]:
    return [f"{path.name} {file_hash(path)}" for path in visible_pngs(folder)]


def _listing(root: Path) -> str:
    """A hash of names and sizes of all files below `root`, those of linked folders too.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root: no folder {root}; an experiment is known by names and sizes of its data set's files"
        )
    lines, seen = [], set[str]()
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()  # so that of two links to one folder it is always the same that counts
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for path in (Path(folder, name) for name in names):
            size = path.stat().st_size if path.exists() else -1  # a broken link
            lines.append(f"{path.relative_to(root).as_posix()} {size}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def check_tracked(cells: Iterable[Cell]) -> None:
    """Experiments run in copies of the repository, into which dvc takes no file that git does not know.

    Raises:
        UserError: code, a list of labelled images or a mended label is not in git, or nothing has been committed.
    """
    try:
        git("rev-parse", "--verify", "HEAD")
    except UserError:
        raise UserError("dvc experiments need a commit to start from: git add -A && git commit") from None
    names = _unknown("--exclude-standard", "--", "segsemi", "stages")
    unknown = [name for name in names if name.endswith((".py", ".txt", ".yaml"))]
    for split in (cell.params.split for cell in cells):
        for path in (split.corrected, split.labelled_list):
            if path and not Path(path).is_absolute():  # else the copies see it too
                names = _unknown("--", path)
                unknown += [name for name in names if path == split.labelled_list or name.lower().endswith(".png")]
    for name in sorted(unknown):
        raise UserError(f"{name} is not in git, so an experiment would not see it: git add {name}")


def _unknown(*which: str) -> list[str]:
    """Files that git does not know."""
    return [name for name in git("ls-files", "--others", "-z", *which).split("\0") if name]


@contextmanager
def alone() -> Iterator[None]:
    """One `experiment` at a time in a repository: dvc writes each run's params into params.yaml for a moment.

    Raises:
        UserError: another one runs.
    """

    def refuse(process: str) -> NoReturn:
        raise UserError(f"`experiment` already runs here (process {process}): wait for it, or use another clone")

    if not Path("dvc.yaml").exists():
        raise _no_pipeline(Path("dvc.yaml"))
    path = Path(".work/experiment.lock")
    path.parent.mkdir(exist_ok=True)
    with locked(path, refuse):
        yield


def run_name(grid: str, cell: Cell, key: str) -> str:
    """The name of the dvc experiment of a cell: readable, and found again by the key at its end."""
    words = (re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in (grid, cell.row, cell.column))
    readable = "-".join(word for word in (*words, f"seed{cell.seed}") if word)
    return f"{readable[:_LONGEST].rstrip('-_')}-{key}"


def code_hash(dvc_yaml: Path = Path("dvc.yaml")) -> str:
    """A hash of the pipeline and of all code on which its stages depend; a report's code is no part of it.

    Raises:
        UserError: dvc.yaml is missing or no YAML.
    """
    stages = _stages(dvc_yaml)
    measuring = {name: stage for name, stage in stages.items() if name not in ("report", "show_saug")}
    deps = {
        dep for stage in measuring.values() for dep in (stage.get("do") or stage).get("deps", []) if dep.endswith(".py")
    }
    digest = hashlib.sha256(json.dumps(measuring, sort_keys=True).encode())
    for dep in sorted(deps):
        digest.update(f"{dep} {file_hash(dvc_yaml.parent / dep)}".encode())
    return digest.hexdigest()


def _stages(path: Path) -> dict[str, Any]:
    """Of dvc.yaml or dvc.lock."""
    try:
        return YAML(typ="safe").load(path)["stages"]
    except FileNotFoundError:
        raise _no_pipeline(path) from None
    except (YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of dvc's ({' '.join(str(error).split())}): git checkout {path}") from None


def _no_pipeline(path: Path) -> UserError:
    return UserError(f"{path} not found: run from the root of the repository")


def finished_runs() -> dict[str, str]:
    """Key -> git revision of the dvc experiments of this repository, whatever commit they started from."""
    return {key: revision for key, (revision, _) in _finished().items()}


def finished_names() -> dict[str, str]:
    """Key -> name of the dvc experiments of this repository."""
    return {key: name for key, (_, name) in _finished().items()}


def _finished() -> dict[str, tuple[str, str]]:
    listed = git("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    found = re.findall(r"^(\w+) \S+/(\S+-([0-9a-f]{12}))$", listed, flags=re.MULTILINE)
    return {key: (revision, name) for revision, name, key in found}


def check_cache(lock: Path = Path("dvc.lock")) -> None:
    """From the second experiment on, dvc looks into output folders as dvc.lock has them, and fails where its cache lacks them.

    So it is in a fresh clone.

    Raises:
        UserError: such a folder is missing; dvc is not there.
    """
    if not lock.exists():
        return
    stages = _stages(lock).values()
    read = [dep["path"] for stage in stages for dep in stage.get("deps", [])]
    folders = [out for stage in stages for out in stage.get("outs", []) if out["md5"].endswith(".dir")]
    cache = Path(_printed("dvc", "cache", "dir").strip())
    missing = [
        folder["path"]
        for folder in folders
        if any(path.startswith(f"{folder['path']}/") for path in read)
        and not (cache / "files/md5" / folder["md5"][:2] / folder["md5"][2:]).exists()
    ]
    if missing:
        raise UserError(
            f"{lock} names outputs that dvc's cache does not have ({', '.join(missing)}), on which dvc's experiments fail. "
            f"Make them with `dvc repro`, or fetch them with `dvc pull`, or begin without them: rm {lock}"
        )


def check_ready(cells: Iterable[Cell]) -> None:
    """What has to be before these cells run.

    Raises:
        UserError: see `check_tracked` and `check_cache`.
    """
    check_tracked(cells)
    check_cache()


def _printed(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise _no_dvc() from None
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def _no_dvc() -> UserError:
    return UserError("dvc not found; activate the environment: source .venv/bin/activate")


def run_cells(
    grid: str, runs: dict[str, Cell], *, queue: bool, unchanged: Callable[[], bool], after: Callable[[], object]
) -> list[str]:
    """Run each as `dvc exp run` in a temporary copy, one after the other, or only queue them.

    A run that is cut off goes on from its last checkpoint the next time. Params and code of the working tree are used.

    Args:
        grid: the name of the table, for the names of the experiments.
        runs: key -> a cell that needs it.
        unchanged: whether code and params.yaml are still those from which the keys were made: dvc takes the working tree as
            it is when a run begins.
        after: called when a run has ended well, unless it was only queued.

    Returns:
        The names of those that failed.

    Raises:
        UserError: code or params.yaml have changed; a file that a run needs is not in git; dvc is not there, or its cache
            lacks what dvc.lock names.
    """
    if not runs:
        return []
    check_ready(runs.values())
    status = _printed("dvc", "queue", "status").splitlines() if queue else []
    waiting = [line for line in status if "Queued" in line or "Running" in line]
    failed = []
    for number, (key, cell) in enumerate(runs.items(), start=1):
        if not unchanged():
            raise UserError("code or params.yaml changed meanwhile; start again: finished cells are kept")
        name = run_name(grid, cell, key)
        there = "done meanwhile" if key in finished_runs() else "queued" if any(key in line for line in waiting) else ""
        print(f"[{number}/{len(runs)}] {name}{f': {there}' if there else ''}", flush=True)
        if there:
            continue
        overrides = [argument for override in cell.overrides for argument in ("-S", override)]
        command = ["dvc", "exp", "run", "--queue" if queue else "--temp", "--name", name, *overrides]
        if _wait_for(command):
            failed.append(name)
        elif not queue:
            after()
    return failed


def _wait_for(command: Sequence[str]) -> int:
    """Run a command; its exit code. Ctrl-C, which reaches it too, gives it the time to end (subprocess.run would kill it)."""
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        raise _no_dvc() from None
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def training_units(params: Params) -> Iterator[tuple[str, str, int]]:
    """(key, teacher or student, steps) of each model that a run trains; equal keys are trained once, dvc keeps them."""
    values = params.model_dump()
    split = {key: value for key, value in values["split"].items() if key != "unlabelled_ratio"}  # no teacher sees them
    base = [split, *(values[key] for key in ("seed", "data", "model", "augment", "teacher"))]
    yield json.dumps(base), "teacher", params.teacher.steps
    for student in params.rounds:
        steps = total_steps(params.rounds, student, teacher_steps=0, student_steps=1)
        own = [values[key] for key in ("split", "pseudo_label", "student", "student_model")]
        yield json.dumps([base, own, steps]), "student", params.student.steps
    for student in params.baselines.values():
        steps = total_steps(
            params.rounds, student, teacher_steps=params.teacher.steps, student_steps=params.student.steps
        )
        yield json.dumps([base, steps]), "teacher", steps


def remaining_trainings(missing: Iterable[Cell], done: Iterable[Cell]) -> list[tuple[Params, str, int]]:
    """Params, teacher (labels-only baselines too) or student, and optimizer steps of each model that is still to be trained."""
    trained = {key for cell in done for key, _, _ in training_units(cell.params)}
    todo = {key: (cell.params, kind, steps) for cell in missing for key, kind, steps in training_units(cell.params)}
    return [training for key, training in todo.items() if key not in trained]
