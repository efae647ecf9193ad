"""Images a second of each SAUG operation on one core, beside the nearest one of albumentations (pip install albumentations).

python -m benchmarks.strong_ops        # --size, --rounds
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import cv2
import numpy as np

from segsemi.augment.strong import OPERATIONS, StrongAugment


def nearest() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """SAUG's name -> albumentations' operation of about the same effect, strength and work."""
    import albumentations as A

    table = A.RandomToneCurve(0.3, per_channel=True, p=1)  # its gamma and contrast have one for all channels
    operations = {
        "contrast_gamma": table,
        "contrast_linear": table,
        "brightness": A.RandomBrightnessContrast((-0.08, 0.2), 0, p=1),
        "brightness_channel": A.RGBShift((-20, 50), (-20, 50), (-20, 50), p=1),
        "equalize": A.CLAHE(p=1),  # the lightness of Lab, as ours; its Equalize that of YCrCb, or each channel
        "hsv": A.HueSaturationValue(20, 20, 0, p=1),
        "invert_channel": A.ChannelShuffle(p=1),
        "blur": A.GaussianBlur(0, (1.5, 2.0), p=1),
        "noise_gau": A.GaussNoise((0.03, 0.08), per_channel=False, p=1),
        "noise_pos": A.ShotNoise((0.1, 0.2), p=1),
        "Channel_shuffle": A.ChannelShuffle(p=1),
        "dropout": A.PixelDropout(0.35, per_channel=True, p=1),
        "coarse_dropout": A.CoarseDropout((2, 5), (0.1, 0.3), (0.1, 0.3), p=1),
        "multiply": A.MultiplicativeNoise((0.25, 2.5), per_channel=True, p=1),
        "salt_pepper": A.SaltAndPepper((0.0, 0.1), p=1),
        "solarize": A.Solarize(p=1),
        "jpeg_compression": A.ImageCompression("jpeg", (5, 15), p=1),
    }
    return {name: _called(operation) for name, operation in operations.items()}


def lesser() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Its operations of the same name that do less: one table for all channels, and no conversion to Lab."""
    import albumentations as A

    operations = {
        "contrast_gamma": A.RandomGamma((50, 150), p=1),
        "contrast_linear": A.RandomBrightnessContrast(0, (-0.5, 1.0), p=1),
        "equalize": A.Equalize(by_channels=False, p=1),
    }
    return {name: _called(operation) for name, operation in operations.items()}


def _called(operation: Callable[..., dict[str, np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: operation(image=image)["image"]


def seconds(run: Callable[[], object], rounds: int) -> float:
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=769, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="of which the median is taken")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    small = rng.integers(256, size=(24, 24, 3), dtype=np.uint8)
    image = cv2.resize(small, (args.size, args.size), interpolation=cv2.INTER_CUBIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others, less = nearest(), lesser()
        print(
            "| operation | ms an image | albumentations' nearest | ratio | of its name, with less to do |\n"
            + "| --- " * 5
            + "|"
        )
        for name, operation in OPERATIONS.items():
            ours = seconds(lambda operation=operation: operation(image, rng), args.rounds)  # type: ignore[misc]
            theirs = seconds(lambda name=name: others[name](image), args.rounds)  # type: ignore[misc]
            named = f"{1e3 * seconds(lambda name=name: less[name](image), args.rounds):.1f}" if name in less else ""  # type: ignore[misc]
            print(f"| {name} | {1e3 * ours:.1f} | {1e3 * theirs:.1f} | {ours / theirs:.1f} | {named} |", flush=True)
        saug = StrongAugment(3, rng=rng)
        start = time.perf_counter()
        for _ in range(100):
            saug(image)
        print(f"\nSAUG, N = 3: {100 / (time.perf_counter() - start):.0f} images a second")


if __name__ == "__main__":
    main()
