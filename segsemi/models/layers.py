"""Other modules in the places of a network's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

C = TypeVar("C", bound=nn.Conv2d)


def replace_modules(network: nn.Module, replace: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Put what `replace` returns for a module of `network` in its place, in place; for None, look into that module.

    Each module is asked for once, so one that is used in several places stays shared.

    Returns:
        `network`, or what has taken its place.
    """
    found: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in found:
            new = replace(module)
            found[module] = module if new is None else new
            if new is None:
                for name, child in module._modules.items():  # named_children() skips the second place of a shared one
                    if child is not None:
                        module._modules[name] = visit(child)
        return found[module]

    return visit(network)


def conv_as(kind: type[C], conv: nn.Conv2d) -> C:
    """A convolution of that kind with the settings and the very parameters of `conv`."""
    new = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device="meta",
    )
    new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)
