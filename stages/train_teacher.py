"""Train the teacher on the labelled images: cross entropy, weak augmentation."""

from segsemi.core.config import TEACHER, load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root
from segsemi.core.recipe import supervised_recipe
from segsemi.training.train import train_model


def main() -> None:
    params = load_params()
    recipe = supervised_recipe(TEACHER, params.teacher, params.augment, params.seed)
    train_model(recipe, params.model, None, data_root(params.data), params.machine)


if __name__ == "__main__":
    run_stage(main, parallel=True)
