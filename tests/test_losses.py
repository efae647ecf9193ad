"""The self correction loss, SCE and CE against their formulas, written out pixel by pixel in float64."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segsemi.core.consistency import Loss
from segsemi.losses import (
    LOSSES,
    OVER_ALL_PIXELS,
    cross_entropy,
    self_correction_loss,
    squared_error,
    symmetric_cross_entropy,
)

A_PAPER, A_RELEASED = -4.0, math.log(1e-4)
HARD = [name for name in LOSSES if name != "mse"]  # losses of class ids; test_squared_error... has the other one
each = pytest.mark.parametrize("name", HARD)


def test_params_name_all_losses() -> None:
    assert set(LOSSES) == set(get_args(Loss))


def test_squared_error_is_that_of_the_probabilities() -> None:
    """Of class ids the target is one-hot, and ignored pixels do not count."""
    logits, target = example()
    p, soft = logits.softmax(1), torch.rand_like(logits).softmax(1)
    assert float(squared_error(logits, soft)) == pytest.approx(float((p - soft).square().sum(1).mean()), rel=1e-12)
    one_hot = F.one_hot(torch.where(target == 255, 0, target), 5).movedim(-1, 1)
    expected = (p - one_hot).square().sum(1)[target != 255].mean()
    assert float(squared_error(logits, target)) == pytest.approx(float(expected), rel=1e-12)


def example(seed: int = 0, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits (2, 5, 3, 4), from unsure to sure, and labels of which three are ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (2, 3, 4), generator=generator)
    target[0, 0, 0] = target[0, 2, 1] = target[1, 1, 3] = 255
    return logits, target


def softmax(z: np.ndarray) -> list[float]:
    shifted = [math.exp(value - max(z)) for value in z]
    return [value / sum(shifted) for value in shifted]


def pixel_loss(name: str, z: np.ndarray, label: int) -> float:
    """Equations 4 and 5 for one pixel, with the one-hot label y and log 0 -> A written out."""
    p = softmax(z)
    log_zero = A_RELEASED if name == "scl_released" else A_PAPER
    y = [1.0 if c == label else 0.0 for c in range(len(p))]
    ce = -sum(y[c] * (z[c] - max(z) - math.log(sum(math.exp(v - max(z)) for v in z))) for c in range(len(p)))
    rce = -sum(p[c] * (0.0 if y[c] == 1 else log_zero) for c in range(len(p)))
    w = max(p)
    if name in ("scl", "scl_detached"):
        return w * ce + (1 - w) * rce
    if name == "scl_released":
        w = 1.0 if w > 0.8 else w
        return (1 - w) * ce + w * rce
    return ce + rce if name == "sce" else ce


def reference(name: str, logits: Tensor, target: Tensor) -> float:
    z = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    labels = target.flatten().tolist()
    losses = [pixel_loss(name, row, label) for row, label in zip(z, labels, strict=True) if label != 255]
    return sum(losses) / (len(labels) if name == "scl_released" else len(losses))


@each
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
def test_equals_the_formula_pixel_by_pixel(name: str, spread: float) -> None:
    logits, target = example(spread=spread)
    assert float(LOSSES[name](logits, target)) == pytest.approx(reference(name, logits, target), rel=1e-12)


def test_sce_weights_its_two_terms() -> None:
    logits, target = example()
    ce, both = float(cross_entropy(logits, target)), float(symmetric_cross_entropy(logits, target))
    weighted = float(symmetric_cross_entropy(logits, target, alpha=0.1, beta=3.0))
    assert weighted == pytest.approx(0.1 * ce + 3.0 * (both - ce), rel=1e-12)


@each
def test_ignored_pixels_add_neither_loss_nor_gradient(name: str) -> None:
    """Only the released form keeps them in the denominator. Logits may also be a list of pixels."""
    logits, target = example()
    counted = target != 255
    loss = LOSSES[name](logits.requires_grad_(), target)
    loss.backward()
    pixels = logits.detach().movedim(1, -1)[counted]  # (pixels, C): the ignored ones cut out
    share = float(counted.double().mean()) if name == "scl_released" else 1.0
    assert float(loss.detach()) == pytest.approx(share * float(LOSSES[name](pixels, target[counted])), rel=1e-12)
    assert logits.grad is not None
    by_pixel = logits.grad.abs().sum(dim=1)
    assert (by_pixel[~counted] == 0).all() and (by_pixel[counted] > 0).all()


@each
def test_labels_may_have_any_integer_type_and_ignore_index(name: str) -> None:
    logits, target = example()
    expected = float(LOSSES[name](logits, target))
    for dtype in (torch.uint8, torch.int32):
        assert float(LOSSES[name](logits, target.to(dtype))) == expected
    assert float(LOSSES[name](logits, torch.where(target == 255, -1, target), ignore_index=-1)) == expected


@pytest.mark.parametrize("name", ["scl", "sce", "ce"])
def test_gradient_is_that_of_the_value(name: str) -> None:
    """Numerical differentiation; the paper's form sends gradient through the weight too."""
    logits, target = example(seed=1)
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", ["scl_detached", "scl_released"])
def test_gradient_with_a_constant_weight(name: str) -> None:
    """d CE / dz = p - y and d RCE / dz = A p_y (y - p), mixed by hand."""
    logits, target = example(seed=2)
    p, counted = logits.softmax(1), (target != 255).unsqueeze(1)
    y = F.one_hot(torch.where(target == 255, 0, target), 5).movedim(-1, 1).double()
    w, p_y = p.max(1, keepdim=True).values, (p * y).sum(1, keepdim=True)
    assert w.min() < 0.8 < w.max()  # both cases of the released form occur
    if name == "scl_released":
        w = torch.where(w > 0.8, 1.0, w)
        expected = counted * ((1 - w) * (p - y) + w * A_RELEASED * p_y * (y - p)) / target.numel()
    else:
        expected = counted * (w * (p - y) + (1 - w) * A_PAPER * p_y * (y - p)) / counted.sum()
    (gradient,) = torch.autograd.grad(LOSSES[name](logits.requires_grad_(), target), logits)
    torch.testing.assert_close(gradient, expected)


