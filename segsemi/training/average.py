"""The exponential moving average of a model's weights: the teacher of online methods (Tarvainen and Valpola 2017)."""

import torch
from torch import nn

SPAN = 0.05  # the share of a training's steps that the average remembers, at most (docs/findings.md)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, steps: int, decay: float) -> None:
    """Move weights and batch norm statistics of `average` towards those of `model`, in place, after `step` of `steps`.

    The decay is min(1 - 1 / (step + 1), 1 - 1 / (SPAN * steps), decay): the first step (0) copies the model, and a short
    training, for which published decays are not meant, ends with an average of its last steps, not of all.
    """
    kept = max(0.0, min(1 - 1 / (step + 1), 1 - 1 / (SPAN * steps), decay))
    own, new = ([*network.parameters(), *network.buffers()] for network in (average, model))
    floats = [index for index, value in enumerate(own) if value.is_floating_point()]
    torch._foreach_lerp_([own[index] for index in floats], [new[index] for index in floats], 1 - kept)
    for index in set(range(len(own))) - set(floats):  # counters
        own[index].copy_(new[index])
