"""Draw the pictures of README.md and docs/ from a finished run of `make demo`: `python docs/draw_pictures.py [FOLDER]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from segsemi.augment.strong import OPERATIONS, StrongAugment
from segsemi.commands.predict import laid_over
from segsemi.commands.suggest import suggest
from segsemi.core.classes import Classes, colourise
from segsemi.core.paths import CLASSES, HIDDEN, LABELLED, PREPARED, UNLABELLED, VAL, model_folder, pseudo_folder
from segsemi.core.pictures import captioned, grid, marked, save_png, shrunk
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import read_rows
from segsemi.models.saving import load_model

OUT = Path(__file__).parent / "pictures"


def save_jpeg(name: str, panels: Sequence[np.ndarray], columns: int) -> None:
    Image.fromarray(grid(panels, columns)).save(OUT / name, quality=82, optimize=True)


def save_labels(name: str, panels: Sequence[np.ndarray], columns: int) -> None:
    save_png(OUT / name, grid(panels, columns), palette=True)


def main(run: Path) -> None:
    classes, root = Classes.load(run / CLASSES), run / PREPARED
    written = classes.as_written()
    teacher, student = load_model(run / model_folder("teacher")), load_model(run / model_folder("student_2"))
    labelled, val, unlabelled, hidden = (read_rows(run / path) for path in (LABELLED, VAL, UNLABELLED, HIDDEN))
    images = {row.id: read_image(root / row.image) for row in [*labelled, *val, *unlabelled]}
    truths = {row.id: read_label(root / row.label, classes) for row in [*labelled, *val, *hidden]}
    OUT.mkdir(exist_ok=True)

    panels = []
    for row in (hidden[7], hidden[30]):
        pseudo = read_label(run / pseudo_folder("student_2") / f"{row.id}.png", written)
        image = images[row.id]
        labels = {
            "truth": truths[row.id],
            "teacher": teacher.predict(image),
            "pseudo label": pseudo,
            "student": student.predict(image),
        }
        panels += [captioned(image, "image")]
        panels += [captioned(colourise(label, classes), name) for name, label in labels.items()]
    save_labels("overview.png", panels, 5)

    save_jpeg("photographs.jpg", [images[row.id] for row in hidden[:8]], 4)
    save_jpeg("labels.jpg", [laid_over(images[row.id], truths[row.id], classes) for row in labelled[:8]], 4)

    image = images[labelled[1].id]
    drawn = [captioned(shrunk(image, 150), "image")]
    for name in OPERATIONS:
        strong = StrongAugment(1, [name], np.random.default_rng(0))(image)
        drawn.append(captioned(shrunk(strong, 150), name))
    save_jpeg("saug.jpg", drawn, 6)

    panels = []
    for row in hidden[40:42]:
        pseudo = read_label(run / pseudo_folder("student_2") / f"{row.id}.png", written)
        wrong = (pseudo != truths[row.id]) & (truths[row.id] != classes.ignore_index)
        panels += [
            captioned(images[row.id], "unlabelled image"),
            captioned(colourise(pseudo, classes), "pseudo label"),
            captioned(colourise(truths[row.id], classes), "hidden truth"),
            captioned(marked(images[row.id], wrong), "wrong pixels in red"),
        ]
    save_labels("pseudo_labels.png", panels, 4)

    panels = []
    for row in (val[35], val[47]):
        image = images[row.id]
        labels = {"truth": truths[row.id], "teacher": teacher.predict(image), "student_2": student.predict(image)}
        panels += [captioned(image, "image")]
        panels += [captioned(colourise(label, classes), name) for name, label in labels.items()]
    save_labels("results.png", panels, 4)

    chosen = [images[row.id] for row in val[10:14]]
    save_jpeg("overlay.jpg", [laid_over(image, student.predict(image), classes) for image in chosen], 4)

    folders = run / pseudo_folder("student_2"), run / pseudo_folder("student_1")
    found: pd.DataFrame = suggest(unlabelled, [], root, *folders, classes, 3)
    panels = []
    for name in found["id"]:
        later, earlier = (read_label(folder / f"{name}.png", written) for folder in folders)
        panels += [
            captioned(images[name], name),
            captioned(colourise(later, classes), "pseudo label"),
            captioned(marked(images[name], later != earlier), "changed since the last round"),
        ]
    save_labels("suggestions.png", panels, 3)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
