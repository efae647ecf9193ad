"""Pascal VOC 2012 (Everingham et al. 2010) in the layout of VOCdevkit, with SBD (Hariharan et al. 2011) beside it."""

from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.manifest import Row
from segsemi.datasets.entries import DataSet, read_lines, stems

NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def colour_of(index: int) -> tuple[int, int, int]:
    """Return the colour in VOC's map: the bits of the index, three at a time, fill red, green and blue from the top bit."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


SBD_FOLDERS = ("SBD/cls", "sbd/cls", "benchmark_RELEASE/dataset/cls")
VOC = Classes(NAMES, tuple(colour_of(index) for index in range(len(NAMES))))


def find_voc(root: Path) -> DataSet:
    """Return train (1,464) and val (1,449) of ImageSets/Segmentation; the rest of SBD, if there, as extra.

    SBD's labels are SegmentationClassAug/ID.png beside VOC's own, or the original .mat files, in one of SBD_FOLDERS in
    VOC2012/ or above it, but below root; if there is a trainaug.txt, those that it names. `split.extra: labelled` counts
    them as training images: trainaug, 10,582 in all.

    Args:
        root: VOC2012/, or a folder above it: VOCdevkit/ or the one that holds VOCdevkit/.
    """
    places = ("", "VOC2012/", "VOCdevkit/VOC2012/")
    base = next((place for place in places if (root / place / "ImageSets/Segmentation").is_dir()), None)
    if base is None:
        raise UserError(f"{root} holds no VOC2012/ImageSets/Segmentation; set data.root to a folder that does")
    lists = root / base / "ImageSets/Segmentation"
    sbd = _sbd_labels(root, base)
    ids = {name: _read_ids(lists / f"{name}.txt") for name in ("train", "val")}
    known = {*ids["train"], *ids["val"]}
    listed = _read_ids(lists / "trainaug.txt") if sbd and (lists / "trainaug.txt").exists() else sorted(sbd)
    ids["trainaug"] = [id_ for id_ in listed if id_ not in known]
    entries = []
    for subset, name in (("train", "train"), ("extra", "trainaug"), ("val", "val")):
        for id_ in ids[name]:
            image, label = f"{base}JPEGImages/{id_}.jpg", f"{base}SegmentationClass/{id_}.png"
            if subset == "extra":
                label = sbd.get(id_, label)
            for path, kind in ((image, "image"), (label, "label")):
                if not (root / path).exists():
                    raise UserError(f"{kind} {root / path} of the list {name} not found; add it, or fix the list")
            entries.append(Row(id_, subset, image, label))
    return DataSet(VOC, entries)


def _read_ids(path: Path) -> list[str]:
    """Return the first word of every line, or the name of its file without an ending, as some lists have paths."""
    return [Path(line.split()[0]).stem for line in read_lines(path)]


def _sbd_labels(root: Path, base: str) -> dict[str, str]:
    """Return id -> label, of SegmentationClassAug or of SBD's .mat files."""
    here = root / base
    if (here / "SegmentationClassAug").is_dir():
        return stems(root, f"{base}SegmentationClassAug", (".png",))
    for parent in (here, *here.parents[:2], *here.resolve().parents[:2]):  # up to the folder that holds VOCdevkit/
        for place in SBD_FOLDERS:
            if (parent / place).is_dir():
                if not parent.is_relative_to(root):
                    raise UserError(f"SBD is in {parent / place}, outside of data.root; set data.root to {parent}")
                return stems(root, (parent / place).relative_to(root).as_posix(), (".mat",))
    return {}
