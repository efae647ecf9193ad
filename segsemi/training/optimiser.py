"""SGD or AdamW with the learning rates of DeepLab, and its "poly" schedule (paper, section 4.1)."""

import torch
from torch import nn

from segsemi.core.recipe import Recipe
from segsemi.models.build import SegmentationModel


def make_optimizer(model: SegmentationModel, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; decoder and head learn `decoder_lr_factor` times faster than the encoder.

    Weights decay; biases, batch norms and depthwise filters do not (as in DeepLabV3+ [4]).
    """
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        lr = recipe.lr * (1.0 if id(parameter) in encoder else recipe.decoder_lr_factor)
        depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
        decay = recipe.weight_decay if parameter.ndim > 1 and not depthwise else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    params = [{"params": g, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), g in groups.items()]
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(params, fused=fused)
    return torch.optim.SGD(params, momentum=recipe.momentum, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, recipe: Recipe) -> None:
    """Set every group's learning rate to that of `step`, its own at step 0 times `poly_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * poly_factor(step, recipe)


def poly_factor(step: int, recipe: Recipe) -> float:
    """Return the factor on the base learning rate at `step`, counted from 0: (1 - step / steps) ** power."""
    return (1 - step / recipe.steps) ** recipe.power
