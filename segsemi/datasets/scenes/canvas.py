"""The camera, the canvas and the street that every drawing function shares."""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np

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

Colour = np.ndarray | tuple[float, float, float]
Number = float | np.ndarray
Point = tuple[float, float]
Outline = Sequence[Point] | np.ndarray
DARK = (0.0, 0.0, 0.0)


class Camera:
    """A random pinhole camera; `bend` curves the street sideways by bend * z**2 metres."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.focal = width * rng.uniform(0.75, 1.1)
        self.centre = width * rng.uniform(0.33, 0.67)
        self.horizon = height * rng.uniform(0.36, 0.56)
        self.eye = rng.uniform(1.3, 2.1)  # metres above the ground
        self.bend = rng.normal(0, 0.0015) if rng.random() < 0.6 else 0.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """Convert world points, (N, 3), to pixel positions (column, row), (N, 2)."""
        z = np.maximum(points[:, 2], NEAR / 2)
        columns = self.centre + self.focal * (points[:, 0] / z + self.bend * z)
        return np.stack([columns, self.horizon + self.focal * (self.eye - points[:, 1]) / z], axis=1)

    def ground(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return world x and z of the ground under every pixel, each (height, width); z is huge above the horizon."""
        drop = np.arange(height, dtype=np.float32)[:, None] - self.horizon
        depth = np.where(drop > 0.3, self.focal * self.eye / np.maximum(drop, 0.3), 1e4)
        z = np.broadcast_to(depth, (height, width)).astype(np.float32)
        x = (np.arange(width, dtype=np.float32) - self.centre) * z / self.focal - self.bend * z**2
        return x.astype(np.float32), z


class Region(NamedTuple):
    """A rectangle of the picture and the pixels meant in it: `mask` is (h, w) bool."""

    rows: slice
    columns: slice
    mask: np.ndarray

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return row numbers (h, 1) and column numbers (1, w) of the rectangle, float32."""
        rows = np.arange(self.rows.start, self.rows.stop, dtype=np.float32)[:, None]
        return rows, np.arange(self.columns.start, self.columns.stop, dtype=np.float32)[None]


class Wall(NamedTuple):
    """A vertical plane in perspective: metres along it (1, w), metres up (h, w) and depth (1, w) at a region's pixels."""

    region: Region
    along: np.ndarray
    up: np.ndarray
    depth: np.ndarray


