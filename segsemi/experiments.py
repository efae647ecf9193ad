"""Run the cells of a grid as dvc experiments, and collect them into a table. `python -m segsemi experiment`."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from segsemi.config import Params, total_steps
from segsemi.errors import UserError
from segsemi.files import file_hash, write_text
from segsemi.grid import Cell, Grid
from segsemi.revision import git, head_revision


def run_key(cell: Cell, code: str) -> str:
    """12 hexadecimal digits, equal for equal params and code: cells of equal keys need the same run.

    `machine` is left out, since no result depends on it; the list of labelled images and mended labels count with their
    content.
    """
    params, listed = cell.params.model_dump(exclude={"machine"}), Path(cell.params.split.labelled_list)
    names = listed.read_text() if listed.exists() else ""
    mended = [f"{path.name} {file_hash(path)}" for path in sorted(Path(cell.params.split.corrected).glob("*.png"))]
    return hashlib.sha256(json.dumps([code, params, names, mended], sort_keys=True).encode()).hexdigest()[:12]


def check_mended(cells: Iterable[Cell]) -> None:
    """Experiments run in copies of the repository, into which dvc takes no file that git does not know.

    Raises:
        UserError: a mended label is not in git.
    """
    for folder in sorted({cell.params.split.corrected for cell in cells}):
        if Path(folder).is_absolute():
            continue  # the copies see it too
        unknown = [name for name in git("ls-files", "--others", "--", folder).splitlines() if name.endswith(".png")]
        if unknown:
            raise UserError(f"{unknown[0]} is not in git, so an experiment would not see it: git add {folder}")


def run_name(grid: str, cell: Cell, key: str) -> str:
    """The name of the dvc experiment of a cell: readable, and found again by the key at its end."""
    words = [grid, cell.row, cell.column, f"seed{cell.seed}", key]
    return "-".join(re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_") for word in words)


def code_hash(dvc_yaml: Path = Path("dvc.yaml")) -> str:
    """A hash of the pipeline and of all code on which its stages depend; a report's code is no part of it.

    Raises:
        UserError: dvc.yaml is missing.
    """
    try:
        stages = YAML(typ="safe").load(dvc_yaml)["stages"]
    except FileNotFoundError:
        raise UserError(f"{dvc_yaml} not found: run from the root of the repository") from None
    measuring = {name: stage for name, stage in stages.items() if name not in ("report", "show_saug")}
    deps = {dep for stage in measuring.values() for dep in (stage.get("do") or stage)["deps"] if dep.endswith(".py")}
    digest = hashlib.sha256(json.dumps(measuring, sort_keys=True).encode())
    for dep in sorted(deps):
        digest.update(f"{dep} {file_hash(dvc_yaml.parent / dep)}".encode())
    return digest.hexdigest()


def finished_runs() -> dict[str, str]:
    """Key -> git revision of the dvc experiments of this repository, whatever commit they started from."""
    listed = git("for-each-ref", "refs/exps", "--format=%(refname) %(objectname)")
    return dict(re.findall(r"-([0-9a-f]{12}) (\w+)$", listed, flags=re.MULTILINE))


def measured(revision: str) -> dict[str, dict[str, float | None]]:
    """reports/metrics.json of an experiment: model -> miou, pixel_accuracy and, for students, pseudo_label_miou."""
    return json.loads(git("show", f"{revision}:reports/metrics.json"))


def check_cache(lock: Path = Path("dvc.lock")) -> None:
    """From the second experiment on, dvc looks into output folders as dvc.lock has them, and fails where its cache lacks them.

    So it is in a fresh clone.

    Raises:
        UserError: such a folder is missing; dvc is not there.
    """
    if not lock.exists():
        return
    stages = YAML(typ="safe").load(lock)["stages"].values()
    read = [dep["path"] for stage in stages for dep in stage.get("deps", [])]
    folders = [out for stage in stages for out in stage.get("outs", []) if out["md5"].endswith(".dir")]
    cache = _dvc_cache()
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


def _dvc_cache() -> Path:
    try:
        done = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise _no_dvc() from None
    return Path(done.stdout.strip())


def _no_dvc() -> UserError:
    return UserError("dvc not found; activate the environment: source .venv/bin/activate")


def run_cells(grid: str, runs: dict[str, Cell], *, queue: bool, unchanged: Callable[[], bool]) -> list[str]:
    """Run each as `dvc exp run` in a temporary copy, one after the other, or only queue them.

    A run that is cut off goes on from its last checkpoint the next time. Params and code of the working tree are used.

    Args:
        grid: the name of the table, for the names of the experiments.
        runs: key -> a cell that needs it.
        unchanged: whether code and params.yaml are still those from which the keys were made: dvc takes the working tree as
            it is when a run begins.

    Returns:
        The names of those that failed.

    Raises:
        UserError: code or params.yaml have changed; a mended label is not in git; dvc is not there, or its cache lacks what
            dvc.lock names.
    """
    check_mended(runs.values())
    if runs:
        check_cache()
    failed = []
    for number, (key, cell) in enumerate(runs.items(), start=1):
        if not unchanged():
            raise UserError("code or params.yaml changed meanwhile; start again: finished cells are kept")
        name = run_name(grid, cell, key)
        print(f"[{number}/{len(runs)}] {name}", flush=True)
        overrides = [argument for override in cell.overrides for argument in ("-S", override)]
        command = ["dvc", "exp", "run", "--queue" if queue else "--temp", "--name", name, *overrides]
        if _wait_for(command):
            failed.append(name)
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


def remaining_steps(missing: Iterable[Cell], done: Iterable[Cell]) -> dict[str, int]:
    """Optimizer steps of teachers (and labels-only baselines) and of students that are still to be trained."""
    trained = {key for cell in done for key, _, _ in training_units(cell.params)}
    todo = {key: (kind, steps) for cell in missing for key, kind, steps in training_units(cell.params)}
    sums = {"teacher": 0, "student": 0}
    for key, (kind, steps) in todo.items():
        if key not in trained:
            sums[kind] += steps
    return sums


def facts(cells: Sequence[Cell], command: Sequence[str]) -> list[str]:
    """What a table was made from: command, git revision, data, network and steps."""
    params = cells[0].params
    return [
        f"`python -m segsemi {shlex.join(command)}` at {head_revision()}",
        f"{params.data.name}, {params.model.decoder} on {params.model.encoder}, crop {params.augment.crop_size}",
        f"teacher {params.teacher.steps} steps, each student {params.student.steps}",
    ]


def collect(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """One row a finished cell: row, column, seed, model, its numbers in percent, and the experiment's git revision."""
    records: list[dict[str, Any]] = []
    reports = {key: measured(finished[key]) for key in dict.fromkeys(keys) if key in finished}
    for cell, key in zip(cells, keys, strict=True):
        if key in reports:
            place = {"row": cell.row, "column": cell.column, "seed": cell.seed, "model": cell.model}
            records.append({**place, **reports[key][cell.model], "experiment": finished[key][:10]})
    return pd.DataFrame(records, columns=["row", "column", "seed", "model", *_NUMBERS, "experiment"])


