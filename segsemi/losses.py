"""Self correction loss (paper, section 3.3, equations 4 and 5) and symmetric cross entropy [33]."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
"""(logits (N, C, ...), target (N, ...), *, ignore_index, mean_count) -> scalar."""

LOG_ZERO = -4.0  # A, which stands for log 0 of a one-hot label: SCE (Wang et al. 2019) [33]
LOG_ZERO_RELEASED = math.log(1e-4)  # the released code clamps the one-hot label to [1e-4, 1]: -9.21
CONFIDENT = 0.8  # released code: weights above it are set to 1


def self_correction_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    form: Literal["paper", "released"] = "paper",
    mean_count: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Cross entropy (CE) and reverse cross entropy (RCE), mixed pixel by pixel with the student's confidence.

    With p = softmax(logits), w = max_c p_c (equation 5), CE = -log p_y and RCE = -sum_c p_c log y_c = -A (1 - p_y):

    - ``paper``: w CE + (1 - w) RCE (equation 4), A = -4, mean over the pixels that are not ignored. Equation 5 makes w a
      function of the logits, so the gradient flows through it too.
    - ``released``: (1 - w) CE + w RCE, A = ln 1e-4, w > 0.8 set to 1 and detached, mean over all pixels (an ignored one
      adds 0 but stays in the denominator). In the authors' code a missing dimension also makes each pixel's weight the mean
      over the images of a GPU's batch. That is left out here.

    Args:
        logits: (N, C, ...) floating point; computed in float32 at least, whatever the dtype.
        target: (N, ...) integer class ids, or ignore_index.
        mean_count: for a batch spread over processes: turns this process's count of pixels into the mean over all of them,
            so that the mean of the processes' losses is the loss of the whole batch.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0 with a zero gradient where every pixel is ignored.

    Raises:
        ValueError: for an unknown form, or shapes that do not fit.
    """
    if form not in ("paper", "released"):
        raise ValueError(f"form must be 'paper' or 'released', found {form!r}")
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    top = log_p.detach().argmax(dim=1, keepdim=True)
    # one gather for both: its backward pass writes one tensor of the logits' size
    log_p_y, log_p_top = log_p.gather(1, torch.cat([index, top], dim=1)).unbind(1)
    weight = log_p_top.exp()  # equation 5
    if form == "paper":
        loss = weight * -log_p_y + (1 - weight) * _reverse(log_p_y, LOG_ZERO)
        return _mean(loss, counted, counted.sum(), mean_count)
    weight = weight.detach()
    weight = torch.where(weight > CONFIDENT, 1.0, weight)
    loss = (1 - weight) * -log_p_y + weight * _reverse(log_p_y, LOG_ZERO_RELEASED)
    return _mean(loss, counted, torch.full_like(counted, True).sum(), mean_count)


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    alpha: float = 1.0,
    beta: float = 1.0,
    mean_count: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """alpha CE + beta RCE with A = -4 (Wang et al. 2019 [33]); mean over the pixels that are not ignored.

    alpha = beta is the ratio of the paper's Figure 5. Shapes, dtypes, errors and `mean_count` as in `self_correction_loss`.
    """
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    log_p_y = log_p.gather(1, index).squeeze(1)
    return _mean(alpha * -log_p_y + beta * _reverse(log_p_y, LOG_ZERO), counted, counted.sum(), mean_count)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    mean_count: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Cross entropy, mean over the pixels that are not ignored; 0 (torch's own gives NaN) where all are ignored.

    Shapes, dtypes, errors and `mean_count` as in `self_correction_loss`.
    """
    log_p, index, counted = _log_probabilities(logits, target, ignore_index)
    log_p_y = log_p.gather(1, index).squeeze(1)
    return _mean(-log_p_y, counted, counted.sum(), mean_count)


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


def _mean(loss: Tensor, counted: Tensor, count: Tensor, mean_count: Callable[[Tensor], Tensor] | None) -> Tensor:
    count = count.to(loss.dtype) if mean_count is None else mean_count(count.to(loss.dtype))
    return torch.where(counted, loss, 0).sum() / torch.where(count > 0, count, 1)


LOSSES: Mapping[str, Loss] = {  # student.loss -> the loss on pseudo labels
    "scl": self_correction_loss,
    "scl_released": partial(self_correction_loss, form="released"),
    "sce": symmetric_cross_entropy,
    "ce": cross_entropy,
}
