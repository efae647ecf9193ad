"""Make `import torchvision` work if its compiled operators do not load.

PyPI's torchvision is linked to CUDA; beside a CPU build of torch its C++ library is skipped, and the import then fails at
"operator torchvision::nms does not exist", because Python code registers meta kernels for it. Declaring the two schemas
is enough: segmentation networks call neither operator.
"""

import importlib
import sys

import torch


def import_torchvision() -> None:
    """Import torchvision; if its operators are missing, declare them and import again."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
