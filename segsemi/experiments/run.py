"""Run the cells of a grid as dvc experiments (`python -m segsemi experiment`)."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from segsemi.core.config import load_values
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, visible_files
from segsemi.core.git import git
from segsemi.data.images import IMAGE_ENDINGS
from segsemi.experiments.grid import Cell

_LONGEST = 200  # characters of a name before its key: git makes a file of that name
Run = tuple[str, Cell]  # key and cell


def run_keys(cells: Sequence[Cell], code: str) -> list[str]:
    """Return 12 hexadecimal digits per cell, equal for equal params, code and data: such cells need the same run.

    `machine` and `data.root` are left out: they say where and how to run. The key covers names and sizes of the data
    set's pictures, and the content of its lists and JSON files, of the list of labelled images and of corrected labels. A
    file of weights counts by its path, as for dvc.
    """
    # the params describe the embedded data set completely
    roots = ["" if cell.params.data.embedded else cell.params.data.root for cell in cells]
    listings = {root: _listing(Path(root)) if root else "" for root in set(roots)}
    keys = []
    for cell, root in zip(cells, roots, strict=True):
        split = cell.params.split
        listed, corrected = Path(split.labelled_list), visible_files(Path(split.corrected), (".png",))
        values = [
            code,
            cell.params.model_dump(exclude={"machine": True, "data": {"root"}}),
            listings[root],
            listed.read_text() if listed.is_file() else "",
            [f"{path.name} {file_hash(path)}" for path in corrected],
        ]
        keys.append(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12])
    return keys


def _listing(root: Path) -> str:
    """Return names of the pictures, lists and JSON files below `root`, linked folders included, with size or content's hash.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"data.root: no folder {root}; set it to the folder of the data set")
    lists = (".txt", ".json")
    return "\n".join(
        f"{path.relative_to(root).as_posix()} {file_hash(path) if path.suffix.lower() in lists else path.stat().st_size}"
        for path in visible_files(root, {*IMAGE_ENDINGS, *lists})
    )


def code_hash(dvc_yaml: Path = Path("dvc.yaml")) -> str:
    """Return a hash of the pipeline and of the code on which its stages depend, except those that only show results.

    Raises:
        UserError: dvc.yaml is missing or no YAML.
    """
    stages = load_values(dvc_yaml)["stages"]
    measuring = {name: stage for name, stage in stages.items() if name not in ("report", "show_saug")}
    deps = {Path(dep) for stage in measuring.values() for dep in (stage.get("do") or stage).get("deps", [])}
    root, code = dvc_yaml.parent, set[Path]()
    for dep in deps:
        if dep.parts[0] in ("segsemi", "stages"):
            code |= {root / dep} if dep.suffix == ".py" else set((root / dep).rglob("*.py"))
    digest = hashlib.sha256(json.dumps(measuring, sort_keys=True).encode())
    for file in sorted(code):
        digest.update(f"{file.relative_to(root).as_posix()} {file_hash(file)}".encode())
    return digest.hexdigest()


def run_name(grid: str, cell: Cell, key: str) -> str:
    """Return the name of the dvc experiment of a cell: readable, and found again by the key at its end."""
    words = (re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in (grid, cell.row, cell.column))
    readable = "-".join(word for word in (*words, f"seed{cell.seed}") if word)
    return f"{readable[:_LONGEST].rstrip('-_')}-{key}"


def finished_runs() -> dict[str, str]:
    """Return key -> git reference of the dvc experiments of this repository, whatever commit they started from."""
    listed = git("for-each-ref", "refs/exps", "--format=%(refname)")
    return {name[-12:]: name for name in listed.splitlines() if re.search(r"-[0-9a-f]{12}$", name)}


def missing_runs(planned: Sequence[Run]) -> dict[str, Cell]:
    """Return key -> the first cell that needs it of each run that is not finished."""
    finished, missing = finished_runs(), dict[str, Cell]()
    for key, cell in planned:
        if key not in finished:
            missing.setdefault(key, cell)
    return missing


def queued_runs() -> set[str]:
    """Return the names of the experiments that wait in dvc's queue, or run from it."""
    from dvc.repo import Repo  # slow to import

    with Repo() as repo:
        tasks = repo.experiments.celery_queue.status()
    return {task["name"] for task in tasks if task["status"].lower() in ("queued", "running")}


@contextmanager
def alone() -> Iterator[None]:
    """Let one `experiment` run at a time in a repository: dvc writes each run's params into params.yaml for a moment.

    Raises:
        UserError: another one runs.
    """
    Path(".work").mkdir(exist_ok=True)
    try:
        with FileLock(".work/experiment.lock", timeout=0):
            yield
    except Timeout:
        raise UserError("`experiment` already runs here: wait for it, or use another clone") from None


def check_ready(cells: Iterable[Cell]) -> None:
    """Check that dvc can run these cells in copies of the repository.

    Raises:
        UserError: git does not know a file that a run needs, so that the copy would lack it; dvc's cache lacks an output of
            dvc.lock, as in a fresh clone: the second experiment would fail.
    """
    used = {path for cell in cells for path in (cell.params.split.labelled_list, cell.params.split.corrected)}
    relative = sorted(path for path in used if path and not Path(path).is_absolute())
    for name in git("ls-files", "--others", "-z", "--", "segsemi", "stages", *relative).split("\0"):
        if name.lower().endswith((".py", ".txt", ".yaml", ".png")):
            raise UserError(f"{name} is not in git, so an experiment would not see it: git add {name}")
    from dvc.repo import Repo  # slow to import

    with Repo() as repo:
        missing = repo.data_status()["not_in_cache"]
    if missing:
        raise UserError(
            f"dvc's cache lacks {len(missing)} outputs of dvc.lock, such as {missing[0]}, on which experiments fail: make them "
            "with `dvc repro`, or fetch them with `dvc pull`"
        )


def run_missing(grid: str, plan: Callable[[], list[Run]], *, queue: bool) -> Iterator[tuple[str, int]]:
    """Run each cell that is not finished as `dvc exp run` in a temporary copy, or only queue it; yield name and exit code.

    A run that was cut off continues from its last checkpoint.

    Args:
        grid: the name of the table, for the names of the experiments.
        plan: makes keys and cells from the working tree, which dvc takes as it is when a run begins.

    Raises:
        UserError: code, params.yaml or data changed meanwhile; see also `check_ready`.
    """
    planned = plan()
    missing = missing_runs(planned)
    if not missing:
        return
    check_ready(missing.values())
    in_queue = queued_runs()
    for number, (key, cell) in enumerate(missing.items(), start=1):
        name = run_name(grid, cell, key)
        print(f"[{number}/{len(missing)}] {name}{': queued' if name in in_queue else ''}", flush=True)
        if name in in_queue:
            continue
        if plan() != planned:
            raise UserError("code, params.yaml or data changed meanwhile; start again: finished cells are kept")
        overrides = [argument for override in cell.overrides for argument in ("-S", override)]
        yield name, _wait_for(["dvc", "exp", "run", "--queue" if queue else "--temp", "--name", name, *overrides])


def _wait_for(command: Sequence[str]) -> int:
    """Run a command and return its exit code. After Ctrl-C, which reaches it too, it gets the time to end."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:  # subprocess.run would kill it
        process.wait()
        raise
