"""Cars, people, bicycles, poles, signs and bins."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segsemi.core.classes import IGNORE_INDEX
from segsemi.datasets.scenes.canvas import DARK, NEAR, Colour, Id, Outline, Point, Street, ellipse
from segsemi.datasets.scenes.looks import CAR_PALETTE, jitter, pick, rgb, vivid

SIGN_PALETTE = rgb("cc141a 1a40a6 ebc71f ebebeb 146638")
RECTANGLE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
WHEEL_RADIUS, WHEEL_PLACES = 0.33, (-0.31, 0.31)  # metres; fractions of a car's length
RUBBER = np.array([0.05, 0.05, 0.05])


class Shape(NamedTuple):
    """A car's side profile, extruded over the width; outlines are per cent of length and height."""

    size: tuple[float, float, float]  # length, width, height in metres
    glass: tuple[int, ...]  # the profile edges that are windows
    profile: str  # from the rear bumper over the roof to the front
    window: str  # at the side


SHAPES = (
    Shape((3.9, 1.75, 1.5), (1, 3), "-50 18 -50 58 -42 97 5 100 25 62 48 50 50 18", "-42 62 -37 92 4 94 20 62"),
    Shape((4.6, 1.8, 1.4), (2, 4), "-50 20 -50 60 -33 66 -20 100 8 100 25 65 50 50 50 20", "-30 66 -18 93 7 93 21 66"),
    Shape((5.0, 2.0, 2.2), (1, 3), "-50 14 -50 55 -49 100 30 100 42 55 50 45 50 14", "12 58 12 88 29 88 38 58"),
    Shape((9.0, 2.5, 3.0), (1, 3), "-50 10 -50 42 -50 100 50 100 50 35 50 10", "-46 45 -46 82 46 82 46 45"),
    Shape((6.5, 2.2, 2.9), (4,), "-50 25 -50 100 20 100 22 85 42 83 50 45 50 14", "28 50 28 78 40 78 46 50"),
)
SHARES = (0.42, 0.34, 0.16, 0.04, 0.04)  # hatchbacks, saloons, vans, buses, lorries


def percent(numbers: str) -> np.ndarray:
    """Convert pairs of whole per cent to fractions, shape (N, 2)."""
    return np.array(numbers.split(), float).reshape(-1, 2) / 100


@dataclass(frozen=True)
class Car:
    """A car of some shape, size and paint at a place; its nose points along +z for yaw 0, to the camera for pi."""

    street: Street
    shape: Shape
    size: np.ndarray  # length, width, height in metres
    x: float
    z: float
    yaw: float
    body: np.ndarray
    glass: np.ndarray

    def world(self, points: Outline, across: float) -> np.ndarray:
        """Convert points (fraction of length, fraction of height) on the plane `across` metres from the middle line."""
        local = np.asarray(points, float) * (self.size[0], self.size[2])
        east = self.x + local[:, 0] * math.sin(self.yaw) + across * math.cos(self.yaw)
        north = self.z + local[:, 0] * math.cos(self.yaw) - across * math.sin(self.yaw)
        return np.column_stack([east, local[:, 1], north])

    def upright(self, end: float, points: Outline) -> np.ndarray:
        """Convert points (metres across, fraction of height) on the plane of the front (end 0.5) or the rear (-0.5)."""
        return np.concatenate([self.world([(end, up)], across) for across, up in points])

    def distance(self, points: np.ndarray) -> float:
        """Return the metres from the camera to the middle of points (N, 3)."""
        return float(np.linalg.norm(points.mean(axis=0) - (0, self.street.camera.eye, 0)))

    def fill(self, points: np.ndarray, colour: np.ndarray, glow: Colour = DARK, hull: bool = False) -> None:
        """Paint the face with these corners, or their hull."""
        region = self.street.area(points, hull=hull)
        if region is not None and colour.max() > 0.2:
            colour = colour * (0.85 + 0.3 * self.street.patch(region, coarse=True))[..., None]
        self.street.canvas.paint(region, colour, Id.CAR, max(self.distance(points), NEAR), glow)

    def draw(self) -> None:
        """Paint tyres, body, glass and lights, the far faces first."""
        profile, half = percent(self.shape.profile), self.size[1] / 2
        far, near = sorted((-half, half), key=lambda across: -self.distance(self.world(profile, across)))
        radius = WHEEL_RADIUS / self.size[[0, 2]]  # a circle, in fractions of length and height
        wheels = [ellipse((end, radius[1]), *radius) for end in WHEEL_PLACES]
        for across in (far, near):
            for outline in wheels:
                tyre = np.concatenate([self.world(outline, across), self.world(outline, across * 0.75)])
                self.fill(tyre, RUBBER, hull=True)
        faces = [(self.world(profile, across), self.body) for across in (far, near)]
        for index, edge in enumerate(pairwise(profile)):
            run, rise = abs(edge[1] - edge[0])
            colour = self.glass if index in self.shape.glass else self.body * (1.1 if run > rise else 0.85)
            faces.append((np.concatenate([self.world(edge, far), self.world(edge[::-1], near)]), colour))
        for outline, colour in sorted(faces, key=lambda face: -self.distance(face[0])):
            self.fill(outline, colour)
        if abs(self.x) > 1.2 or abs(math.sin(self.yaw)) > 0.3:  # else the side is seen edge-on or not at all
            self.fill(self.world(percent(self.shape.window), near * 1.01), self.glass * 1.1)
            for outline in wheels:
                self.fill(self.world(outline, near * 1.02), RUBBER)
        if abs(math.cos(self.yaw)) > 0.3:
            self.draw_lights()

    def draw_lights(self) -> None:
        """Paint the lamps and the number plate of the end that is seen."""
        front = (0.5, np.array([0.9, 0.9, 0.82]), 2.0)
        end, tint, glow = (-0.5, np.array([0.7, 0.05, 0.05]), 0.8) if math.cos(self.yaw) > 0 else front
        for side in (-0.42, 0.42):
            lamp = RECTANGLE * (0.1, 0.04) + (side * self.size[1], 0.44)
            self.fill(self.upright(end, lamp), tint, tint * self.street.weather.dark * glow)
        plate = RECTANGLE * (0.26, 0.035) + (0, 0.33)
        self.fill(self.upright(end, plate), np.array([0.8, 0.8, 0.72]))


