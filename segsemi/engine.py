"""The device, and the threads beside it."""

from __future__ import annotations

import cv2
import torch

from segsemi.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto`: a CUDA GPU, else Apple's, else the CPU; any other name as torch knows it.

    Also keeps OpenCV to one thread: its pool beside torch's slows both down.

    Raises:
        UserError: the named device is not there.
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
    return device
