"""Test-time augmentation against loops written by hand."""

import copy
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.inference import (
    predict_image,
    predict_label,
    predict_probabilities,
    windows,
)
from segsemi.models.build import Architecture, SegmentationModel, build_model

CLASSES = Classes(("a", "b", "c", "d"), ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)))


class Small(nn.Module):
    """Logits at the images' size, different left and right, sensitive to scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.layers(x)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Small().double().eval()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear(size: int, new: int) -> np.ndarray:
    """(new, size) weights of linear interpolation between pixel centres, clamped at the border."""
    weights = np.zeros((new, size))
    for i in range(new):
        position = min(max((i + 0.5) * size / new - 0.5, 0), size - 1)
        low = min(int(position), size - 1)
        high = min(low + 1, size - 1)
        weights[i, low] += 1 - (position - low)
        weights[i, high] += position - low
    return weights


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.einsum("hH,ncHW,wW->nchw", bilinear(x.shape[2], height), x, bilinear(x.shape[3], width))


def by_hand(network: nn.Module, x: Tensor, scales: Sequence[float], flip: bool) -> np.ndarray:
    """Mean over every scale and flip of the softmax, brought back to the images' size, in float64."""
    height, width = x.shape[-2:]
    parts = []
    for scale in scales:
        scaled = resized(x.numpy(), max(1, round(height * scale)), max(1, round(width * scale)))
        for mirror in (False, True) if flip else (False,):
            entered = scaled[..., ::-1].copy() if mirror else scaled
            logits = network(torch.from_numpy(entered)).detach().numpy()
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            parts.append(resized(p[..., ::-1] if mirror else p, height, width))
    return np.mean(parts, axis=0)


@pytest.mark.parametrize("size", [(16, 20), (5, 31)])
@pytest.mark.parametrize("scales", [(1.0,), (0.1,), (0.5, 0.75, 1.0, 1.5, 1.75)])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_the_loop(network: nn.Module, size: tuple[int, int], scales: tuple[float, ...], flip: bool) -> None:
    x = images(2, 3, *size)
    result = predict_probabilities(network, x, scales, flip)
    assert result.shape == (2, 4, *size) and result.dtype == torch.float32 and not result.requires_grad
    np.testing.assert_allclose(result.numpy(), by_hand(network, x, scales, flip), atol=2e-6)
    np.testing.assert_allclose(result.sum(1).numpy(), 1.0, atol=1e-5)
    assert (result >= 0).all()


def test_autocast_is_for_the_network_alone() -> None:
    """Softmax, resizing and the mean of the views are float32 where machine.precision is bf16, on a CPU too."""
    network, x = Small().float().eval(), images(1, 3, 8, 9).float()
    with torch.autocast("cpu", torch.bfloat16):
        result = predict_probabilities(network, x, (0.5, 1.0), flip=True)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.sum(1), torch.ones(1, 8, 9), rtol=0, atol=1e-5)
    torch.testing.assert_close(result, predict_probabilities(network, x, (0.5, 1.0), flip=True), rtol=0.05, atol=0.01)


def test_no_scales_are_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="scales must not be empty"):
        predict_probabilities(network, images(1, 3, 4, 4), ())


@cache
def built(short_side: int | None, encoder_weights: str = "none", **changes: object) -> SegmentationModel:
    options = {"decoder": "DeepLabV3Plus", "encoder": "tf_efficientnet_lite0", "output_stride": 16}
    architecture = Architecture(**{**options, "short_side": short_side, **changes})  # type: ignore[arg-type]
    model = build_model(architecture, CLASSES, encoder_weights=encoder_weights, seed=3)
    with torch.no_grad():
        model.train()(images(4, 3, 64, 64).float())
    return model.eval()


def build(short_side: int | None = None, **changes: object) -> SegmentationModel:
    """A network with batch statistics of its own, so that padding and normalisation show in its logits."""
    return copy.deepcopy(built(short_side, **changes))


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return build()


