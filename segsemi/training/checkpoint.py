"""The state of a training that may be interrupted, in its work folder."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segsemi.core.files import has_content, write_bytes


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: optimizer steps done.
        curve: the points of the training curve: dicts with step, loss, lr and, where measured, val_miou.
        recent: the losses since the last point.
    """

    step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def best_miou(self) -> float:
        """Return the highest validation mIoU so far; -1 where nothing was measured."""
        return max((point["val_miou"] for point in self.curve if "val_miou" in point), default=-1.0)


def save_training(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write weights, statistics, momentum and progress, atomically; and the average, where it is another model."""
    buffer = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **asdict(progress)}
    torch.save(state | ({} if average is model else {"average": average.state_dict()}), buffer)
    write_bytes(path, buffer.getvalue())


def restore_training(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load what `save_training` wrote into models and optimizer; with no such file, leave them and return no progress."""
    if not has_content(path):
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state.pop("model"))
    if average is not model:
        average.load_state_dict(state.pop("average"))
    fused = optimizer.defaults["fused"]
    optimizer.load_state_dict(state.pop("optimizer"))
    for group in optimizer.param_groups:  # the run may have begun on another device
        group["fused"] = fused
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    # in the parameter's memory format: a fused step takes it for granted
                    optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)
    return Progress(**state)
