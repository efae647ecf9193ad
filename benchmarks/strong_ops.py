"""Milliseconds per image of each SAUG operation, on one core.

python -m benchmarks.strong_ops        # --size, --rounds
"""

import argparse
import statistics
import time

import cv2
import numpy as np

from segsemi.augment.strong import OPERATIONS, StrongAugment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=769, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="of which the median is taken")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(256, size=(24, 24, 3), dtype=np.uint8), (args.size, args.size))
    print("| operation | ms per image |\n| --- | --- |")
    for name in OPERATIONS:
        augment, times = StrongAugment(1, [name], rng), []
        for _ in range(args.rounds + 1):
            start = time.perf_counter()
            augment(image)
            times.append(time.perf_counter() - start)
        print(f"| {name} | {1e3 * statistics.median(times[1:]):.1f} |", flush=True)  # the first warms up


if __name__ == "__main__":
    main()
