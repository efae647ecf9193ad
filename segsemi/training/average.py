"""The exponential moving average of a model's weights: the teacher of online methods (Tarvainen and Valpola 2017)."""

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move weights and batch norm statistics of `average` towards those of `model`, in place.

    The decay is min(1 - 1 / (step + 1), decay), so that the first step (0) copies the model.
    """
    kept = min(1 - 1 / (step + 1), decay)
    own, new = ([*network.parameters(), *network.buffers()] for network in (average, model))
    floats = [index for index, value in enumerate(own) if value.is_floating_point()]
    torch._foreach_lerp_([own[index] for index in floats], [new[index] for index in floats], 1 - kept)
    for index in set(range(len(own))) - set(floats):  # counters
        own[index].copy_(new[index])
