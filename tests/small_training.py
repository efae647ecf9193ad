"""A network, images and a recipe with which a step of training takes moments."""

import copy
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from segsemi.core.classes import write_label_png
from segsemi.core.config import AugmentParams, Part, SplitParams
from segsemi.core.recipe import Recipe
from segsemi.data.batches import Sample, StepBatches, labelled_samples, pseudo_samples
from segsemi.data.manifest import Row
from segsemi.datasets import check_entries, find_dataset, scenes
from segsemi.datasets.split import Split, split_rows
from segsemi.models.build import Architecture, SegmentationModel, build_model
from segsemi.runtime.distributed import Runtime

ARCHITECTURE = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)
CPU = torch.device("cpu")
ALONE = Runtime(CPU, cache_mb=10)
LABELLED = Part("labelled", pseudo=False, strong=False, parallel=False, images=2)
PSEUDO = Part("pseudo", pseudo=True, strong=True, parallel=True, images=2)
AUGMENT = AugmentParams(short_side=None, crop_size=64, scale_min=0.9, scale_max=1.1, flip=True)


class Data(NamedTuple):
    """Images and labels to learn from."""

    labelled: list[Sample]
    pseudo: list[Sample]


def a_recipe(steps: int, **changes: object) -> Recipe:
    """A student's: 2 labelled and 2 pseudo-labelled images in a batch, with SAUG, DSBN and SCL."""
    values: dict = {
        "name": "student_1",
        "seed": 0,
        "steps": steps,
        "optimizer": "sgd",
        "lr": 0.01,
        "decoder_lr_factor": 10.0,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "power": 0.9,
        "val_every": 0,
        "accumulate": 1,
        "keep": "last",
        "augment": AUGMENT,
        "parts": (LABELLED, PSEUDO),
        "init": "teacher",
        "bn": "dsbn",
        "loss": "scl",
        "saug_ops": 3,
    }
    return Recipe(**{**values, **changes})


@cache
def built_model() -> SegmentationModel:
    return build_model(ARCHITECTURE, scenes.CLASSES, encoder_weights="imagenet", seed=0)


def new_model() -> SegmentationModel:
    """A copy, which takes a fifth of the time."""
    return copy.deepcopy(built_model())


def scene_rows(raw: Path, train: int, val: int, height: int, width: int) -> list[Row]:
    """Write embedded scenes into `raw` and return their rows, those of train first."""
    scenes.write(raw, train=train, val=val, height=height, width=width, seed=0)
    entries = find_dataset("synthetic", raw, val_fraction=0.2, seed=0).entries
    return check_entries(raw, entries, scenes.CLASSES, warn=lambda _: None)


def small_data(raw: Path, images: int = 2, height: int = 64, width: int = 64) -> Data:
    """As many labelled images and as many pseudo-labelled ones, written into `raw`."""
    rows = scene_rows(raw, 2 * images, 1, height, width)[: 2 * images]
    for row in rows[images:]:
        label = np.full((height, width), 3, dtype=np.uint8)
        write_label_png(raw / "pseudo" / f"{row.id}.png", label, scenes.CLASSES)
    return Data(labelled_samples(rows[:images], raw), pseudo_samples(rows[images:], raw, raw / "pseudo"))


def batches(data: Data, recipe: Recipe, runtime: Runtime = ALONE) -> StepBatches:
    return StepBatches(recipe, data.labelled, data.pseudo, scenes.CLASSES, runtime)


def chosen(
    rows: list[Row], ids: Sequence[str] = (), corrected: Collection[str] = (), seed: int = 0, **choice: Any
) -> Split:
    """Split rows by the values of params' section split that `choice` names."""
    none = {
        "count": None,
        "unlabelled_ratio": None,
        "labelled_list": "data/labelled.txt",
        "corrected": "data/corrected",
    }
    wanted = SplitParams(**{"fraction": 1.0, "extra": "unlabelled", "exclude": [], "val": [], **none, **choice})
    return split_rows(rows, wanted, ids, corrected=corrected, seed=seed)
