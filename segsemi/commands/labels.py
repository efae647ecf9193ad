"""Convert annotations of labelme or COCO to label PNGs and classes.json. `python -m segsemi labels`."""

import argparse
import sys

from segsemi.datasets.annotations import Notes, find_pictures, fitting, read_coco, read_labelme, write_labels


def run(args: argparse.Namespace) -> int:
    """Convert the annotations of `args.source`; return the exit code."""
    notes, pictures = Notes(), find_pictures(args.out)
    read = read_labelme if args.format == "labelme" else read_coco
    images = read(args.source, pictures, notes)
    if pictures:
        images = fitting(images, pictures, notes)
    names = write_labels(images, args.out, names=args.classes, background=args.background, notes=notes).names
    for line in notes.lines():
        print(line, file=sys.stderr)
    print(f"{len(images)} annotated images: {args.out / 'labels'}, {args.out / 'classes.json'} ({', '.join(names)})")
    return 0
