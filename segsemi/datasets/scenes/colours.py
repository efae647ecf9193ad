"""Palettes, random colours and noise."""

import colorsys

import cv2
import numpy as np


def rgb(codes: str) -> np.ndarray:
    """Hex colours to RGB in 0..1, shape (N, 3)."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255


BUILDING_PALETTE = rgb("8c4738 6b3d33 c7b28f d9d4c7 858587 a8bdd1 66788c dba86b b27366 808c75 4c4c52 e0cc99")
CAR_PALETTE = rgb("141417 4c4f54 808287 b8babf ebebeb 9e1414 1a2e73 245233 d9b21a 735940")
LEAF_PALETTE = rgb("335c1f 21451f 597329 475c38 293d29 b2851f 9e471a 73572e d9adbd")


def pick(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """A palette colour (3,), drawn towards another one and jittered, so that no two objects agree."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    mixed = first + (second - first) * 0.35 * rng.random() + rng.normal(0, spread, 3) + rng.normal(0, spread)
    return np.clip(mixed, 0.02, 0.98)


def vivid(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    """A colour (3,) of any hue."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), value))


def fractal_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Smooth noise (height, width) float32 of mean 0.5; the coarsest octave has `cells` cells down the picture."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = min(cells << octave, height)
        grid = rng.random((rows, max(1, rows * width // height)), dtype=np.float32)
        total += cv2.resize(grid - 0.5, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total + 0.5


def jitter(rng: np.random.Generator, colour: np.ndarray, spread: float = 0.02) -> np.ndarray:
    """A colour (3,) near another one: a little lighter or darker, and a little of another hue."""
    return np.clip(colour * rng.uniform(0.9, 1.1) + rng.normal(0, spread, 3), 0.02, 0.98)
