"""The fair baseline: train on the labels alone for as many steps as went into a student and its teachers together."""

from __future__ import annotations

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root, steps_file
from segsemi.training.supervised import train_on_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the baseline")
    args = parser.parse_args()
    params = load_params()
    train_on_labels(
        args.name,
        steps=int(steps_file(args.name).read_text()),
        seed=params.seed,
        model=params.model,
        augment=params.augment,
        optim=params.teacher,
        root=data_root(params.data),
        machine=params.machine,
    )


if __name__ == "__main__":
    run_stage(main, parallel=True)
