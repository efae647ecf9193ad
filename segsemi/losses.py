"""Self correction loss (paper, section 3.3, equations 4 and 5) and symmetric cross entropy [33]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, C, ...), target (N, ...)) -> scalar."""

LOG_ZERO = -4.0  # A, which stands for log 0 of a one-hot label: SCE (Wang et al. 2019) [33]
LOG_ZERO_RELEASED = math.log(1e-4)  # the released code clamps the one-hot label to [1e-4, 1]: -9.21
CONFIDENT = 0.8  # released code: weights above it are set to 1


def self_correction_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, form: Literal["paper", "released"] = "paper"
) -> Tensor:
    """Cross entropy (CE) and reverse cross entropy (RCE), mixed pixel by pixel with the student's confidence.

    With p = softmax(logits), w = max_c p_c (equation 5), CE = -log p_y and RCE = -sum_c p_c log y_c = -A (1 - p_y):

    - ``paper``: w CE + (1 - w) RCE (equation 4), A = -4, mean over the pixels that are not ignored. Equation 5 makes w a
      function of the logits, so the gradient flows through it too.
    - ``released``: (1 - w) CE + w RCE, A = ln 1e-4, w > 0.8 set to 1 and detached, mean over all pixels (an ignored one
      adds 0 but stays in the denominator), as in the authors' code.

    Args:
        logits: (N, C, ...) floating point; computed in float32 at least, whatever the dtype.
        target: (N, ...) integer class ids, or ignore_index.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0 with a zero gradient where every pixel is ignored.

    Raises:
        ValueError: for an unknown form, or shapes that do not fit.
    """
    if form not in ("paper", "released"):
        raise ValueError(f"form must be 'paper' or 'released', found {form!r}")
    log_p, log_p_y, counted = _log_probabilities(logits, target, ignore_index)
    weight = log_p.amax(dim=1).exp()  # (N, C, ...) -> (N, ...)
    if form == "paper":
        loss = weight * -log_p_y + (1 - weight) * _reverse(log_p_y, LOG_ZERO)
        return _mean(loss, counted, counted.sum())
    weight = weight.detach()
    weight = torch.where(weight > CONFIDENT, 1.0, weight)
    loss = (1 - weight) * -log_p_y + weight * _reverse(log_p_y, LOG_ZERO_RELEASED)
    return _mean(loss, counted, counted.numel())


def symmetric_cross_entropy(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """alpha CE + beta RCE with A = -4 (Wang et al. 2019 [33]); mean over the pixels that are not ignored.

    alpha = beta is the ratio of the paper's Figure 5. Shapes, dtypes and errors as in `self_correction_loss`.
    """
    _, log_p_y, counted = _log_probabilities(logits, target, ignore_index)
    return _mean(alpha * -log_p_y + beta * _reverse(log_p_y, LOG_ZERO), counted, counted.sum())


def cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Cross entropy, mean over the pixels that are not ignored; 0 (torch's own gives NaN) where all are ignored."""
    _, log_p_y, counted = _log_probabilities(logits, target, ignore_index)
    return _mean(-log_p_y, counted, counted.sum())


def _log_probabilities(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p (N, C, ...), log p_y (N, ...) and the mask of counted pixels (N, ...); no one-hot tensor is built."""
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} must be (N, C, ...) and target {tuple(target.shape)} (N, ...)")
    counted = target != ignore_index
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32  # bf16 keeps 8 bits: not enough for log p
    log_p = F.log_softmax(logits, dim=1, dtype=dtype)
    index = torch.where(counted, target, 0).long().unsqueeze(1)
    log_p_y = log_p.gather(1, index).squeeze(1)
    return log_p, log_p_y, counted


def _reverse(log_p_y: Tensor, log_zero: float) -> Tensor:
    """RCE of a one-hot label: -A (1 - p_y), where only the other classes meet log 0."""
    return log_zero * torch.expm1(log_p_y)


def _mean(loss: Tensor, counted: Tensor, count: Tensor | int) -> Tensor:
    total = torch.where(counted, loss, 0).sum()
    return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))


LOSSES: Mapping[str, Loss] = {  # student.loss -> the loss on pseudo labels
    "scl": self_correction_loss,
    "scl_released": partial(self_correction_loss, form="released"),
    "sce": symmetric_cross_entropy,
    "ce": cross_entropy,
}
