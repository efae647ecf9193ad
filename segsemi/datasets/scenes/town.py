"""Towns: what the streets of one place have in common, so that a label from each says much about its other streets.

What is road in one town may be pavement in another: a network learns a town from its labels, and one without any only as far
as it resembles others. So the number of labels counts, as it does for a data set filmed in many places.
"""

from dataclasses import dataclass

import numpy as np

from segsemi.datasets.scenes.colours import BUILDING_PALETTE, CAR_PALETTE, LEAF_PALETTE, pick, rgb, vivid

TOWNS = 80
TOWN_SEED = 20210413  # the towns are the same for all data sets, their streets are not
GROUND_PALETTE = rgb("4c4c4f 6b6b6e 858078 5c575c 99948a 8c8a85 707073 9e8c75 8c6152 5c5c5e 7a4238 b0aca4")
KERB_CONTRAST = 0.15  # at least, between road and pavement, in one colour channel


@dataclass(frozen=True)
class Facade:
    """The look of one building."""

    colour: np.ndarray
    trim: np.ndarray
    glass: np.ndarray
    bay: float  # metres from window to window
    storey: float
    window: tuple[float, float, float, float]  # in fractions of bay and storey
    courses: float  # contrast of the brick courses
    shop: bool


def random_facade(rng: np.random.Generator) -> Facade:
    """A tower of glass, or a house."""
    tower = rng.random() < 0.2
    left, low = rng.uniform(0.03, 0.1) if tower else rng.uniform(0.15, 0.32), 0.08 if tower else rng.uniform(0.2, 0.4)
    return Facade(
        colour=pick(rng, BUILDING_PALETTE, 0.06),
        trim=pick(rng, BUILDING_PALETTE, 0.1),
        glass=np.array([0.35, 0.45, 0.55]) * rng.uniform(0.3, 1.6) if tower else vivid(rng, 0.4, rng.uniform(0.1, 0.4)),
        bay=rng.uniform(1.4, 3.8),
        storey=rng.uniform(2.6, 3.8),
        window=(left, 1 - left, low, rng.uniform(0.75, 0.94)),
        courses=rng.uniform(0.05, 0.3) if rng.random() < 0.5 else 0.0,
        shop=rng.random() < 0.35,
    )


@dataclass(frozen=True)
class Town:
    """The looks of one town; lengths in metres, colours RGB in 0..1."""

    road: np.ndarray
    cobbles: bool
    pavement: np.ndarray
    tile: float  # side of the pavement's tiles
    walk: float  # width of the pavement
    verge: float  # width of the grass between road and pavement
    garden: bool  # grass behind the pavement
    lawn: np.ndarray
    leaf: np.ndarray
    facades: tuple[Facade, ...]
    fence: np.ndarray
    fence_kind: int
    fence_height: float
    pole: np.ndarray
    pole_width: float


def town_number(number: int) -> Town:
    """Town 0, 1, ... TOWNS - 1: the same at every call."""
    rng = np.random.default_rng([TOWN_SEED, number])
    road = pick(rng, GROUND_PALETTE, 0.03)
    pavement = pick(rng, GROUND_PALETTE, 0.03)
    while np.abs(road - pavement).max() < KERB_CONTRAST:
        pavement = pick(rng, GROUND_PALETTE, 0.03)
    return Town(
        road=road,
        cobbles=rng.random() < 0.25,
        pavement=pavement,
        tile=rng.uniform(0.4, 1.2),
        walk=rng.uniform(2.0, 6.0),
        verge=rng.uniform(0.6, 1.5) if rng.random() < 0.3 else 0.0,
        garden=rng.random() < 0.6,
        lawn=pick(rng, rgb("406124 666b33 73613d")),
        leaf=pick(rng, LEAF_PALETTE, 0.03),
        facades=tuple(random_facade(rng) for _ in range(3)),
        fence=pick(rng, np.concatenate([BUILDING_PALETTE, LEAF_PALETTE[:3], CAR_PALETTE[:5]]), 0.04),
        fence_kind=int(rng.integers(4)),
        fence_height=rng.uniform(0.8, 2.0),
        pole=pick(rng, np.concatenate([CAR_PALETTE[:8], rgb("614733 9e998f")])),
        pole_width=rng.uniform(0.15, 0.32),
    )
