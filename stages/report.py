"""Merge the results of the models that params.yaml names into reports/."""

from __future__ import annotations

from pathlib import Path

from segsemi.config import TEACHER, load_params
from segsemi.data.datasets import data_root
from segsemi.data.manifest import read_rows
from segsemi.errors import run_stage
from segsemi.palette import Classes
from segsemi.report import read_measured, write_report

OUT = Path("reports")


def main() -> None:
    params = load_params()
    teachers = {TEACHER: None, **dict.fromkeys(params.baselines), **params.rounds}
    split = Path("data/split")
    val = read_rows(split / "val.csv")
    facts = {
        "data set": params.data.name,
        "labelled images": len(read_rows(split / "labelled.csv")),
        "unlabelled": len(read_rows(split / "unlabelled.csv")),
        "validation": len(val),
        "seed": params.seed,
    }
    table = write_report(
        [read_measured(name, teacher) for name, teacher in teachers.items()],
        Classes.load(Path("data/prepared/classes.json")),
        val,
        data_root(params.data),
        facts,
        OUT,
    )
    print(f"\n{table}\n\nreport: {(OUT / 'index.html').resolve()}")


if __name__ == "__main__":
    run_stage(main)
