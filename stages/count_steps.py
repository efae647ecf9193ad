"""Count the steps of a supervised baseline: it gets the budget of a student and its teachers together.

A stage of its own, so that one round more or less does not train a baseline again whose number of steps stays the same.
"""

import argparse

from segsemi.core.config import load_params, total_steps
from segsemi.core.errors import run_stage
from segsemi.core.files import write_text
from segsemi.core.paths import steps_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the baseline")
    parser.add_argument("--beside", required=True, help="the student whose steps it may use")
    args = parser.parse_args()
    params = load_params()
    steps = total_steps(
        params.rounds, args.beside, teacher_steps=params.teacher.steps, student_steps=params.student.steps
    )
    write_text(steps_file(args.name), f"{steps}\n")


if __name__ == "__main__":
    run_stage(main)
