"""Let the teacher of one round label the unlabelled images."""

from __future__ import annotations

import argparse

from segsemi.checkpoint import load_model
from segsemi.config import load_params
from segsemi.contract import UNLABELLED, data_root, model_files, model_folder, pseudo_folder
from segsemi.data.manifest import read_rows
from segsemi.engine import choose_device
from segsemi.errors import run_stage
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.work import work_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True, help="name of the model that makes the labels")
    parser.add_argument("--student", required=True, help="name of the model that will learn from them")
    args = parser.parse_args()
    params = load_params()
    model = load_model(model_folder(args.teacher)).to(choose_device(params.machine.device))
    settings = params.pseudo_label.model_dump()
    with work_folder(f"pseudo-{args.student}", settings, [*model_files(args.teacher), UNLABELLED]) as work:
        write_pseudo_labels(
            model,
            read_rows(UNLABELLED),
            data_root(params.data),
            pseudo_folder(args.student),
            **settings,
            work=work,
            progress=f"pseudo labels for {args.student}",
        )


if __name__ == "__main__":
    run_stage(main)
