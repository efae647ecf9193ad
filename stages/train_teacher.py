"""Train the teacher on the labelled images: cross entropy, weak augmentation."""

from __future__ import annotations

from segsemi.core.config import TEACHER, load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import data_root
from segsemi.training.supervised import train_on_labels


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
