"""Let the teacher of one round label the unlabelled images."""

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import UNLABELLED, data_root, model_files, model_folder, pseudo_folder
from segsemi.data.manifest import read_rows
from segsemi.models.saving import load_model
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.runtime.distributed import start_runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True, help="name of the model that makes the labels")
    parser.add_argument("--student", required=True, help="name of the model that will learn from them")
    args = parser.parse_args()
    params = load_params()
    inputs = [*model_files(args.teacher), UNLABELLED]
    with (
        start_runtime(params.machine) as runtime,
        runtime.work_folder(f"pseudo-{args.student}", params.pseudo_label.model_dump(), inputs) as work,
    ):
        write_pseudo_labels(
            load_model(model_folder(args.teacher)).to(runtime.device),
            read_rows(UNLABELLED),
            data_root(params.data),
            pseudo_folder(args.student),
            params.pseudo_label,
            work=work,
            runtime=runtime,
        )


if __name__ == "__main__":
    run_stage(main, parallel=True)
