"""The things of a scene that stand free: cars, people, bicycles, poles, signs and bins."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from segsemi.core.classes import IGNORE_INDEX
from segsemi.datasets.scenes.canvas import NEAR, Id, Point, Street, Thing, ellipse
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


def car(street: Street, x: float, z: float, yaw: float) -> Thing:
    """Put a car with its near end at depth z; its nose points along +z for yaw 0, to the camera for pi."""
    rng, sin, cos = street.rng, math.sin(yaw), math.cos(yaw)
    shape = SHAPES[rng.choice(len(SHAPES), p=SHARES)]
    length, width, height = np.array(shape.size) * rng.uniform(0.92, 1.08, 3)
    wide, deep = (width, length) if abs(cos) > 0.5 else (length, width)
    z += deep / 2
    if not street.claim(x, z, wide / 2, deep / 2):
        return
    body = pick(rng, CAR_PALETTE) if rng.random() < 0.85 else vivid(rng, 1.0, rng.uniform(0.3, 0.9))
    glass = np.array([0.10, 0.12, 0.15]) * rng.uniform(0.5, 3.0)

    def world(points: ArrayLike, across: float | np.ndarray) -> np.ndarray:
        """Convert points (fractions of length and height), `across` metres from the middle line, to the world's."""
        along, up = np.transpose(points) * [[length], [height]]
        return np.column_stack([x + along * sin + across * cos, up, z + along * cos - across * sin])

    def distance(points: np.ndarray) -> float:
        return float(np.linalg.norm(points.mean(axis=0) - (0, street.eye, 0)))

    def fill(points: np.ndarray, colour: np.ndarray, glow: ArrayLike = 0, hull: bool = False) -> None:
        region = street.polygon(street.project(points), hull=hull)
        if colour.max() > 0.2:
            colour = colour * (0.85 + 0.3 * street.patch(region, coarse=True))[..., None]
        street.paint(region, colour, Id.CAR, distance(points), glow)

    corners = world([(-0.5, 0), (-0.5, 0), (0.5, 0), (0.5, 0)], np.tile([-width / 2, width / 2], 2))
    street.cast(corners[:, [0, 2]], height * 0.8)
    street.darken(corners, 0.7)  # also without sun
    yield x, z

    profile, window = (np.fromstring(text, sep=" ").reshape(-1, 2) / 100 for text in (shape.profile, shape.window))
    far, near = sorted((-width / 2, width / 2), key=lambda side: -distance(world(profile, side)))
    radius = WHEEL_RADIUS / np.array([length, height])  # a circle, in fractions of length and height
    wheels = [ellipse((place, radius[1]), *radius) for place in WHEEL_PLACES]
    for side in (far, near):
        for wheel in wheels:
            fill(np.concatenate([world(wheel, side), world(wheel, side * 0.75)]), RUBBER, hull=True)
    faces = [(world(profile, side), body) for side in (far, near)]
    for index, (rear, front) in enumerate(pairwise(profile)):
        run, rise = abs(front - rear)
        colour = glass if index in shape.glass else body * (1.1 if run > rise else 0.85)
        faces.append((world([rear, front, front, rear], np.array([far, far, near, near])), colour))
    for points, colour in sorted(faces, key=lambda face: -distance(face[0])):
        fill(points, colour)
    if abs(x) > 1.2 or abs(sin) > 0.3:  # else the side is seen edge-on or not at all
        fill(world(window, near * 1.01), glass * 1.1)
        for wheel in wheels:
            fill(world(wheel, near * 1.02), RUBBER)
    if abs(cos) > 0.3:  # lamps and number plate of the end that is seen
        end, lamp, shine = (-0.5, (0.7, 0.05, 0.05), 0.8) if cos > 0 else (0.5, (0.9, 0.9, 0.82), 2.0)
        lamps = [(RECTANGLE * (0.1, 0.04) + (place * width, 0.44), lamp, shine) for place in (-0.42, 0.42)]
        plate = (RECTANGLE * (0.26, 0.035) + (0, 0.33), (0.8, 0.8, 0.72), 0.0)
        for outline, tint, glow in (*lamps, plate):
            points = outline * (0, 1) + (end, 0)
            fill(world(points, outline[:, 0]), np.array(tint), np.array(tint) * street.weather.dark * glow)


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


def limb(start: Point, end: Point, width: float) -> np.ndarray:
    """Return the corners (4, 2) of a bar between two points."""
    (x0, y0), (x1, y1) = start, end
    across = np.array([y0 - y1, x1 - x0]) * (width / 2 / math.hypot(x1 - x0, y1 - y0))
    return np.array([start + across, end + across, end - across, start - across])


def pedestrian(street: Street, x: float, z: float) -> Thing:
    """Put a pedestrian, in the rain perhaps under an umbrella."""
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
    yield x, z

    scaled = [(across * size, up * size) for across, up in ends]
    draw_body(street, x, z, (0, 0.85 * size), (0.02, 1.42 * size), scaled, Id.PEDESTRIAN)
    if umbrella:
        dome = np.maximum(ellipse((0, 1.75 * size), 0.55, 0.35), (-np.inf, 1.75 * size))
        street.put(x, z, dome, colour, Id.PEDESTRIAN)


