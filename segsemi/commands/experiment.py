"""`python -m segsemi experiment`: from a declared grid to its runs and its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segsemi.core.config import load_values
from segsemi.core.errors import UserError
from segsemi.core.git import pipeline_revision
from segsemi.experiments import run as runs
from segsemi.experiments.grid import cells_of, read_grid
from segsemi.experiments.table import write_table
from segsemi.reporting.experiments import write_page


def experiment(
    name: str,
    *,
    seeds: Sequence[int],
    columns: Sequence[str],
    rows: Sequence[str],
    overrides: Sequence[str],
    out: Path,
    dry_run: bool = False,
    collect: bool = False,
    queue: bool = False,
) -> int:
    """Run what is missing and write the table to `out`; return the exit code: 1 if a run failed or nothing is finished.

    Args:
        name: of a grid, or the path of one.
        columns, rows: which cells; none: all.
        overrides: `section.key=value`, for all cells.
        dry_run: only print the cells.
        collect: only write the table of what is finished.
        queue: only queue the runs.
    """
    grid, title = read_grid(name)
    stem = Path(name).stem

    def plan() -> list[runs.Run]:
        cells = cells_of(grid, load_values(), seeds=seeds, columns=columns, rows=rows, extra=overrides)
        return list(zip(runs.run_keys(cells, runs.code_hash()), cells, strict=True))

    planned = plan()
    if dry_run:
        return _show(stem, planned)
    public = [item for item in overrides if not item.lstrip("+").startswith("data.root")]
    data = planned[0][1].params.data.name
    fact = f"Grid {' '.join([stem, *public])}, data set {data}, code and params of {pipeline_revision()}."
    with runs.alone():
        failed = []
        for run, code in [] if collect else runs.run_missing(stem, plan, queue=queue):
            if code:
                failed.append(run)
            elif not queue:
                write_table(grid, title, fact, planned, out / stem)
        if queue:
            print("`dvc queue start --jobs N` runs what is queued, `--collect` then writes the table")
            return 1 if failed else 0
        print(write_table(grid, title, fact, planned, out / stem))
    missing, in_queue = runs.missing_runs(planned), runs.queued_runs()
    failed += [runs.run_name(stem, cell, key) for key, cell in missing.items() if in_queue.get(key) == "failed"]
    for run in dict.fromkeys(failed):
        print(f"failed: {run} (of a queued run, `dvc queue logs {run}` says why)")
    there = [key for key, _ in planned if key not in missing]
    print(f"{len(there)} of {len(planned)} cells" + (f"; all tables: {write_page(out)}" if there else ""))
    return 1 if failed or not there else 0


def _show(stem: str, planned: Sequence[runs.Run]) -> int:
    """Print each cell, its state and its experiment, and what is to come; return the exit code, 0."""
    missing, in_queue = runs.missing_runs(planned), runs.queued_runs()
    for key, cell in planned:
        state = in_queue.get(key, "to do") if key in missing else "done"
        run = runs.run_name(stem, missing.get(key, cell), key)
        print(f"{state:7} seed {cell.seed}  {cell.column}  {cell.row}: {cell.model} of {run}")
    steps = sum(cell.steps_of_run for cell in missing.values())
    print(f"{len(missing)} runs to do, at most {steps} training steps: models that runs share are trained once")
    try:
        runs.check_ready(missing.values())
    except UserError as error:
        print(f"without --dry-run this is refused: {error}")
    return 0
