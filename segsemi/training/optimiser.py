"""SGD with the groups of DeepLab."""

from __future__ import annotations

import torch
from torch import nn

from segsemi.core.config import OptimParams
from segsemi.models.build import SegmentationModel


def sgd(model: SegmentationModel, params: OptimParams) -> torch.optim.Optimizer:
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
        fused=all(p.device.type in ("cpu", "cuda") for p in model.parameters()),
    )
