"""Merge the results of the models that params.yaml names into reports/."""

import platform
from dataclasses import replace
from importlib.metadata import version

from segsemi.core.classes import Classes
from segsemi.core.config import TEACHER, Params, learns_pseudo_labels, load_params, method_of
from segsemi.core.consistency import SUPERVISED
from segsemi.core.errors import run_stage
from segsemi.core.git import pipeline_revision
from segsemi.core.paths import CLASSES, CORRECTED, HIDDEN, LABELLED, REPORTS, SKIPPED, SPLIT, UNLABELLED, data_root
from segsemi.data.manifest import read_rows
from segsemi.reporting.measured import read_measured
from segsemi.reporting.report import write_final_model, write_report
from segsemi.reporting.verdict import final_model

VERSIONS = ("segsemi", "torch", "segmentation-models-pytorch", "timm", "numpy", "pillow")


def loss_of(params: Params, name: str) -> str:
    """Return what the training loss of a model consists of, in words."""
    labels, student = "cross entropy on labels", params.student
    if name in (TEACHER, SUPERVISED):
        return labels
    if name in params.baselines:
        return f"{labels} + {method_of(params, name).loss} on predictions"
    targets = "pseudo labels" if student.targets == "stored" else "predictions"
    terms = {labels: student.batch_labelled, f"{student.loss} on {targets}": student.batch_pseudo}
    return " + ".join(term for term, images in terms.items() if images)


def main() -> None:
    params = load_params()
    teachers = {TEACHER: None, **params.rounds, **dict.fromkeys(params.baselines)}
    rows, hidden = read_rows(SPLIT / f"{params.evaluate.subset}.csv"), {row.id: row.label for row in read_rows(HIDDEN)}
    unlabelled = [replace(row, label=hidden.get(row.id, "")) for row in read_rows(UNLABELLED)]
    models = [
        read_measured(name, teacher, loss_of(params, name), learnt_pseudo_labels=learns_pseudo_labels(params, name))
        for name, teacher in teachers.items()
    ]
    chosen = [model.name for model in models if model.training["keep"] == "best"]
    facts = {
        "data set": params.data.name,
        "labelled images": len(read_rows(LABELLED)) + len(read_rows(CORRECTED)),
        "unlabelled": len(unlabelled),
        **({"skipped, since broken": len(skipped)} if (skipped := read_rows(SKIPPED)) else {}),
        "measured on": f"{params.evaluate.subset}, {len(rows)} images",
        "seed": params.seed,
        "checkpoints": f"the best on val of {', '.join(chosen)}; the last of the others" if chosen else "the last",
        "code": pipeline_revision(),
    }
    settings = {
        "rounds": params.rounds,
        "baselines": {**params.baselines, "baseline_budget": params.baseline_budget},
        "consistency": params.consistency.model_dump(exclude_none=True),  # type: ignore[attr-defined]
        "split": dict(params.split),
        "model": dict(params.model),
        "augment": dict(params.augment),
        "teacher": dict(params.teacher),
        "pseudo_label": dict(params.pseudo_label),
        "student": dict(params.student),
        "student_model": dict(params.student_model),
        "evaluate": dict(params.evaluate),
        "version": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }
    classes, root = Classes.load(CLASSES), data_root(params.data)
    table = write_report(
        models, classes, rows, unlabelled, root, facts, settings, REPORTS, examples=params.evaluate.examples
    )
    write_final_model(final_model(models))
    print(f"\n{table}\n\nreport: {(REPORTS / 'index.html').resolve()}")


if __name__ == "__main__":
    run_stage(main)
