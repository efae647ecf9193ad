"""Any folder of images: images/, labels/, perhaps unlabelled/ and lists, and classes.json."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import decoded, file_hash, visible_files, walk
from segsemi.data.images import IMAGE_ENDINGS, LABEL_ENDINGS
from segsemi.data.manifest import Row
from segsemi.datasets.entries import DataSet, composed, find_name, id_of, read_lines, stems

EXAMPLE = '{"names": ["background", "cat"], "colours": [[0, 0, 0], [255, 0, 0]]}'
WORDS = {"extra_forbidden": "unknown key", "missing": "no such key"}
LABELS_ARE = "; labels must be PNG, TIFF, BMP or GIF"
FOLDERS = ("images", "labels", "unlabelled")
LISTS = ("train.txt", "val.txt", "test.txt")
SUFFIXES = ("_mask", "_gt", "_label", "_labels", "_seg", "-mask", "-gt", "-label")


def find_folder(root: Path, *, val_fraction: float, seed: int) -> DataSet:
    """Return the images of images/ and unlabelled/ with the labels of equal stem in labels/; those without one are extra.

    train.txt, val.txt and test.txt name the images of these subsets. Without val.txt, the labelled images that train.txt
    leaves out are val; without that list too, `val_fraction` of them, drawn from `seed`. Without train.txt, train is the
    rest.
    """
    classes, suffix = _read(root / "classes.json")
    images, labels = stems(root, "images", IMAGE_ENDINGS), stems(root, "labels", LABEL_ENDINGS)
    if visible_files(root / "unlabelled", IMAGE_ENDINGS):
        for stem, image in stems(root, "unlabelled", IMAGE_ENDINGS).items():
            if stem in images:
                raise UserError(f"{root / images[stem]} and {root / image} have one name; rename or remove one")
            images[stem] = image
    if suffix:
        labels = {stem.removesuffix(suffix): path for stem, path in labels.items() if stem.endswith(suffix)}
    lost = [stem for stem in labels if stem not in images]
    if lost:
        more = f" ({len(lost)} labels have none)" if len(lost) > 1 else ""
        end = suffix_of(lost[0], images)
        hint = f'if all labels end like this, write "label_suffix": "{end}" into classes.json, else ' if end else ""
        raise UserError(f"label {root / labels[lost[0]]} has no image images/{lost[0]}.*{more}; {hint}add or remove it")
    subsets, hashes = _subsets(root, sorted(labels), images, val_fraction, seed)
    rows = [
        Row(id_of(stem), subsets.get(stem, "extra"), path, labels.get(stem, ""), image_hash=hashes.get(stem, ""))
        for stem, path in images.items()
        if stem in subsets or stem not in labels
    ]
    used = {str(root / path) for path in (*images.values(), *labels.values())}
    return DataSet(classes, rows, list(_skipped(root, used, images, suffix)))


def suffix_of(stem: str, images: Container[str]) -> str:
    """Return what a label's name, such as im1_mask, has behind that of an image, im1; empty if it begins with none."""
    return next((stem[end:] for end in range(len(stem), 0, -1) if stem[:end] in images), "")


def skipped_files(folder: Path, used: Collection[str], reason: str) -> Iterator[str]:
    """Yield a warning, with each ending, if the folder has files that are not used."""
    paths = [path for path in walk(folder) if str(path) not in used]
    endings = Counter(path.suffix.lower() or "without ending" for path in paths)
    if endings:
        kinds = ", ".join(f"{number} {ending}" for ending, number in endings.most_common(5))
        yield f"warning: {len(paths)} files in {folder} are skipped: {kinds} (first {paths[0].name}){reason}"


def _skipped(root: Path, used: Collection[str], images: dict[str, str], suffix: str) -> Iterator[str]:
    """Yield a warning for each folder and ending of files that are not used, and for labels among the images."""
    for folder in FOLDERS:
        reason = LABELS_ARE if folder == "labels" else ""
        if folder == "labels" and suffix:
            reason += f", and end with {suffix} (label_suffix)"
        yield from skipped_files(root / folder, used, reason)
    pictures = (path.relative_to(root) for path in visible_files(root, IMAGE_ENDINGS))
    for name in sorted({path.parts[0] for path in pictures if len(path.parts) > 1} - {*FOLDERS}):
        yield f"warning: folder {root / name} is skipped; folders are named {', '.join(FOLDERS)}"
    for path in sorted(root.glob("*.txt")):
        if re.match("train|val|test", path.stem, re.IGNORECASE) and path.name not in LISTS:
            yield f"warning: list {path} is skipped; lists are named {', '.join(LISTS)}"
    labels = [stem for stem in images for end in SUFFIXES if stem.endswith(end) and stem.removesuffix(end) in images]
    if labels:
        yield f"warning: {len(labels)} images look like labels (first {images[labels[0]]}); move labels into labels/"


