"""Cityscapes (Cordts et al. 2016) in its official layout: leftImg8bit/, gtFine/, gtCoarse/."""

from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.manifest import Row
from segsemi.datasets.entries import DataSet, stems

# name, id in labelIds files, colour: the 19 evaluated classes, in the order of their train ids, as published.
_TABLE = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
NAMES, LABEL_IDS, COLOURS = zip(*_TABLE, strict=True)
# 34 classes are annotated; 255 is the licence plate's -1 in 8 bits.
CITYSCAPES = Classes(NAMES, COLOURS, (*(i for i in range(34) if i not in LABEL_IDS), 255), file_ids=LABEL_IDS)
CITYSCAPES_TRAIN_IDS = Classes(NAMES, COLOURS)

IMAGE, LABEL, TRAIN_LABEL, EXTRA = "_leftImg8bit", "labelIds", "labelTrainIds", "train_extra"


def find_cityscapes(root: Path) -> DataSet:
    """Return train and val with fine labels, and train_extra, if there, as extra with the coarse labels that there are.

    The ids of labelIds files are mapped to train ids; labelTrainIds files are used instead unless fewer images have one.
    The test images are left out: their labels are not public.
    """
    extra = (EXTRA,) if (root / "leftImg8bit" / EXTRA).is_dir() else ()
    images = [
        (f"{subset}/{stem.removesuffix(IMAGE)}", image)
        for subset in ("train", "val", *extra)
        for stem, image in stems(root, f"leftImg8bit/{subset}", (".png",)).items()
        if stem.endswith(IMAGE)
    ]
    if not (root / "gtFine").is_dir():
        raise UserError(f"folder {root / 'gtFine'} not found; unpack gtFine_trainvaltest.zip beside leftImg8bit/")
    fine = [item for item in images if not item[0].startswith(EXTRA)]
    missing = {
        kind: [(name, image) for name, image in fine if not (root / _label(name, "gtFine", kind)).exists()]
        for kind in (TRAIN_LABEL, LABEL)
    }
    kind = min(missing, key=lambda kind: len(missing[kind]))
    if missing[kind]:
        (name, image), count = missing[kind][0], len(missing[kind])
        more = f" ({count} images have none)" if count > 1 else ""
        raise UserError(f"image {root / image} has no label {_label(name, 'gtFine', kind)}{more}; add or remove it")
    entries = []
    for name, image in images:
        subset, folder = ("extra", "gtCoarse") if name.startswith(EXTRA) else (name.split("/")[0], "gtFine")
        label = _label(name, folder, kind)
        entries.append(Row(Path(name).name, subset, image, label if (root / label).exists() else ""))
    return DataSet(CITYSCAPES_TRAIN_IDS if kind == TRAIN_LABEL else CITYSCAPES, entries)


def _label(name: str, folder: str, kind: str) -> str:
    """Return FOLDER/SUBSET/CITY/ID_FOLDER_KIND.png, where `name` is SUBSET/CITY/ID."""
    return f"{folder}/{name}_{folder}_{kind}.png"