class Canvas:
    """The picture so far: image and glow (H, W, 3) float32, label uint8, depth and shadow float32, all (H, W)."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.glow = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), Id.SKY, np.uint8)
        self.depth = np.full((height, width), SKY_DEPTH, np.float32)
        self.shadow = np.zeros((height, width), np.float32)

    def box(self, points: np.ndarray, margin: float) -> Region | None:
        """Return the rectangle of the picture around the points (N, 2), or None outside it."""
        low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin) + 1
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), self.width), min(int(high[1]), self.height)
        if left >= right or top >= bottom:
            return None
        return Region(slice(top, bottom), slice(left, right), np.ones((bottom - top, right - left), bool))

    def polygon(self, points: np.ndarray, line: int = 0) -> Region | None:
        """Return the pixels within a polygon with corners (N, 2), or those of an open line so many pixels wide."""
        box = self.box(points, line)
        if box is None:
            return None
        mask = np.zeros(box.mask.shape, np.uint8)
        corners = np.round((points - (box.columns.start, box.rows.start)) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        if line:
            cv2.polylines(mask, [corners], False, 1, line, cv2.LINE_8, SUBPIXEL_BITS)
        else:
            cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, SUBPIXEL_BITS)
        return box._replace(mask=mask.astype(bool))

    def paint(
        self, region: Region | None, colour: Colour, class_id: Number, depth: Number, glow: Colour = DARK
    ) -> None:
        """Paint a region; a value is one for all its pixels, or has one for each pixel, row or column of its rectangle."""
        if region is None:
            return
        layers = ((self.image, colour), (self.label, class_id), (self.depth, depth), (self.glow, glow))
        for target, value in layers:
            part = target[region.rows, region.columns]
            np.copyto(part, value, "unsafe", where=region.mask[..., None] if part.ndim == 3 else region.mask)

    def darken(self, region: Region | None, strength: float) -> None:
        """Shade a region; shadows do not add up: the strongest holds."""
        if region is not None:
            part = self.shadow[region.rows, region.columns]
            np.maximum(part, region.mask * strength, out=part)


class Street:
    """A random town's street, empty at first, and all that the drawing functions share for one scene."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.town = Town(int(rng.integers(TOWNS)))
        self.camera = Camera(rng, height, width)
        self.canvas = Canvas(height, width)
        self.weather = WEATHERS[rng.choice(len(WEATHERS), p=[weather.share for weather in WEATHERS])]
        # metres of shadow, in x and z, per metre of height
        self.sun: Point = (rng.choice([-1, 1]) * rng.uniform(0.2, 1.4), rng.uniform(-0.8, 0.8))
        self.left, self.right = -rng.uniform(2.2, 6.0), rng.uniform(1.8, 4.5)  # the road's edges in x
        self.walk = self.town.walk * rng.uniform(0.9, 1.1)  # width of the pavement
        # noise of twice the picture's size, to cut patches from
        self.coarse = fractal_noise(rng, 2 * height, 2 * width, 14, 4)
        self.fine = fractal_noise(rng, 2 * height, 2 * width, max(4, height // 3), 2)
        self.things: list[tuple[float, Callable[[], None]]] = []  # with their rank from near to far
        self.taken: list[tuple[float, float, float, float]] = []  # x, z and half sizes

    def later(self, x: float, z: float) -> Callable[[Callable[[], None]], None]:
        """Decorate a function that paints in its turn; of two things in one line of sight the outer one is farther."""
        return lambda draw: self.things.append((z + 1.2 * abs(x), draw))

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

    def scale(self, z: float) -> float:
        """Return the pixels per metre at a depth."""
        return self.camera.focal / max(z, NEAR)

    def patch(self, region: Region, coarse: bool = False) -> np.ndarray:
        """Return a random cut of noise of a region's size, (h, w)."""
        source = self.coarse if coarse else self.fine
        height, width = region.mask.shape
        top = self.rng.integers(source.shape[0] - height + 1)
        start = self.rng.integers(source.shape[1] - width + 1)
        return source[top : top + height, start : start + width]

    def area(self, points: np.ndarray, line: int = 0, hull: bool = False) -> Region | None:
        """Return the pixels of a polygon with corners (N, 3) in the world, of an open line, or of the convex hull."""
        pixels = self.camera.project(points)
        return self.canvas.polygon(cv2.convexHull(pixels.astype(np.float32))[:, 0] if hull else pixels, line)

    def put(
        self, x: float, z: float, points: Outline, colour: Colour, class_id: int, glow: Colour = DARK, line: float = 0
    ) -> None:
        """Paint a polygon (metres sideways, metres up) that faces the camera at (x, z), or a line so many metres wide."""
        pixels = max(1, round(line * self.scale(z))) if line else 0
        self.canvas.paint(self.area(upright(x, z, points), pixels), colour, class_id, z, glow)

    def wall(self, start: Point, end: Point, low: float, high: float) -> Wall | None:
        """Return the vertical plane between two ground points (x, z), or None if it is not seen."""
        (x0, z0), (x1, z1) = start, end
        pixels = self.camera.project(np.array([[x0, low, z0], [x1, low, z1], [x1, high, z1], [x0, high, z0]]))
        region, span = self.canvas.polygon(pixels), pixels[1, 0] - pixels[0, 0]
        if region is None or abs(span) < 1:
            return None
        rows, columns = region.grid()
        t = np.clip((columns - pixels[0, 0]) / span, 0, 1)
        inverse = (1 - t) / z0 + t / z1  # 1 / z is linear on the screen
        along = math.hypot(x1 - x0, z1 - z0) * (t / z1) / inverse
        up = self.camera.eye - (rows - self.camera.horizon) / inverse / self.camera.focal
        return Wall(region, along, up, 1 / inverse)

    def cast(self, footprint: Outline, height: float, strength: float = 1.0) -> None:
        """Darken the ground where an object with this footprint (x, z) keeps the sun off."""
        base = np.asarray(footprint, float)
        ground = np.concatenate([base, base + height * np.asarray(self.sun)])
        points = np.column_stack([ground[:, 0], np.zeros(len(ground)), np.maximum(ground[:, 1], NEAR)])
        self.canvas.darken(self.area(points, hull=True), strength * self.weather.shadow)

    def shade_foot(self, x: float, z: float, radius: float) -> None:
        """Darken the ground right under something that stands at (x, z), also without sun."""
        self.canvas.darken(self.area(np.insert(ellipse((x, z), radius, 0.3), 1, 0, axis=1)), 0.4)

    def side_light(self, side: float) -> float:
        """Return how bright a wall is that faces the street from this side (-1 left, 1 right)."""
        return 1 + self.weather.shadow * (0.25 if side * self.sun[0] > 0 else -0.6)


def upright(x: float, z: float, points: Outline) -> np.ndarray:
    """Convert points (metres sideways, metres up) on a plane that faces the camera at (x, z) to world points (N, 3)."""
    offsets = np.asarray(points, float)
    return np.column_stack([offsets[:, 0] + x, offsets[:, 1], np.full(len(offsets), z)])


def ellipse(centre: Point, radius_x: float, radius_y: float, corners: int = 14) -> np.ndarray:
    """Return the corners (N, 2) of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([centre[0] + radius_x * np.cos(angle), centre[1] + radius_y * np.sin(angle)])
