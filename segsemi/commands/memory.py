"""How much memory a training step takes, found without computing anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from segsemi.core.classes import Classes
from segsemi.losses import cross_entropy
from segsemi.models.build import Architecture, SegmentationModel


class Memory(NamedTuple):
    """Bytes of a network's weights and buffers, as a model file holds them, and of a training step."""

    weights: int
    step: int


def step_memory(architecture: Architecture, classes: Classes, *, batch: int, crop_size: int) -> Memory:
    """The memory of one float32 step of SGD with momentum: weights, gradients, momentum, and what the backward pass keeps.

    The step runs on tensors without data (device meta), which takes about a second at any size. Left out, because they
    depend on the device: the working memory of convolutions and what the driver takes; a quarter more is a fair guess.

    Args:
        batch: images that go through the network at once: the batch size divided by `accumulate`.
    """
    model = SegmentationModel(architecture, classes).to("meta").train()
    step = 3 * _bytes(model.parameters()) + _kept(model, batch, crop_size)
    return Memory(weights=_bytes(model.state_dict().values()), step=step)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _kept(model: SegmentationModel, batch: int, crop_size: int) -> int:
    """Bytes of the tensors that a forward pass keeps for its backward pass, each storage once, the weights left out."""
    known = {id(parameter) for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no key is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        images = torch.empty(batch, 3, crop_size, crop_size, device="meta")
        targets = torch.empty(batch, crop_size, crop_size, dtype=torch.long, device="meta")
        cross_entropy(model(images), targets)
    return sum(storage.nbytes() for storage in kept.values())
