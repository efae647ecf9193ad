"""What the rows of a grid make of the same images, side by side (paper, Figure 7), from the dvc experiments that are done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from dvc.api import DVCFileSystem

from segsemi.contract import CLASSES, PREPARED, data_root, evaluated_folder, evaluation_list
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import read_rows
from segsemi.errors import UserError
from segsemi.grid import Cell, Grid
from segsemi.palette import Classes
from segsemi.pictures import captioned, comparison, grid, save_png

WIDTH = 1280  # pixels


def write_examples(
    declared: Grid, cells: Sequence[Cell], keys: Sequence[str], finished: dict[str, str], path: Path
) -> None:
    """Draw the rows `declared.examples`, of the first seed and column that have them all, to `path`_examples.png: image,
    truth, each row's prediction, and what changed from the first of these rows to the last. Nothing, if none has them.

    Args:
        cells, keys: the key of each cell's run.
        finished: key -> git revision of the experiments.

    Raises:
        UserError: dvc's cache lacks what an experiment wrote, or the data set is not where it was.
    """
    for column, seed in dict.fromkeys((cell.column, cell.seed) for cell in cells):
        shown = {
            cell.row: (cell, finished[key])
            for cell, key in zip(cells, keys, strict=True)
            if (cell.column, cell.seed) == (column, seed) and cell.row in declared.examples and key in finished
        }
        if shown and shown.keys() == set(declared.examples):
            with TemporaryDirectory() as folder:
                pictures = _compared({row: shown[row] for row in declared.examples}, Path(folder))
            if pictures:
                whole = captioned(grid(pictures, columns=1), f"{column}, seed {seed}")
                save_png(path.with_name(f"{path.name}_examples.png"), whole, palette=True)
            return


def _compared(shown: dict[str, tuple[Cell, str]], folder: Path) -> list[np.ndarray]:
    """One picture for each example image that all have. Files of the experiments are fetched into `folder`."""
    cell, revision = next(iter(shown.values()))
    listed = evaluation_list(cell.params.evaluate.subset)
    experiment, fetched = DVCFileSystem(".", rev=revision), folder / "first"
    for path in (CLASSES, listed):
        _fetch(experiment, path, fetched / path)
    classes = Classes.load(fetched / CLASSES)
    predictions = {}
    for name, (other, its_revision) in shown.items():
        predictions[name] = folder / "predictions" / name.replace("/", "_")
        if other.params.evaluate.examples:
            written = evaluated_folder(other.model) / "predictions"
            _fetch(DVCFileSystem(".", rev=its_revision), written, predictions[name])
    root = data_root(cell.params.data)
    pictures = []
    for row in read_rows(fetched / listed):
        paths = {name: place / f"{row.id}.png" for name, place in predictions.items()}
        if not all(path.exists() for path in paths.values()):
            continue  # not one of the examples
        if root == PREPARED:  # the embedded data set, which each run has made
            for file in (root / row.image, root / row.label):
                _fetch(experiment, file, fetched / file)
        here = fetched / root if root == PREPARED else root
        labels = {name: read_label(path, classes.as_written()) for name, path in paths.items()}
        pictures.append(
            comparison(
                read_image(here / row.image),
                row.id,
                read_label(here / row.label, classes),
                labels,
                classes,
                before=next(iter(labels)),
                after=next(reversed(labels)),
                width=WIDTH,
            )
        )
    return pictures


def _fetch(experiment: DVCFileSystem, path: Path, to: Path) -> None:
    """Copy a file, or a folder with its files, out of an experiment.

    Raises:
        UserError: it is not there.
    """
    with suppress(OSError):
        if experiment.exists(path.as_posix()):
            to.parent.mkdir(parents=True, exist_ok=True)
            experiment.get(path.as_posix(), str(to), recursive=experiment.isdir(path.as_posix()))
            return
    raise UserError(
        f"{path} of an experiment is not in dvc's cache, as where it was run in another clone: fetch that one's cache too "
        "(`dvc cache dir` names its folder)"
    )