@each
def test_bfloat16_logits_lose_nothing_more(name: str) -> None:
    """Computed in float32 whatever comes in: only the rounding of the logits themselves is there."""
    logits, target = example()
    rounded = logits.bfloat16()
    loss = LOSSES[name](rounded.requires_grad_(), target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(name, rounded.detach(), target), rel=1e-5)
    assert rounded.grad is not None and rounded.grad.dtype == torch.bfloat16 and rounded.grad.isfinite().all()


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_huge_logits_stay_finite(name: str, dtype: torch.dtype) -> None:
    logits, target = example()
    logits = (1e4 * logits.sign()).to(dtype)
    loss = LOSSES[name](logits.requires_grad_(), target)
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    expected = reference(name, logits.detach(), target)
    assert expected > 1  # some of the sure predictions are wrong
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@each
def test_all_ignored_is_zero_with_zero_gradient(name: str) -> None:
    logits, target = example()
    loss = LOSSES[name](logits.requires_grad_(), torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_equals_torch(dtype: torch.dtype) -> None:
    logits, target = example()
    ours, theirs = logits.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_()
    loss, expected = cross_entropy(ours, target), F.cross_entropy(theirs, target, ignore_index=255)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*torch.autograd.grad([loss, expected], [ours, theirs]))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_each_pixel_sums_up_to_the_mean(name: str) -> None:
    logits, target = example()
    by_pixel = LOSSES[name](logits, target, reduction="none")
    assert by_pixel.shape == target.shape and (by_pixel[target == 255] == 0).all()
    pixels = target.numel() if name in OVER_ALL_PIXELS else int((target != 255).sum())
    assert float(by_pixel.sum() / pixels) == pytest.approx(float(LOSSES[name](logits, target)), rel=1e-12)


def test_unknown_form_is_refused() -> None:
    logits, target = example()
    with pytest.raises(ValueError, match="'paper', 'detached' or 'released'.*'papre'"):
        self_correction_loss(logits, target, form="papre")  # type: ignore[arg-type]


@each
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3, 4), (1, 3, 4), (2, 12)])
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 5, 3, 4\)"):
        LOSSES[name](example()[0], torch.zeros(shape, dtype=torch.long))
