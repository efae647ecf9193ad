"""What a step learns from: labels and stored pseudo labels, or predictions of the weak views; mixed with those of a partner."""

from dataclasses import dataclass, replace

from torch import Tensor

from segsemi.core.config import Part


@dataclass(frozen=True)
class Examples:
    """Images of one part with their targets, on the device.

    images: (N, V, 3, H, W) float32 in 0..1, V views of each image; targets: (N, V, H, W) uint8, or (N, V, C, H, W)
    probabilities; weights: (N, V, H, W) float32, what each pixel counts, 0 where there is nothing to learn; part: None for
    views whose features are perturbed by dropout; share: of the loss on images of its kind.
    """

    part: Part
    images: Tensor
    targets: Tensor
    weights: Tensor
    share: float = 1.0
    perturb: str = "none"

    def piece(self, index: int, count: int) -> "Examples":
        """Return the index-th of `count` equal pieces (N is a multiple of `count`)."""
        rows = slice(index * len(self.images) // count, (index + 1) * len(self.images) // count)
        return replace(self, images=self.images[rows], targets=self.targets[rows], weights=self.weights[rows])
