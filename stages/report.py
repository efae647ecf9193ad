"""Merge the results of the models that params.yaml names into reports/."""

from segsemi.core.classes import Classes
from segsemi.core.config import TEACHER, load_params
from segsemi.core.errors import run_stage
from segsemi.core.git import pipeline_revision
from segsemi.core.paths import CLASSES, CORRECTED, LABELLED, REPORTS, SKIPPED, UNLABELLED, data_root, evaluation_list
from segsemi.data.manifest import read_rows
from segsemi.reporting.report import read_measured, write_report


def main() -> None:
    params = load_params()
    teachers = {TEACHER: None, **dict.fromkeys(params.baselines), **params.rounds}
    rows = read_rows(evaluation_list(params.evaluate.subset))
    models = [read_measured(name, teacher) for name, teacher in teachers.items()]
    chosen = [model.name for model in models if model.training["keep"] == "best"]
    facts = {
        "data set": params.data.name,
        "labelled images": len(read_rows(LABELLED)) + len(read_rows(CORRECTED)),
        "unlabelled": len(read_rows(UNLABELLED)),
        **({"skipped, since broken": len(skipped)} if (skipped := read_rows(SKIPPED)) else {}),
        "measured on": f"{params.evaluate.subset}, {len(rows)} images",
        "seed": params.seed,
        "checkpoints": f"the best on val of {', '.join(chosen)}; the last of the others" if chosen else "the last",
        "code": pipeline_revision(),
    }
    settings = {
        "rounds": params.rounds,
        "baselines": params.baselines,
        "split": dict(params.split),
        "model": dict(params.model),
        "augment": dict(params.augment),
        "teacher": dict(params.teacher),
        "pseudo_label": dict(params.pseudo_label),
        "student": dict(params.student),
        "student_model": dict(params.student_model),
        "evaluate": dict(params.evaluate),
    }
    table = write_report(models, Classes.load(CLASSES), rows, data_root(params.data), facts, settings, REPORTS)
    print(f"\n{table}\n\nreport: {(REPORTS / 'index.html').resolve()}")


if __name__ == "__main__":
    run_stage(main)