def add_car(street: Street, x: float, z: float, yaw: float) -> None:
    """Add a car whose near end is at depth z, if there is room."""
    rng = street.rng
    shape = SHAPES[rng.choice(len(SHAPES), p=SHARES)]
    length, width, height = size = np.array(shape.size) * rng.uniform(0.92, 1.08, 3)
    wide, deep = (width, length) if abs(math.cos(yaw)) > 0.5 else (length, width)
    z += deep / 2
    if not street.claim(x, z, wide / 2, deep / 2):
        return
    body = pick(rng, CAR_PALETTE) if rng.random() < 0.85 else vivid(rng, 1.0, rng.uniform(0.3, 0.9))
    car = Car(street, shape, size, x, z, yaw, body, np.array([0.10, 0.12, 0.15]) * rng.uniform(0.5, 3.0))
    corners = np.concatenate([car.upright(end, [(-width / 2, 0), (width / 2, 0)]) for end in (-0.5, 0.5)])
    street.cast(corners[:, [0, 2]], height * 0.8)
    street.canvas.darken(street.area(corners, hull=True), 0.7)  # also without sun
    street.later(x, z)(car.draw)


def limb(start: Point, end: Point, width: float) -> np.ndarray:
    """Return the corners (4, 2) of a bar between two points."""
    (x0, y0), (x1, y1) = start, end
    across = np.array([y0 - y1, x1 - x0]) * (width / 2 / max(math.hypot(x1 - x0, y1 - y0), 1e-6))
    return np.array([start + across, end + across, end - across, start - across])


def draw_body(street: Street, x: float, z: float, hip: Point, neck: Point, ends: list[Point], class_id: int) -> None:
    """Paint a person; limbs run from hip and neck to the `ends`: two feet, then two hands."""
    rng = street.rng
    coat, legs = vivid(rng, 0.9, rng.uniform(0.08, 0.9)), vivid(rng, 0.6, rng.uniform(0.05, 0.5))
    skin = np.array([0.85, 0.64, 0.52]) * rng.uniform(0.35, 1.05)
    shapes = [(limb(hip, foot, 0.17), legs) for foot in ends[:2]]
    if rng.random() < 0.25:  # a long coat or a skirt
        shapes.append((limb(neck, (hip[0], hip[1] - 0.4), 0.5), coat * 0.9))
    head = (neck[0] + 0.3 * (neck[0] - hip[0]), neck[1] + 0.2)
    shapes += [
        (limb(ends[3], neck, 0.11), coat * 0.75),
        (limb(hip, neck, rng.uniform(0.34, 0.48)), coat),
        (limb(ends[2], neck, 0.11), coat * 0.85),
        (ellipse((head[0], head[1] + 0.03), 0.12, 0.15), vivid(rng, 0.5, rng.uniform(0.05, 0.5))),  # hair
        (ellipse((head[0], head[1] - 0.03), 0.09, 0.11), skin),
    ]
    for outline, colour in shapes:
        street.put(x, z, outline, colour, class_id)


