"""The layout of `data.name: folder` made of images and labels that lie elsewhere, with a guess at their classes.json."""

from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segsemi.core.classes import IGNORE_INDEX, Classes
from segsemi.core.errors import UserError
from segsemi.data.images import IMAGE_ENDINGS, LABEL_ENDINGS, read_label, read_picture
from segsemi.datasets.entries import stems
from segsemi.datasets.folder import LABELS_ARE, skipped_files, suffix_of
from segsemi.datasets.voc import colour_of

MOST = 150  # different values in all labels; more of them are shades, not classes
# Of one colour, so that no palette seems to show the colours of other ids: nobody has named the classes yet.
ANY_ID = Classes(tuple(map(str, range(IGNORE_INDEX))), ((0, 0, 0),) * IGNORE_INDEX)
ONE_BIT = Classes(("black", "white"), ((0, 0, 0), (255, 255, 255)))
WHITE = "white"  # of a label of 1 bit: id 1, or 255 if other labels have that and no 1


class Found(NamedTuple):
    """The images with a label, the others, what classes.json may say, one line about each class, and warnings."""

    labelled: list[Path]
    unlabelled: list[Path]
    classes: dict[str, Any]
    lines: list[str]
    notes: list[str]


def link_images(images: Sequence[Path], labels: Path | None, root: Path) -> Found:
    """Fill images/, labels/ and unlabelled/ of `root` with links; the labels' suffix, such as `_mask`, is found, too.

    Raises:
        UserError: a folder is missing, empty or in another, a name occurs twice, a label has no image, is broken, or has
            values that are no classes.
    """
    pictures: dict[str, Path] = {}
    for folder in images:
        if labels and (_holds(folder, labels) or _holds(labels, folder)):
            raise UserError(
                f"{folder} and {labels}: one holds the other; move images and labels into folders of their own"
            )
        for stem, path in _files(folder, IMAGE_ENDINGS).items():
            if pictures.setdefault(stem, path) != path:
                raise UserError(f"{pictures[stem]} and {path} have one name; rename or remove one")
    masks = _files(labels, LABEL_ENDINGS) if labels else {}
    suffix = _suffix(list(masks), pictures)
    lost = [path for stem, path in masks.items() if stem.removesuffix(suffix) not in pictures]
    if lost:
        number = f"{len(lost)} of {len(masks)}"
        raise UserError(f"{number} labels have no image of their name, first {lost[0]}; rename or remove them")
    having = {stem.removesuffix(suffix) for stem in masks}
    parts = {
        "images": {stem: path for stem, path in pictures.items() if stem in having},
        "unlabelled": {stem: path for stem, path in pictures.items() if stem not in having},
        "labels": masks,
    }
    classes, lines = guess_classes([*masks.values()]) if masks else ({}, [])
    if suffix:
        classes["label_suffix"] = suffix
    for kind, files in parts.items():
        for stem, path in files.items():
            link = root / kind / f"{stem}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    used = {str(path) for files in parts.values() for path in files.values()}
    folders = {**dict.fromkeys(images, ""), **({labels: LABELS_ARE} if labels else {})}
    notes = [line for folder, reason in folders.items() for line in skipped_files(folder.resolve(), used, reason)]
    return Found([*parts["images"].values()], [*parts["unlabelled"].values()], classes, lines, notes)


def _holds(folder: Path, other: Path) -> bool:
    return other.resolve().is_relative_to(folder.resolve())


def _files(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Return composed path below the folder, without ending -> absolute path."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name folders with --images and --labels")
    base = folder.resolve()
    return {stem: base.parent / path for stem, path in stems(base.parent, base.name, endings).items()}


def _suffix(labels: Sequence[str], images: Container[str]) -> str:
    """Return what most names of labels have behind the name of an image."""
    ends = Counter(suffix_of(stem, images) for stem in labels)
    return ends.most_common(1)[0][0] if ends else ""


def guess_classes(paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Return keys of classes.json that fit these labels, and a line about each class.

    Raises:
        UserError: a label is broken, or they have too many values.
    """
    with ThreadPoolExecutor() as readers:
        shown = [*readers.map(_shown, paths)]
        palettes = {
            item for pairs in shown if pairs and any(len({*colour}) > 1 for _, colour in pairs) for item in pairs
        }
        # RGB, or palettes, of more than greys, that show one id in several colours, as programs make them for each file
        coloured = None in shown or len(palettes) > len({id_ for id_, _ in palettes})
        counts = sum(readers.map(_colours if coloured else _ids, paths), Counter[Any]())
    if white := counts.pop(WHITE, 0):
        counts[255 if 255 in counts and 1 not in counts else 1] += white
    if len(counts) > MOST:
        kind = "colours" if coloured else "values"
        raise UserError(
            f"{paths[0].parent}: the labels have {len(counts)} different {kind}, so they are grey pictures or have smoothed "
            "edges; expected one per class (docs/own-data.md)"
        )
    values = sorted(counts) if not coloured else [colour for colour, _ in counts.most_common()]
    ignored = not coloured and len(values) > 2 and values == [*range(len(values) - 1), IGNORE_INDEX]
    if ignored:
        values.pop()
    names = ["background", "foreground"] if len(values) == 2 else [f"class_{number}" for number in range(len(values))]
    colours = values if coloured else map(colour_of, range(len(values)))
    guess: dict[str, Any] = {"names": names, "colours": [list(colour) for colour in colours]}
    if coloured:
        guess["labels"] = "colours"
    elif values != [*range(len(values))]:
        guess |= {"ids": values, "ignore_ids": []}
    word, total = "colour" if coloured else "id", counts.total()
    lines = [
        f"  {name}: {word} {value}, {100 * counts[value] / total:.2f} % of the pixels"
        for name, value in zip(names, values, strict=True)
    ]
    if ignored:
        lines.append(f"  no class: id {IGNORE_INDEX}, {100 * counts[IGNORE_INDEX] / total:.2f} %")
    return guess, lines


def _shown(path: Path) -> list[tuple[int, tuple[int, ...]]] | None:
    """Return the ids and colours of a label with a palette; none without one; None for RGB with different channels."""
    mode = ""
    with suppress(OSError, ValueError), Image.open(path) as image:  # of a broken one, `_ids` says so
        if image.mode == "P":
            palette = np.reshape(image.getpalette("RGB") or [], (-1, 3)).tolist()
            present = np.unique(np.asarray(image)).tolist()
            return [(id_, tuple(palette[id_])) for id_ in present if id_ < len(palette)]
        mode = image.mode
    if mode not in ("RGB", "RGBA"):
        return []
    picture = read_picture(path)[0]
    return None if (picture != picture[..., :1]).any() else []


def _ids(path: Path) -> Counter[Any]:
    one_bit = False
    with suppress(OSError, ValueError), Image.open(path) as image:  # of a broken one, `read_label` says so
        one_bit = image.mode == "1"
    counts = _counted(read_label(path, ONE_BIT if one_bit else ANY_ID))
    return Counter({WHITE if one_bit and id_ else id_: count for id_, count in counts.items()})


def _colours(path: Path) -> Counter[Any]:
    return _counted(read_picture(path)[0])


def _counted(array: np.ndarray) -> Counter[Any]:
    """Return value, or colour, -> number of pixels of a label, (H, W) or (H, W, 3) uint8."""
    picture = Image.fromarray(array)
    return Counter({value: count for count, value in picture.getcolors(array.shape[0] * array.shape[1]) or ()})
