"""Train a baseline: supervised, on labels only, or an online method, which predicts its targets while it trains."""

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root, recipe_file
from segsemi.core.recipe import Recipe
from segsemi.training.train import train_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the method")
    args = parser.parse_args()
    params = load_params()
    recipe = Recipe.model_validate_json(recipe_file(args.name).read_text())
    train_model(recipe, params.model, None, data_root(params.data), params.machine)


if __name__ == "__main__":
    run_stage(main, parallel=True)