def bicyclist(street: Street, x: float, z: float) -> Thing:
    """Put a bicycle with its rider, from the side or end-on; one class, as in CamVid."""
    rng = street.rng
    squeeze = rng.uniform(0.5, 1.0) if rng.random() < 0.65 else rng.uniform(0.1, 0.35)  # from the side, or end-on
    ahead = rng.choice([-1, 1]) * squeeze
    frame = vivid(rng, 1.0, rng.uniform(0.1, 0.9))
    if not street.claim(x, z, 0.3 + 0.6 * squeeze, 0.6):
        return
    street.cast([(x - 0.5 * squeeze, z), (x + 0.5 * squeeze, z)], 1.6)
    street.shade_foot(x, z, 0.7 * squeeze)
    yield x, z

    for wheel in (-0.52, 0.52):
        rim = ellipse((wheel * ahead, 0.34), max(0.34 * squeeze, 0.03), 0.34)
        street.put(x, z, [*rim, rim[0]], (0.06, 0.06, 0.07), Id.BICYCLIST, line=0.06)
    bars = [(-0.52, 0.34), (-0.12, 0.85), (0.0, 0.32), (-0.52, 0.34), (-0.12, 0.85), (0.4, 0.8), (0.0, 0.32)]
    fork = [(0.52, 0.34), (0.38, 1.02), (0.5, 1.05)]
    for outline in (bars, fork):
        street.put(x, z, np.array(outline) * (ahead, 1), frame, Id.BICYCLIST, line=0.05)
    turn = 0.1 * (1 - squeeze)
    feet = [(0.1 * ahead + turn, 0.2), (-turn, 0.4)]
    hands = [(0.42 * ahead + 2 * turn, 1.05), (0.4 * ahead - 2 * turn, 1.05)]
    draw_body(street, x, z, (-0.12 * ahead, 0.95), (0.18 * ahead, 1.48), feet + hands, Id.BICYCLIST)


def pole(street: Street, x: float, z: float) -> Thing:
    """Put a lamp post, a traffic light or a plain mast, perhaps with a sign."""
    rng = street.rng
    kind = rng.choice(4, p=[0.35, 0.2, 0.15, 0.3])  # lamp, traffic light, mast, sign post
    height = rng.uniform((4.5, 3, 5, 2.3), (8, 4.5, 9, 3.4))[kind]
    width, colour = street.town.pole_width * rng.uniform(0.85, 1.15), jitter(rng, street.town.pole)
    reach = -math.copysign(rng.uniform(0.6, 2.4), x)
    signed = kind == 3 or rng.random() < 0.3
    street.cast([(x - width, z), (x + width, z)], height, 0.9)
    yield x, z

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


def gantry(street: Street, z: float) -> Thing:
    """Put a large board over or beside the road, on a bent post."""
    rng = street.rng
    x, half, rise = rng.uniform(street.left, street.right), rng.uniform(1.0, 2.2), rng.uniform(0.4, 0.9)
    up = rng.uniform(3.6, 5.2)
    colour, post = pick(rng, SIGN_PALETTE), pick(rng, CAR_PALETTE[1:4])
    foot = street.kerb(x) + math.copysign(0.6, x)
    yield x, z

    street.put(0, z, [(foot, 0), (foot, up), (x, up)], post, Id.POLE, line=0.2)
    for factor, tone in ((1.0, colour * 0.9 + 0.1), (0.9, colour)):
        street.put(x, z, RECTANGLE * (half * factor, rise * factor) + (0, up), tone, Id.SIGN)
    for row in (-0.3, 0.3):
        text = [(-half * 0.7, up + rise * row), (half * rng.uniform(0, 0.7), up + rise * row)]
        street.put(x, z, text, (0.9, 0.9, 0.88), Id.SIGN, line=0.14)


def bin_or_box(street: Street, x: float, z: float) -> Thing:
    """Put a bin or a box: no class has it, so its label is to be ignored."""
    rng = street.rng
    half, height = rng.uniform(0.25, 0.5), rng.uniform(0.6, 1.3)
    colour = vivid(rng, 0.8, rng.uniform(0.1, 0.6))
    if street.claim(x, z, half, half):
        yield x, z
        outline = [(-half, 0), (half, 0), (half * 1.15, height), (-half * 1.15, height)]
        street.put(x, z, outline, colour, IGNORE_INDEX)


def draw_bonnet(street: Street) -> None:
    """Paint the front of the car that carries the camera."""
    rise = street.height * street.rng.uniform(0.04, 0.09)
    region = street.polygon(ellipse((street.width / 2, street.height), street.width * 0.62, rise, 40))
    sheen = 0.7 + 0.6 * street.patch(region, coarse=True)
    street.paint(region, pick(street.rng, CAR_PALETTE) * sheen[..., None], IGNORE_INDEX, NEAR)
