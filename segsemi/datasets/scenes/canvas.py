"""The camera, the canvas and the street that every drawing function shares."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from segsemi.datasets.scenes.town import Town

CLASSES: tuple[str, ...] = (
    *("sky", "building", "pole", "road", "pavement", "vegetation"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
COLOURS: tuple[tuple[int, int, int], ...] = (
    *((70, 130, 180), (70, 70, 70), (153, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35)),
    *((220, 220, 0), (190, 153, 153), (0, 0, 142), (220, 20, 60), (119, 11, 32)),
)
SKY, BUILDING, POLE, ROAD, PAVEMENT, VEGETATION, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))

NEAR, FAR = 1.5, 75.0  # metres: objects stand between these depths
BACKDROP_DEPTH, SKY_DEPTH = 140.0, 220.0
SUBPIXEL_BITS = 4  # cv2's fixed-point bits for polygon corners

Colour = np.ndarray | tuple[float, float, float]
Number = float | np.ndarray
Point = tuple[float, float]
Outline = Sequence[Point] | np.ndarray
DARK = (0.0, 0.0, 0.0)


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


@dataclass(frozen=True)
class Camera:
    """A pinhole camera `eye` metres above the ground; `bend` curves the street sideways by bend * z**2 metres."""

    focal: float
    centre: float
    horizon: float
    eye: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points, shape (N, 3), to pixel positions (column, row), shape (N, 2)."""
        z = np.maximum(points[:, 2], NEAR / 2)
        columns = self.centre + self.focal * (points[:, 0] / z + self.bend * z)
        return np.stack([columns, self.horizon + self.focal * (self.eye - points[:, 1]) / z], axis=1)

    def ground(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """World x and z of the ground under every pixel, each (height, width) float32; z is huge above the horizon."""
        drop = np.arange(height, dtype=np.float32)[:, None] - self.horizon
        depth = np.where(drop > 0.3, self.focal * self.eye / np.maximum(drop, 0.3), 1e4)
        z = np.broadcast_to(depth, (height, width)).astype(np.float32)
        x = (np.arange(width, dtype=np.float32) - self.centre) * z / self.focal - self.bend * z**2
        return x.astype(np.float32), z


@dataclass(frozen=True)
class Region:
    """A rectangle of the picture and the pixels meant in it: `mask` is (h, w) bool."""

    rows: slice
    columns: slice
    mask: np.ndarray

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (h, 1) and column numbers (1, w) of the rectangle, float32."""
        rows = np.arange(self.rows.start, self.rows.stop, dtype=np.float32)[:, None]
        return rows, np.arange(self.columns.start, self.columns.stop, dtype=np.float32)[None]


@dataclass(frozen=True)
class Wall:
    """A vertical plane seen in perspective: metres along it, metres up and depth at each pixel of its region."""

    region: Region
    along: np.ndarray
    up: np.ndarray
    depth: np.ndarray


class Canvas:
    """What is painted so far: image and glow (H, W, 3) float32, label uint8, depth and shadow float32, all (H, W)."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.glow = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), SKY, np.uint8)
        self.depth = np.full((height, width), SKY_DEPTH, np.float32)
        self.shadow = np.zeros((height, width), np.float32)

    def box(self, points: np.ndarray, margin: float) -> Region | None:
        """The rectangle of the picture around the points (N, 2), or None outside it."""
        low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin) + 1
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), self.width), min(int(high[1]), self.height)
        if left >= right or top >= bottom:
            return None
        return Region(slice(top, bottom), slice(left, right), np.ones((bottom - top, right - left), bool))

    def polygon(self, points: np.ndarray, line: int = 0) -> Region | None:
        """The pixels within a polygon with corners (N, 2), or those of an open line so many pixels wide."""
        box = self.box(points, line)
        if box is None:
            return None
        mask = np.zeros(box.mask.shape, np.uint8)
        corners = np.round((points - (box.columns.start, box.rows.start)) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        if line:
            cv2.polylines(mask, [corners], False, 1, line, cv2.LINE_8, SUBPIXEL_BITS)
        else:
            cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, SUBPIXEL_BITS)
        return Region(box.rows, box.columns, mask.astype(bool))

    def hull(self, points: np.ndarray) -> Region | None:
        """The pixels within the convex hull of points (N, 2)."""
        return self.polygon(cv2.convexHull(points.astype(np.float32))[:, 0])

    def paint(
        self, region: Region | None, colour: Colour, class_id: Number, depth: Number, glow: Colour = DARK
    ) -> None:
        """Paint a region; every value is one for all its pixels or has one for each pixel of its rectangle."""
        if region is None:
            return
        layers = ((self.image, colour), (self.label, class_id), (self.depth, depth), (self.glow, glow))
        for target, value in layers:
            value = np.asarray(value, target.dtype)
            target[region.rows, region.columns][region.mask] = value[region.mask] if value.ndim >= 2 else value

    def darken(self, region: Region | None, strength: float) -> None:
        """Shadows do not add up: the strongest holds."""
        if region is not None:
            part = self.shadow[region.rows, region.columns]
            np.maximum(part, region.mask * strength, out=part)


