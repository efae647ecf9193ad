"""One random scene: its street, what stands where, and the files of a whole data set."""

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segsemi.core.files import write_bytes
from segsemi.datasets.scenes.canvas import BACKDROP_DEPTH, FAR, Camera, Canvas, Street
from segsemi.datasets.scenes.colours import fractal_noise
from segsemi.datasets.scenes.objects import (
    add_bicyclist,
    add_car,
    add_gantry,
    add_pedestrian,
    add_pole,
    add_void,
    draw_bonnet,
)
from segsemi.datasets.scenes.scenery import add_bush, add_fence, add_tree, draw_backdrop, draw_ground, place_buildings
from segsemi.datasets.scenes.town import TOWNS, town_number
from segsemi.datasets.scenes.weather import WEATHERS, draw_sky, draw_weather, photograph

SUBSETS = ("train", "val")  # the position is the subset number of the random stream


def random_street(rng: np.random.Generator, height: int, width: int) -> Street:
    """A town's street, empty: camera, weather, sun and the road's edges."""
    town = town_number(int(rng.integers(TOWNS)))
    camera = Camera(
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
        walk=town.walk * rng.uniform(0.9, 1.1),
        town=town,
        bare=0.9 if weather.snow else 0.0,
        coarse=fractal_noise(rng, 2 * height, 2 * width, 14, 4),
        fine=fractal_noise(rng, 2 * height, 2 * width, max(4, height // 3), 2),
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A depth such that as many things are large as small on the screen."""
    return low * (high / low) ** rng.random()


def beside(street: Street, side: float, low: float, high: float) -> float:
    """A place in x, so many metres outside the kerb of one side (0: of a random one)."""
    side = side or float(street.rng.choice([-1, 1]))
    return street.kerb(side) + side * street.rng.uniform(low, high)


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
    if rng.random() < 0.7:
        low, high = (0.1, 0.4) if rng.random() < 0.4 else (walk - 0.3, walk)
        add_fence(street, side, beside(street, side, low, high), log_uniform(rng, 3, 12), rng.uniform(7, 24))


def place_things(street: Street) -> None:
    """Traffic, people and street furniture, the nearest of them a few metres ahead."""
    rng, walk = street.rng, street.walk
    middle = (street.left + street.right) / 2
    for _ in range(rng.integers(0, 4)):
        lane = rng.choice([-1, 1])
        x = (middle + street.kerb(lane)) / 2 - 0.4 * lane + rng.normal(0, 0.3)
        add_car(street, x, log_uniform(rng, 5, 22), (0 if lane > 0 else math.pi) + rng.normal(0, 0.06))
    if rng.random() < 0.2:  # one that crosses
        yaw = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.15)
        add_car(street, rng.uniform(-4, 4), log_uniform(rng, 7, 15), yaw)
    for _ in range(rng.integers(0, 5)):
        add_bush(street, beside(street, 0, walk, walk + 4), log_uniform(rng, 4, 20))
    for _ in range(rng.integers(1, 5)):
        add_pole(street, beside(street, 0, 0.3, 0.9), log_uniform(rng, 4, 14))
    if rng.random() < 0.25:
        add_gantry(street, log_uniform(rng, 8, 18))
    for _ in range(rng.integers(2, 7)):
        on_road = rng.random() < 0.15
        x = rng.uniform(street.left, street.right) if on_road else beside(street, 0, 0.3, walk)
        add_pedestrian(street, x, log_uniform(rng, 5, 13))
    for _ in range(rng.integers(0, 5)):
        add_bicyclist(street, beside(street, 0, -2.4, -0.4), log_uniform(rng, 5, 13))
    for _ in range(rng.integers(0, 3)):
        add_void(street, beside(street, 0, 0.3, walk), log_uniform(rng, 4, 12))


def scene(rng: np.random.Generator, height: int = 192, width: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """One street scene: the image, (height, width, 3) uint8 RGB, and its label, (height, width) uint8 class ids."""
    street = random_street(rng, height, width)
    canvas, start = street.canvas, rng.uniform(9, 30)
    crossing = (start, start + rng.uniform(5, 9)) if rng.random() < 0.35 else None
    draw_sky(street)
    draw_backdrop(street)
    draw_ground(street, crossing)
    for side in (-1.0, 1.0):
        place_buildings(street, side, crossing)
        place_rows(street, side)
    place_things(street)
    soft = cv2.GaussianBlur(canvas.shadow, (0, 0), max(width / 250, 0.5))
    canvas.image *= (1 - soft * (canvas.depth < BACKDROP_DEPTH))[..., None]
    for _, draw in sorted(street.things, key=lambda thing: -thing[0]):
        draw()
    if rng.random() < 0.35:
        draw_bonnet(street)
    draw_weather(street)
    return photograph(street), canvas.label


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an array as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    write_bytes(path, buffer.getvalue())


def write(
    folder: Path,
    *,
    train: int = 400,
    val: int = 100,
    height: int = 192,
    width: int = 256,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Write both subsets in CamVid's layout: <subset>/0000.png (RGB) and <subset>annot/0000.png (8-bit class ids).

    Args:
        progress: wraps the indices of each subset, for a progress bar.
    """
    for number, (subset, count) in enumerate(zip(SUBSETS, (train, val), strict=True)):
        for index in progress(range(count)):
            image, label = scene(np.random.default_rng([seed, number, index]), height, width)
            write_png(folder / subset / f"{index:04d}.png", image)
            write_png(folder / f"{subset}annot" / f"{index:04d}.png", label)