def _subsets(
    root: Path, labelled: list[str], images: dict[str, str], val_fraction: float, seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Return stem -> train, val or test of the labelled images, without those that complete lists leave out.

    Also returned: stem -> hash of the images that were compared, which need not be read for it again.
    """
    paths = [root / name for name in LISTS]
    lists = {path.stem: read_lines(path) for path in paths if path.exists()}
    subsets: dict[str, str] = {}
    for subset, lines in lists.items():
        for line in lines:
            stem = find_name(line, images)
            if stem is None:
                raise UserError(f"{root / subset}.txt names {line!r}, which is not in {root / 'images'}; fix the list")
            if stem not in labelled:
                raise UserError(f"{root / subset}.txt names {line!r}, which has no label; add it, or fix the list")
            if subsets.setdefault(stem, subset) != subset:
                raise UserError(f"{line!r} is in {subset}.txt and in {subsets[stem]}.txt; remove it from one")
    rest = [stem for stem in labelled if stem not in subsets]
    if "val" in lists:
        return subsets | ({} if "train" in lists else dict.fromkeys(rest, "train")), {}
    if "train" in lists:
        if not rest:
            raise UserError(f"{paths[0]} leaves no labelled image for validation; name them in {paths[1]}")
        return subsets | dict.fromkeys(rest, "val"), {}
    number = round(val_fraction * len(rest))
    if not 0 < number < len(rest):
        lacking = f"leaves none for {'validation' if number == 0 else 'training'}"
        raise UserError(f"data.val_fraction {val_fraction} of {len(rest)} labelled images {lacking}; change it")
    sizes = {stem: (root / path).stat().st_size for stem, path in images.items()}
    often = Counter(sizes.values())
    hashes = {stem: file_hash(root / path) for stem, path in images.items() if often[sizes[stem]] > 1}
    held_out = _draw(images, rest, number, seed, hashes)
    return subsets | dict.fromkeys(rest, "train") | dict.fromkeys(held_out, "val"), hashes


def _draw(images: dict[str, str], rest: list[str], number: int, seed: int, hashes: dict[str, str]) -> list[str]:
    """Return `number` of the stems in `rest`: of identical images all or none, and none that is an image beside them."""
    copies = defaultdict(list)
    for stem in images:
        copies[hashes.get(stem, stem)].append(stem)
    group = {stem: same for same in copies.values() for stem in same}
    labelled, drawn = set(rest), set[str]()
    for index in np.random.default_rng(seed).permutation(len(rest)):
        same = group[rest[index]]
        if rest[index] not in drawn and len(drawn) + len(same) <= max(number, len(same)) and labelled.issuperset(same):
            drawn.update(same)
    if not 0 < len(drawn) < len(rest):
        pair = " and ".join(images[stem] for stem in max(copies.values(), key=len)[:2])
        raise UserError(
            f"too many of the {len(rest)} labelled images are identical to others, such as {pair}, to draw val from; "
            "remove copies, or write a val.txt"
        )
    return sorted(drawn)


class _ClassesFile(BaseModel):
    """The keys of classes.json."""

    model_config = ConfigDict(extra="forbid")
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # [red, green, blue] each, in the order of the names
    labels: Literal["ids", "colours"] = "ids"  # what the label files hold
    ids: tuple[int, ...] = ()  # those of the classes in the label files, if not 0, 1, 2...
    ignore_ids: tuple[int, ...] = (255,)
    ignore_colours: tuple[tuple[int, int, int], ...] = ()
    range: tuple[float, float] | None = None  # of the values of images of more than 8 bits
    label_suffix: str = ""  # im1_mask.png is the label of im1.jpg if this is _mask


def read_classes(path: Path) -> Classes:
    """Return the classes of a classes.json; all keys but names and colours may be left out."""
    return _read(path)[0]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse one that has a key twice, of which Python would take the last."""
    if len(dict(pairs)) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key} occurs twice")
    return dict(pairs)


def _read(path: Path) -> tuple[Classes, str]:
    """Return the classes, and the suffix of the labels' names."""
    try:
        content = json.loads(decoded(path), object_pairs_hook=_once)
        if not isinstance(content, dict):
            raise ValueError("no object in braces")
        found = _ClassesFile.model_validate(content)
        names, ids, kind = tuple(map(composed, found.names)), found.ids, found.labels
        classes = Classes(names, found.colours, found.ignore_ids, ids, kind, found.ignore_colours, found.range)
        return classes, found.label_suffix
    except FileNotFoundError:
        raise UserError(f"{path} not found; it names the classes in the order of their ids: {EXAMPLE}") from None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {WORDS.get(item['type'], item['msg'])}" for item in error.errors()
        ]
        raise UserError(f"{path} is wrong ({'; '.join(problems)}); expected something like {EXAMPLE}") from None
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is wrong ({error}); expected something like {EXAMPLE}") from None
