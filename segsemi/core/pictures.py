"""Pictures for people: panels of image, truth and prediction, and SAUG's operations on one image."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segsemi.core.files import write_bytes

BAR = 16  # pixels for the caption above a picture
GAP = 4


def captioned(image: np.ndarray, caption: str) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, under a line of text: (BAR + H, W, 3) uint8."""
    bar = Image.new("RGB", (image.shape[1], BAR), "white")
    ImageDraw.Draw(bar).text((2, 2), caption, fill="black", font=ImageFont.load_default(11))
    return np.concatenate([np.asarray(bar), image])


def shrunk(image: np.ndarray, width: int, how: Image.Resampling = Image.Resampling.BOX) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, shrunk to at most `width` pixels of width."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return np.asarray(Image.fromarray(image).resize(size, how))


def marked(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, in pale colours, with the `pixels`, (H, W) bool, in red."""
    return np.where(pixels[..., None], np.array([255, 0, 0], dtype=np.uint8), image // 2 + np.uint8(96))


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures of any size, (H, W, 3) uint8, side by side in rows of `columns`, on white."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def png_bytes(image: np.ndarray, *, palette: bool = False) -> bytes:
    """Return (H, W, 3) or (H, W) uint8 as a PNG; with `palette` in 256 colours, a third of the bytes, for pictures in git."""
    picture = Image.fromarray(image)
    if palette:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(path: Path, image: np.ndarray, *, palette: bool = False) -> None:
    """Write a PNG of (H, W, 3) uint8 RGB, atomically; see `png_bytes`."""
    write_bytes(path, png_bytes(image, palette=palette))
