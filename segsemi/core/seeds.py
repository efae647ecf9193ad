"""Independent generators from one seed and their purpose, so that a resumed run equals an uninterrupted one."""

import zlib

import numpy as np


def derive_seed(seed: int, *keys: str | int) -> int:
    """Return a 63-bit seed from the run's seed and its purpose, such as ("train_teacher", "step", 17)."""
    words = [seed, *(key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys)]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def derive_rng(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a numpy generator seeded with `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *keys))
