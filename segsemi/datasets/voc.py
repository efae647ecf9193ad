"""Pascal VOC 2012 (Everingham et al. 2010) in the layout of VOCdevkit, with SBD (Hariharan et al. 2011) beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.datasets.entry import DataSet, Entry, read_lines, stems

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
    places = ("", "VOC2012", "VOCdevkit/VOC2012")
    base = next((Path(place) for place in places if (root / place / "ImageSets/Segmentation").is_dir()), None)
    if base is None:
        raise UserError(f"{root} holds no VOC2012/ImageSets/Segmentation; set data.root to a folder that does")
    lists = root / base / "ImageSets/Segmentation"
    ids = {subset: _read_ids(lists / f"{subset}.txt") for subset in ("train", "val")}
    known = {*ids["train"], *ids["val"]}
    sbd = _sbd_labels(root, base)
    labels = sbd | {id_: base / f"SegmentationClass/{id_}.png" for id_ in known}
    more = sorted(sbd)
    if sbd and (lists / "trainaug.txt").exists():
        more = _read_ids(lists / "trainaug.txt")
        missing = [id_ for id_ in more if id_ not in labels]
        if missing:
            raise UserError(f"{lists}/trainaug.txt names {missing[0]}, which has no label; add it, or fix the list")
    extra = [id_ for id_ in more if id_ not in known]
    entries = []
    for subset, listed in (("train", ids["train"]), ("extra", extra), ("val", ids["val"])):
        for id_ in listed:
            image = base / f"JPEGImages/{id_}.jpg"
            for path, kind in ((image, "image"), (labels[id_], "label")):
                if not (root / path).exists():
                    raise UserError(f"{kind} {root / path} of the list {subset} not found; add it, or fix the list")
            entries.append(Entry(id_, subset, image, labels[id_]))
    return DataSet(VOC, entries)


def _read_ids(path: Path) -> list[str]:
    """Return the first word of every line, or the name of its file without an ending, as some lists have paths."""
    return [PurePosixPath(line.split()[0]).stem for line in read_lines(path)]


def _sbd_labels(root: Path, base: Path) -> dict[str, Path]:
    """Return id -> label, of SegmentationClassAug or of SBD's .mat files."""
    if (root / base / "SegmentationClassAug").is_dir():
        return stems(root, (base / "SegmentationClassAug").as_posix(), (".png",))
    inside = [root / base, root / base.parent, root / base.parent.parent]
    outside = list((root / base).resolve().parents)[:2]  # VOCdevkit/, and what it lies in
    for parent in (*inside, *outside):
        for place in SBD_FOLDERS:
            if (parent / place).is_dir():
                if not parent.is_relative_to(root):
                    raise UserError(f"SBD is in {parent / place}, outside of data.root; set data.root to {parent}")
                return stems(root, (parent / place).relative_to(root).as_posix(), (".mat",))
    return {}
