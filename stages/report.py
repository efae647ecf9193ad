"""Merge the results of the models that params.yaml names into reports/."""

from __future__ import annotations

from segsemi.config import TEACHER, load_params
from segsemi.contract import CLASSES, LABELLED, REPORTS, UNLABELLED, data_root, evaluation_list
from segsemi.data.manifest import read_rows
from segsemi.errors import run_stage
from segsemi.palette import Classes
from segsemi.report import read_measured, write_report


def main() -> None:
    params = load_params()
    teachers = {TEACHER: None, **dict.fromkeys(params.baselines), **params.rounds}
    rows = read_rows(evaluation_list(params.evaluate.subset))
    facts = {
        "data set": params.data.name,
        "labelled images": len(read_rows(LABELLED)),
        "unlabelled": len(read_rows(UNLABELLED)),
        "measured on": f"{params.evaluate.subset}, {len(rows)} images",
        "seed": params.seed,
    }
    table = write_report(
        [read_measured(name, teacher) for name, teacher in teachers.items()],
        Classes.load(CLASSES),
        rows,
        data_root(params.data),
        facts,
        REPORTS,
    )
    print(f"\n{table}\n\nreport: {(REPORTS / 'index.html').resolve()}")


if __name__ == "__main__":
    run_stage(main)
