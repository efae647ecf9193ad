"""Write the recipe of a baseline: its method's switches, with the budget of a student and its teachers together.

A stage of its own, so that a change of params which does not concern the baseline does not train it again.
"""

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.files import write_text
from segsemi.core.paths import recipe_file
from segsemi.core.recipe import baseline_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the method")
    args = parser.parse_args()
    write_text(recipe_file(args.name), baseline_recipe(args.name, load_params()).model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    run_stage(main)
