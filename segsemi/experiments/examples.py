"""What the rows of a grid make of the same images, from the dvc experiments that are done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.paths import CLASSES, PREPARED, data_root, evaluated_folder, evaluation_list
from segsemi.core.pictures import BAR, GAP, captioned, grid, save_png
from segsemi.data.manifest import read_rows
from segsemi.experiments.earlier import beside
from segsemi.experiments.grid import Cell, Grid
from segsemi.reporting.comparison import comparisons, with_predictions

MOST = 6  # images; the picture is kept in git


def write_examples(
    declared: Grid,
    cells: Sequence[Cell],
    keys: Sequence[str],
    finished: dict[str, str],
    path: Path,
    *,
    keep: bool = False,
) -> None:
    """Draw the rows `declared.examples`, of the first seed and column that have them all, to `path`_examples.png: image,
    truth, each row's prediction, and what changed from the first of these rows to the last, under the colours of
    the classes. What was there goes, so that no table shows the pictures of other runs, unless `keep`: the table has results
    of earlier ones.

    Args:
        cells, keys: the key of each cell's run.
        finished: key -> git revision of the experiments.

    Raises:
        UserError: dvc's cache lacks what an experiment wrote, a file of the data set cannot be read, or the rows have
            different data.
    """
    target = beside(path, "_examples.png")
    if not keep:
        target.unlink(missing_ok=True)
    done = {
        (cell.seed, cell.column, cell.row): (cell, finished[key])
        for cell, key in zip(cells, keys, strict=True)
        if key in finished
    }
    for seed in dict.fromkeys(cell.seed for cell in cells):
        for column in declared.columns:
            wanted = {row: done.get((seed, column, row)) for row in declared.examples}
            shown = {row: found for row, found in wanted.items() if found is not None}
            if not shown or len(shown) < len(wanted):
                continue
            pictures, classes = _compared(shown)
            if pictures:
                whole = grid(pictures, columns=1)
                whole = np.concatenate([legend(classes, whole.shape[1]), whole])
                save_png(target, captioned(whole, f"{column}, seed {seed}"), palette=True)
                return


def legend(classes: Classes, width: int) -> np.ndarray:
    """The colour and the name of each class, in lines of BAR pixels: (H, width, 3) uint8."""
    font = ImageFont.load_default(11)
    places, x, y = [], 2, 0
    for name in classes.names:
        length = BAR + math.ceil(font.getlength(name)) + 10
        if x > 2 and x + length > width:
            x, y = 2, y + BAR
        places.append((x, y))
        x += length
    picture = Image.new("RGB", (width, y + BAR + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for name, colour, (x, y) in zip(classes.names, classes.colours, places, strict=True):
        draw.rectangle((x, y + 3, x + 10, y + 13), fill=colour)
        draw.text((x + BAR, y + 2), name, fill="black", font=font)
    return np.asarray(picture)


def _compared(shown: dict[str, tuple[Cell, str]]) -> tuple[list[np.ndarray], Classes]:
    """Pictures of at most MOST of the images of which all have an example. `shown`: row -> its cell and git revision."""
    first, *others = (cell.params for cell, _ in shown.values())
    if any((other.data, other.evaluate.subset) != (first.data, first.evaluate.subset) for other in others):
        raise UserError(f"the rows {', '.join(shown)} have different data; name others under examples")
    listed, root = evaluation_list(first.evaluate.subset), data_root(first.data)
    with TemporaryDirectory() as name:
        folder, predicted = Path(name), {}
        for number, (row, (cell, revision)) in enumerate(shown.items()):
            predicted[row] = folder / str(number)
            if cell.params.evaluate.examples:
                _fetch(revision, {evaluated_folder(cell.model) / "predictions": predicted[row]})
        revision = next(iter(shown.values()))[1]
        _fetch(revision, {path: folder / path for path in (CLASSES, listed)})
        rows = with_predictions(read_rows(folder / listed), predicted)
        rows = rows[:: max(1, -(-len(rows) // MOST))]
        if root == PREPARED:  # the embedded data set, which each run has made
            _fetch(revision, {root / file: folder / root / file for row in rows for file in (row.image, row.label)})
            root = folder / root
        before, after = next(iter(shown)), next(reversed(shown))
        classes = Classes.load(folder / CLASSES)
        drawn = comparisons(rows, root, predicted, classes, before=before, after=after)
        return [picture for _, picture in drawn], classes


def _fetch(revision: str, wanted: dict[Path, Path]) -> None:
    """Copy files, or folders with their files, out of an experiment: from -> to.

    Raises:
        UserError: one is not there.
    """
    from dvc.api import DVCFileSystem  # slow to import
    from dvc_data.index import DataIndexDirError

    with closing(DVCFileSystem(".", rev=revision)) as experiment:
        for path, to in wanted.items():
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                experiment.get(path.as_posix(), str(to), recursive=experiment.isdir(path.as_posix()))
            except (FileNotFoundError, DataIndexDirError):
                raise UserError(
                    f"{path} of the experiment of commit {revision[:10]} is not in dvc's cache: copy .dvc/cache/files of the "
                    "clone that ran it, or remove the experiment (dvc exp list --sha names it) and run it again"
                ) from None
