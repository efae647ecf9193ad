"""Pictures for people: panels of image, truth and prediction, and SAUG's operations on one image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segsemi.files import write_bytes

BAR = 16  # pixels for the caption above a picture
GAP = 4


def captioned(image: np.ndarray, caption: str) -> np.ndarray:
    """(H, W, 3) uint8 -> (BAR + H, W, 3) uint8 with a line of text above it."""
    bar = Image.new("RGB", (image.shape[1], BAR), "white")
    ImageDraw.Draw(bar).text((2, 2), caption, fill="black", font=ImageFont.load_default(11))
    return np.concatenate([np.asarray(bar), image])


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of any size, (H, W, 3) uint8, in rows of `columns`, on white."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def save_png(path: Path, image: np.ndarray, *, max_width: int | None = None) -> None:
    """Write (H, W, 3) uint8 RGB, atomically; with `max_width`, for the report, at most so wide and in 256 colours."""
    picture = Image.fromarray(image)
    if max_width is not None and picture.width > max_width:
        picture = picture.resize((max_width, round(picture.height * max_width / picture.width)), Image.Resampling.BOX)
    if max_width is not None:
        picture = picture.quantize(256, dither=Image.Dither.NONE)  # a third of the bytes: these are kept in git
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    write_bytes(path, buffer.getvalue())
