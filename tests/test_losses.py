"""The self correction loss, SCE and CE against their formulas, written out pixel by pixel in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segsemi.losses
from segsemi.losses import cross_entropy, self_correction_loss, squared_error, symmetric_cross_entropy

Loss = Callable[..., Tensor]
A_PAPER, A_RELEASED = -4.0, math.log(1e-4)


def released(logits: Tensor, target: Tensor, **options: int) -> Tensor:
    return self_correction_loss(logits, target, form="released", **options)


def detached(logits: Tensor, target: Tensor, **options: int) -> Tensor:
    return self_correction_loss(logits, target, form="detached", **options)


LOSSES: dict[str, Loss] = {
    "paper": self_correction_loss,
    "detached": detached,
    "released": released,
    "sce": symmetric_cross_entropy,
    "ce": cross_entropy,
}


def test_params_name_the_right_losses() -> None:
    logits, target = example()
    own = {"scl": "paper", "scl_detached": "detached", "scl_released": "released", "sce": "sce", "ce": "ce"}
    assert set(segsemi.losses.LOSSES) == {*own, "mse"}
    for name, reference in own.items():
        assert float(segsemi.losses.LOSSES[name](logits, target)) == float(LOSSES[reference](logits, target))


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
    log_zero = A_RELEASED if name == "released" else A_PAPER
    y = [1.0 if c == label else 0.0 for c in range(len(p))]
    ce = -sum(y[c] * (z[c] - max(z) - math.log(sum(math.exp(v - max(z)) for v in z))) for c in range(len(p)))
    rce = -sum(p[c] * (0.0 if y[c] == 1 else log_zero) for c in range(len(p)))
    w = max(p)
    if name in ("paper", "detached"):
        return w * ce + (1 - w) * rce
    if name == "released":
        w = 1.0 if w > 0.8 else w
        return (1 - w) * ce + w * rce
    return ce + rce if name == "sce" else ce


def reference(name: str, logits: Tensor, target: Tensor, ignore_index: int = 255) -> float:
    z = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    labels = target.flatten().tolist()
    losses = [pixel_loss(name, row, label) for row, label in zip(z, labels, strict=True) if label != ignore_index]
    return sum(losses) / (len(labels) if name == "released" else len(losses))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
def test_equals_the_formula_pixel_by_pixel(name: str, spread: float) -> None:
    logits, target = example(spread=spread)
    assert float(LOSSES[name](logits, target)) == pytest.approx(reference(name, logits, target), rel=1e-12)


def test_sce_weights_its_two_terms() -> None:
    logits, target = example()
    ce, both = float(cross_entropy(logits, target)), float(symmetric_cross_entropy(logits, target))
    weighted = float(symmetric_cross_entropy(logits, target, alpha=0.1, beta=3.0))
    assert weighted == pytest.approx(0.1 * ce + 3.0 * (both - ce), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_pixel_adds_nothing(name: str) -> None:
    """Only the released form keeps it in the denominator."""
    logits, target = example()
    counted = int((target != 255).sum())
    flat = logits.movedim(1, -1)[target != 255]  # (pixels, C): the ignored ones cut out
    without = float(LOSSES[name](flat, target[target != 255]))
    share = counted / target.numel() if name == "released" else 1.0
    assert float(LOSSES[name](logits, target)) == pytest.approx(without * share, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_another_ignore_index(name: str) -> None:
    logits, target = example()
    expected = float(LOSSES[name](logits, target))
    assert float(LOSSES[name](logits, torch.where(target == 255, -1, target), ignore_index=-1)) == expected


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_get_no_gradient(name: str) -> None:
    logits, target = example()
    logits.requires_grad_()
    LOSSES[name](logits, target).backward()
    assert logits.grad is not None
    by_pixel = logits.grad.abs().sum(dim=1)
    assert (by_pixel[target == 255] == 0).all()
    assert (by_pixel[target != 255] > 0).all()


@pytest.mark.parametrize("name", ["paper", "sce", "ce"])
def test_gradient_is_that_of_the_value(name: str) -> None:
    """Numerical differentiation; the paper's form sends gradient through the weight too."""
    logits, target = example(seed=1)
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target), (logits.requires_grad_(),))


def test_detached_gradient_holds_the_weight_constant() -> None:
    """w (p - y) + (1 - w) A p_y (y - p), by hand; the paper's form has another gradient, since w moves too."""
    logits, target = example(seed=2)
    p = logits.softmax(1)
    y = F.one_hot(torch.where(target == 255, 0, target), 5).movedim(-1, 1).double()
    w, p_y = p.max(1, keepdim=True).values, (p * y).sum(1, keepdim=True)
    counted = (target != 255).unsqueeze(1)
    expected = counted * (w * (p - y) + (1 - w) * A_PAPER * p_y * (y - p)) / counted.sum()
    own, paper = (
        torch.autograd.grad(loss(z := logits.clone().requires_grad_(), target), z)[0]
        for loss in (detached, self_correction_loss)
    )
    torch.testing.assert_close(own, expected)
    assert not torch.allclose(own, paper)


def test_released_gradient_holds_the_weight_constant() -> None:
    """d CE / dz = p - y and d RCE / dz = A p_y (y - p), mixed with constant weights."""
    logits, target = example(seed=2)
    logits.requires_grad_()
    released(logits, target).backward()
    assert logits.grad is not None
    expected = np.zeros(logits.shape)
    weights = []
    for n, i, j in np.ndindex(*target.shape):
        label = int(target[n, i, j])
        if label == 255:
            continue
        p = np.array(softmax(logits.detach()[n, :, i, j].numpy()))
        y = np.eye(5)[label]
        w = 1.0 if p.max() > 0.8 else p.max()
        weights.append(w)
        expected[n, :, i, j] = ((1 - w) * (p - y) + w * A_RELEASED * p[label] * (y - p)) / target.numel()
    assert 1.0 in weights and min(weights) < 0.8  # both cases occur
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_lose_nothing_more(name: str) -> None:
    """Computed in float32 whatever comes in: only the rounding of the logits themselves is there."""
    logits, target = example()
    rounded = logits.bfloat16()
    loss = LOSSES[name](rounded.requires_grad_(), target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(name, rounded.detach(), target), rel=1e-5)
    assert rounded.grad is not None and rounded.grad.dtype == torch.bfloat16 and rounded.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
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


@pytest.mark.parametrize("name", LOSSES)
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
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(name: str, dtype: torch.dtype) -> None:
    logits, target = example()
    assert float(LOSSES[name](logits, target.to(dtype))) == float(LOSSES[name](logits, target))


@pytest.mark.parametrize("name", segsemi.losses.LOSSES)
def test_the_loss_of_each_pixel_sums_up_to_the_mean(name: str) -> None:
    logits, target = example()
    loss = segsemi.losses.LOSSES[name]
    by_pixel = loss(logits, target, reduction="none")
    assert by_pixel.shape == target.shape and (by_pixel[target == 255] == 0).all()
    pixels = target.numel() if name in segsemi.losses.OVER_ALL_PIXELS else int((target != 255).sum())
    assert float(by_pixel.sum() / pixels) == pytest.approx(float(loss(logits, target)), rel=1e-12)


def test_unknown_form_is_refused() -> None:
    logits, target = example()
    with pytest.raises(ValueError, match="'paper', 'detached' or 'released'.*'papre'"):
        self_correction_loss(logits, target, form="papre")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3, 4), (1, 3, 4), (2, 12)])
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 5, 3, 4\)"):
        LOSSES[name](example()[0], torch.zeros(shape, dtype=torch.long))
