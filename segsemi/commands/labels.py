"""Convert what annotation tools wrote to label PNGs. `python -m segsemi labels`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.errors import UserError
from segsemi.core.paths import CLASSES, MANIFEST, PSEUDO
from segsemi.data.images import read_label
from segsemi.data.manifest import HELD_OUT, read_rows
from segsemi.datasets.annotations import Notes, find_pictures, fitting, read_coco, read_labelme, write_labels
from segsemi.datasets.corrections import read_cvat, read_label_studio


def run(args: argparse.Namespace) -> int:
    """Write OUT/labels and OUT/classes.json of annotations, or OUT/ID.png of corrected suggestions; return the exit code."""
    notes = Notes()
    if args.format in ("cvat", "labelstudio"):
        if args.classes or args.background:
            raise UserError(f"--classes and --background are not for {args.format}: {CLASSES} has the classes")
        done = f"{_correct(args.format, args.source, args.out, notes)} corrected labels: {args.out}"
    else:
        pictures = find_pictures(args.out)
        images = (read_labelme if args.format == "labelme" else read_coco)(args.source, pictures, notes)
        if pictures:
            images = fitting(images, pictures, notes)
        names = write_labels(images, args.out, names=args.classes, background=args.background, notes=notes).names
        done = (
            f"{len(images)} annotated images: {args.out / 'labels'}, {args.out / 'classes.json'} ({', '.join(names)})"
        )
    for line in notes.lines():
        print(line, file=sys.stderr)
    print(done)
    return 0


def _correct(tool: str, source: Path, out: Path, notes: Notes) -> int:
    """Write OUT/ID.png of the training images that were corrected; return their number.

    Raises:
        UserError: the source is broken, has an unknown class, or has no such image.
    """
    classes, rows = Classes.load(CLASSES), {row.id: row for row in read_rows(MANIFEST) if row.subset not in HELD_OUT}
    found = (read_cvat if tool == "cvat" else read_label_studio)(source, classes, notes)
    for id_, label in list(found.items()):
        if id_ not in rows:
            notes.add(f"images are no training images of {MANIFEST} and get no label", id_)
        elif label.shape != (rows[id_].height, rows[id_].width):
            notes.add("images have another size than their annotation and get no label", id_)
        else:
            continue
        del found[id_]
    if not found:
        raise UserError(f"{source} has no annotation of a training image{notes}")
    for id_, label in found.items():
        suggested = [folder / f"{id_}.png" for folder in PSEUDO.glob("*") if (folder / f"{id_}.png").exists()]
        if tool == "cvat" and any(np.array_equal(label, read_label(path, classes.as_written())) for path in suggested):
            notes.add("labels are as suggested; remove those that nobody has looked at", id_)
        if (out / f"{id_}.png").exists():
            notes.add("labels that were there are replaced", id_)
        write_label_png(out / f"{id_}.png", label, classes)
    return len(found)
