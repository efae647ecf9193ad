"""The training loop of teacher, student and supervised baseline (paper, algorithm 1)."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from segsemi.core.errors import UserError
from segsemi.core.progress import progress_bar
from segsemi.core.recipe import Recipe
from segsemi.data.batches import PartBatch, StepBatches
from segsemi.data.loaders import load_items
from segsemi.dsbn import bn_statistics, strip_dsbn
from segsemi.metrics import ConfusionMatrix
from segsemi.models.build import SegmentationModel
from segsemi.runtime.cpu import fast_atrous_convolutions
from segsemi.runtime.distributed import Runtime
from segsemi.runtime.live import Picture, Point, live_log
from segsemi.runtime.stop import stop_requested
from segsemi.training.average import update_average
from segsemi.training.checkpoint import Progress, restore_training, save_training
from segsemi.training.optimiser import make_optimizer, poly_factor, set_learning_rate
from segsemi.training.step import training_network, training_step

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # images (H, W, 3) uint8 and labels (H, W) uint8
CHECKPOINT_SECONDS = 60.0  # between two checkpoints, at least
CURVE_EVERY = 20  # steps of which a point of the training curve is the mean


class History(NamedTuple):
    """The curve and the statistics of a training.

    Attributes:
        curve: dicts with step, loss, lr and, where measured, val_miou.
        bn: the statistics of both batch norms of each layer, as `bn_statistics` gives them; empty without DSBN.
    """

    curve: list[dict[str, Any]]
    bn: list[dict[str, str | float]]


def train(
    model: SegmentationModel, recipe: Recipe, batches: StepBatches, val: Pairs, runtime: Runtime, work: Path
) -> History:
    """Train `model` in place; it ends as a plain network in eval mode, on the device.

    Goes on from the checkpoint in `work` if there is one; Ctrl-C and SIGTERM write one after the step and raise
    KeyboardInterrupt. With keep: best the model ends as it was where validation mIoU was highest, the first of equals.

    Raises:
        UserError: the loss or its gradient is not finite; keep: best without a class in the validation labels.
    """
    network = training_network(model, recipe, runtime)
    average = copy.deepcopy(model) if recipe.ema else model  # what is measured and kept
    optimizer = make_optimizer(model, recipe)
    checkpoint, best = work / "checkpoint.pt", work / "best.pt"
    progress = restore_training(checkpoint, model, average, optimizer)
    loader = iter(load_items(batches, range(progress.step, recipe.steps), runtime))
    checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
    with (
        fast_atrous_convolutions(model) if runtime.device.type == "cpu" else nullcontext(),
        stop_requested() as stopping,
        progress_bar(
            total=recipe.steps, initial=progress.step, desc=recipe.name, unit="step", silent=not runtime.first
        ) as bar,
        live_log(runtime.log if runtime.first else "none", work.parent / "logs" / work.name, progress.curve) as log,
    ):
        while True:
            # ---- the training curve; a training that goes on from a checkpoint first adds the point that was due there
            is_best = bool(progress.recent) and measure(average, recipe, val, progress, runtime, stopping, log)
            if is_best and recipe.keep == "best" and runtime.first:
                save_training(best, model, average, optimizer, progress)
            if progress.step == recipe.steps:
                break
            # ---- one step: loss and gradient (lines 8 and 9), then the update (line 10)
            set_learning_rate(optimizer, progress.step, recipe)
            optimizer.zero_grad(set_to_none=True)
            batch = next(loader)
            loss = training_step(network, average, batch, progress.step, recipe, runtime)
            norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])  # equal in all processes
            facts = runtime.mean(torch.stack([loss, norm, torch.full_like(loss, float(stopping()))]))
            loss_value, norm_value, stop = facts.tolist()  # the one place where a GPU is waited for
            if not math.isfinite(loss_value + norm_value):
                raise _not_finite(loss_value, norm_value, progress.step, batch, checkpoint)
            optimizer.step()
            if recipe.ema:
                update_average(average, model, progress.step, recipe.steps, recipe.ema)
            progress.step += 1
            progress.recent.append(loss_value)
            bar.update()
            # ---- the checkpoint, also before a validation, which may be stopped
            val_due = _due(progress.step, recipe.val_every, recipe.steps)
            if runtime.first and (stop or val_due or time.monotonic() > checkpoint_due):
                save_training(checkpoint, model, average, optimizer, progress)
                checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
            if stop:
                runtime.wait()
                raise KeyboardInterrupt
        if runtime.count == 1 and stopping():  # in the last moment
            raise KeyboardInterrupt
    runtime.wait()
    if recipe.keep == "best":
        restore_training(best, model, average, optimizer)
    if average is not model:
        model.load_state_dict(average.state_dict())
    history = History(progress.curve, bn_statistics(model.network))
    strip_dsbn(model.network)
    model.eval()
    return history


def _not_finite(loss: float, norm: float, step: int, batch: Sequence[PartBatch], checkpoint: Path) -> UserError:
    ids = ", ".join(id for own in batch for id in own.ids)
    last = f"the last checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
    return UserError(
        f"loss {loss}, norm of the gradient {norm} at step {step}, images {ids}; {last}. Lower lr, or look at these images"
    )


def measure(
    model: SegmentationModel,
    recipe: Recipe,
    val: Pairs,
    progress: Progress,
    runtime: Runtime,
    stopping: Callable[[], bool],
    log: Callable[[Point, Picture], None],
) -> bool:
    """Collective: where it is due, add a point to the curve, with val mIoU; return whether that is the best so far."""
    validates = bool(val) and recipe.val_every > 0 and _due(progress.step, recipe.val_every, recipe.steps)
    if not validates and not _due(progress.step, CURVE_EVERY, recipe.steps):
        return False
    lr = recipe.lr * poly_factor(progress.step - 1, recipe)
    point: dict[str, Any] = {"step": progress.step, "loss": float(np.mean(progress.recent)), "lr": lr}
    better = False
    if validates:
        point["val_miou"] = validate(model, val, runtime, stopping)
        better = point["val_miou"] > progress.best_miou()
        if recipe.keep == "best" and math.isnan(point["val_miou"]):
            raise UserError("keep: best found no pixel with a class in the validation labels; set keep: last")
        if runtime.first:
            tqdm.write(f"{recipe.name} step {progress.step}: val mIoU {100 * point['val_miou']:.2f}")
    progress.recent.clear()
    progress.curve.append(point)
    log(point, lambda: _example(model, val[0][0]) if validates else None)
    return better


def _example(model: SegmentationModel, image: np.ndarray) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, beside its prediction in the classes' colours: (H, 2 W, 3) uint8."""
    return np.hstack([image, model.classes.palette()[model.predict(image)]])


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def validate(model: SegmentationModel, val: Pairs, runtime: Runtime, stopping: Callable[[], bool]) -> float:
    """Collective: return the mIoU on `val`, of which each process measures its share.

    Raises:
        KeyboardInterrupt: a stop was requested; several processes finish their shares first, since each waits for the others.
    """
    model.eval()
    classes = model.classes
    confusion = ConfusionMatrix(len(classes), classes.ignore_index)
    for image, label in load_items(val, runtime.share_of(range(len(val))), runtime):
        if runtime.count == 1 and stopping():
            raise KeyboardInterrupt
        confusion.update(model.predict(image), label)
    confusion.matrix = runtime.sum(torch.from_numpy(confusion.matrix).to(runtime.device)).cpu().numpy()
    return confusion.miou()
