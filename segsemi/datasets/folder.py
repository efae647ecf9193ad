"""Any folder of images: images/, labels/, perhaps unlabelled/ and lists, and classes.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.data.images import IMAGE_ENDINGS
from segsemi.datasets.entry import DataSet, Entry, read_names, stems

EXAMPLE = '{"names": ["background", "cat"], "colours": [[0, 0, 0], [255, 0, 0]]}'


def find_folder(root: Path, *, val_fraction: float, seed: int) -> DataSet:
    """images/ with the labels of equal stem in labels/; images without one, and those of unlabelled/, are extra.

    train.txt, val.txt and test.txt name the images of these subsets. Without val.txt, val is the labelled images that train.txt
    leaves out, or, without that list too, `val_fraction` of them, drawn from `seed`. Without train.txt, train is the rest.

    Raises:
        UserError: a folder or classes.json is missing or wrong; a label has no image; a list names an unknown image.
    """
    classes = read_classes(root / "classes.json")
    images, labels = stems(root, "images", IMAGE_ENDINGS), stems(root, "labels", (".png",))
    for stem, label in labels.items():
        if stem not in images:
            raise UserError(f"label {root / label} has no image images/{stem}.*; add or remove it")
    subsets = _subsets(root, sorted(labels), images, val_fraction, seed)
    entries = [
        Entry(_id(stem), subsets.get(stem, "extra"), image, labels.get(stem))
        for stem, image in images.items()
        if stem in subsets or stem not in labels
    ]
    if (root / "unlabelled").is_dir():
        more = stems(root, "unlabelled", IMAGE_ENDINGS)
        twice = sorted(images.keys() & more.keys())
        if twice:
            raise UserError(
                f"{root / images[twice[0]]} and {root / more[twice[0]]} have one name; rename or remove one"
            )
        entries += [Entry(_id(stem), "extra", image, None) for stem, image in more.items()]
    return DataSet(classes, entries)


def _id(stem: str) -> str:
    return stem.replace("/", "__")


def _subsets(
    root: Path, labelled: list[str], images: dict[str, Path], val_fraction: float, seed: int
) -> dict[str, str]:
    """stem -> train, val or test, of the labelled images; those that no list names are in none, if train and val have one."""
    subsets: dict[str, str] = {}
    for subset in ("train", "val", "test"):
        path = root / f"{subset}.txt"
        for line in read_names(path) if path.exists() else []:
            names = (line, line.split()[0])  # a name may have spaces; other lists have the label's name behind one
            stem = next((stem for name in names for stem in _tails(name) if stem in images), None)
            if stem is None:
                raise UserError(f"{path} names {line!r}, which is not in {root / 'images'}; mend the list")
            if stem not in labelled:
                raise UserError(f"{path} names {line!r}, which has no label in {root / 'labels'}; mend the list")
            if subsets.setdefault(stem, subset) != subset:
                raise UserError(f"{line!r} is in {subset}.txt and in {subsets[stem]}.txt; remove it from one")
    rest = [stem for stem in labelled if stem not in subsets]
    lists = {subset for subset in ("train", "val") if (root / f"{subset}.txt").exists()}
    if lists == {"train"}:
        if not rest:
            raise UserError(
                f"{root / 'train.txt'} leaves no labelled image for validation; name them in {root / 'val.txt'}"
            )
        subsets |= dict.fromkeys(rest, "val")
    elif lists == {"val"}:
        subsets |= dict.fromkeys(rest, "train")
    elif not lists:
        number = round(val_fraction * len(rest))
        if not 0 < number < len(rest):
            raise UserError(
                f"data.val_fraction {val_fraction} of {len(rest)} labelled images leaves none for "
                f"{'validation' if number == 0 else 'training'}; change it, or name them in {root / 'val.txt'}"
            )
        chosen = set(np.random.default_rng(seed).permutation(len(rest))[:number].tolist())
        subsets |= {stem: "val" if index in chosen else "train" for index, stem in enumerate(rest)}
    return subsets


def _tails(name: str) -> Iterator[str]:
    """What a line of a list may mean, longest first: `images/a/1.png` is a/1 before it is 1; with an ending and without."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        tail = PurePosixPath(*parts[start:])
        yield str(tail)
        if tail.name:
            yield str(tail.with_suffix(""))


def read_classes(path: Path) -> Classes:
    """classes.json: names and colours, in the order of the ids; the rest may be left out.

    Keys: names, colours ([red, green, blue] each), labels ("ids", the default, or "colours": what the label files hold),
    ids (those of the classes in the label files, if not 0, 1, 2...), ignore_ids (default [255]), ignore_colours.

    Raises:
        UserError: the file is missing or wrong.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin files with a mark
        unknown = values.keys() - {"names", "colours", "labels", "ids", "ignore_ids", "ignore_colours"}
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]}")
        if not isinstance(values["names"], list) or not all(isinstance(name, str) for name in values["names"]):
            raise ValueError("names must be a list of texts")
        return Classes(
            names=tuple(values["names"]),
            colours=_colours(values["colours"]),
            ignore_ids=_whole(values.get("ignore_ids", [255])),
            file_ids=_whole(values.get("ids", [])),
            label_format=values.get("labels", "ids"),
            ignore_colours=_colours(values.get("ignore_colours", [])),
        )
    except FileNotFoundError:
        raise UserError(
            f"{path} not found; it names the classes in the order of their ids, such as {EXAMPLE}"
        ) from None
    except KeyError as error:
        raise UserError(f"{path} has no key {error}; expected something like {EXAMPLE}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is wrong ({error}); expected something like {EXAMPLE}") from None


def _colours(values: list[list[int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((red, green, blue) for red, green, blue in map(_whole, values))


def _whole(values: list[int]) -> tuple[int, ...]:
    if any(value != int(value) for value in values):
        raise ValueError(f"{values} are no whole numbers")
    return tuple(int(value) for value in values)
