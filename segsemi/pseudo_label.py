"""Hard pseudo labels for the clean unlabelled images, from scales and flips (paper, section 3.1; algorithm 1, line 2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from segsemi.data.images import read_image
from segsemi.data.manifest import Row
from segsemi.files import write_csv, write_json
from segsemi.inference import predict_image
from segsemi.models.build import SegmentationModel
from segsemi.palette import Classes, write_label_png
from segsemi.progress import progress_bar


def write_pseudo_labels(
    model: SegmentationModel,
    rows: Sequence[Row],
    root: Path,
    out: Path,
    *,
    scales: Sequence[float],
    flip: bool,
    work: Path,
    progress: str,
) -> None:
    """Write out/ID.png, 8-bit palette PNGs of the most probable class at the image's own size, and out/summary.csv.

    The files are made in `work`, where those of an interrupted run are found again, and copied to `out` at the end.

    Args:
        rows: unlabelled images, perhaps none; their paths start at `root`.
        progress: the name of the progress bar.

    Raises:
        UserError: an image is missing or broken.
    """
    for row in progress_bar(rows, desc=progress, unit="image"):
        png, note = work / f"{row.id}.png", work / f"{row.id}.json"
        if note.exists():  # written last
            continue
        probabilities = predict_image(model, read_image(root / row.image), scales, flip)
        confidence, label = probabilities.max(dim=0)
        ids = label.to(torch.uint8).cpu().numpy()
        write_label_png(png, ids, model.classes)
        shares = np.bincount(ids.ravel(), minlength=len(model.classes)) / ids.size
        write_json(note, {"confidence": float(confidence.mean()), "shares": shares.tolist()})
    out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copyfile(work / f"{row.id}.png", out / f"{row.id}.png")
    write_csv(out / "summary.csv", ["id", "confidence", *model.classes.names], _summary(rows, work, model.classes))


def _summary(rows: Sequence[Row], work: Path, classes: Classes) -> Iterator[dict[str, str]]:
    """One line an image: the mean probability of the chosen class, and each class's share of the pixels."""
    for row in rows:
        note = json.loads((work / f"{row.id}.json").read_text())
        shares = {name: f"{share:.4f}" for name, share in zip(classes.names, note["shares"], strict=True)}
        yield {"id": row.id, "confidence": f"{note['confidence']:.4f}", **shares}
