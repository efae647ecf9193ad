"""Class probabilities, averaged over scales and left-right flips (paper, algorithm 1, line 2)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.core.errors import UserError
from segsemi.models.build import SegmentationModel


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
def predict_image(
    model: SegmentationModel,
    image: np.ndarray,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Return the probabilities of one image at its own size, at whatever size the network sees it.

    Args:
        model: in eval mode.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (C, H, W) float32 on the model's device.
    """
    return predict_probabilities(model, model.as_batch(image), scales, flip, out_shape=image.shape[:2])[0]


def predict_label(
    model: SegmentationModel,
    image: np.ndarray,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class of each pixel, (H, W) uint8, and its probability, (H, W) float32.

    Args:
        window: side of square windows that overlap by a third, and whose probabilities are averaged there; None: the whole
            image at once. Other arguments as in `predict_image`.

    Raises:
        UserError: windows of a network that sees shrunk images (augment.short_side).
    """
    if window is None:
        return _most_probable(predict_image(model, image, scales, flip))
    if model.architecture.short_side is not None:
        raise UserError(f"the network sees images of a short side of {model.architecture.short_side}: use no window")
    return _predict_windows(model, image, window, scales, flip)


@torch.inference_mode()
def _predict_windows(
    model: SegmentationModel, image: np.ndarray, side: int, scales: Sequence[float], flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and probabilities by windows; hold the probabilities of one row of windows only.

    Those of a satellite's image of 200 million pixels would need gigabytes.
    """
    height, width = image.shape[:2]
    bands: dict[tuple[int, int], list[slice]] = {}
    for rows, columns in windows(height, width, side):
        bands.setdefault((rows.start, rows.stop), []).append(columns)
    label, confidence = np.empty((height, width), dtype=np.uint8), np.empty((height, width), dtype=np.float32)
    tops = [*(top for top, _ in bands), height]
    total, before = torch.zeros(0), 0
    for (top, bottom), end in zip(bands, tops[1:], strict=True):
        # The last channel counts the windows; rows that the band before has begun are kept.
        fresh = torch.zeros(len(model.classes) + 1, bottom - top, width, device=model.mean.device)
        if top > 0:
            kept = total[:, top - before :]
            fresh[:, : kept.shape[1]] = kept
        total, before = fresh, top
        for columns in bands[top, bottom]:
            batch = model.as_batch(image[top:bottom, columns])
            total[:-1, :, columns] += predict_probabilities(model, batch, scales, flip)[0]
            total[-1, :, columns] += 1
        label[top:end], confidence[top:end] = _most_probable(total[:-1, : end - top] / total[-1, : end - top])
    return label, confidence


def _most_probable(scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of the highest score, the first of equal ones, and the score: (C, H, W) -> (H, W) uint8, float32."""
    highest, ids = scores.max(dim=0)
    return ids.to(torch.uint8).cpu().numpy(), highest.float().cpu().numpy()
