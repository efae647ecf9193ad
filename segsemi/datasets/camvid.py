"""CamVid (Brostow et al. 2009) in the 11-class version distributed with SegNet; the embedded data set has its layout."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import IMAGE_ENDINGS, LABEL_ENDINGS
from segsemi.data.manifest import Row
from segsemi.datasets.entries import DataSet, id_of, stems

CAMVID = Classes(
    names=(
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    ),
    colours=(
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ),
    ignore_ids=(11, 255),
)  # colours as published with it


def find_camvid(root: Path, classes: Classes = CAMVID) -> DataSet:
    """Return the images of SUBSET/ with the labels of equal stem in SUBSETannot/; the subset test may be missing.

    The id is the file's stem, with the subset before it if a stem occurs in several subsets.
    """
    rows: list[Row] = []
    for subset in ("train", "val", *(("test",) if (root / "test").is_dir() else ())):
        images, labels = stems(root, subset, IMAGE_ENDINGS), stems(root, f"{subset}annot", LABEL_ENDINGS)
        for stem in sorted(images.keys() | labels.keys()):
            if stem not in labels:
                raise UserError(f"image {root / images[stem]} has no label {subset}annot/{stem}.png; add or remove it")
            if stem not in images:
                raise UserError(f"label {root / labels[stem]} has no image {subset}/{stem}.(png|jpg); add or remove it")
            rows.append(Row(id_of(stem), subset, images[stem], labels[stem]))
    if max(Counter(row.id for row in rows).values()) > 1:
        rows = [replace(row, id=f"{row.subset}_{row.id}") for row in rows]
    return DataSet(classes, rows)
