"""Synthetic street scenes with labels exact at the pixel: the embedded data set.

A scene is a street in world metres (x right, y up, z ahead of the camera), seen by a pinhole camera and painted from
far to near. Each mask is used for the image and for the label alike. Eight kinds of weather, many building, car and
tree types and overlapping colours make a handful of images a poor sample of the whole.
"""

import colorsys
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES: tuple[str, ...] = (
    *("sky", "building", "pole", "road", "pavement", "vegetation"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
COLOURS: tuple[tuple[int, int, int], ...] = (
    *((70, 130, 180), (70, 70, 70), (153, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35)),
    *((220, 220, 0), (190, 153, 153), (0, 0, 142), (220, 20, 60), (119, 11, 32)),
)
IGNORE_INDEX = 255
SKY, BUILDING, POLE, ROAD, PAVEMENT, VEGETATION, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))

SUBSETS = ("train", "val")  # the position is the subset number of the random stream
NEAR, FAR = 1.5, 75.0  # metres: objects stand between these depths
BACKDROP_DEPTH, SKY_DEPTH = 140.0, 220.0
SUBPIXEL_BITS = 4  # cv2's fixed-point bits for polygon corners

Colour = np.ndarray | tuple[float, float, float]
Point = tuple[float, float]
Outline = Sequence[Point] | np.ndarray
DARK = (0.0, 0.0, 0.0)
RECTANGLE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
WHEEL_RADIUS, WHEEL_PLACES = 0.33, (-0.31, 0.31)  # metres; fractions of a car's length
RUBBER = np.array([0.05, 0.05, 0.05])


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
    Weather(0.10, (0.70, 0.72, 0.74), (0.76, 0.77, 0.78), (0.78, 0.80, 0.82), shadow=0.03, fog=0.035),  # fog
    Weather(0.10, (0.42, 0.45, 0.50), (0.62, 0.64, 0.67), (0.58, 0.61, 0.66), fog=0.012, noise=0.03, wet=0.7),  # rain
    Weather(0.09, (0.22, 0.24, 0.45), (0.92, 0.58, 0.42), (0.62, 0.46, 0.46), noise=0.03, dark=0.5),  # dusk
    Weather(0.08, (0.02, 0.03, 0.08), (0.13, 0.11, 0.13), (0.20, 0.20, 0.27), noise=0.035, dark=1.0, wet=0.3),  # night
    Weather(0.05, (0.74, 0.77, 0.81), (0.87, 0.88, 0.90), (0.88, 0.91, 0.96), fog=0.010, snow=0.85),  # snow
)


def rgb(codes: str) -> np.ndarray:
    """Hex colours to RGB in 0..1, shape (N, 3)."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255


BUILDING_PALETTE = rgb("8c4738 6b3d33 c7b28f d9d4c7 858587 a8bdd1 66788c dba86b b27366 808c75 4c4c52 e0cc99")
CAR_PALETTE = rgb("141417 4c4f54 808287 b8babf ebebeb 9e1414 1a2e73 245233 d9b21a 735940")
LEAF_PALETTE = rgb("335c1f 21451f 597329 475c38 293d29 b2851f 9e471a 73572e d9adbd")
GROUND_PALETTE = rgb("4c4c4f 6b6b6e 858078 5c575c 99948a")
TILE_PALETTE = rgb("8c8a85 707073 9e8c75 8c6152 5c5c5e")
SIGN_PALETTE = rgb("cc141a 1a40a6 ebc71f ebebeb 146638")


def percent(numbers: str) -> np.ndarray:
    """Pairs of whole per cent to fractions, shape (N, 2)."""
    return np.array([float(number) for number in numbers.split()]).reshape(-1, 2) / 100


@dataclass(frozen=True)
class CarType:
    """A side profile extruded over the width; outlines are per cent of length and height."""

    share: float
    size: tuple[float, float, float]  # length, width, height in metres
    glass: tuple[int, ...]  # the profile edges that are windows
    profile: str  # from the rear bumper over the roof to the front
    window: str  # at the side


CAR_TYPES = (
    CarType(0.42, (3.9, 1.75, 1.5), (1, 3), "-50 18 -50 58 -42 97 5 100 25 62 48 50 50 18", "-42 62 -37 92 4 94 20 62"),
    CarType(
        0.34,
        (4.6, 1.8, 1.4),
        (2, 4),
        "-50 20 -50 60 -33 66 -20 100 8 100 25 65 50 50 50 20",
        "-30 66 -18 93 7 93 21 66",
    ),
    CarType(0.16, (5.0, 2.0, 2.2), (1, 3), "-50 14 -50 55 -49 100 30 100 42 55 50 45 50 14", "12 58 12 88 29 88 38 58"),
    CarType(0.04, (9.0, 2.5, 3.0), (1, 3), "-50 10 -50 42 -50 100 50 100 50 35 50 10", "-46 45 -46 82 46 82 46 45"),
    CarType(0.04, (6.5, 2.2, 2.9), (4,), "-50 25 -50 100 20 100 22 85 42 83 50 45 50 14", "28 50 28 78 40 78 46 50"),
)  # hatchback, saloon, van, bus, lorry


@dataclass(frozen=True)
class Camera:
    """A pinhole camera `eye` metres above the ground; `bend` curves the street sideways by bend * z**2 metres."""

    height: int
    width: int
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

    def ground(self) -> tuple[np.ndarray, np.ndarray]:
        """World x and z of the ground under every pixel, each (H, W) float32; z is huge above the horizon."""
        drop = np.arange(self.height, dtype=np.float32)[:, None] - self.horizon
        depth = np.where(drop > 0.3, self.focal * self.eye / np.maximum(drop, 0.3), 1e4)
        z = np.broadcast_to(depth, (self.height, self.width)).astype(np.float32)
        x = (np.arange(self.width, dtype=np.float32) - self.centre) * z / self.focal - self.bend * z**2
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
    """What is painted so far: image and glow (H, W, 3) float32, label (H, W) uint8, depth (H, W) float32."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.glow = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), SKY, np.uint8)
        self.depth = np.full((height, width), SKY_DEPTH, np.float32)

    def box(self, points: np.ndarray, margin: float = 0.0) -> tuple[slice, slice] | None:
        """The part of the picture around the points (N, 2), or None outside it."""
        low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin) + 1
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), self.width), min(int(high[1]), self.height)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def polygon(self, points: np.ndarray) -> Region | None:
        """The pixels within a polygon with corners (N, 2)."""
        return self._draw(points, 0)

    def stroke(self, points: np.ndarray, width: float) -> Region | None:
        """The pixels of an open line through the points (N, 2), at least one pixel wide."""
        return self._draw(points, max(1, round(width)))

    def hull(self, points: np.ndarray) -> Region | None:
        """The pixels within the convex hull of points (N, 2)."""
        return self.polygon(cv2.convexHull(points.astype(np.float32))[:, 0])

    def _draw(self, points: np.ndarray, thickness: int) -> Region | None:
        box = self.box(points, thickness)
        if box is None:
            return None
        rows, columns = box
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        corners = np.round((points - (columns.start, rows.start)) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        if thickness:
            cv2.polylines(mask, [corners], False, 1, thickness, cv2.LINE_8, SUBPIXEL_BITS)
        else:
            cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, SUBPIXEL_BITS)
        return Region(rows, columns, mask.astype(bool))

    def paint(
        self, region: Region | None, colour: Colour, class_id: int, depth: float | np.ndarray, glow: Colour = DARK
    ) -> None:
        """Paint a region; colour and glow are one RGB or (h, w, 3), depth one number or (h, w)."""
        if region is None:
            return
        where = (region.rows, region.columns)
        for target, value in ((self.image, colour), (self.glow, glow), (self.depth, depth)):
            value = np.asarray(value, np.float32)
            target[where][region.mask] = value[region.mask] if value.ndim >= 2 else value
        self.label[where][region.mask] = class_id


