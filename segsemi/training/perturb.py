"""Perturbed features between encoder and decoder, as UniMatch (Yang et al. 2023) and UniMatch V2 (2025) have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SHARE = 0.5  # of the channels


@contextmanager
def perturbed_features(network: nn.Module, kind: Literal["none", "dropout", "complementary"]) -> Iterator[None]:
    """Within the block the decoder gets perturbed maps of the encoder; random numbers are torch's.

    - ``dropout``: every channel of an image is 0 with probability 1/2, else doubled.
    - ``complementary``: the batch is pairs of views of one image; a channel is doubled in one of them and 0 in the other. A
      random half of the pairs, rounded down, stays as it is.

    Zeros and doubles raise the variance behind them. So the decoder's batch norms take statistics of the batch, but keep their
    running ones, with which the network predicts (docs/findings.md).
    """
    if kind == "none":
        yield
        return
    encoder: nn.Module = getattr(network, "module", network).get_submodule("network.encoder")
    decoders = {*network.modules()} - {*encoder.modules()}
    momenta = {module: module.momentum for module in decoders if isinstance(module, _BatchNorm)}

    def perturb(_: nn.Module, __: Any, output: Any) -> Any:
        maps, *rest = output if isinstance(output, tuple) else (output,)  # a ViT has tokens beside its maps
        spared = torch.randperm(len(maps[0]) // 2)[: len(maps[0]) // 4] if kind == "complementary" else None
        changed = [F.dropout2d(x, SHARE) if spared is None else _complementary(x, spared) for x in maps]
        changed[0] = maps[0] if maps[0].shape[1] == 3 else changed[0]  # smp gives the image itself first
        return (changed, *rest) if isinstance(output, tuple) else changed

    handle = encoder.register_forward_hook(perturb)
    for norm in momenta:
        norm.momentum = 0.0
    try:
        yield
    finally:
        handle.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _complementary(x: Tensor, spared: Tensor) -> Tensor:
    """(2 N, C, H, W), view and view of each image -> the same, with its channels shared out among the two."""
    first = 2.0 * (torch.rand(len(x) // 2, x.shape[1], device=x.device) < SHARE)
    first[spared.to(x.device)] = 1.0
    factors = torch.stack([first, 2 - first], dim=1).flatten(0, 1)  # (2 N, C)
    return x * factors[..., None, None].to(x.dtype)
