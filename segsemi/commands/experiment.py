"""`python -m segsemi experiment`: from a declared grid to its runs and its table."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from segsemi.commands import doctor
from segsemi.core.config import load_values
from segsemi.core.errors import UserError
from segsemi.experiments import earlier as kept
from segsemi.experiments import examples as qualitative
from segsemi.experiments import page as results_page
from segsemi.experiments import results, tables
from segsemi.experiments import run as experiments
from segsemi.experiments.grid import Cell, Grid, cells_of, read_grid


@dataclass(frozen=True)
class Wanted:
    """What was asked for, and what it comes to in this repository.

    Attributes:
        name: of a grid, or the path of one.
        seeds, columns, rows: which cells; empty columns or rows: all.
        overrides: `section.key=value`, for all cells.
        out: the folder of the tables.
        replace: begin the table anew, instead of joining the results that it has.
        words: the command, as it was typed.
    """

    name: str
    seeds: Sequence[int]
    columns: Sequence[str]
    rows: Sequence[str]
    overrides: Sequence[str]
    out: Path
    replace: bool
    words: Sequence[str]

    @property
    def path(self) -> Path:
        """The table, without an ending."""
        return self.out / Path(self.name).stem

    @cached_property
    def declared(self) -> tuple[Grid, str]:
        """The grid and its title."""
        return read_grid(self.name)

    @cached_property
    def values(self) -> dict[str, Any]:
        """params.yaml."""
        return load_values()

    @cached_property
    def code(self) -> str:
        """A hash of the pipeline's code."""
        return experiments.code_hash()

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells that were asked for."""
        return cells_of(
            self.declared[0],
            self.values,
            seeds=self.seeds,
            columns=self.columns,
            rows=self.rows,
            extra=self.overrides,
        )

    @cached_property
    def keys(self) -> list[str]:
        """Those of the runs of `cells`."""
        return experiments.run_keys(self.cells, self.code)

    @cached_property
    def missing(self) -> dict[str, Cell]:
        """Key -> the first cell that needs a run that is not there; it gives the run its name."""
        finished = experiments.finished_runs()
        found: dict[str, Cell] = {}
        for cell, key in zip(self.cells, self.keys, strict=True):
            if key not in finished:
                found.setdefault(key, cell)
        return found

    @cached_property
    def whole(self) -> list[Cell]:
        """All cells of the grid: what is done of other columns and rows stays in the table.

        Raises:
            UserError: as `cells`; a cell that was not asked for, and cannot be run, is left out.
        """
        asked = {(cell.seed, cell.column, cell.row): cell for cell in self.cells}
        grid, found = self.declared[0], []
        for place in itertools.product(dict.fromkeys(self.seeds), grid.columns, grid.rows):
            if place in asked:
                found.append(asked[place])
                continue
            seed, column, row = place
            with contextlib.suppress(UserError):
                cells = cells_of(grid, self.values, seeds=[seed], columns=[column], rows=[row], extra=self.overrides)
                found += filter(experiments.has_data, cells)
        return found

    def settings(self) -> dict[kept.Place, kept.Settings]:
        """Those of all cells of the grid, as params and files are now."""
        return kept.settings_of(self.whole, experiments.file_keys(self.whole))

    def earlier(self) -> pd.DataFrame:
        """What the table has already.

        Raises:
            UserError: see `kept.earlier_results`.
        """
        return kept.earlier_results(self.path, self.whole, self.settings())

    def unchanged(self) -> bool:
        """Whether code, params.yaml, lists and mended labels are still those from which the keys were made."""
        code = experiments.code_hash()
        return (
            load_values() == self.values and code == self.code and experiments.run_keys(self.cells, code) == self.keys
        )


def run_experiment(wanted: Wanted, *, collect: bool = False, queue: bool = False) -> int:
    """Run what is missing and write the table; or only one of the two.

    Args:
        collect: write the table of what is done.
        queue: queue the runs.

    Returns:
        The exit code: 1 after runs that failed, or where nothing is done.

    Raises:
        UserError: see `kept.earlier_results` and `experiments.run_cells`.
    """
    if wanted.out.exists() and not wanted.out.is_dir():
        raise UserError(f"-o {wanted.out} is a file; name a folder")
    if not wanted.replace and not queue:
        wanted.earlier()  # refuses, before anything runs
    failed = []
    if not collect:
        failed = experiments.run_cells(
            wanted.path.name,
            wanted.missing,
            queue=queue,
            unchanged=wanted.unchanged,
            after=lambda: _write_table(wanted, collect=False),
        )
    if queue:
        print(
            f"{len(wanted.missing) - len(failed)} runs in the queue"
            + (f", {len(failed)} could not be queued" if failed else "")
            + "; `dvc queue start --jobs N` runs them, `--collect` then writes the table"
        )
        return 1 if failed else 0
    done, text = _write_table(wanted, collect=collect)
    print(text)
    there = sum(key in done for key in wanted.keys)
    print(f"{there} of {len(wanted.keys)} cells" + (f"; {len(failed)} runs failed" if failed else ""))
    return 1 if failed or not done else 0


def _write_table(wanted: Wanted, *, collect: bool) -> tuple[dict[str, str], str]:
    """Table and figure of the cells that are done. Returns key -> revision of the experiments, and what to print."""
    (grid, title), cells, path = wanted.declared, wanted.whole, wanted.path
    keys = experiments.run_keys(cells, wanted.code)
    finished = {key: revision for key, revision in experiments.finished_runs().items() if key in keys}
    new, commands = results.collect(cells, keys, finished), []
    lines = {
        "validation": results.validation_curves(cells, keys, finished),
        "classes": results.class_ious(cells, keys, finished),
    }
    table, settings, before = new, wanted.settings(), 0
    if not wanted.replace:
        earlier = kept.earlier_results(path, cells, settings)
        table, before = kept.joined(earlier, new, grid), len(earlier)
        lines = {kind: kept.joined(kept.earlier_lines(path, kind), those, grid) for kind, those in lines.items()}
        commands = kept.earlier_commands(path)
    if table.empty:
        return finished, f"nothing to write into {path}.md"
    if not collect or len(table) > before:  # what other clones ran is named by the command that collects it
        commands = list(dict.fromkeys([*commands, _public(wanted.words)]))
    there = set(zip(table["row"], table["column"], strict=True))
    settings = {place: values for place, values in settings.items() if place in there}
    kept.write_kept(path, settings, table, lines, commands, replace=wanted.replace)
    results.write_figure(grid, table, lines["validation"], path)
    try:
        qualitative.write_examples(grid, cells, keys, finished, path, keep=len(table) > len(new))
    except UserError as error:  # the numbers are worth more
        print(f"no examples: {error}")
    text = tables.write_tables(
        grid, title, table, lines["classes"], results.facts(cells, table, commands), settings, path
    )
    return finished, f"{text}\n{path}.md, .csv, .svg; all tables: {results_page.write_page(wanted.out)}"


def _public(words: Sequence[str]) -> str:
    """A command as others would type it: without the folders in which data set and tables lie, --collect and --replace."""
    said = (word for word in words if word not in ("--collect", "--replace"))
    return shlex.join(
        re.sub(r"^((?:-S)?\+{0,2}data\.root=|(?:-o|--out=)?(?=/))(.*)$", _name_alone, word) for word in said
    )


def _name_alone(match: re.Match[str]) -> str:
    return match[1] + Path(match[2].strip("'\"")).name


def show_cells(wanted: Wanted) -> int:
    """Print the cells, the experiments in which they are or will be, and the time to come. Returns the exit code, 0."""
    missing, names, commits = wanted.missing, experiments.finished_names(), {}
    refusals = []
    try:
        earlier = wanted.earlier()
        commits = {tuple(place): commit for *place, commit in earlier[[*kept.PLACE, "commit"]].to_numpy()}
    except UserError as error:  # a table of other settings
        refusals += [] if wanted.replace else [error]
    for cell, key in zip(wanted.cells, wanted.keys, strict=True):
        name = experiments.run_name(wanted.path.name, missing[key], key) if key in missing else names[key]
        older = commits.get((cell.row, cell.column, cell.seed)) if key in missing else None
        print(
            f"{'to do' if key in missing else 'done '} seed {cell.seed}  {cell.column}  {cell.row}: {cell.model} of {name}"
            + (f" (the table has it, by code of {older})" if older else "")
        )
    done = [cell for cell, key in zip(wanted.cells, wanted.keys, strict=True) if key not in missing]
    todo = experiments.remaining_trainings(missing.values(), done)
    steps = {kind: sum(number for _, other, number in todo if other == kind) for kind in ("teacher", "student")}
    print(
        f"{len(missing)} runs to do: {steps['teacher']} steps of teachers and baselines, {steps['student']} of students"
    )
    if missing:
        try:
            seconds = doctor.training_seconds(todo)
        except UserError as error:
            print(f"time unknown: {error}")
        else:
            print(f"about {seconds / 60:.0f} minutes of training here, and more (loading, pseudo labels, evaluation)")
        try:
            experiments.check_ready(missing.values())
        except UserError as error:
            refusals.append(error)
    for refusal in refusals:
        print(f"without --dry-run this is refused: {refusal}")
    return 0
