"""From a recipe and lists of images to a model in models/NAME (algorithm 1)."""

from pathlib import Path
from typing import Any

from segsemi.core.classes import Classes
from segsemi.core.config import MachineParams, ModelParams
from segsemi.core.errors import UserError
from segsemi.core.files import write_csv
from segsemi.core.paths import (
    CLASSES,
    CORRECTED,
    LABELLED,
    SPLIT,
    UNLABELLED,
    VAL,
    model_files,
    model_folder,
    pseudo_folder,
)
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import StepBatches, labelled_samples, pseudo_samples, unlabelled_samples
from segsemi.data.images import LabelledPairs
from segsemi.data.manifest import read_rows
from segsemi.models.build import architecture_of, build_model
from segsemi.models.saving import load_description, load_model, save_model
from segsemi.runtime.distributed import start_runtime
from segsemi.training.loop import train


def train_model(
    recipe: Recipe, network: ModelParams | None, teacher: str | None, root: Path, machine: MachineParams
) -> None:
    """Train a model and write it to models/NAME, with curve.csv and, after DSBN, bn.csv.

    Args:
        network: that of a new model; None: the teacher's network and weights.
        teacher: the model that it starts from, or whose pseudo labels it learns; None: a model without a teacher.
        root: where the paths of the lists start.

    Raises:
        UserError: see `load_model`, `build_model`, `StepBatches` and `train`; keep: best without validation images.
    """
    classes = Classes.load(CLASSES)
    labelled = labelled_samples(read_rows(LABELLED), root, read_rows(CORRECTED), SPLIT)
    inputs, pseudo, before = [LABELLED, CORRECTED, VAL, CLASSES], [], dict[str, Any](steps_in_all=0, images_in_all=0)
    if recipe.targets != "stored":
        inputs.append(UNLABELLED)
        pseudo = unlabelled_samples(read_rows(UNLABELLED), root)
    elif teacher is not None:
        inputs += [UNLABELLED, pseudo_folder(recipe.name)]
        pseudo = pseudo_samples(read_rows(UNLABELLED), root, pseudo_folder(recipe.name))
    if teacher is not None:
        inputs += model_files(teacher)
        if network is None or any(part.pseudo for part in recipe.parts):
            before = load_description(model_folder(teacher))["training"]
    val = LabelledPairs(read_rows(VAL), root, classes)
    if recipe.keep == "best" and not val:
        raise UserError("keep: best needs validation images, and there are none; set keep: last")
    settings = [recipe.model_dump(), network and network.model_dump()]
    with (
        start_runtime(machine) as runtime,
        runtime.work_folder(f"train-{recipe.name}", settings, inputs) as work,
    ):
        if network is not None:
            architecture = architecture_of(network, recipe.augment)
            seed = derive_seed(recipe.seed, recipe.name, "weights")
            model = build_model(architecture, classes, encoder_weights=network.encoder_weights, seed=seed)
        else:
            assert teacher is not None
            model = load_model(model_folder(teacher))
        batches = StepBatches(recipe, labelled, pseudo, classes, runtime)
        history = train(model, recipe, batches, val, runtime, work)
        if runtime.first:
            folder = model_folder(recipe.name)
            write_csv(folder / "curve.csv", ["step", "loss", "lr", "val_miou"], history.curve)
            if history.bn:
                write_csv(folder / "bn.csv", list(history.bn[0]), history.bn)
            images = recipe.steps * recipe.batch_images
            training = {
                "steps": recipe.steps,
                "images": images,
                "keep": recipe.keep,
                "encoder_weights": network.encoder_weights if network else before.get("encoder_weights"),
                "steps_in_all": before["steps_in_all"] + recipe.steps,
                "images_in_all": before["images_in_all"] + images,
            }
            save_model(model, folder, training)
