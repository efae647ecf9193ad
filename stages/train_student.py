"""Train the student of one round on labels and pseudo labels."""

from __future__ import annotations

import argparse

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root
from segsemi.training.student import train_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True, help="name of the model that made the pseudo labels")
    parser.add_argument("--student", required=True, help="name of the model to train")
    args = parser.parse_args()
    params = load_params()
    train_student(
        args.student,
        args.teacher,
        seed=params.seed,
        params=params.student,
        own_model=params.student_model,
        augment=params.augment,
        root=data_root(params.data),
        machine=params.machine,
    )


if __name__ == "__main__":
    run_stage(main, parallel=True)
