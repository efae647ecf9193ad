"""Generated street scenes with labels exact to the pixel: the embedded data set.

A scene is a street in world metres (x right, y up, z ahead of the camera), seen by a pinhole camera and painted from
far to near. Each mask is used for the image and for the label alike. Eighty towns, eight kinds of weather, many car types
and overlapping colours make a handful of images a poor sample of the whole.
"""

import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segsemi.core.progress import progress_bar
from segsemi.datasets.scenes import objects, scenery
from segsemi.datasets.scenes.canvas import BACKDROP_DEPTH, CLASSES, FAR, Id, Street

__all__ = ["CLASSES", "scene", "write"]


def place_rows(street: Street, side: float) -> None:
    """Place parked cars, a line of trees and a fence along one side."""
    rng, walk, beside = street.rng, street.walk, street.beside
    if rng.random() < 0.5:
        z = rng.uniform(4, 14)
        for _ in range(rng.integers(1, 6)):
            turned = math.pi * (rng.random() < 0.3)
            street.add(objects.car(street, beside(side, -1.1, -0.9), z, turned + rng.normal(0, 0.04)))
            z += rng.uniform(5.5, 11)
    if rng.random() < 0.5:
        for z in np.arange(rng.uniform(4, 12), FAR * 0.7, rng.uniform(5, 12)):
            street.add(scenery.tree(street, beside(side, walk * 0.6, walk + 1.5), float(z + rng.uniform(-1, 1))))
    if rng.random() < 0.7:
        low, high = (0.1, 0.4) if rng.random() < 0.4 else (walk - 0.3, walk)
        street.add(scenery.fence(street, side, beside(side, low, high), street.ahead(3, 12), rng.uniform(7, 24)))


def place_things(street: Street) -> None:
    """Place traffic, people and street furniture, the nearest of them a few metres ahead."""
    rng, walk, beside, ahead, add = street.rng, street.walk, street.beside, street.ahead, street.add
    middle = (street.left + street.right) / 2
    for _ in range(rng.integers(0, 4)):
        lane = rng.choice([-1, 1])
        x = (middle + street.kerb(lane)) / 2 - 0.4 * lane + rng.normal(0, 0.3)
        add(objects.car(street, x, ahead(5, 22), (0 if lane > 0 else math.pi) + rng.normal(0, 0.06)))
    if rng.random() < 0.2:  # one that crosses
        yaw = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.15)
        add(objects.car(street, rng.uniform(-4, 4), ahead(7, 15), yaw))
    for _ in range(rng.integers(0, 5)):
        add(scenery.bush(street, beside(0, walk, walk + 4), ahead(4, 20)))
    for _ in range(rng.integers(1, 5)):
        add(objects.pole(street, beside(0, 0.3, 0.9), ahead(4, 14)))
    if rng.random() < 0.25:
        add(objects.gantry(street, ahead(8, 18)))
    for _ in range(rng.integers(2, 7)):
        on_road = rng.random() < 0.15
        x = rng.uniform(street.left, street.right) if on_road else beside(0, 0.3, walk)
        add(objects.pedestrian(street, x, ahead(5, 13)))
    for _ in range(rng.integers(0, 5)):
        add(objects.bicyclist(street, beside(0, -2.4, -0.4), ahead(5, 13)))
    for _ in range(rng.integers(0, 3)):
        add(objects.bin_or_box(street, beside(0, 0.3, walk), ahead(4, 12)))


def draw_sky(street: Street) -> None:
    """Paint a sky that is lighter at the horizon, with clouds."""
    rng, weather = street.rng, street.weather
    low, top = np.array(weather.sky_low), np.array(weather.sky_top) + rng.normal(0, 0.04, 3)
    height = np.clip(1 - np.arange(street.height) / street.horizon, 0, 1)[:, None, None] ** 0.7
    cover = rng.uniform(-0.3, 0.6) * np.clip(street.coarse[: street.height, : street.width] - 0.4, 0, 1)
    street.image[:] = low + (top - low) * height
    street.image += (cover * (1 - 0.9 * weather.dark))[..., None] * (1.0, 0.98, 0.95)