@pytest.mark.parametrize(
    ("decoder", "encoder", "stride", "sizes"),
    [
        ("DeepLabV3Plus", "tf_efficientnet_lite0", 16, [(32, 48), (33, 47), (16, 65), (1, 1)]),
        ("DeepLabV3Plus", "tf_efficientnet_lite0", 8, [(37, 70)]),
        ("DeepLabV3", "resnet18", 16, [(37, 70)]),
        ("Unet", "tf_efficientnet_lite0", 32, [(37, 70)]),
        ("FPN", "resnet18", 32, [(37, 70)]),
    ],
)
def test_any_image_size_gives_logits_of_that_size(
    decoder: str, encoder: str, stride: int, sizes: list[tuple[int, int]]
) -> None:
    """As if the image had been continued in the mean colour, to the right and below, and then normalised."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model = build(decoder=decoder, encoder=encoder, output_stride=stride, mean=mean, std=std)
    for size in sizes:
        x = images(2, 3, *size).float()
        height, width = (-(-side // stride) * stride for side in size)
        canvas = torch.tensor(mean).view(3, 1, 1).repeat(2, 1, height, width)
        canvas[..., : size[0], : size[1]] = x
        normalised = (canvas - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.no_grad():
            result, expected = model(x), model.network(normalised)
        torch.testing.assert_close(result, expected[..., : size[0], : size[1]])


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_image_is_predicted_from_bytes(model: SegmentationModel) -> None:
    image = photo(33, 41)
    x = torch.tensor(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    for scales, flip in (((1.0,), False), ((0.5, 1.0), True)):
        result = predict_image(model, image, scales, flip)
        assert result.shape == (4, 33, 41) and result.dtype == torch.float32
        torch.testing.assert_close(result, predict_probabilities(model, x, scales, flip)[0], rtol=1e-4, atol=1e-5)
    view = image[:, ::-1]
    torch.testing.assert_close(predict_image(model, view), predict_image(model, view.copy()))


@pytest.mark.parametrize(
    ("size", "inside"), [((96, 128), (32, 43)), ((131, 60), (70, 32)), ((32, 50), (32, 50)), ((20, 41), (20, 41))]
)
def test_network_sees_the_short_side_and_the_result_has_the_images_size(
    size: tuple[int, int], inside: tuple[int, int]
) -> None:
    model = build(short_side=32)
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    result = predict_image(model, photo(*size))
    assert seen == [(1, 3, *inside)]
    assert result.shape == (4, *size)
    torch.testing.assert_close(result.sum(0), torch.ones(size), rtol=0, atol=1e-5)


def test_short_side_keeps_things_in_their_places() -> None:
    """With a network that repeats its input: what is bright in the image is probable there, at the image's own size."""

    model = build(short_side=32)
    model.network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    model.network[0].weight.data[:] = torch.tensor([10.0, -10.0]).view(2, 1, 1, 1) / 3
    model.network.encoder = nn.Identity()  # the stride is looked up there
    image = np.zeros((100, 140, 3), np.uint8)
    image[20:61, 35:95] = 255
    prediction = predict_image(model, image)[0].numpy() > 0.5
    wrong = prediction != (image[..., 0] > 0)
    assert 0 < wrong.mean() < 0.02
    assert not wrong[30:50, 45:85].any() and not wrong[:15].any() and not wrong[70:].any()


@pytest.mark.parametrize(
    ("height", "width", "side"), [(20, 30, 64), (64, 64, 64), (65, 64, 64), (100, 333, 64), (7, 9, 1), (1000, 1, 321)]
)
def test_windows_cover_every_pixel_and_overlap_by_a_third_or_more(height: int, width: int, side: int) -> None:
    """With no window more than that takes."""
    found = [((rows.start, rows.stop), (columns.start, columns.stop)) for rows, columns in windows(height, width, side)]
    parts = [sorted(set(ends)) for ends in zip(*found, strict=True)]
    assert found == list(product(*parts))
    for ends, length in zip(parts, (height, width), strict=True):
        inside = min(side, length)
        assert ends[0][0] == 0 and ends[-1][1] == length and {stop - start for start, stop in ends} == {inside}
        assert len(ends) == 1 + -(-(length - inside) // max(1, side * 2 // 3))
        assert all(stop - start >= side // 3 for (_, stop), (start, _) in pairwise(ends))


def by_windows(model: SegmentationModel, image: np.ndarray, side: int, *options: Any) -> torch.Tensor:
    """The probabilities of all windows, (C, H, W), added up and divided by how many cover each pixel."""
    total, count = torch.zeros(len(model.classes), *image.shape[:2]), torch.zeros(image.shape[:2])
    for rows, columns in windows(*image.shape[:2], side):
        total[:, rows, columns] += predict_image(model, np.ascontiguousarray(image[rows, columns]), *options)
        count[rows, columns] += 1
    return total / count


@pytest.mark.parametrize("short_side", [None, 32])
def test_predicted_label_is_the_class_of_the_highest_probability(short_side: int | None) -> None:
    """Scales, flip and windows each change some pixel here, so none of them may be dropped on the way."""
    model, image = build(short_side, encoder_weights="imagenet"), photo(50, 61)
    seen = set()
    for options in [((1.0,), False), ((1.0,), True), ((0.5,), False), ((0.5, 1.0), True)]:
        for side in (None, 32) if short_side is None else (None,):
            label, confidence = predict_label(model, image, *options, side)
            assert label.dtype == np.uint8 and confidence.dtype == np.float32
            probabilities = (
                predict_image(model, image, *options) if side is None else by_windows(model, image, side, *options)
            )
            assert np.array_equal(label, probabilities.argmax(0).numpy())
            assert np.allclose(confidence, probabilities.amax(0).numpy(), atol=1e-6)
            seen.add(label.tobytes())
    assert len(seen) == (8 if short_side is None else 4) and model.predict(image).tobytes() in seen
    if short_side is not None:
        with pytest.raises(UserError, match="sees images of a short side of 32: use no window"):
            predict_label(model, image, window=32)


def test_probabilities_are_computed_where_the_images_are() -> None:
    """As on a GPU: torch's meta device takes no tensor of the CPU, and has no values that could be asked for."""
    model = build(short_side=None).to("meta")
    images = torch.empty(2, 3, 40, 52, device="meta")
    probabilities = predict_probabilities(model, images, (0.5, 1.0), True)
    assert probabilities.is_meta and probabilities.shape == (2, 4, 40, 52)
