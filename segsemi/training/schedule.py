"""Learning-rate schedule: "poly" (paper, section 4.1)."""

from __future__ import annotations


def poly_factor(step: int, steps: int, power: float = 0.9) -> float:
    """Factor on the base learning rate at `step` of `steps` (0-based): (1 - step / steps) ** power.

    Raises:
        ValueError: if `step` is outside 0..steps.
    """
    if not 0 <= step <= steps or steps < 1:
        raise ValueError(f"step {step} is outside 0..{steps}")
    return (1 - step / steps) ** power
