"""Data sets: a reader for each known layout, checks, splits, conversion of annotations, and the embedded scenes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from segsemi.core.files import require_usable
from segsemi.data.manifest import Row
from segsemi.datasets import scenes
from segsemi.datasets.camvid import find_camvid
from segsemi.datasets.cityscapes import find_cityscapes
from segsemi.datasets.entries import DataSet, check_entries
from segsemi.datasets.folder import find_folder
from segsemi.datasets.voc import find_voc

__all__ = ["DataSet", "Row", "check_entries", "find_dataset"]
READERS: dict[str, Callable[[Path], DataSet]] = {
    "synthetic": partial(find_camvid, classes=scenes.CLASSES),
    "camvid": find_camvid,
    "cityscapes": find_cityscapes,
    "voc": find_voc,
}


def find_dataset(name: str, root: Path, *, val_fraction: float, seed: int) -> DataSet:
    """Return the classes and images of the data set `name` (data.name in params.yaml) at `root`.

    Args:
        val_fraction, seed: choose the validation images of a `folder` without lists.

    Raises:
        UserError: a folder, list, image, label or classes.json is missing, wrong or superfluous; names it and the remedy.
    """
    require_usable(root)
    if name == "folder":
        return find_folder(root, val_fraction=val_fraction, seed=seed)
    return READERS[name](root)
