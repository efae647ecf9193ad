"""One training loop for teacher, student and the labels-only baseline (paper, algorithm 1)."""

from __future__ import annotations

import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from segsemi.checkpoint import save_model
from segsemi.config import AugmentParams, MachineParams, OptimParams
from segsemi.contract import VAL, model_folder
from segsemi.data.batches import Group, Part, StepBatches, batch_loader, rows_in_whole
from segsemi.data.images import LabelledPairs
from segsemi.data.manifest import read_rows
from segsemi.dsbn import bn_statistics, convert_dsbn, labelled_first, strip_dsbn
from segsemi.engine import autocast
from segsemi.errors import UserError
from segsemi.files import has_content, write_bytes, write_csv
from segsemi.inference import evaluate_model
from segsemi.losses import LOSSES, Loss, cross_entropy
from segsemi.models.build import SegmentationModel
from segsemi.models.synced import rows_of_batch, sync_layers, unsync_layers
from segsemi.processes import Processes
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
        precision: as `segsemi.engine.autocast` takes it; weights and losses are float32 always.
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
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if processes.count > 1:
        sync_layers(model.network)
    if bn == "dsbn":
        convert_dsbn(model.network)
    optimizer = _optimizer(model, params)
    checkpoint, best = work / "checkpoint.pt", work / "best.pt"
    start, curve, recent = _restore(checkpoint, model, optimizer)
    if processes.from_first(start) != start:
        raise UserError(
            f"process {processes.rank} does not see {checkpoint}; all need one file system for the repository"
        )
    parameters, buffers = list(model.parameters()), _by_dtype(model.buffers())
    statistics = [[buffer.clone() for buffer in group] for group in buffers]
    network = _wrapped(model, processes, compiled)
    saved, pause = time.monotonic(), CHECKPOINT_SECONDS

    def save(path: Path, step: int) -> None:
        if processes.first:
            _save(path, model, optimizer, step, curve, recent)

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
        stop_requested() as stopping,
        progress_bar(
            total=batches.steps, initial=start, desc=batches.stage, unit="step", silent=not processes.first
        ) as bar,
    ):
        if start > 0 and recent:  # stopped before the point was made, or between two
            measure(start)
        for step, batch in enumerate(batch_loader(batches, start=start, workers=workers, device=device), start=start):
            factor = poly_factor(step, batches.steps, params.power)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            torch.manual_seed(derive_seed(batches.seed, batches.stage, "step", step))  # dropout
            _set_train_mode(model, bn)
            for now, before in zip(buffers, statistics, strict=True):
                torch._foreach_copy_(before, now)
            optimizer.zero_grad(set_to_none=True)
            value = torch.zeros((), device=device)
            images = {kind: sum(len(part.ids) for part in batch if part.pseudo == kind) for kind in (False, True)}
            passes = _passes(batch, params.accumulate, together=bn == "trainable")
            for parts in passes:
                with _one_pass(network, model, parts, bn, processes, last=parts is passes[-1]):
                    loss = _loss(network, parts, images, LOSSES[pseudo_loss], processes, precision)
                    loss.backward()
                value += loss.detach()
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
        _restore(best, model, optimizer)
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


def _wrapped(model: SegmentationModel, processes: Processes, compiled: bool) -> nn.Module:
    """What the training steps call: the model, compiled if asked for, its gradients averaged over the processes."""
    if processes.count == 1:
        return torch.compile(model) if compiled else model  # type: ignore[return-value]
    if compiled and processes.first:
        print(
            "machine.compile is left out with several processes: batch norm over them breaks each graph",
            file=sys.stderr,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for it, torch 2.11 has not
        # buffers are equal already: statistics are those of the whole batch
        # some networks have layers that they do not use
        return DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )


