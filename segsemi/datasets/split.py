"""Cut the training images into a labelled and an unlabelled part (paper, section 4.2.1)."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from segsemi.core.classes import Classes
from segsemi.core.config import SplitParams
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, visible_files
from segsemi.data.images import IMAGE_ENDINGS, read_label, require_size
from segsemi.data.manifest import HELD_OUT, HIDDEN_COLUMNS, SKIPPED, UNLABELLED_COLUMNS, Row, write_rows
from segsemi.datasets.entries import composed, find_name, path_ends, refuse_leakage

FEW = 10  # validation images
NOTHING_UNLABELLED = (
    "no image is unlabelled, so students have none to learn from: lower split.fraction, add images, or set rounds: {}"
)


@dataclass(frozen=True)
class Split:
    """Rows of the manifest, each part in the manifest's order."""

    labelled: list[Row]
    corrected: list[Row]  # with corrected pseudo labels, whose paths start at the folder of the lists
    unlabelled: list[Row]
    val: list[Row]
    test: list[Row]
    skipped: list[Row]  # broken images that prepare left out


def split_rows(
    rows: list[Row], wanted: SplitParams, ids: Sequence[str], *, corrected: Collection[str] = (), seed: int
) -> Split:
    """Choose the labelled images: by `ids` if there are any, else `count`, else round(fraction * number of train images).

    The choice is drawn from `seed`; with one seed a smaller choice is part of every larger one.

    Args:
        wanted: what params.yaml says. With extra: labelled, extra images with labels count as training images.
        ids: the lines of wanted.labelled_list.
        corrected: ids of images with a corrected label; they count as labelled too, unless they are labelled anyway.

    Raises:
        UserError: there are not as many images as asked for, no labelled one would be left, an id is unknown, or split.val
            takes one of two copies of an image.
    """
    rows = list(_regrouped(rows, wanted.exclude, wanted.val))
    if wanted.val:  # prepare has checked the data set's own
        refuse_leakage(rows)
    if wanted.extra == "labelled" and not any(row.subset == "extra" for row in rows):
        raise UserError(
            "split.extra is labelled, but there are no extra images (SBD, unlabelled/); set it to unlabelled"
        )
    learnt = [row for row in rows if row.subset == "train" or (row.subset == "extra" and wanted.extra != "unused")]
    train = [row for row in learnt if row.label and (row.subset == "train" or wanted.extra == "labelled")]
    if ids:
        chosen = _known_ids(ids, train)
    else:
        number, images = wanted.count or round(wanted.fraction * len(train)), f"{len(train)} training images"
        if not train:
            raise UserError(
                "no labelled image is left for training: lists, split.exclude or split.val take all of them"
            )
        if number < 1:
            raise UserError(f"split.fraction {wanted.fraction} of {images} leaves no labelled one; raise it")
        if number > len(train):
            raise UserError(f"split.count {number} is more than the {images}; lower it")
        order = np.random.default_rng(seed).permutation(len(train))
        chosen = {train[index].id for index in order[:number]}
    labelled = [row for row in train if row.id in chosen]
    rest = [row for row in learnt if row.id not in chosen]
    with_correction = [
        replace(row, label=f"corrected/{row.id}.png", label_hash="") for row in rest if row.id in corrected
    ]
    unlabelled = [row for row in rest if row.id not in corrected]
    if wanted.unlabelled_ratio is not None:
        number = round(wanted.unlabelled_ratio * (len(labelled) + len(with_correction)))
        if number > len(unlabelled):
            asked = f"split.unlabelled_ratio {wanted.unlabelled_ratio} asks for {number}"
            raise UserError(f"{asked} unlabelled images, there are {len(unlabelled)}; lower it")
        order = np.random.default_rng([seed, 1]).permutation(len(unlabelled))
        unlabelled = [unlabelled[index] for index in sorted(order[:number])]
    held_out, test, skipped = ([row for row in rows if row.subset == subset] for subset in (*HELD_OUT, SKIPPED))
    return Split(labelled, with_correction, unlabelled, held_out, test, skipped)


def _regrouped(rows: Sequence[Row], exclude: Sequence[str], val: Sequence[str]) -> Iterator[Row]:
    """Yield the rows without the training images to exclude, and with those that become validation images."""

    def like(row: Row, patterns: Sequence[str]) -> bool:
        return row.subset not in (*HELD_OUT, SKIPPED) and any(fnmatchcase(row.id, pattern) for pattern in patterns)

    for key, patterns in (("exclude", exclude), ("val", val)):
        for pattern in patterns:
            if not any(like(row, [pattern]) for row in rows):
                lacking = f"no training image has an id like {pattern!r}"
                raise UserError(f"split.{key}: {lacking}; see data/prepared/manifest.csv")
    for row in rows:
        if like(row, val) and row.label:
            yield replace(row, subset="val")
        elif not like(row, [*exclude, *val]) and not (val and row.subset == "val"):
            yield row


