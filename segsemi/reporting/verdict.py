"""The verdict of a run: its final model, what that gained, and what to beware of."""

from collections.abc import Sequence

from segsemi.core.consistency import SUPERVISED
from segsemi.reporting.measured import Measured

FEW_IMAGES = 10  # on fewer, one image changes mIoU by points


def final_model(models: Sequence[Measured]) -> Measured:
    """Return the last student, or the teacher if there is none; `models` has the teacher first."""
    return next((model for model in reversed(models) if model.teacher is not None), models[0])


def gains(models: Sequence[Measured]) -> dict[str, float]:
    """Return mIoU of the final model less that of the teacher and of the best baseline, by their names."""
    last = final_model(models)
    baselines = [model for model in models[1:] if model.teacher is None and model.metrics["miou"] is not None]
    others = [models[0], *sorted(baselines, key=lambda model: model.metrics["miou"])[-1:]]
    mious = {model.name: model.metrics["miou"] for model in others if model is not last}
    if last.metrics["miou"] is None:
        return {}
    return {name: 100 * (last.metrics["miou"] - miou) for name, miou in mious.items() if miou is not None}


def warnings(models: Sequence[Measured], images: int) -> list[str]:
    """Return sentences on what makes the results of a run doubtful.

    Args:
        models: the teacher first.
        images: number of images on which they were measured.
    """
    last, found = final_model(models), []
    if images < FEW_IMAGES:
        found.append(f"Few images: with {images} measured, single images decide the mIoU. Use at least {FEW_IMAGES}.")
    for model in models:
        labels, pseudo_labels = (model.quality.get(key, {}) for key in ("labels", "pseudo_labels"))
        lost = ", ".join(name for name, share in labels.items() if share > 0 and pseudo_labels[name] == 0)
        if lost:
            found.append(f"Collapse: the pseudo labels of {model.name} have almost none of these classes: {lost}.")
    gained = gains(models)
    found += [f"No gain: {last.name} is no better than {name}." for name, gain in gained.items() if gain <= 0]
    if gained and min(gained.values()) > 0 and all(model.name != SUPERVISED for model in models):
        command = f"dvc exp run --temp -S '+baselines.supervised={last.name}'"
        found.append(f"Longer training: a part of the gain may be due to it. To measure that part: {command}.")
    return found
