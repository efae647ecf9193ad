"""Hard pseudo labels for the clean unlabelled images, from scales and flips (paper, section 3.1; algorithm 1, line 2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.files import write_csv, write_json
from segsemi.core.progress import progress_bar
from segsemi.data.images import read_image
from segsemi.data.manifest import Row
from segsemi.inference import images_at_once, predict_image, side_by_side
from segsemi.models.build import SegmentationModel
from segsemi.runtime.background import behind, file_readers, mapped_ahead
from segsemi.runtime.device import autocast
from segsemi.runtime.distributed import Processes


def write_pseudo_labels(
    model: SegmentationModel,
    rows: Sequence[Row],
    root: Path,
    out: Path,
    *,
    scales: Sequence[float],
    flip: bool,
    work: Path,
    processes: Processes,
    precision: str = "fp32",
    progress: str,
) -> None:
    """Write out/ID.png, 8-bit palette PNGs of the most probable class at the image's own size, and out/summary.csv.

    The files are made in `work`, where those of an interrupted run are found again, and copied to `out` at the end.

    Args:
        model: in eval mode, on processes.device.
        rows: unlabelled images, perhaps none; their paths start at `root`. Of several processes each labels its share, and
            the first one copies the files of all.
        precision: as `segsemi.runtime.device.autocast` takes it.
        progress: the name of the progress bar.

    Raises:
        UserError: an image is missing or broken.
    """
    todo = [row for row in processes.share_of(rows) if not (work / f"{row.id}.json").exists()]
    done = len(processes.share_of(rows)) - len(todo)

    def labelled(image: np.ndarray) -> tuple[np.ndarray, float]:
        with autocast(processes.device, precision):
            confidence, label = predict_image(model, image, scales, flip).max(dim=0)
        return label.to(torch.uint8).cpu().numpy(), float(confidence.mean())

    def at_once(image: np.ndarray) -> int:
        return images_at_once(model, image, scales, flip)

    # files are read and written while the network computes
    with (
        file_readers() as readers,
        ThreadPoolExecutor(max_workers=1) as writer,
        behind(writer) as later,
        progress_bar(
            desc=progress, unit="image", total=done + len(todo), initial=done, silent=not processes.first
        ) as bar,
    ):
        images = mapped_ahead(readers, lambda row: read_image(root / row.image), todo)
        for row, (ids, confidence) in zip(todo, side_by_side(labelled, images, at_once), strict=True):
            later(_write, work, row.id, ids, confidence, model.classes)
            bar.update()
    processes.wait()
    if not processes.first:
        return
    out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copyfile(work / f"{row.id}.png", out / f"{row.id}.png")
    classes = _columns(model.classes)
    write_csv(out / "summary.csv", ["id", "confidence", *classes], _summary(rows, work, classes))


def _write(work: Path, name: str, ids: np.ndarray, confidence: float, classes: Classes) -> None:
    write_label_png(work / f"{name}.png", ids, classes)
    shares = np.bincount(ids.ravel(), minlength=len(classes)) / ids.size
    write_json(work / f"{name}.json", {"confidence": confidence, "shares": shares.tolist()})  # last: marks it done


def _columns(classes: Classes) -> list[str]:
    """Those of the classes' shares: their names, but where the other columns are named so."""
    return [f"class {name}" if name in ("id", "confidence") else name for name in classes.names]


def _summary(rows: Sequence[Row], work: Path, classes: Sequence[str]) -> Iterator[dict[str, str]]:
    """One line an image: the mean probability of the chosen class, and each class's share of the pixels, by its column."""
    for row in rows:
        note = json.loads((work / f"{row.id}.json").read_text())
        shares = {name: f"{share:.4f}" for name, share in zip(classes, note["shares"], strict=True)}
        yield {"id": row.id, "confidence": f"{note['confidence']:.4f}", **shares}
