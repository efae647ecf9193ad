"""Convert annotations of labelme or COCO to label PNGs and classes.json. `python -m segsemi labels`."""

import argparse

from segsemi.datasets.annotations import read_coco, read_labelme, write_labels


def run(args: argparse.Namespace) -> int:
    """Convert the annotations of `args.source`; return the exit code."""
    images = read_labelme(args.source) if args.format == "labelme" else read_coco(args.source)
    names = write_labels(images, args.out, names=args.classes, background=args.background).names
    print(f"{len(images)} annotated images: {args.out / 'labels'}, {args.out / 'classes.json'} ({', '.join(names)})")
    return 0
