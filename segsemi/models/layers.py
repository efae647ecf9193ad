"""Replace layers of a network."""

from collections.abc import Callable

from torch import nn


def replace_modules(network: nn.Module, replace: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace each module of `network` for which `replace` returns another one, in place; for None, look into the module.

    Each module is asked for once, so one that is used in several places stays shared.

    Returns:
        `network`, or its replacement.
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
