"""Self correction loss (paper, section 3.3, equations 4 and 5), symmetric cross entropy, and others."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
"""(logits (N, C, ...), target (N, ...), *, ignore_index, reduction) -> scalar, or one value per pixel (N, ...)."""
Reduction = Literal["mean", "none"]

LOG_ZERO = -4.0  # A, which stands for log 0 of a one-hot label: SCE (Wang et al. 2019)
LOG_ZERO_RELEASED = math.log(1e-4)  # the released code clamps the one-hot label to [1e-4, 1]: -9.21
CONFIDENT = 0.8  # released code: weights above it are set to 1


def self_correction_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    form: Literal["paper", "detached", "released"] = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Mix cross entropy (CE) and reverse cross entropy (RCE), pixel by pixel, by the student's confidence.

    With p = softmax(logits), w = max_c p_c (equation 5), CE = -log p_y and RCE = -sum_c p_c log y_c = -A (1 - p_y):

    - ``paper``: w CE + (1 - w) RCE (equation 4), A = -4, mean over the pixels that are not ignored. Equation 5 makes w a
      function of the logits, so the gradient flows through it too.
    - ``detached``: the same value, but w is a constant for the gradient (the paper's "dynamic weight", read so).
    - ``released``: (1 - w) CE + w RCE, A = ln 1e-4, w > 0.8 set to 1 and detached, mean over all pixels (an ignored one
      adds 0 but stays in the denominator). In the authors' code a missing dimension also makes each pixel's weight the mean
      over the images of a GPU's batch. That is left out here.

    Args:
        logits: (N, C, ...) floating point; computed in float32 at least, whatever the dtype.
        target: (N, ...) integer class ids, or ignore_index.
        reduction: ``mean``: as above; ``none``: the loss of each pixel, 0 where it is ignored.

    Returns:
        Scalar or (N, ...), float32 (float64 for float64 logits); 0 with a zero gradient where every pixel is ignored.

    Raises:
        ValueError: for an unknown form, or shapes that do not fit.
    """
    if form not in ("paper", "detached", "released"):
        raise ValueError(f"form must be 'paper', 'detached' or 'released', found {form!r}")
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    top = log_p.detach().argmax(dim=1, keepdim=True)
    # one gather for both: its backward pass writes one tensor of the logits' size
    log_p_y, log_p_top = log_p.gather(1, torch.cat([index, top], dim=1)).unbind(1)
    weight = log_p_top.exp()  # equation 5
    if form != "paper":
        weight = weight.detach()
    if form != "released":
        loss = weight * -log_p_y + (1 - weight) * _reverse(log_p_y, LOG_ZERO)
        return _reduced(loss, counted, reduction)
    weight = torch.where(weight > CONFIDENT, 1.0, weight)
    loss = (1 - weight) * -log_p_y + weight * _reverse(log_p_y, LOG_ZERO_RELEASED)
    return _reduced(loss, counted, reduction, over_all=True)


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    alpha: float = 1.0,
    beta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return alpha CE + beta RCE with A = -4 (Wang et al. 2019); mean over the pixels that are not ignored.

    alpha = beta is the ratio of the paper's Figure 5. Shapes, dtypes, errors and `reduction` as in `self_correction_loss`.
    """
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    log_p_y = log_p.gather(1, index).squeeze(1)
    return _reduced(alpha * -log_p_y + beta * _reverse(log_p_y, LOG_ZERO), counted, reduction)


def cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = 255, reduction: Reduction = "mean") -> Tensor:
    """Return cross entropy, mean over the pixels that are not ignored; 0 (torch's own gives NaN) where all are ignored.

    Shapes, dtypes, errors and `reduction` as in `self_correction_loss`.
    """
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    log_p_y = log_p.gather(1, index).squeeze(1)
    return _reduced(-log_p_y, counted, reduction)


def squared_error(logits: Tensor, target: Tensor, *, ignore_index: int = 255, reduction: Reduction = "mean") -> Tensor:
    """Return the squared distance of two distributions, summed over the classes (French et al. 2020).

    Args:
        target: (N, C, ...) probabilities, none of them ignored, or (N, ...) class ids, or ignore_index.

    Shapes, dtypes, errors and `reduction` otherwise as in `self_correction_loss`.
    """
    if target.is_floating_point():
        counted = torch.ones_like(target[:, 0], dtype=torch.bool)
    else:
        counted = target != ignore_index
        target = F.one_hot(torch.where(counted, target, 0).long(), logits.shape[1]).movedim(-1, 1)
    p = F.softmax(logits, dim=1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    return _reduced((p - target).square().sum(dim=1), counted, reduction)


def _log_probabilities(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p (N, C, ...), the labels as an index into it (N, 1, ...), and the mask of counted pixels (N, ...)."""
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} must be (N, C, ...) and target {tuple(target.shape)} (N, ...)")
    counted = target != ignore_index
    # float32 at least: bfloat16 keeps 8 bits, too few for log p
    log_p = F.log_softmax(logits, dim=1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    return log_p, torch.where(counted, target, 0).long().unsqueeze(1), counted


def _reverse(log_p_y: Tensor, log_zero: float) -> Tensor:
    """RCE of a one-hot label: -A (1 - p_y), where only the other classes meet log 0."""
    return log_zero * torch.expm1(log_p_y)


def _reduced(loss: Tensor, counted: Tensor, reduction: Reduction, *, over_all: bool = False) -> Tensor:
    loss = torch.where(counted, loss, 0)
    if reduction == "none":
        return loss
    return loss.mean() if over_all else loss.sum() / counted.sum().clamp(min=1)


LOSSES: Mapping[str, Loss] = {  # student.loss -> the loss on pseudo labels
    "scl": self_correction_loss,
    "scl_detached": partial(self_correction_loss, form="detached"),
    "scl_released": partial(self_correction_loss, form="released"),
    "sce": symmetric_cross_entropy,
    "ce": cross_entropy,
    "mse": squared_error,
}
OVER_ALL_PIXELS = ("scl_released",)  # losses whose mean is over all pixels, the ignored ones too