@dataclass
class Street:
    """Everything the drawing functions share for one scene."""

    rng: np.random.Generator
    camera: Camera
    canvas: Canvas
    weather: Weather
    sun: Point  # metres of shadow, in x and z, per metre of height
    left: float  # the road's edges in x
    right: float
    walk: float  # width of the pavement
    town: Town
    bare: float  # the share of trees without leaves
    coarse: np.ndarray  # noise fields twice the picture's size, to cut patches from
    fine: np.ndarray
    things: list[tuple[float, Callable[[], None]]] = field(default_factory=list)  # with their rank from near to far
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)  # x, z and half sizes

    def add(self, x: float, z: float, draw: Callable[[], None]) -> None:
        """Have something painted in its turn; of two things in one line of sight the outer one is farther."""
        self.things.append((z + 1.2 * abs(x), draw))

    def claim(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        """Reserve ground, unless some of it is taken: things do not stand in one another."""
        free = all(abs(x - a) > half_x + b or abs(z - c) > half_z + d for a, c, b, d in self.taken)
        if free:
            self.taken.append((x, z, half_x, half_z))
        return free

    def kerb(self, side: float) -> float:
        """The road's edge in x on the left (side < 0) or the right."""
        return self.right if side > 0 else self.left

    def patch(self, region: Region, coarse: bool = False) -> np.ndarray:
        """A random cut of noise of a region's size, (h, w)."""
        source = self.coarse if coarse else self.fine
        height, width = region.mask.shape
        top = self.rng.integers(source.shape[0] - height + 1)
        start = self.rng.integers(source.shape[1] - width + 1)
        return source[top : top + height, start : start + width]

    def scale(self, z: float) -> float:
        """Pixels per metre at a depth."""
        return self.camera.focal / max(z, NEAR)

    def flat(self, x: float, z: float, points: Outline) -> np.ndarray:
        """Pixel positions of points (metres sideways, metres up) of a flat object that faces the camera at (x, z)."""
        offsets = np.asarray(points, float)
        return self.camera.project(np.column_stack([offsets[:, 0] + x, offsets[:, 1], np.full(len(offsets), z)]))

    def put(self, x: float, z: float, outline: Outline, colour: Colour, class_id: int, glow: Colour = DARK) -> None:
        """Paint a flat polygon that faces the camera."""
        self.canvas.paint(self.canvas.polygon(self.flat(x, z, outline)), colour, class_id, z, glow)

    def line(self, x: float, z: float, points: Outline, width: float, colour: Colour, class_id: int) -> None:
        """Paint a flat line, `width` metres and at least one pixel wide, that faces the camera."""
        pixels = max(1, round(width * self.scale(z)))
        self.canvas.paint(self.canvas.polygon(self.flat(x, z, points), pixels), colour, class_id, z)

    def wall(self, start: Point, end: Point, low: float, high: float) -> Wall | None:
        """The vertical plane between two ground points (x, z)."""
        (x0, z0), (x1, z1) = start, end
        pixels = self.camera.project(np.array([[x0, low, z0], [x1, low, z1], [x1, high, z1], [x0, high, z0]]))
        region = self.canvas.polygon(pixels)
        span = pixels[1, 0] - pixels[0, 0]
        if region is None or abs(span) < 1:
            return None
        rows, columns = region.grid()
        t = np.clip((columns - pixels[0, 0]) / span, 0, 1)
        inverse = (1 - t) / z0 + t / z1  # 1 / z is linear on the screen
        along = math.hypot(x1 - x0, z1 - z0) * (t / z1) / inverse
        up = self.camera.eye - (rows - self.camera.horizon) / inverse / self.camera.focal
        shape = region.mask.shape
        return Wall(region, np.broadcast_to(along, shape), up, np.broadcast_to(1 / inverse, shape))

    def cast(self, footprint: Outline, height: float, strength: float = 1.0) -> None:
        """Darken the ground where an object with this footprint (x, z) keeps the sun off."""
        base = np.asarray(footprint, float)
        ground = np.concatenate([base, base + height * np.asarray(self.sun)])
        points = np.column_stack([ground[:, 0], np.zeros(len(ground)), np.maximum(ground[:, 1], NEAR)])
        self.canvas.darken(self.canvas.hull(self.camera.project(points)), strength * self.weather.shadow)

    def shade_foot(self, x: float, z: float, radius: float) -> None:
        """Darken the ground right under something that stands at (x, z), also without sun."""
        spot = np.insert(ellipse((x, z), radius, 0.3), 1, 0, axis=1)
        self.canvas.darken(self.canvas.polygon(self.camera.project(spot)), 0.4)

    def side_light(self, side: float) -> float:
        """How bright a wall is that faces the street from this side (-1 left, 1 right)."""
        towards_sun = side * self.sun[0] > 0
        return 1 + self.weather.shadow * (0.25 if towards_sun else -0.6)


def ellipse(centre: Point, radius_x: float, radius_y: float, corners: int = 14) -> np.ndarray:
    """The corners (N, 2) of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([centre[0] + radius_x * np.cos(angle), centre[1] + radius_y * np.sin(angle)])