def draw_weather(street: Street) -> None:
    """Apply light, reflections, fog, lamps, rain and snow to the painted things."""
    rng, weather, height, width, image = street.rng, street.weather, street.height, street.width, street.image
    surface = street.label != Id.SKY
    light = np.array(weather.light, np.float32) * rng.uniform(0.85, 1.15)
    lamps = weather.dark * 1.1 * np.exp(-street.depth / 14)[..., None] * np.array([1.0, 0.93, 0.8], np.float32)
    image[surface] *= (light + lamps)[surface]
    if weather.wet:
        rows = np.clip(2 * int(street.horizon) - np.arange(height), 0, height - 1)
        mirror = cv2.blur(image[rows] + street.glow[rows], (max(1, width // 80), max(1, height // 10)))
        gloss = weather.wet * 0.5 * (street.label == Id.ROAD) * np.clip(street.coarse[:height, :width] + 0.1, 0, 1)
        image += (mirror - image) * gloss[..., None]
    haze = 1 - np.exp(-street.depth * weather.fog * rng.uniform(0.6, 1.5))
    haze[~surface] *= 0.4
    image += (np.array(weather.sky_low, np.float32) - image) * haze[..., None]
    image += street.glow + cv2.GaussianBlur(street.glow, (0, 0), width / 60) * (0.6 + weather.fog * 20)
    if weather.wet > 0.5:
        for _ in range(rng.integers(30, 120)):
            x, y, length = rng.uniform(0, width), rng.uniform(0, height), height * rng.uniform(0.03, 0.1)
            streak = street.polygon(np.array([[x, y], [x + length * 0.2, y + length]]), line=1)
            image[streak.box][streak.mask] += 0.07
    if weather.snow:
        image[rng.random((height, width)) > 0.994] += 0.4


def photograph(street: Street) -> np.ndarray:
    """Return the image (H, W, 3) uint8, with the camera's faults: blur, vignette, exposure, white balance, gamma, noise."""
    rng, height, width = street.rng, street.height, street.width
    blur = rng.uniform(0.35, 0.8) * max(width / 256, 0.5)
    image: np.ndarray = cv2.GaussianBlur(street.image, (0, 0), blur)
    rise, across = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    image *= (1 - rng.uniform(0, 0.2) * (rise[:, None] ** 2 + across**2))[..., None]
    image *= (rng.uniform(0.8, 1.25) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.8, 1.2))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(street.weather.noise * rng.uniform(0.25, 0.75))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def scene(rng: np.random.Generator, height: int = 192, width: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, (height, width, 3) uint8 RGB, and the label, (height, width) uint8 class ids, of one scene."""
    street = Street(rng, height, width)
    draw_sky(street)
    scenery.draw_backdrop(street)
    scenery.draw_ground(street)
    for side in (-1.0, 1.0):
        scenery.place_buildings(street, side)
        place_rows(street, side)
    place_things(street)
    soft = cv2.GaussianBlur(street.shadow, (0, 0), max(width / 250, 0.5))
    street.image *= (1 - soft * (street.depth < BACKDROP_DEPTH))[..., None]
    for _, thing in sorted(street.things, key=lambda item: -item[0]):
        next(thing, None)  # paints it
    if rng.random() < 0.35:
        objects.draw_bonnet(street)
    draw_weather(street)
    return photograph(street), street.label


def write(folder: Path, *, train: int, val: int, height: int, width: int, seed: int = 0) -> None:
    """Write a data set in CamVid's layout: SUBSET/0000.png (RGB) and SUBSETannot/0000.png (8-bit class ids)."""
    for number, (subset, count) in enumerate({"train": train, "val": val}.items()):
        pictures, labels = folder / subset, folder / f"{subset}annot"
        pictures.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
        for index in progress_bar(range(count), desc=f"draw {subset} scenes", unit="image"):
            image, label = scene(np.random.default_rng([seed, number, index]), height, width)
            for place, array in ((pictures, image), (labels, label)):
                Image.fromarray(array).save(place / f"{index:04d}.png", compress_level=1)
