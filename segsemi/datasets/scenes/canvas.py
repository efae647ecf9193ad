"""The canvas with its camera, and the street that every drawing function shares.

World points are (x, y, z) in metres: x right, y up, z ahead of the camera. A ground point is (x, z), a pixel (column, row).
"""

import math
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from segsemi.core.classes import Classes
from segsemi.datasets.scenes.looks import TOWNS, WEATHERS, Town, fractal_noise

Id = IntEnum("Id", "SKY BUILDING POLE ROAD PAVEMENT VEGETATION SIGN FENCE CAR PEDESTRIAN BICYCLIST", start=0)
CLASSES = Classes(
    names=tuple(id_.name.lower() for id_ in Id),
    colours=(
        *((70, 130, 180), (70, 70, 70), (153, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35)),
        *((220, 220, 0), (190, 153, 153), (0, 0, 142), (220, 20, 60), (119, 11, 32)),
    ),
)
NEAR, FAR = 1.5, 75.0  # metres: objects stand between these depths
BACKDROP_DEPTH, SKY_DEPTH = 140.0, 220.0
SUBPIXEL_BITS = 4  # cv2's fixed-point bits for polygon corners

Point = tuple[float, float]
Thing = Iterator[Point]  # a generator: takes its place, yields it, and paints itself when it is continued


class Region(NamedTuple):
    """Pixels of the picture: `mask` is (h, w) bool, within a rectangle of rows and columns that may be empty."""

    box: tuple[slice, slice]
    mask: np.ndarray


Wall = tuple[Region, np.ndarray, np.ndarray, np.ndarray]  # see Canvas.wall


class Canvas:
    """The picture so far, in layers of its height and width, and its random pinhole camera."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.focal = width * rng.uniform(0.75, 1.1)
        self.centre = width * rng.uniform(0.33, 0.67)
        self.horizon = height * rng.uniform(0.36, 0.56)
        self.eye = rng.uniform(1.3, 2.1)  # metres above the ground
        self.bend = rng.normal(0, 0.0015) if rng.random() < 0.6 else 0.0  # curves the street sideways by bend * z**2
        self.image, self.glow = np.zeros((2, height, width, 3), np.float32)
        self.label = np.full((height, width), Id.SKY, np.uint8)
        self.depth = np.full((height, width), SKY_DEPTH, np.float32)  # metres
        self.shadow = np.zeros((height, width), np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Convert world points, (N, 3), to pixels, (N, 2)."""
        z = np.maximum(points[:, 2], NEAR / 2)
        columns = self.centre + self.focal * (points[:, 0] / z + self.bend * z)
        return np.stack([columns, self.horizon + self.focal * (self.eye - points[:, 1]) / z], axis=1)

    def upright(self, x: float, z: float, points: ArrayLike) -> np.ndarray:
        """Convert points (metres sideways, metres up) on a plane that faces the camera at (x, z) to pixels, (N, 2)."""
        return self.project(np.insert(np.add(points, (x, 0.0)), 2, z, axis=1))

    def ground(self) -> tuple[np.ndarray, np.ndarray]:
        """Return world x and z of the ground under every pixel, each (H, W) float32; z is huge above the horizon."""
        drop = np.arange(self.height, dtype=np.float32)[:, None] - self.horizon
        depth = np.where(drop > 0.3, self.focal * self.eye / np.maximum(drop, 0.3), 1e4)
        z = np.broadcast_to(depth, self.label.shape).astype(np.float32)
        x = (np.arange(self.width, dtype=np.float32) - self.centre) * z / self.focal - self.bend * z**2
        return x.astype(np.float32), z

    def box(self, pixels: np.ndarray, margin: float) -> Region:
        """Return the rectangle of the picture around pixels (N, 2), with an empty mask."""
        corners = np.floor(pixels.min(axis=0) - margin), np.ceil(pixels.max(axis=0) + margin) + 1
        (left, top), (right, bottom) = np.clip(corners, 0, (self.width, self.height)).astype(int)
        return Region((slice(top, bottom), slice(left, right)), np.zeros((bottom - top, right - left), bool))

    def polygon(self, pixels: np.ndarray, line: int = 0, hull: bool = False) -> Region:
        """Return the region of a polygon with corners (N, 2), of their convex hull, or of an open line so many pixels wide."""
        if hull:
            pixels = cv2.convexHull(pixels.astype(np.float32))[:, 0]
        region = self.box(pixels, line)
        if region.mask.size:
            rows, columns = region.box
            corners = np.round((pixels - (columns.start, rows.start)) * (1 << SUBPIXEL_BITS)).astype(np.int32)
            mask = region.mask.view(np.uint8)  # cv2 draws no bool
            if line:
                cv2.polylines(mask, [corners], False, 1, line, cv2.LINE_8, SUBPIXEL_BITS)
            else:
                cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, SUBPIXEL_BITS)
        return region

    def wall(self, start: Point, end: Point, low: float, high: float) -> Wall | None:
        """Return the vertical plane between two ground points in perspective, or None if it is not seen.

        It is a region and, at its pixels, metres along the plane (1, w), metres up (h, w) and depth (1, w).
        """
        (x0, z0), (x1, z1) = start, end
        pixels = self.project(np.array([[x0, low, z0], [x1, low, z1], [x1, high, z1], [x0, high, z0]]))
        region, left, span = self.polygon(pixels), pixels[0, 0], pixels[1, 0] - pixels[0, 0]
        if not region.mask.size or abs(span) < 1:
            return None
        rows, columns = np.ogrid[region.box]
        t = np.clip((columns - left) / span, 0, 1)
        inverse = (1 - t) / z0 + t / z1  # 1 / z is linear on the screen
        along = math.hypot(x1 - x0, z1 - z0) * (t / z1) / inverse
        up = self.eye - (rows.astype(np.float32) - self.horizon) / inverse / self.focal
        return region, along, up, 1 / inverse

    def paint(self, region: Region, colour: ArrayLike, label: ArrayLike, depth: ArrayLike, glow: ArrayLike = 0) -> None:
        """Paint a region; a value is one for all its pixels, or has one for each pixel, row or column of its rectangle."""
        layers = ((self.image, colour), (self.label, label), (self.depth, depth), (self.glow, glow))
        for layer, value in layers:
            where = region.mask[..., None] if layer.ndim == 3 else region.mask
            np.copyto(layer[region.box], value, "unsafe", where=where)

    def darken(self, points: np.ndarray, strength: float, hull: bool = True) -> None:
        """Shade the hull or polygon of world points (N, 3); shadows do not add up: the strongest holds."""
        region = self.polygon(self.project(points), hull=hull)
        part = self.shadow[region.box]
        np.maximum(part, region.mask * strength, out=part)


