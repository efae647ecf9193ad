"""segsemi: semi-supervised semantic segmentation with strong augmentation, DSBN and the self correction loss."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    # Lazy: `import segsemi.losses` must not pay for the networks' libraries.
    if name == "load_model":
        return importlib.import_module("segsemi.models.saving").load_model
    raise AttributeError(f"module 'segsemi' has no attribute {name!r}")
