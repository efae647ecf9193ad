"""Train the teacher on the labelled images: cross entropy, weak augmentation."""

from __future__ import annotations

from segsemi.config import TEACHER, load_params
from segsemi.contract import data_root
from segsemi.errors import run_stage
from segsemi.supervised import train_on_labels


def main() -> None:
    params = load_params()
    train_on_labels(
        TEACHER,
        steps=params.teacher.steps,
        seed=params.seed,
        model=params.model,
        augment=params.augment,
        optim=params.teacher,
        root=data_root(params.data),
        machine=params.machine,
    )


if __name__ == "__main__":
    run_stage(main, parallel=True)