def _passes(batch: Sequence[Part], pieces: int, *, together: bool) -> list[list[Part]]:
    """What goes through the network at a time: all of a piece, or what DSBN keeps apart one after the other.

    Each pass is followed by its backward pass, so apart takes the memory of the larger one; only a batch norm that all
    images share needs them together.
    """
    passes = []
    for index in range(pieces):
        parts = [part.piece(index, pieces) for part in batch]
        if together:
            passes.append(parts)
        else:
            passes += [[part for part in parts if part.parallel == parallel] for parallel in (False, True)]
    return [parts for parts in passes if parts]


@contextmanager
def _one_pass(
    network: nn.Module, model: SegmentationModel, parts: list[Part], bn: str, processes: Processes, *, last: bool
) -> Iterator[None]:
    """Around the forward and backward pass of some parts; the last one of a step brings the processes together."""
    with ExitStack() as stack:
        if bn == "dsbn":
            count = 0 if parts[0].parallel else sum(len(part.ids) for part in parts)
            stack.enter_context(labelled_first(model, count))
        if processes.count > 1:
            stack.enter_context(rows_of_batch(model, *rows_in_whole(parts, processes.rank, processes.count)))
            if not last:
                stack.enter_context(network.no_sync())  # type: ignore[operator]  # DistributedDataParallel
        yield


def best_miou(curve: list[dict[str, Any]]) -> float:
    """The highest validation mIoU of a curve; -1 where nothing was measured."""
    return max((row["val_miou"] for row in curve if "val_miou" in row), default=-1.0)


def _loss(
    network: nn.Module,
    parts: list[Part],
    images: Mapping[bool, int],
    pseudo_loss: Loss,
    processes: Processes,
    precision: str,
) -> Tensor:
    """What some parts of a batch add to its loss, CE(y*, y) + SCL(y~*, y~) (algorithm 1, line 9).

    Each part counts by its share of the batch's images of its kind. Of several processes, the mean of their losses is the
    loss of the whole batch.

    Args:
        images: how many images of the batch have pseudo labels (True), and how many have labels (False).
    """
    inputs, targets = zip(*(part.on(processes.device) for part in parts), strict=True)
    with autocast(processes.device, precision):
        logits = network(torch.cat(inputs) if len(inputs) > 1 else inputs[0])
    losses = []
    for part, own, labels in zip(parts, logits.split([len(part.ids) for part in parts]), targets, strict=True):
        loss = (pseudo_loss if part.pseudo else cross_entropy)(own, labels, mean_count=processes.mean)
        losses.append(loss * (len(part.ids) / images[part.pseudo]))
    return torch.stack(losses).sum()


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
        fused=all(p.device.type == "cuda" for p in model.parameters()),  # on the CPU it crawls beside another process
    )


def _set_train_mode(model: nn.Module, bn: str) -> None:
    if not model.training:
        model.train()
    if bn == "fixed":
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.training:
                module.eval()


def _until(stopping: Callable[[], bool], pairs: Sequence[Pair], indices: Sequence[int]) -> Iterator[Pair]:
    """Those pairs one by one; a stop in the middle does not wait for the last."""
    for index in indices:
        if stopping():
            raise KeyboardInterrupt
        yield pairs[index]


def _validate(
    model: SegmentationModel, pairs: Sequence[Pair], processes: Processes, stopping: Callable[[], bool]
) -> float:
    """mIoU, each process measuring its share; several finish it before they stop, since each waits for the others."""
    model.eval()
    classes = model.classes
    own = processes.share_of(range(len(pairs)))
    confusion = evaluate_model(
        model,
        _until(stopping if processes.count == 1 else lambda: False, pairs, own),
        num_classes=len(classes),
        ignore_index=classes.ignore_index,
    )
    confusion.matrix = processes.sum(torch.from_numpy(confusion.matrix).to(processes.device)).cpu().numpy()
    return confusion.miou()


def _restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, Any]], list[float]]:
    """The number of steps done, the curve, and the losses since its last point."""
    if not has_content(checkpoint):
        return 0, [], []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    fused = optimizer.defaults["fused"]
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:
        group["fused"] = fused  # the run may have begun on another device
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
