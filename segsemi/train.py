"""One training loop for teacher, student and the labels-only baseline (paper, algorithm 1)."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from segsemi.checkpoint import save_model
from segsemi.config import OptimParams
from segsemi.data.batches import Batch, StepBatches, batch_loader
from segsemi.dsbn import bn_statistics, convert_dsbn, labelled_first, strip_dsbn
from segsemi.errors import UserError
from segsemi.files import write_bytes, write_csv
from segsemi.inference import evaluate_model
from segsemi.losses import LOSSES, Loss, cross_entropy
from segsemi.models.build import SegmentationModel
from segsemi.progress import progress_bar
from segsemi.rng import derive_seed
from segsemi.schedule import poly_factor
from segsemi.stop import stop_requested


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
    device: torch.device,
    workers: int = 0,
    val: Sequence[Pair] | None = None,
) -> History:
    """Train `model` in place for batches.steps steps: CE on labels + `pseudo_loss` on pseudo labels.

    Resumes from the checkpoint in `work` if there is one; Ctrl-C and SIGTERM write one after the step and raise
    KeyboardInterrupt. The model ends as a plain network, on `device`, in eval mode.

    Args:
        pseudo_loss: a key of LOSSES.
        bn: `trainable`: one BN for all; `fixed`: running statistics stay as they are and normalise; `dsbn`.
        val: validation images and labels, as `evaluate_model` takes them; measured every params.val_every steps (0:
            never). For the curve alone, unless params.keep is `best`: then the model ends as it was where val was best,
            at the earliest of equals.

    Raises:
        UserError: the loss or its gradient is not finite; names the step, the images and the file of the last good state.
    """
    if params.keep == "best" and not val:
        raise UserError("keep: best needs validation images, and there are none; set keep: last")
    if bn == "dsbn":
        convert_dsbn(model.network)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, params)
    checkpoint, best = work / "checkpoint.pt", work / "best.pt"
    start, curve, recent = _restore(checkpoint, model, optimizer)
    saved, pause = time.monotonic(), CHECKPOINT_SECONDS

    with (
        stop_requested() as stopping,
        progress_bar(total=batches.steps, initial=start, desc=batches.stage, unit="step") as bar,
    ):
        for step, batch in enumerate(batch_loader(batches, start=start, workers=workers), start=start):
            factor = poly_factor(step, batches.steps, params.power)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            torch.manual_seed(derive_seed(batches.seed, batches.stage, "step", step))  # dropout
            _set_train_mode(model, bn)
            statistics = [buffer.clone() for buffer in model.buffers()]
            optimizer.zero_grad(set_to_none=True)
            value = 0.0
            for piece in batch.pieces(params.accumulate):
                with labelled_first(model, piece.labelled) if bn == "dsbn" else nullcontext():
                    loss = _loss(model, piece, LOSSES[pseudo_loss], device) / params.accumulate
                loss.backward()
                value += float(loss.detach())
            norm = float(get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
            if not math.isfinite(value + norm):  # before the update: the weights are still good, BN's statistics not
                for buffer, before in zip(model.buffers(), statistics, strict=True):
                    buffer.copy_(before)
                _save(work / "last_good.pt", model, optimizer, step, curve, recent)
                raise UserError(
                    f"loss {value}, norm of the gradient {norm} at step {step}, images {', '.join(batch.ids)}; the last good "
                    f"state is {work / 'last_good.pt'}. Lower lr, or look at these images"
                )
            optimizer.step()

            done = step + 1
            recent.append(value)
            bar.update()
            due = params.val_every > 0 and (done % params.val_every == 0 or done == batches.steps)
            if (due and val is not None) or done % CURVE_EVERY == 0 or done == batches.steps:
                row: dict[str, Any] = {"step": done, "loss": float(np.mean(recent)), "lr": params.lr * factor}
                recent.clear()
                bar.set_postfix(loss=f"{row['loss']:.3f}")
                if due and val is not None:
                    row["val_miou"] = _validate(model, _until(stopping, val))
                    bar.write(f"{batches.stage} step {done}: val mIoU {100 * row['val_miou']:.2f}")
                    if params.keep == "best" and row["val_miou"] > best_miou(curve):
                        _save(best, model, optimizer, done, curve, recent)
                curve.append(row)
            if stopping() or done == batches.steps or time.monotonic() - saved > pause:
                began = time.monotonic()
                _save(checkpoint, model, optimizer, done, curve, recent)
                saved = time.monotonic()
                pause = max(CHECKPOINT_SECONDS, (saved - began) / CHECKPOINT_SHARE)
            if stopping():
                raise KeyboardInterrupt
    if params.keep == "best":
        if not best.exists():
            raise UserError("keep: best found no pixel with a class in the validation labels; set keep: last")
        _restore(best, model, optimizer)
    history = History(curve, bn_statistics(model.network))
    strip_dsbn(model.network)
    model.eval()
    return history


def best_miou(curve: list[dict[str, Any]]) -> float:
    """The highest validation mIoU of a curve; -1 where nothing was measured."""
    return max((row["val_miou"] for row in curve if "val_miou" in row), default=-1.0)


def save_trained(model: SegmentationModel, history: History, folder: Path, *, steps_in_all: int, keep: str) -> None:
    """Write the model, curve.csv and, after DSBN, bn.csv to `folder`.

    Args:
        steps_in_all: optimizer steps that went into the model, those of its teachers included.
        keep: which checkpoint it is, as in `OptimParams`.
    """
    write_csv(folder / "curve.csv", ["step", "loss", "lr", "val_miou"], history.curve)
    if history.bn:
        write_csv(folder / "bn.csv", list(history.bn[0]), history.bn)
    save_model(model, folder, {"steps_in_all": steps_in_all, "keep": keep})


def _loss(model: nn.Module, batch: Batch, pseudo_loss: Loss, device: torch.device) -> Tensor:
    """CE(y*, y) + SCL(y~*, y~) of algorithm 1, line 9, from one forward pass of the concatenated batch (line 8)."""
    images = batch.images.to(device, memory_format=torch.channels_last)
    targets = batch.targets.to(device)
    logits = model(images)
    count, parts = batch.labelled, []
    if count > 0:
        parts.append(cross_entropy(logits[:count], targets[:count]))
    if count < len(images):
        parts.append(pseudo_loss(logits[count:], targets[count:]))
    return torch.stack(parts).sum()


def _optimizer(model: SegmentationModel, params: OptimParams) -> torch.optim.Optimizer:
    """SGD; the decoder and head learn `decoder_lr_factor` times faster, and only weights of more than one dimension
    decay, not biases nor batch norms (as in DeepLabV3+ [4])."""
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        lr = params.lr * (1.0 if id(parameter) in encoder else params.decoder_lr_factor)
        decay = params.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return torch.optim.SGD(
        [{"params": g, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), g in groups.items()],
        momentum=params.momentum,
    )


def _set_train_mode(model: nn.Module, bn: str) -> None:
    if not model.training:
        model.train()
    if bn == "fixed":
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.training:
                module.eval()


def _until(stopping: Callable[[], bool], pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs one by one; a stop in the middle does not wait for the last, and training goes on from a minute before."""
    for index in range(len(pairs)):
        if stopping():
            raise KeyboardInterrupt
        yield pairs[index]


def _validate(model: SegmentationModel, pairs: Iterable[Pair]) -> float:
    model.eval()
    classes = model.classes
    return evaluate_model(model, pairs, num_classes=len(classes), ignore_index=classes.ignore_index).miou()


def _restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, Any]], list[float]]:
    """The number of steps done, the curve, and the losses since its last point."""
    if not checkpoint.exists():
        return 0, [], []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["curve"], state["recent"]


def _save(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    curve: list[dict[str, Any]],
    recent: list[float],
) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "curve": curve}
    buffer = io.BytesIO()
    torch.save({**state, "recent": recent}, buffer)
    write_bytes(checkpoint, buffer.getvalue())
