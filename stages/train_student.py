"""Train the student of one round on labels and pseudo labels."""

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root
from segsemi.core.recipe import student_recipe
from segsemi.training.train import train_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True, help="name of the model that made the pseudo labels")
    parser.add_argument("--student", required=True, help="name of the model to train")
    args = parser.parse_args()
    params = load_params()
    recipe = student_recipe(args.student, params.student, params.augment, params.seed)
    new_network = params.student_model if params.student.init == "pretrained" else None
    train_model(recipe, new_network, args.teacher, data_root(params.data), params.machine)


if __name__ == "__main__":
    run_stage(main, parallel=True)