def add_pedestrian(street: Street, x: float, z: float) -> None:
    """Add a pedestrian, in the rain perhaps under an umbrella."""
    rng = street.rng
    size = rng.uniform(0.65, 1.1)
    if not street.claim(x, z, 0.3, 0.3):
        return
    street.cast([(x - 0.25, z), (x + 0.25, z)], 1.7 * size)
    street.shade_foot(x, z, 0.3)
    stride, swing = rng.uniform(0.02, 0.35), rng.uniform(0, 0.3, 2)
    ends = [(stride, 0.0), (-stride, 0.05), (0.25 + swing[0], 0.8), (-0.25 - swing[1], 0.8 + swing[0])]
    umbrella = rng.random() < 0.35 * (street.weather.wet > 0.5)
    colour = vivid(rng, 1.0, rng.uniform(0.1, 0.8))

    @street.later(x, z)
    def draw() -> None:
        scaled = [(across * size, up * size) for across, up in ends]
        draw_body(street, x, z, (0, 0.85 * size), (0.02, 1.42 * size), scaled, Id.PEDESTRIAN)
        if umbrella:
            dome = ellipse((0, 1.75 * size), 0.55, 0.35)
            dome[:, 1] = np.maximum(dome[:, 1], 1.75 * size)
            street.put(x, z, dome, colour, Id.PEDESTRIAN)


def add_bicyclist(street: Street, x: float, z: float) -> None:
    """Add a bicycle with its rider, from the side or end-on; one class, as in CamVid."""
    rng = street.rng
    squeeze = rng.uniform(0.5, 1.0) if rng.random() < 0.65 else rng.uniform(0.1, 0.35)  # from the side, or end-on
    ahead = rng.choice([-1, 1]) * squeeze
    frame = vivid(rng, 1.0, rng.uniform(0.1, 0.9))
    if not street.claim(x, z, 0.3 + 0.6 * squeeze, 0.6):
        return
    street.cast([(x - 0.5 * squeeze, z), (x + 0.5 * squeeze, z)], 1.6)
    street.shade_foot(x, z, 0.7 * squeeze)

    @street.later(x, z)
    def draw() -> None:
        for wheel in (-0.52, 0.52):
            rim = ellipse((wheel * ahead, 0.34), max(0.34 * squeeze, 0.03), 0.34)
            street.put(x, z, np.vstack([rim, rim[:1]]), (0.06, 0.06, 0.07), Id.BICYCLIST, line=0.06)
        bars = [(-0.52, 0.34), (-0.12, 0.85), (0.0, 0.32), (-0.52, 0.34), (-0.12, 0.85), (0.4, 0.8), (0.0, 0.32)]
        fork = [(0.52, 0.34), (0.38, 1.02), (0.5, 1.05)]
        for outline in (bars, fork):
            street.put(x, z, np.array(outline) * (ahead, 1), frame, Id.BICYCLIST, line=0.05)
        turn = 0.1 * (1 - squeeze)
        feet = [(0.1 * ahead + turn, 0.2), (-turn, 0.4)]
        hands = [(0.42 * ahead + 2 * turn, 1.05), (0.4 * ahead - 2 * turn, 1.05)]
        draw_body(street, x, z, (-0.12 * ahead, 0.95), (0.18 * ahead, 1.48), feet + hands, Id.BICYCLIST)


