"""Measure one model on the validation set, or on the test set."""

import argparse

from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.files import file_hash
from segsemi.core.paths import CLASSES, SPLIT, data_root, evaluated_folder, model_files, model_folder
from segsemi.data.manifest import read_rows
from segsemi.evaluate import write_evaluation
from segsemi.models.saving import load_model
from segsemi.runtime.distributed import start_runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model")
    args = parser.parse_args()
    params = load_params()
    settings, images = params.evaluate, SPLIT / f"{params.evaluate.subset}.csv"
    inputs = [*model_files(args.model), images, CLASSES]
    with (
        start_runtime(params.machine) as runtime,
        runtime.work_folder(
            f"evaluate-{args.model}", settings.model_dump(exclude={"subset", "examples"}), inputs
        ) as work,
    ):
        write_evaluation(
            load_model(model_folder(args.model)).to(runtime.device),
            read_rows(images),
            data_root(params.data),
            Classes.load(CLASSES),
            evaluated_folder(args.model),
            settings,
            weights=file_hash(model_files(args.model)[0]),
            work=work,
            runtime=runtime,
        )


if __name__ == "__main__":
    run_stage(main)
