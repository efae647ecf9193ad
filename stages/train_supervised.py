"""The fair baseline: train on the labels alone for as many steps as went into a student and its teachers together."""

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root, steps_file
from segsemi.training.recipes import supervised_recipe, train_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the baseline")
    args = parser.parse_args()
    params = load_params()
    teacher = params.teacher.model_copy(update={"steps": int(steps_file(args.name).read_text())})
    recipe = supervised_recipe(args.name, teacher, params.augment, params.seed)
    train_model(recipe, params.model, None, data_root(params.data), params.machine)


if __name__ == "__main__":
    run_stage(main, parallel=True)
