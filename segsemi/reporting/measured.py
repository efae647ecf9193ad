"""The measurements of one model, as the stages wrote them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segsemi.core.files import read_json
from segsemi.core.paths import evaluated_folder, model_folder, quality_folder


@dataclass(frozen=True)
class Measured:
    """All measurements of one model.

    Attributes:
        teacher: the name of the model that made its pseudo labels; None for the teacher and baselines.
        loss: what its training loss consists of, in words.
        evaluated, metrics: the folder that stage evaluate wrote, and its metrics.json.
        image_mious: mIoU of each image by its id; NaN where no pixel of the truth has a class.
        training: what model.json says of it; steps and images in all include those of its teachers.
        curve: the training curve, columns step, loss, lr, val_miou.
        bn: bn.csv, the statistics of both batch norms of each layer; None without DSBN.
        pseudo, quality: the folder that stage pseudo_quality wrote, and its quality.json; None and empty where the model
            learnt no stored pseudo labels.
    """

    name: str
    teacher: str | None
    loss: str
    evaluated: Path
    metrics: dict[str, Any]
    image_mious: pd.Series
    training: dict[str, Any]
    curve: pd.DataFrame
    bn: pd.DataFrame | None
    pseudo: Path | None
    quality: dict[str, Any]


def read_measured(name: str, teacher: str | None, loss: str, *, learnt_pseudo_labels: bool) -> Measured:
    """Read one model's evaluation, training curve and the quality of the pseudo labels from which it learnt."""
    evaluated, model = evaluated_folder(name), model_folder(name)
    pseudo = quality_folder(name) if learnt_pseudo_labels else None
    empty: dict[str, Any] = {"keep_default_na": False, "na_values": {"miou": [""]}}  # an id may be "NA"
    images = pd.read_csv(evaluated / "images.csv", dtype={"id": str}, **empty)
    return Measured(
        name=name,
        teacher=teacher,
        loss=loss,
        evaluated=evaluated,
        metrics=read_json(evaluated / "metrics.json"),
        image_mious=images.set_index("id")["miou"],
        training=read_json(model / "model.json")["training"],
        curve=pd.read_csv(model / "curve.csv"),
        bn=pd.read_csv(model / "bn.csv") if (model / "bn.csv").exists() else None,
        pseudo=pseudo,
        quality=read_json(pseudo / "quality.json") if pseudo else {},
    )


def percent(share: float | None) -> float | None:
    """Return a share as a percentage with two decimals; None stays None."""
    return None if share is None else round(100 * share, 2)