def plan_warnings(split: Split, *, rounds: Collection[str], steps: int, batch_pseudo: int) -> Iterator[str]:
    """Yield what is likely to be regretted after hours of training.

    Args:
        rounds: the names of the students.
        steps, batch_pseudo: those of each student.
    """
    if rounds and batch_pseudo:
        number, draws = len(split.unlabelled), steps * batch_pseudo
        if not number:
            yield NOTHING_UNLABELLED
        elif draws < number:
            yield (
                f"each round draws {draws} pseudo-labelled images (student.steps x student.batch_pseudo) of {number}, so each "
                f"is seen less than once; raise student.steps, or set split.unlabelled_ratio"
            )
    if len(split.val) < FEW:
        yield (
            f"the validation set has {len(split.val)} image{'s' * (len(split.val) != 1)}, too few to compare models: "
            "with so few, mIoU depends on which they are"
        )


def _known_ids(lines: Sequence[str], train: list[Row]) -> set[str]:
    """Return the ids that the lines name, each by an id or an image's path, perhaps with its label's path behind it."""
    by_name: dict[str, set[str]] = {}
    for row in train:
        for name in {row.id, *path_ends(composed(row.image))}:
            by_name.setdefault(name, set()).add(row.id)
    ids = {row.id for row in train}
    chosen = set()
    for line in lines:
        meant = {line} if line in ids else by_name.get(find_name(line, by_name) or "", set())
        if not meant:
            raise UserError(f"split.labelled_list names {line!r}, which is no training image; see manifest.csv")
        if len(meant) > 1:
            some = ", ".join(sorted(meant)[:3])
            raise UserError(f"split.labelled_list: {line!r} may mean {some}; write one of these ids, or a path")
        chosen |= meant
    return chosen


def read_corrected(folder: Path, rows: list[Row], classes: Classes) -> dict[str, Path]:
    """Return id -> file of every corrected pseudo label ID.png in `folder`, each checked; ignore other files."""
    if not folder.is_dir():
        raise UserError(f"split.corrected: there is no folder {folder}; make it, empty if you have no corrected labels")
    by_id = {row.id: row for row in rows if row.subset not in HELD_OUT}
    found: dict[str, Path] = {}
    for path in visible_files(folder, IMAGE_ENDINGS):
        if path.suffix.lower() != ".png" or path.parent != folder:
            raise UserError(f"{path} is no corrected label: these are PNGs in {folder} itself; save or move it so")
        if found.setdefault(composed(path.stem), path) != path:
            raise UserError(f"{found[composed(path.stem)]} and {path} are labels of the same image; remove one")
    for id_, path in found.items():
        if id_ not in by_id:
            raise UserError(f"{path}: no training image has the id {id_!r}; see data/prepared/manifest.csv for the ids")
        label = read_label(path, classes.as_written())
        if not _check_palette(path, classes):
            _refuse_ambiguity(path, label, classes)
        require_size(label, (by_id[id_].height, by_id[id_].width), path)
    return found


def _refuse_ambiguity(path: Path, label: np.ndarray, classes: Classes) -> None:
    """Refuse a label without palette that would be another one in the ids or colours of the data set's own labels."""
    try:
        other = read_label(path, classes)
    except UserError:
        return
    if not np.array_equal(label, other):
        raise UserError(
            f"{path} could hold the ids 0..{len(classes) - 1} of pseudo labels or what classes.json says of the data set's "
            "labels; save it with the palette of the pseudo label"
        )


def _check_palette(path: Path, classes: Classes) -> bool:
    """Return whether there is a palette, which shows what the ids mean.

    Raises:
        UserError: an editor has sorted it: the ids are no longer the classes', though none is out of range.
    """
    with Image.open(path) as image:
        if image.mode != "P":
            return False
        present = np.unique(np.asarray(image))
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3).tolist()
    for id_ in present[present < len(classes)]:
        colour = palette[id_] if id_ < len(palette) else [0, 0, 0]
        if colour != list(classes.colours[id_]):
            raise UserError(
                f"{path}: colour {id_} of its palette is {colour}, that of class {id_} ({classes.names[id_]}) is "
                f"{list(classes.colours[id_])}; the editor changed the palette: save it as it was, or as grey ids"
            )
    return True


def write_split(split: Split, folder: Path, corrected: Mapping[str, Path] = MappingProxyType({})) -> None:
    """Write the lists, and the corrected labels to corrected/ beside them.

    unlabelled.csv has no label column, so training cannot read what it must not know; hidden.csv, which has it, is read
    only to measure the quality of pseudo labels.
    """
    with_correction = []
    for row in split.corrected:
        target = folder / row.label
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corrected[row.id], target)
        with_correction.append(replace(row, label_hash=file_hash(target)))
    hidden = [row for row in split.unlabelled if row.label]
    write_rows(folder / "labelled.csv", split.labelled)
    write_rows(folder / "corrected.csv", with_correction)
    write_rows(folder / "val.csv", split.val)
    write_rows(folder / "test.csv", split.test)
    write_rows(folder / "unlabelled.csv", split.unlabelled, UNLABELLED_COLUMNS)
    write_rows(folder / "skipped.csv", split.skipped, UNLABELLED_COLUMNS)
    write_rows(folder / "hidden.csv", hidden, HIDDEN_COLUMNS)
