"""How a scene looks: random colours and noise, kinds of weather, and towns.

A town is what the streets of one place have in common, so that a label from each says much about its other streets. Road
in one town may look like pavement in another, so the number of labels counts, as in a data set filmed in many places.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np


def rgb(codes: str) -> np.ndarray:
    """Convert hex colours to RGB in 0..1, shape (N, 3)."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255


BUILDING_PALETTE = rgb("8c4738 6b3d33 c7b28f d9d4c7 858587 a8bdd1 66788c dba86b b27366 808c75 4c4c52 e0cc99")
CAR_PALETTE = rgb("141417 4c4f54 808287 b8babf ebebeb 9e1414 1a2e73 245233 d9b21a 735940")
LEAF_PALETTE = rgb("335c1f 21451f 597329 475c38 293d29 b2851f 9e471a 73572e d9adbd")
GROUND_PALETTE = rgb("4c4c4f 6b6b6e 858078 5c575c 99948a 8c8a85 707073 9e8c75 8c6152 5c5c5e 7a4238 b0aca4")
KERB_CONTRAST = 0.15  # at least, between road and pavement, in one colour channel
TOWNS = 80
TOWN_SEED = 20210413  # the towns are the same for all data sets, their streets are not


def pick(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """Return a palette colour (3,), drawn towards another one and jittered, so that no two objects agree."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    mixed = first + (second - first) * 0.35 * rng.random() + rng.normal(0, spread, 3) + rng.normal(0, spread)
    return np.clip(mixed, 0.02, 0.98)


def vivid(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    """Return a colour (3,) of any hue."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), value))


def jitter(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Return a colour (3,) near another one: a little lighter or darker, and of a slightly different hue."""
    return np.clip(colour * rng.uniform(0.9, 1.1) + rng.normal(0, 0.02, 3), 0.02, 0.98)


def fractal_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Return smooth noise (height, width) float32 of mean 0.5; the coarsest octave has `cells` cells down the picture."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = min(cells << octave, height)
        grid = rng.random((rows, max(1, rows * width // height)), dtype=np.float32)
        total += cv2.resize(grid - 0.5, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total + 0.5


@dataclass(frozen=True)
class Weather:
    """One kind of weather and light; colours are RGB in 0..1, `fog` is the extinction per metre."""

    share: float
    sky_top: tuple[float, float, float]
    sky_low: tuple[float, float, float]
    light: tuple[float, float, float]
    shadow: float = 0.1
    fog: float = 0.003
    noise: float = 0.02
    dark: float = 0.0  # how strongly lamps and windows shine
    wet: float = 0.0
    snow: float = 0.0


WEATHERS = (
    Weather(0.26, (0.28, 0.50, 0.85), (0.72, 0.84, 0.95), (1.08, 1.03, 0.95), shadow=0.55, fog=0.001),  # clear
    Weather(0.22, (0.62, 0.66, 0.71), (0.84, 0.85, 0.86), (0.84, 0.87, 0.90), wet=0.1),  # overcast
    Weather(0.10, (0.75, 0.72, 0.68), (0.99, 0.95, 0.85), (0.95, 0.85, 0.68), shadow=0.65, fog=0.008),  # low sun
    Weather(0.10, (0.70, 0.72, 0.74), (0.76, 0.77, 0.78), (0.78, 0.80, 0.82), shadow=0.03, fog=0.02),  # fog
    Weather(0.10, (0.42, 0.45, 0.50), (0.62, 0.64, 0.67), (0.58, 0.61, 0.66), fog=0.012, noise=0.03, wet=0.7),  # rain
    Weather(0.09, (0.22, 0.24, 0.45), (0.92, 0.58, 0.42), (0.62, 0.46, 0.46), noise=0.03, dark=0.5),  # dusk
    Weather(0.08, (0.02, 0.03, 0.08), (0.13, 0.11, 0.13), (0.20, 0.20, 0.27), noise=0.035, dark=1.0, wet=0.3),  # night
    Weather(0.05, (0.74, 0.77, 0.81), (0.87, 0.88, 0.90), (0.88, 0.91, 0.96), fog=0.010, snow=0.85),  # snow
)


class Facade:
    """The look of a random building: a tower of glass, or a house."""

    def __init__(self, rng: np.random.Generator) -> None:
        tower = rng.random() < 0.2
        left = rng.uniform(0.03, 0.1) if tower else rng.uniform(0.15, 0.32)
        low = 0.08 if tower else rng.uniform(0.2, 0.4)
        self.colour = pick(rng, BUILDING_PALETTE, 0.06)
        self.trim = pick(rng, BUILDING_PALETTE, 0.1)
        tint = np.array([0.35, 0.45, 0.55])
        self.glass = tint * rng.uniform(0.3, 1.6) if tower else vivid(rng, 0.4, rng.uniform(0.1, 0.4))
        self.bay = rng.uniform(1.4, 3.8)  # metres from window to window
        self.storey = rng.uniform(2.6, 3.8)
        self.window = left, 1 - left, low, rng.uniform(0.75, 0.94)  # in fractions of bay and storey
        self.courses = rng.uniform(0.05, 0.3) if rng.random() < 0.5 else 0.0  # contrast of the brick courses
        self.shop = rng.random() < 0.35


class Town:
    """The looks of town 0, 1, ... TOWNS - 1, equal at every call; lengths in metres, colours RGB in 0..1."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([TOWN_SEED, number])
        self.road, self.pavement = pick(rng, GROUND_PALETTE, 0.03), pick(rng, GROUND_PALETTE, 0.03)
        while np.abs(self.road - self.pavement).max() < KERB_CONTRAST:
            self.pavement = pick(rng, GROUND_PALETTE, 0.03)
        self.cobbles = rng.random() < 0.25
        self.tile = rng.uniform(0.4, 1.2)  # side of the pavement's tiles
        self.walk = rng.uniform(2.0, 6.0)  # width of the pavement
        self.verge = rng.uniform(0.6, 1.5) if rng.random() < 0.3 else 0.0  # width of the grass beside the road
        self.garden = rng.random() < 0.6  # grass behind the pavement
        self.lawn = pick(rng, rgb("406124 666b33 73613d"))
        self.leaf = pick(rng, LEAF_PALETTE, 0.03)
        self.facades = [Facade(rng) for _ in range(3)]
        self.fence = pick(rng, np.concatenate([BUILDING_PALETTE, LEAF_PALETTE[:3], CAR_PALETTE[:5]]), 0.04)
        self.fence_kind = int(rng.integers(4))
        self.fence_height = rng.uniform(0.8, 2.0)
        self.pole = pick(rng, np.concatenate([CAR_PALETTE[:8], rgb("614733 9e998f")]))
        self.pole_width = rng.uniform(0.15, 0.32)
