"""Class probabilities, averaged over scales and left-right flips (paper, algorithm 1, line 2)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.models.build import SegmentationModel, most_probable


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module,
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    *,
    out_shape: tuple[int, int] | None = None,
) -> Tensor:
    """Return the softmax averaged over all scales, and over the mirrored image if `flip`.

    Args:
        network: images -> logits of the same height and width; used in the mode in which it is.
        images: (N, 3, H, W) floating point.
        out_shape: height and width at which to average; those of `images` if None.

    Returns:
        (N, C, H, W), or (N, C, *out_shape), float32, summing to 1 over C.
    """
    if not scales:
        raise ValueError("scales must not be empty")
    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        scaled = _resize(images, max(1, round(height * scale)), max(1, round(width * scale)))
        batch = torch.cat([scaled, scaled.flip(-1)]) if flip else scaled
        probabilities = network(batch).float().softmax(dim=1)
        if flip:
            straight, mirrored = probabilities.chunk(2)
            probabilities = straight.add_(mirrored.flip(-1))
        # bilinear weights sum to 1, so probabilities still sum to 1, or with flip to 2
        probabilities = _resize(probabilities, *(out_shape or (height, width)))
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(scales) * (2 if flip else 1))


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def windows(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Return rows and columns of square windows of at most `side` pixels that cover an image and overlap by a third."""

    def starts(length: int) -> list[int]:
        steps = math.ceil(max(length - side, 0) / max(1, side * 2 // 3))
        return [round(index * (length - side) / steps) if steps else 0 for index in range(steps + 1)]

    for top in starts(height):
        for left in starts(width):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


@torch.inference_mode()
def predict_windows(
    network: nn.Module, images: Tensor, side: int, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Return `predict_probabilities` of overlapping windows, averaged in their overlaps: (N, C, H, W) float32."""
    height, width = images.shape[-2:]
    total: Tensor | None = None
    count = torch.zeros(height, width, device=images.device)
    for rows, columns in windows(height, width, side):
        part = predict_probabilities(network, images[..., rows, columns], scales, flip)
        if total is None:
            total = torch.zeros(*part.shape[:2], height, width, device=part.device)
        total[..., rows, columns] += part
        count[rows, columns] += 1
    assert total is not None
    return total / count


@torch.inference_mode()
def predict_image(
    model: SegmentationModel,
    image: np.ndarray,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> Tensor:
    """Return the probabilities of one image at its own size, at whatever size the network sees it.

    Args:
        model: in eval mode.
        image: (H, W, 3) uint8 RGB.
        window: side of sliding windows, in pixels of the image that the network sees; None: the whole image at once.

    Returns:
        (C, H, W) float32 on the model's device.
    """
    height, width = image.shape[:2]
    batch = model.as_batch(image)
    if window is not None:
        return _resize(predict_windows(model, batch, window, scales, flip), height, width)[0]
    return predict_probabilities(model, batch, scales, flip, out_shape=(height, width))[0]


def predict_label(
    model: SegmentationModel,
    image: np.ndarray,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> np.ndarray:
    """Return the most probable class of each pixel of one image, (H, W) uint8; arguments as in `predict_image`."""
    if tuple(scales) == (1.0,) and not flip and window is None:
        return model.predict(image)
    return most_probable(predict_image(model, image, scales, flip, window))
