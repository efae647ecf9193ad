"""Class probabilities, averaged over scales and left-right flips (paper, algorithm 1, line 2), and their evaluation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.core.resize import scaled_to_short_side
from segsemi.metrics import ConfusionMatrix
from segsemi.models.build import SegmentationModel, most_probable
from segsemi.runtime.background import behind, file_readers, mapped_ahead
from segsemi.runtime.device import threads_sharing_cores

T = TypeVar("T")
R = TypeVar("R")
PIXELS_AT_ONCE = 4_000_000  # that networks on a CPU look at in one moment, at most: some GB


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module,
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    *,
    out_shape: tuple[int, int] | None = None,
) -> Tensor:
    """Softmax at every scale, and of the mirrored image if `flip`, averaged at one resolution.

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
        probabilities = _planes(network(batch).float()).softmax(dim=1)
        if flip:
            straight, mirrored = probabilities.chunk(2)
            probabilities = straight.add_(mirrored.flip(-1))
        # bilinear weights sum to 1, so probabilities still sum to 1, or with flip to 2
        probabilities = _resize(probabilities, *(out_shape or (height, width)))
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(scales) * (2 if flip else 1))


def _planes(x: Tensor) -> Tensor:
    """The same values with each channel's in one piece, as softmax on the CPU needs them.

    By a product with the identity, which is exact (but for infinities) and four times as fast as torch's copy.
    """
    if x.device.type != "cpu" or x.is_contiguous():
        return x
    pixels = x.contiguous(memory_format=torch.channels_last).flatten(2)
    with torch.autocast("cpu", enabled=False):  # it would make this, and all that follows, bfloat16
        return (torch.eye(x.shape[1], dtype=x.dtype) @ pixels).view(x.shape)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def windows(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of square windows, at most `side` pixels a side, that cover an image and overlap by a third."""

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
    """`predict_probabilities` of overlapping windows, averaged where they overlap: (N, C, H, W) float32."""
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
    """Probabilities of one image at its own size, whatever the size at which the model looks at it.

    Args:
        model: in eval mode.
        image: (H, W, 3) uint8 RGB.
        window: side, in pixels of what the model looks at, of sliding windows; None: the whole image at once.

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
    """The most probable class of each pixel of one image, (H, W) uint8; arguments as `predict_image` takes them."""
    if tuple(scales) == (1.0,) and not flip and window is None:
        return model.predict(image)
    return most_probable(predict_image(model, image, scales, flip, window))


def images_at_once(
    model: SegmentationModel,
    image: np.ndarray,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> int:
    """How many images of that size a CPU does best to predict at a time; 1 on a GPU, or where memory could run out."""
    height, width = image.shape[:2]
    if model.mean.device.type != "cpu":
        return 1
    seen = scaled_to_short_side(height, width, model.architecture.short_side)
    rows, columns = (length if window is None else min(length, window) for length in seen)
    pixels = max(rows * columns * max(scales) ** 2 * (2 if flip else 1), height * width)
    return max(1, min(torch.get_num_threads(), int(PIXELS_AT_ONCE // pixels)))


def side_by_side(compute: Callable[[T], R], items: Iterable[T], at_once: Callable[[T], int]) -> Iterator[R]:
    """compute(item) for all items, in order, several at a time, each in a thread with its share of the cores.

    Several cores on one image wait for each other in every layer; each on an image of its own they do not. An error of
    `items` is raised in its turn, after the results of the items before it.

    Args:
        at_once: how many items like this one may be computed at a time; it takes that share of the cores.
    """
    iterator = iter(items)
    waiting: deque[tuple[Future[R], int]] = deque()
    with ExitStack() as stack:
        pools: dict[int, ThreadPoolExecutor] = {}
        while True:
            try:
                item = next(iterator)
                count = at_once(item)
            except BaseException as error:
                end = error
                break
            while waiting and not _fits(count, [other for _, other in waiting]):
                yield waiting.popleft()[0].result()
            if count == 1:
                yield compute(item)
                continue
            if count not in pools:
                pools[count] = stack.enter_context(threads_sharing_cores(count))
            waiting.append((pools[count].submit(compute, item), count))
        while waiting:
            yield waiting.popleft()[0].result()
    if not isinstance(end, StopIteration):
        raise end


def _fits(count: int, others: list[int]) -> bool:
    """Whether an item may join those that are computed: all of them share the cores, or it is next in a pool of its like."""
    if all(other == count for other in others):
        return len(others) <= count
    return 1 / count + sum(1 / other for other in others) < 1 + 1e-9


def evaluate_model(
    model: SegmentationModel,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    num_classes: int,
    ignore_index: int = 255,
    indices: Iterable[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
    confusion: ConfusionMatrix | None = None,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
) -> ConfusionMatrix:
    """Confusion matrix over (image, label) pairs, at the labels' own size.

    Args:
        pairs: image (H, W, 3) uint8 RGB and label (H, W) uint8; several threads ask for them.
        indices: of the pairs that count, in this order; None: all.
        confusion: to go on with; None: a new one.
        on_prediction: called with the pair's index and the prediction (H, W) uint8, in order, in a thread of its own.
    """
    if confusion is None:
        confusion = ConfusionMatrix(num_classes, ignore_index)

    def count(index: int, prediction: np.ndarray, label: np.ndarray) -> None:
        confusion.update(prediction, label)
        if on_prediction is not None:
            on_prediction(index, prediction)

    def read(index: int) -> tuple[int, np.ndarray, np.ndarray]:
        return index, *pairs[index]

    def predicted(item: tuple[int, np.ndarray, np.ndarray]) -> tuple[int, np.ndarray, np.ndarray]:
        index, image, label = item
        return index, predict_label(model, image, scales, flip, window), label

    def at_once(item: tuple[int, np.ndarray, np.ndarray]) -> int:
        return images_at_once(model, item[1], scales, flip, window)

    # files are read and pixels counted while the network computes
    with (
        file_readers() as readers,
        ThreadPoolExecutor(max_workers=1) as counter,
        behind(counter) as later,
    ):
        items = mapped_ahead(readers, read, range(len(pairs)) if indices is None else indices)
        for index, prediction, label in side_by_side(predicted, items, at_once):
            later(count, index, prediction, label)
    return confusion
