"""Run a declared grid of experiments and write its table. `python -m segsemi experiment`."""

import argparse
from pathlib import Path

from segsemi.core.config import load_values
from segsemi.core.errors import UserError
from segsemi.core.git import pipeline_revision
from segsemi.experiments import run as runs
from segsemi.experiments.grid import cells_of, grid_names, read_grid
from segsemi.experiments.table import write_table
from segsemi.reporting.experiments import write_page


def run(args: argparse.Namespace) -> int:
    """Run what is missing and write the table to `args.out`; return the exit code: 1 if a run failed or none is finished."""
    if args.name is None and (args.columns or args.rows or args.overrides):
        raise UserError("experiment: the name comes first, then --columns, --rows and --seeds")
    if args.name is None:
        for name in grid_names():
            print(f"{name}\n    {read_grid(name)[1]}")
        return 0
    grid, title = read_grid(args.name)
    stem = Path(args.name).stem

    def plan() -> list[runs.Run]:
        cells = cells_of(
            grid, load_values(), seeds=args.seeds, columns=args.columns, rows=args.rows, extra=args.overrides
        )
        return list(zip(runs.run_keys(cells, runs.code_hash()), cells, strict=True))

    planned = plan()
    if args.dry_run:
        _show(stem, planned)
        return 0
    public = [item for item in args.overrides if not item.lstrip("+").startswith("data.root")]
    data = planned[0][1].params.data.name
    fact = f"Grid {' '.join([stem, *public])}, data set {data}, code and params of {pipeline_revision()}."
    failed = []
    with runs.alone():
        for name, code in [] if args.collect else runs.run_missing(stem, plan, queue=args.queue):
            if code:
                failed.append(name)
            elif not args.queue:
                write_table(grid, title, fact, planned, args.out / stem)
        if args.queue:
            print("`dvc queue start --jobs N` runs what is queued, `--collect` then writes the table")
            return 1 if failed else 0
        print(write_table(grid, title, fact, planned, args.out / stem))
    missing = runs.missing_runs(planned)
    there = [key for key, _ in planned if key not in missing]
    for name in failed:
        print(f"failed: {name}")
    print(f"{len(there)} of {len(planned)} cells" + (f"; all tables: {write_page(args.out)}" if there else ""))
    return 1 if failed or not there else 0


def _show(stem: str, planned: list[runs.Run]) -> None:
    """Print each cell, its state and its experiment, and whether dvc can run what is missing."""
    missing = runs.missing_runs(planned)
    for key, cell in planned:
        state, name = "to do" if key in missing else "done", runs.run_name(stem, missing.get(key, cell), key)
        print(f"{state:7} seed {cell.seed}  {cell.column}  {cell.row}: {cell.model} of {name}")
    print(f"{len(missing)} runs to do; models that runs share are trained once")
    try:
        runs.check_ready(missing.values())
    except UserError as error:
        print(f"without --dry-run this is refused: {error}")
