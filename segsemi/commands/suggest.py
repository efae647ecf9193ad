"""Choose the unlabelled images to label next, from the files of a finished pipeline. `python -m segsemi suggest`.

A label helps if the network is unsure of an image, or changed its pseudo label between rounds. Among the images with the
highest scores, greedy k-center selection (Sener & Savarese 2018) prefers those that look unlike the labelled ones.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segsemi.commands.predict import laid_over
from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.core.paths import CLASSES, CORRECTED, LABELLED, SPLIT, UNLABELLED, data_root, pseudo_folder
from segsemi.core.pictures import marked, save_png
from segsemi.core.progress import progress_bar
from segsemi.data.images import LabelledPairs, read_image, read_label
from segsemi.data.manifest import Row, read_rows
from segsemi.datasets.corrections import export_labels
from segsemi.reporting.page import render

CANDIDATES = 4  # the images with the highest scores, this many times the number asked for, are compared
CELLS = 2  # cells across and down an image, each described by its classes and colours


def run(args: argparse.Namespace) -> int:
    """Write OUT/suggestions.csv, OUT/index.html and OUT/to_correct/ from the files of the last round; return the exit code.

    Raises:
        UserError: there are no rounds, or pseudo labels or images are missing.
    """
    params, count = load_params(), args.count
    if count < 1:
        raise UserError(f"--count {count}: ask for one image or more")
    if not params.rounds:
        raise UserError("params.yaml has no rounds, so there are no pseudo labels; add a round and run `dvc repro`")
    student, teacher = list(params.rounds.items())[-1]
    pseudo, earlier = pseudo_folder(student), pseudo_folder(teacher) if teacher in params.rounds else None
    classes, root = Classes.load(CLASSES), data_root(params.data)
    known = [describe(*pair, classes) for pair in LabelledPairs(read_rows(LABELLED), root, classes)]
    for row in read_rows(CORRECTED):
        label = read_label(SPLIT / row.label, classes.as_written())
        known.append(describe(read_image(root / row.image, classes.value_range), label, classes))
    found = suggest(read_rows(UNLABELLED), known, root, pseudo, earlier, classes, count)
    write_suggestions(found, root, pseudo, earlier, classes, args.out)
    write_exchange(found, root, pseudo, classes, student, args.out / "to_correct")
    print("\n".join(found["id"][:20]))
    print(
        f"{args.out / 'suggestions.csv'}, {args.out / 'index.html'}: {len(found)} images; {args.out / 'to_correct'}: the "
        f"same for CVAT and Label Studio. Put a corrected {pseudo}/ID.png into {params.split.corrected}/, by hand or "
        "by `python -m segsemi labels`, and the image counts as labelled"
    )
    return 0


def suggest(
    rows: Sequence[Row],
    labelled: Sequence[np.ndarray],
    root: Path,
    pseudo: Path,
    earlier: Path | None,
    classes: Classes,
    count: int,
) -> pd.DataFrame:
    """Return `count` unlabelled images whose labels would help most: of the highest scores, those that look least alike.

    Args:
        rows: the unlabelled images; their paths start at `root`.
        labelled: the output of `describe` for each labelled image.
        pseudo: the folder of the latest pseudo labels, ID.png and summary.csv.
        earlier: the folder of the round before; None if there is none.

    Returns:
        Columns id, image, confidence (mean probability of the chosen class), disagreement (share of the pixels on which the
        last two rounds differ; empty after a single round) and score (mean of the ranks by both, the surest image 0, to 1).

    Raises:
        UserError: pseudo labels or images are missing.
    """
    try:
        summary = pd.read_csv(pseudo / "summary.csv", dtype={"id": str}, na_filter=False).set_index("id")
    except FileNotFoundError:
        raise UserError(f"{pseudo / 'summary.csv'} not found: run `dvc repro` or `dvc pull`") from None
    missing = [row.id for row in rows if row.id not in summary.index]
    if missing or not rows:
        what = f"has no pseudo label of {missing[0]}" if missing else "there is no unlabelled image"
        raise UserError(f"{pseudo / 'summary.csv'}: {what}; run `dvc repro`")
    written = classes.as_written()
    table = pd.DataFrame({"id": [row.id for row in rows], "image": [row.image for row in rows]})
    table = table.join(summary["confidence"], on="id").assign(disagreement=np.nan)
    if earlier is not None:
        table["disagreement"] = [
            np.mean(read_label(pseudo / f"{name}.png", written) != read_label(earlier / f"{name}.png", written))
            for name in progress_bar(table["id"], desc="compare rounds", unit="image")
        ]
    ranks = pd.DataFrame({"doubt": -table["confidence"], "change": table["disagreement"]}).rank()
    table["score"] = ((ranks - 1) / max(len(table) - 1, 1)).mean(axis=1)
    best = table.sort_values(["score", "id"], ascending=[False, True])[: CANDIDATES * count]
    features = [
        describe(read_image(root / image, classes.value_range), read_label(pseudo / f"{name}.png", written), classes)
        for name, image in zip(best["id"], best["image"], strict=True)
    ]
    return best.iloc[spread_out(np.array(features), np.array(labelled), count)]


def describe(image: np.ndarray, label: np.ndarray, classes: Classes) -> np.ndarray:
    """Describe an image, (H, W, 3) uint8: in each of 2x2 cells the share of every class and the mean colour.

    Returns:
        (cells * (num_classes + 3),) float64, each value 0..1.
    """
    parts = []
    for pair in zip(np.array_split(label, CELLS), np.array_split(image, CELLS), strict=True):
        for ids, colours in zip(*(np.array_split(half, CELLS, axis=1) for half in pair), strict=True):
            counts = np.bincount(ids.ravel(), minlength=256)[: len(classes)]
            parts += [counts / ids.size, colours.mean(axis=(0, 1)) / 255]
    return np.concatenate(parts)


def spread_out(features: np.ndarray, taken: np.ndarray, count: int) -> list[int]:
    """Choose `count` rows of `features`, (N, D), each in turn the farthest from those chosen and those `taken`, (M, D).

    If none is taken, the first row is chosen first. Of equally far rows, the first is chosen.
    """
    far = np.full(len(features), np.inf)
    for other in taken:
        far = np.minimum(far, np.linalg.norm(features - other, axis=1))
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.linalg.norm(features - features[chosen[-1]], axis=1))
        far[chosen] = -1.0
    return chosen


def write_suggestions(
    found: pd.DataFrame, root: Path, pseudo: Path, earlier: Path | None, classes: Classes, out: Path
) -> None:
    """Write out/suggestions.csv and out/index.html, one self-contained page of pictures."""
    write_text(out / "suggestions.csv", found.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    # one by one, for a picture may be large
    items = ({**item, "panels": _panels(item, root, pseudo, earlier, classes)} for item in found.to_dict("records"))
    colours = dict(zip(classes.names, classes.colours, strict=True))
    page = render("suggestions.html", items=items, two_rounds=earlier is not None, colours=colours)
    write_text(out / "index.html", page)


def write_exchange(found: pd.DataFrame, root: Path, pseudo: Path, classes: Classes, student: str, out: Path) -> None:
    """Write out/images/ID.png, 8-bit and upright as the labels are, and the imports of `export_labels` beside them."""
    shutil.rmtree(out / "images", ignore_errors=True)  # those of earlier suggestions
    for id_, image in zip(found["id"], found["image"], strict=True):
        save_png(out / "images" / f"{id_}.png", read_image(root / image, classes.value_range))
    labels = {id_: read_label(pseudo / f"{id_}.png", classes.as_written()) for id_ in found["id"]}
    export_labels(labels, classes, student, out)


def _panels(
    item: dict, root: Path, pseudo: Path, earlier: Path | None, classes: Classes
) -> list[tuple[str, np.ndarray]]:
    """Return an image, its pseudo label, and what changed since the round before, with captions."""
    name, written = f"{item['id']}.png", classes.as_written()
    image, label = read_image(root / item["image"], classes.value_range), read_label(pseudo / name, written)
    panels = [("image", image), ("pseudo label", laid_over(image, label, classes))]
    if earlier is not None:
        panels.append(("changed", marked(image, label != read_label(earlier / name, written))))
    return panels
