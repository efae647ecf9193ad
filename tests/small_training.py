"""A network, two groups of images and settings with which a step of training takes moments."""

from pathlib import Path

import numpy as np
import torch

from segsemi.core.classes import write_label_png
from segsemi.core.config import AugmentParams, OptimParams
from segsemi.data.batches import Group, StepBatches, labelled_samples, pseudo_samples
from segsemi.datasets import check_entries, scenes
from segsemi.datasets.camvid import find_camvid
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.models.build import Architecture, SegmentationModel, build_model
from segsemi.runtime.distributed import Processes

ARCHITECTURE = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)
CPU = torch.device("cpu")
ALONE = Processes(CPU)


def optim(steps: int, **changes: object) -> OptimParams:
    values: dict = {
        "steps": steps,
        "lr": 0.01,
        "decoder_lr_factor": 10.0,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "power": 0.9,
        "val_every": 0,
        "accumulate": 1,
        "keep": "last",
    }
    return OptimParams(**{**values, **changes})


def new_model() -> SegmentationModel:
    return build_model(ARCHITECTURE, SCENES, encoder_weights="imagenet", seed=0)


def two_groups(raw: Path) -> list[Group]:
    """2 labelled and 2 pseudo-labelled images of 64x64, written into `raw`; all of a batch of each."""
    scenes.write(raw, train=4, val=1, height=64, width=64, seed=0)
    rows = check_entries(raw, find_camvid(raw).entries, SCENES, warn=lambda _: None)
    for row in rows[2:4]:
        write_label_png(raw / "pseudo" / f"{row.id}.png", np.full((64, 64), 3, dtype=np.uint8), SCENES)
    pseudo = pseudo_samples(rows[2:4], raw, raw / "pseudo")
    return [
        Group("labelled", labelled_samples(rows[:2], raw), 2, SCENES),
        Group("pseudo", pseudo, 2, SCENES, pseudo=True, parallel=True, strong_ops=3),
    ]


def batches(groups: list[Group], steps: int, pieces: int = 1) -> StepBatches:
    augment = AugmentParams(short_side=None, crop_size=64, scale_min=0.9, scale_max=1.1, flip=True)
    return StepBatches(groups, augment, steps=steps, seed=0, stage="student_1", cache_mb=10, pieces=pieces)
