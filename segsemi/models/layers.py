"""Replace layers of a network."""

from collections.abc import Callable

from torch import nn


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