_NUMBERS = ("miou", "pixel_accuracy", "pseudo_label_miou")


def validation_curves(cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str]) -> pd.DataFrame:
    """Validation mIoU during the training of each finished cell's model: columns row, column, seed, step, val_miou."""
    texts = {key: git("show", f"{finished[key]}:reports/validation.csv") for key in set(keys) & set(finished)}
    tables = {key: pd.read_csv(io.StringIO(text)) for key, text in texts.items()}
    parts = [pd.DataFrame(columns=["row", "column", "seed", "step", "val_miou"])]
    for cell, key in zip(cells, keys, strict=True):
        if key in tables:
            curve = tables[key][tables[key]["model"] == cell.model].drop(columns="model")
            parts.append(curve.assign(row=cell.row, column=cell.column, seed=cell.seed))
    return pd.concat(parts).astype({"step": float, "val_miou": float})


def write_figure(grid: Grid, results: pd.DataFrame, validation: pd.DataFrame, path: Path) -> None:
    """Draw the results to `path`.svg, and write the validation curves in it to `path`_validation.csv; where there are no
    results, files from before are removed."""
    from segsemi import figures  # matplotlib is slow to import

    svg, curves = path.with_name(f"{path.name}.svg"), path.with_name(f"{path.name}_validation.csv")
    if results.empty:
        for file in (svg, curves):
            file.unlink(missing_ok=True)
        return
    rows = [name for name in grid.rows if name in set(results["row"])]
    columns = [name for name in grid.columns if name in set(results["column"])]
    if grid.lines is None:
        drawn = figures.experiment(results, validation, rows, columns)
        order = ["row", "column", "seed", "step", "val_miou"]
        write_text(curves, validation[order].to_csv(index=False, lineterminator="\n"))
    elif grid.lines == "rows":
        drawn = figures.trend(results, "row", rows, "column", columns)
    else:
        drawn = figures.trend(results, "column", columns, "row", rows)
    write_text(svg, drawn)


def write_tables(grid: Grid, title: str, results: pd.DataFrame, facts: Sequence[str], path: Path) -> str:
    """Write the results to `path`.csv, and as Markdown to `path`.md: mean and standard deviation over the seeds, and the
    gain on the rows `against`, paired by seed; it shows `path`.svg, if that is there. Returns the Markdown."""
    columns = [column for column in grid.columns if column in set(results["column"])]
    parts = [f"# {title}", "\n".join(f"- {fact}" for fact in facts), "mIoU in percent, mean ± standard deviation:"]
    parts.append(
        _markdown([[row, *(_cell(_values(results, row, column)) for column in columns)] for row in grid.rows], columns)
    )
    for other in grid.against:
        gains = [
            [row, *(_gain(_values(results, row, column) - _values(results, other, column)) for column in columns)]
            for row in grid.rows
            if row != other
        ]
        parts += [f"Gain on {other}, paired by seed:", _markdown(gains, columns)]
    if path.with_name(f"{path.name}.svg").exists():
        parts.append(f"![{title}]({path.name}.svg)")
    text = "\n\n".join(parts) + "\n"
    write_text(path.with_name(f"{path.name}.csv"), results.to_csv(index=False, lineterminator="\n"))
    write_text(path.with_name(f"{path.name}.md"), text)
    return text


def _values(results: pd.DataFrame, row: str, column: str) -> pd.Series:
    """mIoU by seed."""
    chosen = results[(results["row"] == row) & (results["column"] == column)]
    return chosen.set_index("seed")["miou"].astype(float)


def _cell(values: pd.Series) -> str:
    values = values.dropna()
    if values.empty:
        return ""
    return f"{values.mean():.2f}" + (f" ± {np.std(values, ddof=1):.2f} ({len(values)})" if len(values) > 1 else " (1)")


def _gain(differences: pd.Series) -> str:
    """A difference of which the seeds do not agree by more than their spread is called that."""
    values = differences.dropna()
    if values.empty:
        return ""
    if len(values) == 1:
        return f"{values.mean():+.2f} (1 seed)"
    spread = float(np.std(values, ddof=1))
    note = ", within the spread" if abs(values.mean()) <= spread else ""
    return f"{values.mean():+.2f} ± {spread:.2f}{note}"


def _markdown(rows: list[list[str]], columns: Sequence[str]) -> str:
    return pd.DataFrame(rows, columns=["", *columns]).to_markdown(index=False, disable_numparse=True)
