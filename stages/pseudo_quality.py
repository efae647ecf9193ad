"""Measure pseudo labels: confidence, share of each class, and errors where the data set has hidden labels."""

import argparse

from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import CLASSES, HIDDEN, LABELLED, data_root, pseudo_folder, quality_folder
from segsemi.data.manifest import read_rows
from segsemi.pseudo_quality import write_quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", required=True, help="name of the model that learns from them")
    args = parser.parse_args()
    quality = write_quality(
        pseudo_folder(args.student),
        read_rows(LABELLED),
        read_rows(HIDDEN),
        data_root(load_params().data),
        Classes.load(CLASSES),
        quality_folder(args.student),
    )
    if quality.get("miou") is not None:  # no hidden labels, or only ignored pixels
        print(f"pseudo labels for {args.student}: mIoU {100 * quality['miou']:.2f} against the hidden labels")


if __name__ == "__main__":
    run_stage(main)
