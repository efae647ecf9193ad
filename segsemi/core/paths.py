"""The data contract: where each stage's outputs lie, relative to the root of the repository (as in dvc.yaml)."""

import os
from pathlib import Path

from segsemi.core.config import DataParams

PREPARED = Path("data/prepared")
MANIFEST = PREPARED / "manifest.csv"
CLASSES = PREPARED / "classes.json"

SPLIT = Path("data/split")
LABELLED = SPLIT / "labelled.csv"
CORRECTED = SPLIT / "corrected.csv"  # images with corrected labels; their label paths start at SPLIT
UNLABELLED = SPLIT / "unlabelled.csv"  # no label column
HIDDEN = SPLIT / "hidden.csv"  # the labels of the unlabelled images: to measure with, never to train with
SKIPPED = SPLIT / "skipped.csv"  # broken images that prepare left out
VAL = SPLIT / "val.csv"  # and test.csv, without rows where the data set has none

PSEUDO = Path("data/pseudo")
REPORTS = Path("reports")
FINAL_MODEL = Path("final_model")  # a copy of the last student, with its metrics in model.json


def model_folder(name: str) -> Path:
    """Return the folder of model.safetensors, model.json, curve.csv and, after DSBN, bn.csv of a model."""
    return Path("models") / name


def model_files(name: str) -> list[Path]:
    """Return the files of that folder that decide what the model predicts."""
    return [model_folder(name) / "model.safetensors", model_folder(name) / "model.json"]


def pseudo_folder(student: str) -> Path:
    """Return the folder of ID.png, summary.csv and confidence/, the pseudo labels from which `student` learns."""
    return PSEUDO / student


def evaluated_folder(name: str) -> Path:
    """Return the folder of metrics.json, confusion.csv, calibration.csv, images.csv and predictions/ of a model."""
    return Path("data/evaluated") / name


def quality_folder(student: str) -> Path:
    """Return the folder of quality.json and some examples of the pseudo labels from which `student` learns."""
    return Path("data/evaluated") / f"{student}_pseudo_labels"


def recipe_file(baseline: str) -> Path:
    """Return the file with the recipe of a baseline."""
    return Path("data/recipes") / f"{baseline}.json"


def data_root(data: DataParams) -> Path:
    """Return the folder where the manifest's paths start: that of the manifest for the embedded scenes, else data.root.

    A relative data.root that is not here is that of the repository in whose temporary copy dvc runs an experiment.
    """
    if data.embedded:
        return PREPARED
    root = Path(data.root)
    return root if root.exists() else Path(os.environ.get("DVC_ROOT", "")) / root
