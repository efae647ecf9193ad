"""Any folder of images: images/, labels/, perhaps unlabelled/ and lists, and classes.json."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import IMAGE_ENDINGS
from segsemi.data.manifest import Row
from segsemi.datasets.entries import DataSet, find_name, read_lines, stems

EXAMPLE = '{"names": ["background", "cat"], "colours": [[0, 0, 0], [255, 0, 0]]}'
WORDS = {"extra_forbidden": "unknown key", "missing": "no such key"}


def find_folder(root: Path, *, val_fraction: float, seed: int) -> DataSet:
    """Return images/ with the labels of equal stem in labels/; images without one, and those of unlabelled/, are extra.

    train.txt, val.txt and test.txt name the images of these subsets. Without val.txt, the labelled images that train.txt
    leaves out are val; without that list too, `val_fraction` of them, drawn from `seed`. Without train.txt, train is the
    rest.
    """
    classes = read_classes(root / "classes.json")
    images, labels = stems(root, "images", IMAGE_ENDINGS), stems(root, "labels", (".png",))
    for stem, label in labels.items():
        if stem not in images:
            raise UserError(f"label {root / label} has no image images/{stem}.*; add or remove it")
    subsets = _subsets(root, sorted(labels), images, val_fraction, seed)
    found = [(stem, image) for stem, image in images.items() if stem in subsets or stem not in labels]
    if (root / "unlabelled").is_dir():
        for stem, image in stems(root, "unlabelled", IMAGE_ENDINGS).items():
            if stem in images:
                raise UserError(f"{root / images[stem]} and {root / image} have one name; rename or remove one")
            found.append((stem, image))
    rows = [
        Row(stem.replace("/", "__"), subsets.get(stem, "extra"), path, labels.get(stem, "")) for stem, path in found
    ]
    return DataSet(classes, rows)


def _subsets(root: Path, labelled: list[str], images: dict[str, str], val_fraction: float, seed: int) -> dict[str, str]:
    """Return stem -> train, val or test of the labelled images, without those that complete lists leave out."""
    paths = [root / f"{subset}.txt" for subset in ("train", "val", "test")]
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
        return subsets | ({} if "train" in lists else dict.fromkeys(rest, "train"))
    if "train" in lists:
        if not rest:
            raise UserError(f"{paths[0]} leaves no labelled image for validation; name them in {paths[1]}")
        return subsets | dict.fromkeys(rest, "val")
    number = round(val_fraction * len(rest))
    if not 0 < number < len(rest):
        lacking = f"leaves none for {'validation' if number == 0 else 'training'}"
        raise UserError(f"data.val_fraction {val_fraction} of {len(rest)} labelled images {lacking}; change it")
    held_out = np.random.default_rng(seed).permutation(len(rest))[:number]
    return subsets | dict.fromkeys(rest, "train") | {rest[index]: "val" for index in held_out}


class _ClassesFile(BaseModel):
    """The keys of classes.json."""

    model_config = ConfigDict(extra="forbid")
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # [red, green, blue] each, in the order of the names
    labels: Literal["ids", "colours"] = "ids"  # what the label files hold
    ids: tuple[int, ...] = ()  # those of the classes in the label files, if not 0, 1, 2...
    ignore_ids: tuple[int, ...] = (255,)
    ignore_colours: tuple[tuple[int, int, int], ...] = ()


def read_classes(path: Path) -> Classes:
    """Return the classes of a classes.json; all keys but names and colours may be left out."""
    try:
        found = _ClassesFile.model_validate_json(path.read_text(encoding="utf-8-sig"))  # some editors write a mark
        return Classes(found.names, found.colours, found.ignore_ids, found.ids, found.labels, found.ignore_colours)
    except FileNotFoundError:
        raise UserError(f"{path} not found; it names the classes in the order of their ids: {EXAMPLE}") from None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {WORDS.get(item['type'], item['msg'])}" for item in error.errors()
        ]
        raise UserError(f"{path} is wrong ({'; '.join(problems)}); expected something like {EXAMPLE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is wrong ({error}); expected something like {EXAMPLE}") from None
