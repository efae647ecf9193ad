"""Hard pseudo labels for the clean unlabelled images, from scales and flips (paper, section 3.1; algorithm 1, line 2)."""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import PseudoLabelParams
from segsemi.core.files import write_csv, write_json
from segsemi.core.pictures import save_png
from segsemi.core.progress import progress_bar
from segsemi.data.images import Images
from segsemi.data.loaders import load_items
from segsemi.data.manifest import Row
from segsemi.inference import predict_label
from segsemi.models.build import SegmentationModel
from segsemi.runtime.distributed import Runtime


def write_pseudo_labels(
    model: SegmentationModel,
    rows: Sequence[Row],
    root: Path,
    out: Path,
    settings: PseudoLabelParams,
    *,
    work: Path,
    runtime: Runtime,
) -> None:
    """Write out/ID.png, 8-bit palette PNGs of the most probable class at the image's own size, and out/summary.csv.

    Also out/confidence/ID.png: the probability of that class in 8 bits, 255 for 1.
    The files are made in `work`, where those of an interrupted run are found again, and copied to `out` at the end.

    Args:
        model: in eval mode, on runtime.device.
        rows: unlabelled images, perhaps none; their paths start at `root`. Each process labels its share, and the first one
            copies the files of all.
        out: the folder of the student that learns from them.

    Raises:
        UserError: an image is missing or broken.
    """
    own = runtime.share_of(rows)
    todo = [row for row in own if not (work / f"{row.id}.json").exists()]
    name, done = f"pseudo labels for {out.name}", len(own) - len(todo)
    bar = progress_bar(todo, desc=name, unit="image", total=len(own), initial=done, silent=not runtime.first)
    images = load_items(Images(todo, root, model.classes.value_range), range(len(todo)), runtime)
    with ThreadPoolExecutor(max_workers=1) as writer:  # compresses one PNG while the network computes the next
        written: Future[None] | None = None
        for row, image in zip(bar, images, strict=True):
            with runtime.autocast():
                ids, confidence = predict_label(model, image, settings.scales, settings.flip)
            if written is not None:
                written.result()
            written = writer.submit(_write, work, row.id, ids, confidence, model.classes)
        if written is not None:
            written.result()
    runtime.wait()
    if not runtime.first:
        return
    (out / "confidence").mkdir(parents=True, exist_ok=True)
    for row in rows:
        for name in (f"{row.id}.png", f"confidence/{row.id}.png"):
            shutil.copyfile(work / name, out / name)
    lines = (json.loads((work / f"{row.id}.json").read_text()) for row in rows)
    write_csv(out / "summary.csv", ["id", "confidence", *_columns(model.classes)], lines)


def _write(work: Path, name: str, ids: np.ndarray, confidence: np.ndarray, classes: Classes) -> None:
    """Write the files of one image, and its line of the summary: mean confidence, and each class's share of the pixels."""
    write_label_png(work / f"{name}.png", ids, classes)
    save_png(work / "confidence" / f"{name}.png", (255 * confidence).round().astype(np.uint8))
    shares = np.bincount(ids.ravel(), minlength=len(classes)) / ids.size
    numbers = {"confidence": confidence.mean(), **dict(zip(_columns(classes), shares, strict=True))}
    line = {"id": name} | {key: f"{number:.4f}" for key, number in numbers.items()}
    write_json(work / f"{name}.json", line)  # last: marks it done


def _columns(classes: Classes) -> list[str]:
    """Return the column of each class: its name, unless another column has that name."""
    return [f"class {name}" if name in ("id", "confidence") else name for name in classes.names]
