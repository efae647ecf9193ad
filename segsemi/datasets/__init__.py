"""The data sets whose layouts are known: each in one file, found by name."""

from __future__ import annotations

from pathlib import Path

from segsemi.datasets.camvid import find_camvid, find_synthetic
from segsemi.datasets.check import check_entries
from segsemi.datasets.cityscapes import find_cityscapes
from segsemi.datasets.entry import DataSet, Entry
from segsemi.datasets.folder import find_folder
from segsemi.datasets.voc import find_voc

__all__ = ["DataSet", "Entry", "check_entries", "find_dataset"]


def find_dataset(name: str, root: Path, *, val_fraction: float, seed: int) -> DataSet:
    """The classes and images of the data set `name` (data.name in params.yaml) at `root`.

    Args:
        val_fraction, seed: choose the validation images of a `folder` that does not say which they are.

    Raises:
        UserError: the layout is not as expected; names the file or folder.
    """
    if name == "folder":
        return find_folder(root, val_fraction=val_fraction, seed=seed)
    readers = {"synthetic": find_synthetic, "camvid": find_camvid, "cityscapes": find_cityscapes, "voc": find_voc}
    return readers[name](root)
