"""The device of a network, and the number format and memory order that are fast on it."""

import cv2
import torch

from segsemi.core.errors import UserError
from segsemi.runtime.cpu import keep_memory


def choose_device(name: str) -> torch.device:
    """Return the device of machine.device: `auto` is a CUDA GPU, else Apple's, else the CPU; other names are torch's.

    Also limit OpenCV to one thread, since its pool and torch's slow each other down. On the CPU, keep freed memory for reuse.

    Raises:
        UserError: the named device is not available.
    """
    cv2.setNumThreads(0)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"machine.device {name!r} is not available ({reason}); use auto or cpu") from None
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for pinned memory, and for code that uses the current device
    if device.type == "cpu":
        keep_memory()
    return device


def training_format(device: torch.device) -> torch.memory_format:
    """Return the order of images and weights in which networks train fastest: channels_last.

    Apple's GPUs are the exception: there torch's backward passes of batch norm and pooling fail on it or give wrong
    gradients (pytorch issues 175189 and 175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
