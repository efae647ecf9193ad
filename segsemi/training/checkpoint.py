"""The state of an interrupted training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segsemi.core.files import has_content, write_bytes


def restore_training(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, Any]], list[float]]:
    """The number of steps done, the curve, and the losses since its last point."""
    if not has_content(checkpoint):
        return 0, [], []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    fused = optimizer.defaults["fused"]
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:  # the run may have begun on another device
        group["fused"] = fused
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    # in the parameter's memory format: a fused step takes it for granted
                    optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)
    return state["step"], state["curve"], state["recent"]


def save_training(
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