def add_pole(street: Street, x: float, z: float) -> None:
    """Add a lamp post, a traffic light or a plain mast, perhaps with a sign."""
    rng = street.rng
    kind = rng.choice(4, p=[0.35, 0.2, 0.15, 0.3])  # lamp, traffic light, mast, sign post
    height = (rng.uniform(4.5, 8), rng.uniform(3, 4.5), rng.uniform(5, 9), rng.uniform(2.3, 3.4))[kind]
    width, colour = street.town.pole_width * rng.uniform(0.85, 1.15), jitter(rng, street.town.pole)
    reach = -math.copysign(rng.uniform(0.6, 2.4), x)
    signed = kind == 3 or rng.random() < 0.3
    street.cast([(x - width, z), (x + width, z)], height, 0.9)

    @street.later(x, z)
    def draw() -> None:
        street.put(x, z, [(0, 0), (0, height)], colour, Id.POLE, line=width)
        if kind == 0:
            arm = [(0, height), (reach * 0.5, height + 0.25), (reach, height + 0.2)]
            street.put(x, z, arm, colour, Id.POLE, line=width * 0.6)
            glow = np.array([1.0, 0.85, 0.6]) * 2.5 * street.weather.dark
            street.put(x, z, ellipse((reach, height + 0.2), 0.4, 0.13), colour * 1.2, Id.POLE, glow=glow)
        elif kind == 1:
            street.put(x, z, RECTANGLE * (0.18, 0.5) + (0, height - 0.5), (0.06, 0.07, 0.06), Id.POLE)
            up, tint = ((0.8, (1.0, 0.1, 0.1)), (0.2, (0.1, 0.9, 0.4)))[rng.integers(2)]
            glow = np.array(tint) * (0.3 + street.weather.dark)
            street.put(x, z, ellipse((0, height - 1 + up), 0.12, 0.12), tint, Id.POLE, glow=glow)
        if signed:
            draw_sign(street, x, z, min(height - 0.3, rng.uniform(2.0, 2.7)))


def draw_sign(street: Street, x: float, z: float, up: float) -> None:
    """Paint a round, triangular, square or rectangular sign, or the back of one."""
    rng = street.rng
    kind, size = rng.integers(5), rng.uniform(0.4, 0.7)
    rim, face = pick(rng, SIGN_PALETTE), pick(rng, SIGN_PALETTE)
    if rng.random() < 0.15:  # seen from behind: bare metal
        rim = face = pick(rng, CAR_PALETTE[1:4])
    board = RECTANGLE * (rng.uniform(0.8, 2.6), 0.8)
    triangle, rhombus = np.array([(-1, -0.8), (1, -0.8), (0, 1)]), np.array([(-1, 0), (0, -1), (1, 0), (0, 1)])
    outline = (ellipse((0, 0), 1, 1), triangle, rhombus, board, board)[kind]
    for part, colour in (((1, 1), rim), ((0.72, 0.72), face), ((0.45, 0.14), pick(rng, SIGN_PALETTE) * 0.6)):
        street.put(x, z, outline * size * part + (0, up), colour, Id.SIGN)


def add_gantry(street: Street, z: float) -> None:
    """Add a large board over or beside the road, on a bent post."""
    rng = street.rng
    x, half, rise = rng.uniform(street.left, street.right), rng.uniform(1.0, 2.2), rng.uniform(0.4, 0.9)
    up = rng.uniform(3.6, 5.2)
    colour, post = pick(rng, SIGN_PALETTE), pick(rng, CAR_PALETTE[1:4])
    foot = street.kerb(x) + math.copysign(0.6, x)

    @street.later(x, z)
    def draw() -> None:
        street.put(0, z, [(foot, 0), (foot, up), (x, up)], post, Id.POLE, line=0.2)
        for factor, tone in ((1.0, colour * 0.9 + 0.1), (0.9, colour)):
            street.put(x, z, RECTANGLE * (half * factor, rise * factor) + (0, up), tone, Id.SIGN)
        for row in (-0.3, 0.3):
            text = [(-half * 0.7, up + rise * row), (half * rng.uniform(0, 0.7), up + rise * row)]
            street.put(x, z, text, (0.9, 0.9, 0.88), Id.SIGN, line=0.14)


def add_void(street: Street, x: float, z: float) -> None:
    """Add a bin or a box: no class has it, so its label is to be ignored."""
    rng = street.rng
    half, height = rng.uniform(0.25, 0.5), rng.uniform(0.6, 1.3)
    colour = vivid(rng, 0.8, rng.uniform(0.1, 0.6))
    outline = [(-half, 0), (half, 0), (half * 1.15, height), (-half * 1.15, height)]
    if street.claim(x, z, half, half):
        street.later(x, z)(lambda: street.put(x, z, outline, colour, IGNORE_INDEX))


def draw_bonnet(street: Street) -> None:
    """Paint the front of the car that carries the camera."""
    canvas, rng = street.canvas, street.rng
    rise = canvas.height * rng.uniform(0.04, 0.09)
    region = canvas.polygon(ellipse((canvas.width / 2, canvas.height), canvas.width * 0.62, rise, 40))
    if region is not None:
        sheen = 0.7 + 0.6 * street.patch(region, coarse=True)
        canvas.paint(region, pick(rng, CAR_PALETTE) * sheen[..., None], IGNORE_INDEX, NEAR)
