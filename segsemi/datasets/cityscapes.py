"""Cityscapes (Cordts et al. 2016) in its official layout: leftImg8bit/, gtFine/, gtCoarse/."""

from __future__ import annotations

from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.datasets.entry import DataSet, Entry, stems

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
NAMES = tuple(name for name, _, _ in _TABLE)
COLOURS = tuple(colour for _, _, colour in _TABLE)
LABEL_IDS = tuple(id_ for _, id_, _ in _TABLE)
# 34 classes are annotated; 255 is the licence plate's -1 in 8 bits.
CITYSCAPES = Classes(NAMES, COLOURS, (*(i for i in range(34) if i not in LABEL_IDS), 255), file_ids=LABEL_IDS)
CITYSCAPES_TRAIN_IDS = Classes(NAMES, COLOURS)

IMAGE, LABEL, TRAIN_LABEL = "_leftImg8bit", "labelIds", "labelTrainIds"


def find_cityscapes(root: Path) -> DataSet:
    """train and val with fine labels; train_extra, where it is there, as extra (with coarse labels if gtCoarse/ is there).

    The ids of labelIds files are mapped to train ids; labelTrainIds files are used instead unless fewer images have one.
    The test images are left out: their labels are not public.

    Raises:
        UserError: a folder is missing or empty, or an image has no label.
    """
    images: list[tuple[str, Path, Path]] = []
    for subset, labels in (("train", "gtFine"), ("val", "gtFine"), ("train_extra", "gtCoarse")):
        if subset == "train_extra" and not (root / "leftImg8bit" / subset).is_dir():
            continue
        for stem, image in stems(root, f"leftImg8bit/{subset}", (".png",)).items():
            if stem.endswith(IMAGE):
                base = root / labels / subset / stem.removesuffix(IMAGE)
                images.append((subset, image, base.with_name(f"{base.name}_{labels}_")))
    if not (root / "gtFine").is_dir():
        raise UserError(f"folder {root / 'gtFine'} not found; unpack gtFine_trainvaltest.zip beside leftImg8bit/")
    fine = [(image, base) for subset, image, base in images if subset != "train_extra"]
    counts = {kind: sum(_label(base, kind).exists() for _, base in fine) for kind in (TRAIN_LABEL, LABEL)}
    kind = max(counts, key=counts.__getitem__)
    missing = [(image, _label(base, kind)) for image, base in fine if not _label(base, kind).exists()]
    if missing:
        image, label = missing[0]
        more = f" ({len(missing)} images have none)" if len(missing) > 1 else ""
        raise UserError(f"image {root / image} has no label {label}{more}; add or remove it")
    entries = []
    for subset, image, base in images:
        label = _label(base, kind)
        entries.append(
            Entry(
                id=image.stem.removesuffix(IMAGE),
                subset="extra" if subset == "train_extra" else subset,
                image=image,
                label=label.relative_to(root) if label.exists() else None,
            )
        )
    return DataSet(CITYSCAPES_TRAIN_IDS if kind == TRAIN_LABEL else CITYSCAPES, entries)


def _label(base: Path, kind: str) -> Path:
    return base.with_name(f"{base.name}{kind}.png")