class Street(Canvas):
    """A random town's street, empty at first, and all that the drawing functions share for one scene."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.town = Town(int(rng.integers(TOWNS)))
        super().__init__(rng, height, width)
        self.weather = WEATHERS[rng.choice(len(WEATHERS), p=[weather.share for weather in WEATHERS])]
        # metres of shadow, in x and z, per metre of height
        self.sun: Point = (rng.choice([-1, 1]) * rng.uniform(0.2, 1.4), rng.uniform(-0.8, 0.8))
        self.left, self.right = -rng.uniform(2.2, 6.0), rng.uniform(1.8, 4.5)  # the road's edges in x
        self.walk = self.town.walk * rng.uniform(0.9, 1.1)  # width of the pavement
        # noise of twice the picture's size, to cut patches from
        self.coarse = fractal_noise(rng, 2 * height, 2 * width, 14, 4)
        self.fine = fractal_noise(rng, 2 * height, 2 * width, max(4, height // 3), 2)
        start = rng.uniform(9, 30)
        self.crossing = (start, start + rng.uniform(5, 9)) if rng.random() < 0.35 else (math.inf, math.inf)  # depths
        self.things: list[tuple[float, Thing]] = []  # with their rank from near to far
        self.taken: list[tuple[float, float, float, float]] = []  # x, z and half sizes

    def add(self, thing: Thing) -> None:
        """Let a thing take its place."""
        place = next(thing, None)  # None: there was no room
        if place is not None:
            x, z = place
            self.things.append((z + 1.2 * abs(x), thing))  # of two in one line of sight the outer one is farther

    def claim(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        """Reserve ground, unless some of it is taken: things do not stand in one another."""
        free = all(abs(x - a) > half_x + b or abs(z - c) > half_z + d for a, c, b, d in self.taken)
        if free:
            self.taken.append((x, z, half_x, half_z))
        return free

    def kerb(self, side: float) -> float:
        """Return the road's edge in x on the left (side < 0) or the right."""
        return self.right if side > 0 else self.left

    def beside(self, side: float, low: float, high: float) -> float:
        """Return a place in x, so many metres outside the kerb of one side (0: of a random one)."""
        side = side or float(self.rng.choice([-1, 1]))
        return self.kerb(side) + side * self.rng.uniform(low, high)

    def ahead(self, low: float, high: float) -> float:
        """Return a depth such that as many things are large as small on the screen."""
        return low * (high / low) ** self.rng.random()

    def patch(self, region: Region, coarse: bool = False) -> np.ndarray:
        """Return a random cut of noise of a region's size, (h, w)."""
        if not region.mask.size:  # draws no random numbers
            return region.mask
        source = self.coarse if coarse else self.fine
        height, width = region.mask.shape
        top = self.rng.integers(source.shape[0] - height + 1)
        start = self.rng.integers(source.shape[1] - width + 1)
        return source[top : top + height, start : start + width]

    def put(
        self, x: float, z: float, points: ArrayLike, colour: ArrayLike, label: int, glow: ArrayLike = 0, line: float = 0
    ) -> None:
        """Paint a polygon (metres sideways, metres up) that faces the camera at (x, z), or a line so many metres wide."""
        pixels = max(1, round(line * self.focal / z)) if line else 0
        self.paint(self.polygon(self.upright(x, z, points), pixels), colour, label, z, glow)

    def cast(self, footprint: ArrayLike, height: float, strength: float = 1.0) -> None:
        """Darken the ground where an object with this footprint (ground points) keeps the sun off."""
        base = np.asarray(footprint, float)
        ground = np.maximum(np.concatenate([base, base + height * np.asarray(self.sun)]), (-np.inf, NEAR))
        self.darken(np.insert(ground, 1, 0, axis=1), strength * self.weather.shadow)

    def shade_foot(self, x: float, z: float, radius: float) -> None:
        """Darken the ground right under something that stands at (x, z), also without sun."""
        self.darken(np.insert(ellipse((x, z), radius, 0.3), 1, 0, axis=1), 0.4, hull=False)

    def side_light(self, side: float) -> float:
        """Return how bright a wall is that faces the street from this side (-1 left, 1 right)."""
        return 1 + self.weather.shadow * (0.25 if side * self.sun[0] > 0 else -0.6)


def ellipse(centre: Point, radius_x: float, radius_y: float, corners: int = 14) -> np.ndarray:
    """Return the corners (N, 2) of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([centre[0] + radius_x * np.cos(angle), centre[1] + radius_y * np.sin(angle)])
