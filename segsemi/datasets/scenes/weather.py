"""The sky, and what light, fog, rain and the camera do to a painted scene."""

import cv2
import numpy as np

from segsemi.datasets.scenes.canvas import Id, Street


def draw_sky(street: Street) -> None:
    """Paint a sky that is lighter at the horizon, with clouds."""
    canvas, rng, weather = street.canvas, street.rng, street.weather
    low, top = np.array(weather.sky_low), np.array(weather.sky_top) + rng.normal(0, 0.04, 3)
    height = np.clip(1 - np.arange(canvas.height) / street.camera.horizon, 0, 1)[:, None, None] ** 0.7
    cover = rng.uniform(-0.3, 0.6) * np.clip(street.coarse[: canvas.height, : canvas.width] - 0.4, 0, 1)
    canvas.image[:] = low + (top - low) * height
    canvas.image += (cover * (1 - 0.9 * weather.dark))[..., None] * (1.0, 0.98, 0.95)


def draw_weather(street: Street) -> None:
    """Apply light, reflections, fog, lamps, rain and snow to the painted things."""
    rng, canvas, weather = street.rng, street.canvas, street.weather
    height, width, image = canvas.height, canvas.width, canvas.image
    surface = canvas.label != Id.SKY
    light = np.array(weather.light, np.float32) * rng.uniform(0.85, 1.15)
    lamps = weather.dark * 1.1 * np.exp(-canvas.depth / 14)[..., None] * np.array([1.0, 0.93, 0.8], np.float32)
    image[surface] *= (light + lamps)[surface]
    if weather.wet:
        rows = np.clip(2 * int(street.camera.horizon) - np.arange(height), 0, height - 1)
        mirror = cv2.blur(image[rows] + canvas.glow[rows], (max(1, width // 80), max(1, height // 10)))
        gloss = weather.wet * 0.5 * (canvas.label == Id.ROAD) * np.clip(street.coarse[:height, :width] + 0.1, 0, 1)
        image += (mirror - image) * gloss[..., None]
    haze = 1 - np.exp(-canvas.depth * weather.fog * rng.uniform(0.6, 1.5))
    haze[~surface] *= 0.4
    image += (np.array(weather.sky_low, np.float32) - image) * haze[..., None]
    image += canvas.glow + cv2.GaussianBlur(canvas.glow, (0, 0), width / 60) * (0.6 + weather.fog * 20)
    if weather.wet > 0.5:
        for _ in range(rng.integers(30, 120)):
            x, y, length = rng.uniform(0, width), rng.uniform(0, height), height * rng.uniform(0.03, 0.1)
            streak = canvas.polygon(np.array([[x, y], [x + length * 0.2, y + length]]), line=1)
            if streak is not None:
                image[streak.rows, streak.columns][streak.mask] += 0.07
    if weather.snow:
        image[rng.random((height, width)) > 0.994] += 0.4


def photograph(street: Street) -> np.ndarray:
    """Return the image (H, W, 3) uint8, with the camera's faults: blur, vignette, exposure, white balance, gamma, noise."""
    rng, height, width = street.rng, street.canvas.height, street.canvas.width
    blur = rng.uniform(0.35, 0.8) * max(width / 256, 0.5)
    image: np.ndarray = cv2.GaussianBlur(street.canvas.image, (0, 0), blur)
    rise, across = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    image *= (1 - rng.uniform(0, 0.2) * (rise[:, None] ** 2 + across**2))[..., None]
    image *= (rng.uniform(0.8, 1.25) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.8, 1.2))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(street.weather.noise * rng.uniform(0.25, 0.75))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
