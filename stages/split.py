"""Choose the labelled images; the labels of the rest are hidden from training."""

from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import UserError, run_stage
from segsemi.core.paths import CLASSES, MANIFEST, SPLIT
from segsemi.data.manifest import read_rows
from segsemi.datasets.entries import read_lines
from segsemi.datasets.split import NOTHING_UNLABELLED, plan_warnings, read_corrected, split_rows, write_split


def main() -> None:
    params = load_params()
    rows = read_rows(MANIFEST)
    corrected = read_corrected(Path(params.split.corrected), rows, Classes.load(CLASSES))
    listed = read_lines(Path(params.split.labelled_list), may_be_empty=True)
    split = split_rows(rows, params.split, listed, corrected=corrected.keys(), seed=params.seed)
    steps, batch_pseudo = params.student.steps, params.student.batch_pseudo
    for warning in plan_warnings(split, rounds=params.rounds, steps=steps, batch_pseudo=batch_pseudo):
        if warning == NOTHING_UNLABELLED:
            raise UserError(warning)
        print(f"warning: {warning}")
    write_split(split, SPLIT, corrected)
    unused = sorted(corrected.keys() - {row.id for row in split.corrected})
    if unused:
        print(
            f"warning: corrected labels of {', '.join(unused[:5])} are not used: these images have labels, or are not used"
        )
    parts = {"labelled": split.labelled, "corrected": split.corrected, "unlabelled": split.unlabelled}
    parts |= {"validation": split.val, "test": split.test, "skipped": split.skipped}
    print(", ".join(f"{len(part)} {name}" for name, part in parts.items()), "images")


if __name__ == "__main__":
    run_stage(main)
