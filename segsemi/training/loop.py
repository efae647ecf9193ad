"""One training loop for teacher, student and the labels-only baseline (paper, algorithm 1)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from segsemi.core.config import AugmentParams, MachineParams, OptimParams
from segsemi.core.errors import UserError
from segsemi.core.files import write_csv
from segsemi.core.paths import VAL, model_folder
from segsemi.core.progress import progress_bar
from segsemi.data.batches import Group, StepBatches
from segsemi.data.images import LabelledPairs
from segsemi.data.loaders import batch_loader
from segsemi.data.manifest import read_rows
from segsemi.dsbn import bn_statistics, convert_dsbn, strip_dsbn
from segsemi.inference import evaluate_model
from segsemi.models.build import SegmentationModel
from segsemi.models.saving import save_model
from segsemi.runtime.background import ahead
from segsemi.runtime.device import one_thread, training_format
from segsemi.runtime.distributed import Processes
from segsemi.runtime.stop import stop_requested
from segsemi.training.batch_norm import sync_layers, unsync_layers
from segsemi.training.checkpoint import restore_training, save_training
from segsemi.training.optimiser import sgd
from segsemi.training.schedule import poly_factor
from segsemi.training.step import step_passes


class History(NamedTuple):
    """What a training leaves behind beside the model.

    Attributes:
        curve: dicts with step, loss, lr and, where measured, val_miou.
        bn: the statistics of both batch norms of each layer, as `bn_statistics` gives them; empty without DSBN.
    """

    curve: list[dict[str, Any]]
    bn: list[dict[str, str | float]]


Pair = tuple[np.ndarray, np.ndarray]  # image and label
CHECKPOINT_SECONDS = 60.0  # between two checkpoints, at least
CHECKPOINT_SHARE = 0.02  # of the time, at most, goes into writing them
CURVE_EVERY = 20  # steps of which a point of the training curve is the mean


def train(
    model: SegmentationModel,
    batches: StepBatches,
    params: OptimParams,
    *,
    pseudo_loss: str = "ce",
    bn: str = "trainable",
    work: Path,
    processes: Processes,
    workers: int = 0,
    precision: str = "fp32",
    compiled: bool = False,
    val: Sequence[Pair] | None = None,
) -> History:
    """Train `model` in place for batches.steps steps: CE on labels + `pseudo_loss` on pseudo labels.

    Resumes from the checkpoint in `work` if there is one; Ctrl-C and SIGTERM write one after the step and raise
    KeyboardInterrupt. The model ends as a plain network, on processes.device, in eval mode.

    Args:
        batches: this process's share of them, where there are several.
        pseudo_loss: a key of LOSSES.
        bn: `trainable`: one BN for all; `fixed`: running statistics stay as they are and normalise; `dsbn`.
        precision: as `segsemi.runtime.device.autocast` takes it; weights and losses are float32 always.
        compiled: run the training steps through torch.compile.
        val: validation images and labels, as `evaluate_model` takes them; measured every params.val_every steps (0:
            never). For the curve alone, unless params.keep is `best`: then the model ends as it was where val was best,
            at the earliest of equals.

    Raises:
        UserError: the loss or its gradient is not finite; names the step, the images and the file of the last good state.
    """
    if params.keep == "best" and not val:
        raise UserError("keep: best needs validation images, and there are none; set keep: last")
    device = processes.device
    model.to(device=device, memory_format=training_format(device))  # type: ignore[call-overload]
    if processes.count > 1:
        sync_layers(model.network)
    if bn == "dsbn":
        convert_dsbn(model.network)
    optimizer = sgd(model, params)
    checkpoint, best = work / "checkpoint.pt", work / "best.pt"
    start, curve, recent = restore_training(checkpoint, model, optimizer)
    if processes.from_first(start) != start:
        raise UserError(
            f"process {processes.rank} does not see {checkpoint}; all need one file system for the repository"
        )
    parameters, buffers = list(model.parameters()), _by_dtype(model.buffers())
    statistics = [[buffer.clone() for buffer in group] for group in buffers]
    saved, pause = time.monotonic(), CHECKPOINT_SECONDS

    def save(path: Path, step: int) -> None:
        if processes.first:
            save_training(path, model, optimizer, step, curve, recent)

    def measure(step: int) -> None:
        """A point of the curve, with val mIoU where it is due; a stop in the middle leaves a checkpoint before it."""
        validate = val is not None and _due(step, params.val_every, batches.steps)
        if not validate and not _due(step, CURVE_EVERY, batches.steps):
            return
        lr = params.lr * poly_factor(step - 1, batches.steps, params.power)
        row: dict[str, Any] = {"step": step, "loss": float(np.mean(recent)), "lr": lr}
        bar.set_postfix(loss=f"{row['loss']:.3f}")
        if validate:
            assert val is not None
            try:
                row["val_miou"] = _validate(model, val, processes, stopping)
            except KeyboardInterrupt:
                save(checkpoint, step)
                raise
            if params.keep == "best" and math.isnan(row["val_miou"]):
                raise UserError("keep: best found no pixel with a class in the validation labels; set keep: last")
            if processes.first:
                bar.write(f"{batches.stage} step {step}: val mIoU {100 * row['val_miou']:.2f}")
        recent.clear()
        better = row.get("val_miou", -1.0) > best_miou(curve)
        if params.keep == "best" and better:
            save(best, step)
        curve.append(row)

    with (
        step_passes(
            model, batches, processes, pseudo_loss=pseudo_loss, bn=bn, precision=precision, compiled=compiled
        ) as passes,
        ThreadPoolExecutor(max_workers=1) as reader,
        stop_requested() as stopping,
        progress_bar(
            total=batches.steps, initial=start, desc=batches.stage, unit="step", silent=not processes.first
        ) as bar,
    ):
        if start > 0 and recent:  # stopped before the point was made, or between two
            measure(start)
        loader = batch_loader(batches, start=start, workers=workers, device=device)
        for step, batch in enumerate(ahead(reader, loader), start=start):
            factor = poly_factor(step, batches.steps, params.power)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            for now, before in zip(buffers, statistics, strict=True):
                torch._foreach_copy_(before, now)
            optimizer.zero_grad(set_to_none=True)
            value = passes(batch, step)
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])  # the same in all processes
            facts = torch.stack([value, norm, torch.full_like(value, float(stopping()))])
            loss_value, norm_value, stops = processes.mean(facts).tolist()  # the one place where a GPU is waited for
            if not math.isfinite(loss_value + norm_value):
                # before the update: the weights are still good, batch norm's statistics not
                for now, before in zip(buffers, statistics, strict=True):
                    torch._foreach_copy_(now, before)
                save(work / "last_good.pt", step)
                processes.wait()  # torchrun ends the others soon after one has gone
                ids = ", ".join(id for part in batch for id in part.ids)
                raise UserError(
                    f"loss {loss_value}, norm of the gradient {norm_value} at step {step}, images {ids}; the last "
                    f"good state is {work / 'last_good.pt'}. Lower lr, or look at these images"
                )
            with one_thread():
                optimizer.step()

            done = step + 1
            recent.append(loss_value)
            bar.update()
            if stops:  # before a measurement: whoever stops us does not wait for it
                save(checkpoint, done)
                processes.wait()
                raise KeyboardInterrupt
            measure(done)
            if done == batches.steps or time.monotonic() - saved > pause:
                began = time.monotonic()
                save(checkpoint, done)
                saved = time.monotonic()
                pause = max(CHECKPOINT_SECONDS, (saved - began) / CHECKPOINT_SHARE)
    if processes.count == 1 and stopping():  # in the last step; several have agreed on it, or go on together
        raise KeyboardInterrupt
    processes.wait()
    if params.keep == "best":
        restore_training(best, model, optimizer)
    history = History(curve, bn_statistics(model.network))
    strip_dsbn(model.network)
    unsync_layers(model.network)
    model.eval()
    return history


def train_and_save(
    name: str,
    network: SegmentationModel,
    groups: Sequence[Group],
    params: OptimParams,
    *,
    steps: int,
    steps_before: int = 0,
    seed: int,
    augment: AugmentParams,
    pseudo_loss: str = "ce",
    bn: str = "trainable",
    root: Path,
    machine: MachineParams,
    work: Path,
    processes: Processes,
) -> None:
    """Train `network` on `groups` for `steps` steps and write the model, curve.csv and, after DSBN, bn.csv to models/NAME.

    Args:
        steps_before: optimizer steps that went into its teachers.
        root: where the paths of the list of validation images start.

    Raises:
        UserError: see `train` and `StepBatches`.
    """
    workers = processes.loaders(machine.workers)
    batches = StepBatches(
        groups,
        augment,
        steps=steps,
        seed=seed,
        stage=name,
        cache_mb=machine.cache_mb // (processes.here * max(1, workers)),
        pieces=params.accumulate,
        rank=processes.rank,
        processes=processes.count,
    )
    history = train(
        network,
        batches,
        params,
        pseudo_loss=pseudo_loss,
        bn=bn,
        work=work,
        processes=processes,
        workers=workers,
        precision=machine.precision,
        compiled=machine.compile,
        val=LabelledPairs(read_rows(VAL), root, network.classes),
    )
    if not processes.first:
        return
    folder = model_folder(name)
    write_csv(folder / "curve.csv", ["step", "loss", "lr", "val_miou"], history.curve)
    if history.bn:
        write_csv(folder / "bn.csv", list(history.bn[0]), history.bn)
    save_model(network, folder, {"steps_in_all": steps_before + steps, "keep": params.keep})


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """On a GPU those of one dtype are copied by one kernel."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _due(step: int, every: int, steps: int) -> bool:
    return every > 0 and (step % every == 0 or step == steps)


def best_miou(curve: list[dict[str, Any]]) -> float:
    """The highest validation mIoU of a curve; -1 where nothing was measured."""
    return max((row["val_miou"] for row in curve if "val_miou" in row), default=-1.0)


def _until(stopping: Callable[[], bool], indices: Sequence[int]) -> Iterator[int]:
    """Them one by one; a stop in the middle does not wait for the last."""
    for index in indices:
        if stopping():
            raise KeyboardInterrupt
        yield index


def _validate(
    model: SegmentationModel, pairs: Sequence[Pair], processes: Processes, stopping: Callable[[], bool]
) -> float:
    """mIoU, each process measuring its share; several finish it before they stop, since each waits for the others."""
    model.eval()
    classes = model.classes
    own = processes.share_of(range(len(pairs)))
    confusion = evaluate_model(
        model,
        pairs,
        num_classes=len(classes),
        ignore_index=classes.ignore_index,
        indices=_until(stopping if processes.count == 1 else lambda: False, own),
    )
    confusion.matrix = processes.sum(torch.from_numpy(confusion.matrix).to(processes.device)).cpu().numpy()
    return confusion.miou()