def fractal_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Smooth noise (height, width) float32 of mean 0.5; the coarsest octave has `cells` cells down the picture."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = min(cells << octave, height)
        grid = rng.random((rows, max(1, rows * width // height)), dtype=np.float32)
        total += cv2.resize(grid - 0.5, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total + 0.5


def pick(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """A palette colour (3,), drawn towards another one and jittered, so that no two objects agree."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    mixed = first + (second - first) * 0.35 * rng.random() + rng.normal(0, spread, 3) + rng.normal(0, spread)
    return np.asarray(np.clip(mixed, 0.02, 0.98))


def vivid(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    """A colour (3,) of any hue."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), value))


@dataclass
class Street:
    """Everything the drawing functions share for one scene."""

    rng: np.random.Generator
    camera: Camera
    canvas: Canvas
    weather: Weather
    sun: tuple[float, float]  # metres of shadow, in x and z, per metre of height
    left: float  # the road's edges in x
    right: float
    walk: float  # width of the pavement
    season: np.ndarray  # leaf colour of most plants here
    bare: float  # the share of trees without leaves
    coarse: np.ndarray  # noise fields twice the picture's size, to cut patches from
    fine: np.ndarray
    shadow: np.ndarray
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
        """Paint a flat line, `width` metres wide, that faces the camera."""
        self.canvas.paint(self.canvas.stroke(self.flat(x, z, points), width * self.scale(z)), colour, class_id, z)

    def wall(self, start: Point, end: Point, low: float, high: float) -> Wall | None:
        """The vertical plane between two ground points (x, z)."""
        (x0, z0), (x1, z1) = start, end
        corners = np.array([[x0, low, z0], [x1, low, z1], [x1, high, z1], [x0, high, z0]])
        pixels = self.camera.project(corners)
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
        self.darken(self.canvas.hull(self.camera.project(points)), strength * self.weather.shadow)

    def darken(self, region: Region | None, strength: float | np.ndarray) -> None:
        if region is not None:
            part = self.shadow[region.rows, region.columns]
            np.maximum(part, region.mask * strength, out=part)

    def footing(self, x: float, z: float, radius: float) -> Region | None:
        """The ground right under something that stands at (x, z)."""
        spot = ellipse((x, z), radius, 0.3)
        return self.canvas.polygon(self.camera.project(np.insert(spot, 1, 0, axis=1)))

    def side_light(self, side: float) -> float:
        """How bright a wall is that faces the street from this side (-1 left, 1 right)."""
        towards_sun = side * self.sun[0] > 0
        return 1 + self.weather.shadow * (0.25 if towards_sun else -0.6)


def ellipse(centre: Point, radius_x: float, radius_y: float, corners: int = 14) -> np.ndarray:
    """The corners (N, 2) of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([centre[0] + radius_x * np.cos(angle), centre[1] + radius_y * np.sin(angle)])


def draw_sky(street: Street) -> None:
    canvas, rng, weather = street.canvas, street.rng, street.weather
    low, top = np.array(weather.sky_low), np.array(weather.sky_top) + rng.normal(0, 0.04, 3)
    height = np.clip(1 - np.arange(canvas.height) / street.camera.horizon, 0, 1)[:, None, None] ** 0.7
    cover = rng.uniform(-0.3, 0.6) * np.clip(street.coarse[: canvas.height, : canvas.width] - 0.4, 0, 1)
    canvas.image[:] = low + (top - low) * height
    canvas.image += (cover * (1 - 0.9 * weather.dark))[..., None] * (1.0, 0.98, 0.95)


def draw_backdrop(street: Street) -> None:
    """Distant houses and trees on the horizon."""
    rng, camera = street.rng, street.camera
    for _ in range(rng.integers(6, 16)):
        x, half, height = rng.uniform(-110, 110), rng.uniform(4, 16), rng.uniform(3, 22)
        if rng.random() < 0.5:
            wall = street.wall((x - half, BACKDROP_DEPTH), (x + half, BACKDROP_DEPTH), -1, height)
            if wall is not None:
                colour = pick(rng, BUILDING_PALETTE) * (0.8 + 0.2 * (wall.up % 3 < 1.5))[..., None]
                street.canvas.paint(wall.region, colour, BUILDING, BACKDROP_DEPTH)
        else:
            draw_crown(street, x, BACKDROP_DEPTH, (-2, height * 0.6), half, leaf_colour(street), 2)
    if camera.horizon < camera.height - 1:
        band = street.wall((-400, BACKDROP_DEPTH), (400, BACKDROP_DEPTH), -1, rng.uniform(0.5, 4))
        if band is not None:  # closes the gap between the ground and the sky
            colour = leaf_colour(street) * (0.6 + 0.6 * street.patch(band.region))[..., None]
            street.canvas.paint(band.region, colour, VEGETATION, BACKDROP_DEPTH)


def draw_ground(street: Street, crossing: tuple[float, float] | None) -> None:
    """Road, pavement and grass, from the world position of each pixel; `crossing` is a side street's depths."""
    canvas, rng, weather = street.canvas, street.rng, street.weather
    x, z = street.camera.ground()
    below = z < BACKDROP_DEPTH
    outside = np.maximum(x - street.right, street.left - x)
    road = outside < 0
    if crossing is not None:
        road |= (z > crossing[0]) & (z < crossing[1])
    verge = rng.uniform(0.6, 1.5) if rng.random() < 0.3 else 0.0
    grass = ~road & ((outside < verge) | ((outside > street.walk) & (rng.random() < 0.6)))
    height, width = canvas.height, canvas.width
    grain = street.fine[:height, width : 2 * width] - 0.5
    stain = street.coarse[height : 2 * height, width : 2 * width] - 0.5
    colours = np.empty((height, width, 3), np.float32)
    colours[:] = road_colours(street, x, z)
    tile = rng.uniform(0.4, 1.2)
    joints = ((x % tile) < 0.06) | ((z % tile) < 0.08) if rng.random() < 0.7 else np.zeros_like(road)
    pavement = pick(rng, TILE_PALETTE) - 0.12 * (joints & (z < 14))[..., None]
    pavement = np.where(((outside < 0.2) & ~road)[..., None], pavement + 0.12, pavement)  # the kerb
    colours[~road] = pavement[~road]
    lawn = pick(rng, rgb("406124 666b33 73613d"))
    colours[grass] = (lawn * (1 + 1.1 * grain[..., None]))[grass]
    colours *= 1 + (rng.uniform(0.15, 0.6) * grain + rng.uniform(0.05, 0.35) * stain)[..., None]
    snowy = weather.snow * np.clip(1.3 * (~road) + 0.9 * stain + 0.3 * rng.random(), 0, 1)[..., None]
    colours += (np.array([0.90, 0.92, 0.95]) - colours) * snowy
    for class_id, part in ((ROAD, road), (PAVEMENT, ~road & ~grass), (VEGETATION, grass)):
        region = Region(slice(0, height), slice(0, width), part & below)
        canvas.paint(region, colours, class_id, z)


def road_colours(street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The road surface with its markings, (H, W, 3)."""
    rng = street.rng
    colours = np.empty((*x.shape, 3), np.float32)
    colours[:] = pick(rng, GROUND_PALETTE, 0.03)
    if rng.random() < 0.15:  # cobbles
        colours *= 1 - 0.25 * (((x % 0.35 < 0.07) | (z % 0.5 < 0.1)) & (z < 18))[..., None]
    if rng.random() < 0.2:  # a cycle lane, coloured but still road
        lane = (x > street.right - 1.6) & (x < street.right - 0.2)
        colours[lane] = pick(rng, rgb("803d33 406b4c 475c80"))
    for _ in range(rng.integers(0, 4)):  # repairs
        x0, z0 = rng.uniform(street.left, street.right), rng.uniform(3, 25)
        repair = (abs(x - x0) < rng.uniform(0.4, 2)) & (abs(z - z0) < rng.uniform(0.5, 4))
        colours[repair] *= rng.uniform(0.65, 1.3)
    paint = np.array([0.88, 0.87, 0.84]) if rng.random() < 0.8 else np.array([0.85, 0.68, 0.20])
    dash, phase = rng.uniform(4, 9), rng.uniform(0, 9)
    marks = np.zeros(x.shape, bool)
    if rng.random() < 0.75:
        middle = (street.left + street.right) / 2
        marks |= (abs(x - middle) < 0.1) & (((z + phase) % dash < dash * 0.45) | (rng.random() < 0.2))
    if rng.random() < 0.5:
        inset = rng.uniform(0.2, 2.3)
        marks |= (abs(x - street.right + inset) < 0.08) | (abs(x - street.left - inset) < 0.08)
    if rng.random() < 0.3:  # a zebra crossing
        start = rng.uniform(5, 22)
        marks |= (z > start) & (z < start + 3) & (x % 1.0 < 0.5) & (x > street.left) & (x < street.right)
    colours[marks] += (paint - colours[marks]) * rng.uniform(0.4, 1.0)  # worn or fresh
    return colours


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


def paint_facade(street: Street, wall: Wall, look: Facade, height: float, light: float) -> None:
    """Walls with brick courses, framed windows (some lit when it is dark) and perhaps a shop front."""
    rng, region = street.rng, wall.region
    along, up = wall.along, wall.up
    colour = np.empty((*region.mask.shape, 3), np.float32)
    colour[:] = look.colour
    colour *= (1 - look.courses * ((up % 0.4 < 0.12) | (up % 0.4 + along % 0.8 < 0.3)))[..., None]
    bay, storey = (along / look.bay).astype(int), np.maximum(up / look.storey, 0).astype(int)
    across, rise = along / look.bay - bay, up / look.storey - storey
    left, right, low, high = look.window
    row_ok = up < height - 0.6
    framed = (across > left - 0.05) & (across < right + 0.05) & (rise > low - 0.05) & (rise < high + 0.05) & row_ok
    window = (across > left) & (across < right) & (rise > low) & (rise < high) & row_ok
    colour[framed] = look.trim
    each = rng.random((40, 80)).astype(np.float32)[storey % 40, bay % 80]  # one number for each window
    colour[window] = (look.glass * (0.6 + 0.8 * each[..., None]))[window]
    glow = np.zeros_like(colour)
    shining = window & (each > 1 - 0.45 * street.weather.dark)
    glow[shining] = np.array([0.75, 0.60, 0.32]) * rng.uniform(0.5, 1.0)
    if look.shop:
        front = up < look.storey
        colour[front] = look.trim * 0.8
        pane = front & (up > 0.5) & (up < look.storey * 0.72) & (across > 0.08) & (across < 0.94)
        colour[pane] = look.glass * 0.7
        glow[front] = 0
        glow[pane] = np.array([0.8, 0.72, 0.55]) * (0.7 * street.weather.dark)
    colour *= light * (0.8 + 0.25 * street.patch(region, coarse=True) + 0.15 * street.patch(region))[..., None]
    street.canvas.paint(region, colour, BUILDING, wall.depth, glow)


def place_buildings(street: Street, side: float, crossing: Point | None) -> None:
    """A row of buildings on one side (-1 left, 1 right), broken by side streets and gardens."""
    rng = street.rng
    kerb = street.right if side > 0 else -street.left
    z, tall, setback = NEAR, rng.uniform(5, 18), rng.uniform(0.2, 6) * (rng.random() < 0.6)
    while z < FAR:
        length = rng.uniform(6, 20)
        if rng.random() < 0.22 or (crossing is not None and crossing[0] < z + length and z < crossing[1]):
            z += 4 + rng.uniform(0, 8)
            continue
        x = side * (kerb + street.walk + setback + rng.uniform(0, 1.5))
        height = max(3.5, tall * rng.uniform(0.55, 1.5))
        street.cast([(x, z), (x, z + length), (x + 8 * side, z)], height)
        add_building(street, side, x, z, length, height)
        z += length + (rng.uniform(1, 6) if rng.random() < 0.3 else 0)


def add_building(street: Street, side: float, x: float, z: float, length: float, height: float) -> None:
    rng = street.rng
    look, roof = random_facade(rng), rng.uniform(1.5, 4) if height < 12 and rng.random() < 0.6 else 0.0
    tiles = pick(rng, rgb("733829 474547 5c4c42"))
    tiles = tiles + (0.9 - tiles) * street.weather.snow

    def draw() -> None:
        end, depth = x + 14 * side, z
        front = street.wall((x, z), (end, z), 0, height)
        if roof:
            gable = [[x, height, z], [(x + end) / 2, height + roof, z], [end, height, z]]
            ridge = [[x, height, z], [x + 4 * side, height + roof, z], [x + 4 * side, height + roof, z + length]]
            for corners, shade in ((gable, 0.9), ([*ridge, [x, height, z + length]], 1.0)):
                region = street.canvas.polygon(street.camera.project(np.array(corners)))
                if region is not None:
                    colour = tiles * shade * (0.8 + 0.4 * street.patch(region))[..., None]
                    street.canvas.paint(region, colour, BUILDING, depth)
        if front is not None:
            paint_facade(street, front, look, height, 1 - 0.3 * street.weather.shadow)
        wall = street.wall((x, z), (x, z + length), 0, height)
        if wall is not None:
            paint_facade(street, wall, look, height, street.side_light(side))

    street.add(x, z + length / 2, draw)


def leaf_colour(street: Street) -> np.ndarray:
    """A plant's colour (3,), near the season's."""
    own = pick(street.rng, LEAF_PALETTE, 0.03)
    mixed: np.ndarray = street.season + (own - street.season) * 0.5 * street.rng.random()
    return mixed


def draw_crown(
    street: Street, x: float, z: float, span: Point, half: float, colour: np.ndarray, power: float, holes: float = 0.0
) -> None:
    """Leaves between two heights: a ragged blob, round for power 2 and a cone for power 1."""
    bottom, top = span
    corners = street.flat(x, z, [(-half, bottom), (half, top)])
    box = street.canvas.box(corners, 0.25 * half * street.scale(z))
    if box is None:
        return
    region = Region(*box, np.ones((box[0].stop - box[0].start, box[1].stop - box[1].start), bool))
    rows, columns = region.grid()
    across = abs(columns - corners[:, 0].mean()) / max(half * street.scale(z), 0.5)
    rise = (corners[0, 1] - rows) / max(corners[0, 1] - corners[1, 1], 1.0)
    coarse, fine = street.patch(region, coarse=True), street.patch(region)
    if power > 1:
        inside = 1 - np.sqrt(across**2 + (2 * rise - 1) ** 2)
    else:
        inside = np.where(rise > 0, 1 - rise - across, -1.0)
    mask = (inside + 0.7 * (coarse - 0.5) + 0.35 * (fine - 0.5) > 0) & (fine > holes)
    lit = 0.55 + 0.45 * rise + 0.9 * (fine - 0.5) + 0.7 * (coarse - 0.5)
    leaves = colour * np.clip(lit, 0.15, 1.8)[..., None]
    snow = np.clip(street.weather.snow * (fine + rise - 0.7), 0, 1)[..., None]
    street.canvas.paint(Region(*box, mask), leaves + (0.92 - leaves) * snow, VEGETATION, z)


def draw_branches(street: Street, x: float, z: float, height: float, bark: np.ndarray) -> None:
    """A tree without leaves: lines that fork."""
    rng = street.rng
    tips = [(0.0, height * 0.3, math.pi / 2, height * 0.25)]
    for level in range(5):
        grown = []
        for across, up, angle, length in tips:
            for turn in (-1, 1):
                bent = angle + turn * rng.uniform(0.15, 0.6)
                tip = (across + length * math.cos(bent), up + length * math.sin(bent))
                street.line(x, z, [(across, up), tip], 0.16 / (level + 1), bark, VEGETATION)
                grown.append((*tip, bent, length * 0.75))
        tips = grown


def add_tree(street: Street, x: float, z: float) -> None:
    rng = street.rng
    height, kind, bare = rng.uniform(4, 12), rng.random(), rng.random() < street.bare
    colour, bark = leaf_colour(street), np.array([0.26, 0.20, 0.15]) * rng.uniform(0.6, 1.7)
    half = height * (rng.uniform(0.12, 0.2) if kind < 0.25 else rng.uniform(0.25, 0.45))
    for _ in range(4):  # dappled shade
        lean = height * rng.uniform(0.4, 1.0)
        spot = ellipse((x + street.sun[0] * lean, z + street.sun[1] * lean), half * 0.6, half * 0.5)
        street.cast(spot, 0.0, 0.85)
    street.cast([(x - 0.15, z), (x + 0.15, z)], height * 0.5)

    def draw() -> None:
        trunk = 0.02 * height
        stem = [(-trunk, 0), (trunk, 0), (trunk * 0.7, height * 0.4), (-trunk * 0.7, height * 0.4)]
        street.put(x, z, stem, bark, VEGETATION)
        if bare:
            draw_branches(street, x, z, height, bark)
        else:
            cone = 0.25 <= kind < 0.4
            low = height * (0.1 if cone else rng.uniform(0.2, 0.38))
            draw_crown(street, x, z, (low, height), half, colour, 1 if cone else 2, rng.uniform(0.1, 0.36))

    street.add(x, z, draw)


def add_bush(street: Street, x: float, z: float) -> None:
    height, half = street.rng.uniform(0.6, 2.2), street.rng.uniform(0.6, 2.0)
    colour = leaf_colour(street)
    street.cast([(x - half, z), (x + half, z)], height)
    street.add(x, z, lambda: draw_crown(street, x, z, (-0.3, height), half, colour, 2))


def add_fence(street: Street, side: float, x: float, z: float, length: float) -> None:
    """Planks, railings, mesh or masonry; the whole panel is labelled, as annotators do."""
    rng = street.rng
    height, kind = rng.uniform(0.8, 2.0), rng.integers(4)
    base = pick(rng, np.concatenate([BUILDING_PALETTE, LEAF_PALETTE[:3], CAR_PALETTE[:5]]), 0.04)
    pitch, post = rng.uniform(0.15, 0.4), rng.uniform(1.5, 3.0)
    street.cast([(x, z), (x, z + length)], height, 0.8)

    def draw() -> None:
        wall = street.wall((x, z), (x, z + length), 0, height)
        if wall is None:
            return
        along, up, region = wall.along, wall.up, wall.region
        rails = (abs(up - height * 0.95) < 0.06) | (abs(up - height * 0.15) < 0.05) | (along % post < 0.12)
        if kind == 0:  # planks
            solid = np.ones(region.mask.shape, np.float32)
            tone = 0.75 + 0.3 * (along % pitch > 0.04)
        elif kind == 1:  # railings; far bars merge into a veil
            bars = np.where(wall.depth > 12, 0.45, along % pitch < 0.06)
            solid, tone = np.maximum(rails, bars).astype(np.float32), np.ones_like(along)
        elif kind == 2:  # mesh
            threads = ((along + up) % pitch < 0.05) | ((along - up) % pitch < 0.05)
            solid = np.maximum(rails, np.where(wall.depth > 8, 0.4, 0.75 * threads)).astype(np.float32)
            tone = np.ones_like(along)
        else:  # crash barrier: a beam on posts
            beam = (up > height * 0.5) & (up < height * 0.9)
            solid = np.maximum(0.3, beam | (along % post < 0.15)).astype(np.float32)
            tone = 0.75 + 0.35 * np.sin(up / height * 18)
        shade = tone * street.side_light(side) * (0.8 + 0.4 * street.patch(region))
        behind = street.canvas.image[region.rows, region.columns]
        colour = behind + (base * shade[..., None] - behind) * solid[..., None]
        street.canvas.paint(region, colour, FENCE, wall.depth)

    street.add(x, z + length * 0.5, draw)


def add_pole(street: Street, x: float, z: float) -> None:
    """A lamp post, a traffic light or a plain mast, perhaps with a sign."""
    rng = street.rng
    kind = rng.choice(4, p=[0.35, 0.2, 0.15, 0.3])  # lamp, traffic light, mast, sign post
    height = (rng.uniform(4.5, 8), rng.uniform(3, 4.5), rng.uniform(5, 9), rng.uniform(2.3, 3.4))[kind]
    width, colour = rng.uniform(0.08, 0.2), pick(rng, CAR_PALETTE[:8])
    if rng.random() < 0.25:
        colour = pick(rng, rgb("614733 9e998f"))
    reach = -math.copysign(rng.uniform(0.6, 2.4), x)
    signed = kind == 3 or rng.random() < 0.3
    street.cast([(x - width, z), (x + width, z)], height, 0.9)

    def draw() -> None:
        street.line(x, z, [(0, 0), (0, height)], width, colour, POLE)
        if kind == 0:
            arm = [(0, height), (reach * 0.5, height + 0.25), (reach, height + 0.2)]
            street.line(x, z, arm, width * 0.6, colour, POLE)
            glow = np.array([1.0, 0.85, 0.6]) * 2.5 * street.weather.dark
            street.put(x, z, ellipse((reach, height + 0.2), 0.4, 0.13), colour * 1.2, POLE, glow)
        elif kind == 1:
            street.put(x, z, RECTANGLE * (0.18, 0.5) + (0, height - 0.5), (0.06, 0.07, 0.06), POLE)
            up, tint = ((0.8, (1.0, 0.1, 0.1)), (0.2, (0.1, 0.9, 0.4)))[rng.integers(2)]
            glow = np.array(tint) * (0.3 + street.weather.dark)
            street.put(x, z, ellipse((0, height - 1 + up), 0.12, 0.12), tint, POLE, glow)
        if signed:
            draw_sign(street, x, z, min(height - 0.3, rng.uniform(2.0, 2.7)))

    street.add(x, z, draw)


def draw_sign(street: Street, x: float, z: float, up: float) -> None:
    rng = street.rng
    kind, size = rng.integers(5), rng.uniform(0.28, 0.45)
    rim, face = pick(rng, SIGN_PALETTE), pick(rng, SIGN_PALETTE)
    if rng.random() < 0.15:  # seen from behind: bare metal
        rim = face = pick(rng, CAR_PALETTE[1:4])
    outline = RECTANGLE * (rng.uniform(0.8, 2.6), 0.8)
    if kind == 0:
        outline = ellipse((0, 0), 1, 1)
    elif kind == 1:
        outline = np.array([(-1, -0.8), (1, -0.8), (0, 1)])
    elif kind == 2:
        outline = np.array([(-1, 0), (0, -1), (1, 0), (0, 1)])
    for part, colour in (((1, 1), rim), ((0.72, 0.72), face), ((0.45, 0.14), pick(rng, SIGN_PALETTE) * 0.6)):
        street.put(x, z, outline * size * part + (0, up), colour, SIGN)


def add_gantry(street: Street, z: float) -> None:
    """A large board over or beside the road, on a bent post."""
    rng = street.rng
    x, half, rise = rng.uniform(street.left, street.right), rng.uniform(1.0, 2.2), rng.uniform(0.4, 0.9)
    up = rng.uniform(3.6, 5.2)
    colour, post = pick(rng, SIGN_PALETTE), pick(rng, CAR_PALETTE[1:4])
    edge = street.right + 0.6 if x > 0 else street.left - 0.6

    def draw() -> None:
        street.line(0, z, [(edge, 0), (edge, up), (x, up)], 0.2, post, POLE)
        for factor, tone in ((1.0, colour * 0.9 + 0.1), (0.9, colour)):
            street.put(x, z, RECTANGLE * (half * factor, rise * factor) + (0, up), tone, SIGN)
        for row in (-0.3, 0.3):
            text = [(-half * 0.7, up + rise * row), (half * rng.uniform(0, 0.7), up + rise * row)]
            street.line(x, z, text, 0.14, (0.9, 0.9, 0.88), SIGN)

    street.add(x, z, draw)


@dataclass(frozen=True)
class Car:
    """A car of some type, size and paint at a place; its nose points along +z for yaw 0, to the camera for pi."""

    street: Street
    kind: CarType
    size: np.ndarray  # length, width, height in metres
    x: float
    z: float
    yaw: float
    body: np.ndarray
    glass: np.ndarray

    def world(self, points: Outline, across: float) -> np.ndarray:
        """Points (fraction of length, fraction of height) on the plane `across` metres from the middle line."""
        local = np.asarray(points, float) * (self.size[0], self.size[2])
        east = self.x + local[:, 0] * math.sin(self.yaw) + across * math.cos(self.yaw)
        north = self.z + local[:, 0] * math.cos(self.yaw) - across * math.sin(self.yaw)
        return np.column_stack([east, local[:, 1], north])

    def upright(self, end: float, points: np.ndarray) -> np.ndarray:
        """Points (metres across, fraction of height) on the plane of the front (end 0.5) or the rear (-0.5)."""
        return np.concatenate([self.world([(end, up)], across) for across, up in points])

    def distance(self, points: np.ndarray) -> float:
        return float(np.linalg.norm(points.mean(axis=0) - (0, self.street.camera.eye, 0)))

    def fill(self, points: np.ndarray, colour: np.ndarray, glow: Colour = DARK, hull: bool = False) -> None:
        canvas, pixels = self.street.canvas, self.street.camera.project(points)
        region = canvas.hull(pixels) if hull else canvas.polygon(pixels)
        if region is not None and colour.max() > 0.2:
            colour = colour * (0.85 + 0.3 * self.street.patch(region, coarse=True))[..., None]
        canvas.paint(region, colour, CAR, max(self.distance(points), NEAR), glow)

    def draw(self) -> None:
        profile, half = percent(self.kind.profile), self.size[1] / 2
        far, near = sorted((-half, half), key=lambda across: -self.distance(self.world(profile, across)))
        wheel = ellipse((0, 0), *(WHEEL_RADIUS / self.size[[0, 2]]))
        wheels = [wheel + (end, WHEEL_RADIUS / self.size[2]) for end in WHEEL_PLACES]
        for across in (far, near):
            for outline in wheels:
                tyre = np.concatenate([self.world(outline, across), self.world(outline, across * 0.75)])
                self.fill(tyre, RUBBER, hull=True)
        faces = [(self.world(profile, across), self.body) for across in (far, near)]
        for index in range(len(profile) - 1):
            edge = profile[index : index + 2]
            is_top = abs(edge[1, 0] - edge[0, 0]) > abs(edge[1, 1] - edge[0, 1])
            colour = self.glass if index in self.kind.glass else self.body * (1.1 if is_top else 0.85)
            faces.append((np.concatenate([self.world(edge, far), self.world(edge[::-1], near)]), colour))
        for outline, colour in sorted(faces, key=lambda face: -self.distance(face[0])):
            self.fill(outline, colour)
        if abs(self.x) > 1.2 or abs(math.sin(self.yaw)) > 0.3:  # else the side is seen edge-on or not at all
            self.fill(self.world(percent(self.kind.window), near * 1.01), self.glass * 1.1)
            for outline in wheels:
                self.fill(self.world(outline, near * 1.02), RUBBER)
        if abs(math.cos(self.yaw)) > 0.3:
            self.draw_lights()

    def draw_lights(self) -> None:
        rear = math.cos(self.yaw) > 0
        end, tint = (-0.5, np.array([0.7, 0.05, 0.05])) if rear else (0.5, np.array([0.9, 0.9, 0.82]))
        for side in (-0.42, 0.42):
            lamp = RECTANGLE * (0.1, 0.04) + (side * self.size[1], 0.44)
            self.fill(self.upright(end, lamp), tint, tint * self.street.weather.dark * (0.8 if rear else 2.0))
        self.fill(self.upright(end, RECTANGLE * (0.26, 0.035) + (0, 0.33)), np.array([0.8, 0.8, 0.72]))


def add_car(street: Street, x: float, z: float, yaw: float) -> None:
    """A car whose near end is at depth z, if there is room."""
    rng = street.rng
    kind = CAR_TYPES[rng.choice(len(CAR_TYPES), p=[car.share for car in CAR_TYPES])]
    length, width, height = size = np.array(kind.size) * rng.uniform(0.92, 1.08, 3)
    along = abs(math.cos(yaw)) > 0.5
    z += (length if along else width) / 2
    if not street.claim(x, z, *((width / 2, length / 2) if along else (length / 2, width / 2))):
        return
    body = pick(rng, CAR_PALETTE) if rng.random() < 0.85 else vivid(rng, 1.0, rng.uniform(0.3, 0.9))
    car = Car(street, kind, size, x, z, yaw, body, np.array([0.10, 0.12, 0.15]) * rng.uniform(0.5, 3.0))
    corners = np.concatenate([car.upright(end, np.array([(-width / 2, 0), (width / 2, 0)])) for end in (-0.5, 0.5)])
    street.cast(corners[:, [0, 2]], height * 0.8)
    street.darken(street.canvas.hull(street.camera.project(corners)), 0.7)  # contact shadow, also without sun
    street.add(x, z, car.draw)


def limb(start: Point, end: Point, width: float) -> np.ndarray:
    """A bar between two points, corners (4, 2)."""
    (x0, y0), (x1, y1) = start, end
    across = np.array([y0 - y1, x1 - x0]) * (width / 2 / max(math.hypot(x1 - x0, y1 - y0), 1e-6))
    return np.array([start + across, end + across, end - across, start - across])


def draw_body(
    street: Street, x: float, z: float, hip: Point, neck: Point, ends: Sequence[Point], class_id: int
) -> None:
    """A person; limbs run from hip and neck to the `ends`: two feet, then two hands."""
    rng = street.rng
    coat, legs = vivid(rng, 0.9, rng.uniform(0.08, 0.9)), vivid(rng, 0.6, rng.uniform(0.05, 0.5))
    skin = np.array([0.85, 0.64, 0.52]) * rng.uniform(0.35, 1.05)
    shapes = [(limb(hip, foot, 0.17), legs) for foot in ends[:2]]
    if rng.random() < 0.25:  # a long coat or a skirt
        shapes.append((limb(neck, (hip[0], hip[1] - 0.4), 0.5), coat * 0.9))
    shapes.append((limb(ends[3], neck, 0.11), coat * 0.75))
    shapes.append((limb(hip, neck, rng.uniform(0.34, 0.48)), coat))
    shapes.append((limb(ends[2], neck, 0.11), coat * 0.85))
    head = (neck[0] + 0.3 * (neck[0] - hip[0]), neck[1] + 0.2)
    shapes.append((ellipse((head[0], head[1] + 0.03), 0.12, 0.15), vivid(rng, 0.5, rng.uniform(0.05, 0.5))))  # hair
    shapes.append((ellipse((head[0], head[1] - 0.03), 0.09, 0.11), skin))
    for outline, colour in shapes:
        street.put(x, z, outline, colour, class_id)


def add_pedestrian(street: Street, x: float, z: float) -> None:
    rng = street.rng
    size = rng.uniform(0.65, 1.1)
    if not street.claim(x, z, 0.3, 0.3):
        return
    street.cast([(x - 0.25, z), (x + 0.25, z)], 1.7 * size)
    street.darken(street.footing(x, z, 0.3), 0.4)
    stride, swing = rng.uniform(0.02, 0.35), rng.uniform(0, 0.3, 2)
    ends = [(stride, 0.0), (-stride, 0.05), (0.25 + swing[0], 0.8), (-0.25 - swing[1], 0.8 + swing[0])]
    ends = [(across * size, up * size) for across, up in ends]
    umbrella = rng.random() < 0.35 * (street.weather.wet > 0.5)
    colour = vivid(rng, 1.0, rng.uniform(0.1, 0.8))

    def draw() -> None:
        draw_body(street, x, z, (0, 0.85 * size), (0.02, 1.42 * size), ends, PEDESTRIAN)
        if umbrella:
            dome = ellipse((0, 1.75 * size), 0.55, 0.35)
            dome[:, 1] = np.maximum(dome[:, 1], 1.75 * size)
            street.put(x, z, dome, colour, PEDESTRIAN)

    street.add(x, z, draw)


def add_bicyclist(street: Street, x: float, z: float) -> None:
    rng = street.rng
    squeeze = rng.uniform(0.5, 1.0) if rng.random() < 0.65 else rng.uniform(0.1, 0.35)  # from the side, or end-on
    ahead = rng.choice([-1, 1]) * squeeze
    frame = vivid(rng, 1.0, rng.uniform(0.1, 0.9))
    if not street.claim(x, z, 0.3 + 0.6 * squeeze, 0.6):
        return
    street.cast([(x - 0.5 * squeeze, z), (x + 0.5 * squeeze, z)], 1.6)
    street.darken(street.footing(x, z, 0.7 * squeeze), 0.4)

    def draw() -> None:
        for wheel in (-0.52, 0.52):
            rim = ellipse((wheel * ahead, 0.34), max(0.34 * squeeze, 0.03), 0.34)
            street.line(x, z, np.vstack([rim, rim[:1]]), 0.06, (0.06, 0.06, 0.07), BICYCLIST)
        bars = [(-0.52, 0.34), (-0.12, 0.85), (0.0, 0.32), (-0.52, 0.34), (-0.12, 0.85), (0.4, 0.8), (0.0, 0.32)]
        fork = [(0.52, 0.34), (0.38, 1.02), (0.5, 1.05)]
        for outline in (bars, fork):
            street.line(x, z, np.array(outline) * (ahead, 1), 0.05, frame, BICYCLIST)
        turn = 0.1 * (1 - squeeze)
        ends = [(0.1 * ahead + turn, 0.2), (-turn, 0.4)]
        ends += [(0.42 * ahead + 2 * turn, 1.05), (0.4 * ahead - 2 * turn, 1.05)]
        draw_body(street, x, z, (-0.12 * ahead, 0.95), (0.18 * ahead, 1.48), ends, BICYCLIST)

    street.add(x, z, draw)


def add_void(street: Street, x: float, z: float) -> None:
    """A bin or a box: no class has it, so its label is to be ignored."""
    half, height = street.rng.uniform(0.25, 0.5), street.rng.uniform(0.6, 1.3)
    colour = vivid(street.rng, 0.8, street.rng.uniform(0.1, 0.6))
    outline = [(-half, 0), (half, 0), (half * 1.15, height), (-half * 1.15, height)]
    if street.claim(x, z, half, half):
        street.add(x, z, lambda: street.put(x, z, outline, colour, IGNORE_INDEX))


def draw_bonnet(street: Street) -> None:
    """The front of the car that carries the camera."""
    canvas, rng = street.canvas, street.rng
    rise = canvas.height * rng.uniform(0.04, 0.09)
    outline = ellipse((canvas.width / 2, canvas.height), canvas.width * 0.62, rise, 40)
    region = canvas.polygon(outline)
    if region is not None:
        sheen = 0.7 + 0.6 * street.patch(region, coarse=True)
        canvas.paint(region, pick(rng, CAR_PALETTE) * sheen[..., None], IGNORE_INDEX, NEAR)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A depth such that as many things are large as small on the screen."""
    return float(low * (high / low) ** rng.random())


def beside(street: Street, side: float, low: float, high: float) -> float:
    """A place in x, so many metres outside the kerb of one side (0: of a random one)."""
    side = side or float(street.rng.choice([-1, 1]))
    return (street.right if side > 0 else street.left) + side * street.rng.uniform(low, high)


def place_rows(street: Street, side: float) -> None:
    """Parked cars, a line of trees and a fence along one side."""
    rng, walk = street.rng, street.walk
    if rng.random() < 0.5:
        z = rng.uniform(4, 14)
        for _ in range(rng.integers(1, 6)):
            turned = math.pi * (rng.random() < 0.3)
            add_car(street, beside(street, side, -1.1, -0.9), z, turned + rng.normal(0, 0.04))
            z += rng.uniform(5.5, 11)
    if rng.random() < 0.5:
        for z in np.arange(rng.uniform(4, 12), FAR * 0.7, rng.uniform(5, 12)):
            add_tree(street, beside(street, side, walk * 0.6, walk + 1.5), float(z + rng.uniform(-1, 1)))
    if rng.random() < 0.55:
        low, high = (0.1, 0.4) if rng.random() < 0.4 else (walk - 0.3, walk)
        add_fence(street, side, beside(street, side, low, high), log_uniform(rng, 4, 18), rng.uniform(7, 24))


def place_things(street: Street) -> None:
    """Traffic, people and street furniture, the nearest of them a few metres ahead."""
    rng, walk = street.rng, street.walk
    middle = (street.left + street.right) / 2
    for _ in range(rng.integers(0, 4)):
        lane = rng.choice([-1, 1])
        x = (middle + (street.right if lane > 0 else street.left)) / 2 - 0.4 * lane + rng.normal(0, 0.3)
        add_car(street, x, log_uniform(rng, 9, 50), (0 if lane > 0 else math.pi) + rng.normal(0, 0.06))
    if rng.random() < 0.2:  # one that crosses
        yaw = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.15)
        add_car(street, rng.uniform(-5, 5), log_uniform(rng, 12, 30), yaw)
    for _ in range(rng.integers(0, 5)):
        add_bush(street, beside(street, 0, walk, walk + 4), log_uniform(rng, 6, 40))
    for _ in range(rng.integers(2, 7)):
        add_pole(street, beside(street, 0, 0.3, 0.9), log_uniform(rng, 5, 40))
    if rng.random() < 0.25:
        add_gantry(street, log_uniform(rng, 12, 40))
    for _ in range(rng.integers(1, 9)):
        on_road = rng.random() < 0.15
        x = rng.uniform(street.left, street.right) if on_road else beside(street, 0, 0.3, walk)
        add_pedestrian(street, x, log_uniform(rng, 5, 25))
    for _ in range(rng.integers(0, 5)):
        add_bicyclist(street, beside(street, 0, -2.4, -0.4), log_uniform(rng, 5, 25))
    for _ in range(rng.integers(0, 3)):
        add_void(street, beside(street, 0, 0.3, walk), log_uniform(rng, 5, 25))


def expose(street: Street) -> np.ndarray:
    """Light, fog, rain and the camera's faults on the painted canvas; returns the image (H, W, 3) uint8."""
    rng, canvas, weather = street.rng, street.canvas, street.weather
    height, width = canvas.height, canvas.width
    image: np.ndarray = canvas.image
    surface = canvas.label != SKY
    light = np.array(weather.light, np.float32) * rng.uniform(0.85, 1.15)
    lamps = weather.dark * 1.1 * np.exp(-canvas.depth / 14)[..., None] * np.array([1.0, 0.93, 0.8], np.float32)
    image[surface] *= (light + lamps)[surface]
    if weather.wet:
        rows = np.clip(2 * int(street.camera.horizon) - np.arange(height), 0, height - 1)
        mirror = cv2.blur(image[rows] + canvas.glow[rows], (max(1, width // 80), max(1, height // 10)))
        gloss = weather.wet * 0.5 * (canvas.label == ROAD) * np.clip(street.coarse[:height, :width] + 0.1, 0, 1)
        image += (mirror - image) * gloss[..., None]
    haze = 1 - np.exp(-canvas.depth * weather.fog * rng.uniform(0.6, 1.5))
    haze[~surface] *= 0.4
    image += (np.array(weather.sky_low, np.float32) - image) * haze[..., None]
    image += canvas.glow + cv2.GaussianBlur(canvas.glow, (0, 0), width / 60) * (0.6 + weather.fog * 20)
    if weather.wet > 0.5:
        for _ in range(rng.integers(30, 120)):
            x, y, length = rng.uniform(0, width), rng.uniform(0, height), height * rng.uniform(0.03, 0.1)
            streak = canvas.stroke(np.array([[x, y], [x + length * 0.2, y + length]]), 1)
            if streak is not None:
                image[streak.rows, streak.columns][streak.mask] += 0.07
    if weather.snow:
        flakes = rng.random((height, width)) > 0.994
        image[flakes] += 0.4
    blur = rng.uniform(0.35, 0.8) * max(width / 256, 0.5)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur))
    rise, across = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    image *= (1 - rng.uniform(0, 0.2) * (rise[:, None] ** 2 + across**2))[..., None]
    image *= (rng.uniform(0.8, 1.25) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.8, 1.2))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(weather.noise * rng.uniform(0.5, 1.5))
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, np.uint8)


def random_street(rng: np.random.Generator, height: int, width: int) -> Street:
    camera = Camera(
        height=height,
        width=width,
        focal=width * rng.uniform(0.75, 1.1),
        centre=width * rng.uniform(0.33, 0.67),
        horizon=height * rng.uniform(0.36, 0.56),
        eye=rng.uniform(1.3, 2.1),
        bend=rng.normal(0, 0.0015) if rng.random() < 0.6 else 0.0,
    )
    weather = WEATHERS[rng.choice(len(WEATHERS), p=[weather.share for weather in WEATHERS])]
    return Street(
        rng=rng,
        camera=camera,
        canvas=Canvas(height, width),
        weather=weather,
        sun=(rng.choice([-1, 1]) * rng.uniform(0.2, 1.4), rng.uniform(-0.8, 0.8)),
        left=-rng.uniform(2.2, 6.0),
        right=rng.uniform(1.8, 4.5),
        walk=rng.uniform(2.0, 6.0),
        season=pick(rng, LEAF_PALETTE, 0.03),
        bare=0.9 if weather.snow else rng.choice([0.0, 0.1, 0.8], p=[0.6, 0.25, 0.15]),
        coarse=fractal_noise(rng, 2 * height, 2 * width, 14, 4),
        fine=fractal_noise(rng, 2 * height, 2 * width, max(4, height // 3), 2),
        shadow=np.zeros((height, width), np.float32),
    )


def scene(rng: np.random.Generator, height: int = 192, width: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """One street scene: the image, (height, width, 3) uint8 RGB, and its label, (height, width) uint8 class ids."""
    street = random_street(rng, height, width)
    start = rng.uniform(9, 30)
    crossing = (start, start + rng.uniform(5, 9)) if rng.random() < 0.35 else None
    draw_sky(street)
    draw_backdrop(street)
    draw_ground(street, crossing)
    for side in (-1.0, 1.0):
        place_buildings(street, side, crossing)
        place_rows(street, side)
    place_things(street)
    soft = cv2.GaussianBlur(street.shadow, (0, 0), max(width / 250, 0.5))
    street.canvas.image *= (1 - soft * (street.canvas.depth < BACKDROP_DEPTH))[..., None]
    for _, draw in sorted(street.things, key=lambda thing: -thing[0]):
        draw()
    if rng.random() < 0.35:
        draw_bonnet(street)
    return expose(street), street.canvas.label


def save_png(array: np.ndarray, path: Path) -> None:
    """Write under a temporary name and rename, so that a file that exists is whole."""
    temporary = path.with_suffix(".tmp")
    Image.fromarray(array).save(temporary, format="PNG", compress_level=1)
    os.replace(temporary, path)


def write(
    folder: Path, *, train: int = 400, val: int = 100, height: int = 192, width: int = 256, seed: int = 0
) -> None:
    """Write both subsets in CamVid's layout: <subset>/0000.png (RGB) and <subset>annot/0000.png (8-bit class ids)."""
    for number, (subset, count) in enumerate(zip(SUBSETS, (train, val), strict=True)):
        images, labels = folder / subset, folder / f"{subset}annot"
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, label = scene(np.random.default_rng([seed, number, index]), height, width)
            save_png(image, images / f"{index:04d}.png")
            save_png(label, labels / f"{index:04d}.png")
