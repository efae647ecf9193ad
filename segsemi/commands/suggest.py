"""Which unlabelled images to label next, from what the pipeline has written already. `python -m segsemi suggest`.

An image is worth a label where the network is unsure or contradicts itself, and where it looks like none that is labelled:
greedy k-center selection (Sener & Savarese 2018) among the images with the highest scores.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from segsemi.commands.predict import laid_over
from segsemi.core.classes import Classes, colourise
from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.core.pictures import captioned, grid, marked, shrunk
from segsemi.core.progress import progress_bar
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.reporting.page import render

CANDIDATES = 4  # times as many images as asked for, those of the highest scores, are looked at for their variety
CELLS = 2  # an image is described by the classes and colours in so many cells across and down
PICTURE_WIDTH = 320

_PAGE = """<h1>Label these next</h1>
<p>Each image, its pseudo label{{ ", and where the last two rounds differ, in red" if rounds else "" }}.
{% for name, colour in colours %}<span class="swatch" style="background: rgb{{ colour }}"></span>{{ name }}{% endfor %}</p>
{% for item in items %}<h2>{{ loop.index }}. {{ item.id }}</h2>
<p>{{ item.image }}: mean confidence {{ "%.3f" | format(item.confidence) }}{% if rounds
%}, {{ "%.1f" | format(100 * item.disagreement) }} % of the pixels changed their class from one round to the next{% endif %}</p>
<img alt="{{ item.id }}" src="data:image/png;base64,{{ item.picture }}">
{% endfor %}"""


@dataclass(frozen=True)
class Suggestion:
    """One image to label.

    Attributes:
        confidence: the mean probability of the chosen class, 0..1.
        disagreement: the share of pixels on which the last two rounds differ; None after a single round.
        score: the mean of its ranks by both, 0 (the surest image) to 1.
    """

    row: Row
    confidence: float
    disagreement: float | None
    score: float


def suggest(
    rows: Sequence[Row],
    labelled: Sequence[np.ndarray],
    root: Path,
    pseudo: Path,
    earlier: Path | None,
    classes: Classes,
    count: int,
) -> list[Suggestion]:
    """`count` unlabelled images whose labels would help most: of the highest scores, those that look least alike.

    Args:
        rows: the unlabelled images; their paths start at `root`.
        labelled: what `describe` says of each labelled image.
        pseudo: the folder of the latest pseudo labels, ID.png and summary.csv.
        earlier: that of the round before; None if there is none.

    Raises:
        UserError: pseudo labels or images are missing.
    """
    confidence = _confidence(pseudo)
    missing = [row.id for row in rows if row.id not in confidence.index]
    if missing or not rows:
        what = f"has no pseudo label of {missing[0]}" if missing else "there is no unlabelled image"
        raise UserError(f"{pseudo / 'summary.csv'}: {what}; run `dvc repro`")
    written = classes.as_written()
    sure = confidence[[row.id for row in rows]]
    disagreement = None
    if earlier is not None:
        names = progress_bar([row.id for row in rows], desc="compare rounds", unit="image")
        disagreement = pd.Series({name: _disagreement(pseudo, earlier, name, written) for name in names})
    ranks = [_ranks(-sure)] + ([] if disagreement is None else [_ranks(disagreement)])
    score = pd.concat(ranks, axis=1).mean(axis=1)
    best = sorted(rows, key=lambda row: (-score[row.id], row.id))[: CANDIDATES * count]
    features = [
        describe(read_image(root / row.image), read_label(pseudo / f"{row.id}.png", written), classes) for row in best
    ]
    return [
        Suggestion(
            best[index],
            float(sure[best[index].id]),
            None if disagreement is None else float(disagreement[best[index].id]),
            float(score[best[index].id]),
        )
        for index in spread_out(np.array(features), np.array(labelled), count)
    ]


def _confidence(pseudo: Path) -> pd.Series:
    try:
        return pd.read_csv(pseudo / "summary.csv", dtype={"id": str}, na_filter=False).set_index("id")["confidence"]
    except FileNotFoundError:
        raise UserError(f"{pseudo / 'summary.csv'} not found: run `dvc repro` or `dvc pull`") from None


def _disagreement(pseudo: Path, earlier: Path, name: str, classes: Classes) -> float:
    first, second = (read_label(folder / f"{name}.png", classes) for folder in (pseudo, earlier))
    return float((first != second).mean())


def _ranks(values: pd.Series) -> pd.Series:
    """0 for the lowest value, 1 for the highest; equal ones share their mean rank."""
    return (values.rank() - 1) / max(len(values) - 1, 1)


def describe(image: np.ndarray, label: np.ndarray, classes: Classes) -> np.ndarray:
    """What an image, (H, W, 3) uint8, looks like: in each of 2x2 cells the share of every class and the mean colour.

    Returns:
        (cells * (num_classes + 3),) float64, each value 0..1.
    """
    parts = []
    for rows in np.array_split(np.arange(label.shape[0]), CELLS):
        for columns in np.array_split(np.arange(label.shape[1]), CELLS):
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            counts = np.bincount(label[window].ravel(), minlength=256)[: len(classes)]
            parts += [counts / label[window].size, image[window].mean(axis=(0, 1)) / 255]
    return np.concatenate(parts)


def spread_out(features: np.ndarray, taken: np.ndarray, count: int) -> list[int]:
    """Choose `count` rows of `features`, (N, D), each in turn the farthest from those chosen and those `taken`, (M, D).

    Without any taken the first row begins; of equally far ones the first is chosen.
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
    found: Sequence[Suggestion], root: Path, pseudo: Path, earlier: Path | None, classes: Classes, out: Path
) -> None:
    """Write out/suggestions.csv and out/index.html, one self-contained page of pictures."""
    table = pd.DataFrame(
        {
            "id": [item.row.id for item in found],
            "image": [item.row.image for item in found],
            "confidence": [item.confidence for item in found],
            "disagreement": [item.disagreement for item in found],
            "score": [item.score for item in found],
        }
    )
    write_text(out / "suggestions.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    items = [
        {**record, "picture": _picture(item.row, root, pseudo, earlier, classes)}
        for record, item in zip(table.to_dict("records"), found, strict=True)
    ]
    page = render(
        "segsemi: label these next",
        _PAGE,
        items=items,
        rounds=earlier is not None,
        colours=list(zip(classes.names, classes.colours, strict=True)),
    )
    write_text(out / "index.html", page)


def _picture(row: Row, root: Path, pseudo: Path, earlier: Path | None, classes: Classes) -> str:
    """The panel of one image as base64 of a PNG."""
    image, label = read_image(root / row.image), read_label(pseudo / f"{row.id}.png", classes.as_written())
    panel = [(image, "image"), (laid_over(image, colourise(label, classes)), "pseudo label")]
    if earlier is not None:
        before = read_label(earlier / f"{row.id}.png", classes.as_written())
        panel.append((marked(image, label != before), "changed"))
    shown = [captioned(shrunk(picture, PICTURE_WIDTH), caption) for picture, caption in panel]
    buffer = io.BytesIO()
    Image.fromarray(grid(shown, columns=len(shown))).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
