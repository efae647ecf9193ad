"""How one model is trained: everything in which teacher, student and supervised baseline differ (paper, algorithm 1)."""

from segsemi.core.config import AugmentParams, BatchNorm, Loss, OptimParams, Part


class Recipe(OptimParams):
    """Everything that decides what a model learns, apart from its network and its images; names as in params.yaml.

    Attributes:
        name: the name of the model, from which its random numbers derive.
        augment: weak augmentation of all images.
        parts: the kinds of images in a batch.
        bn: `trainable`: one batch norm for all images; `fixed`: running statistics stay and normalise; `dsbn`.
        loss: the loss on pseudo labels. Labels have cross entropy.
        saug_ops, saug_replace, saug_without: strong augmentation of the parts that have it.
    """

    name: str
    seed: int
    augment: AugmentParams
    parts: tuple[Part, ...]
    bn: BatchNorm = "trainable"
    loss: Loss = "ce"
    saug_ops: int = 0
    saug_replace: bool = True
    saug_without: tuple[str, ...] = ()

    @property
    def batch_images(self) -> int:
        """Return the images of a batch, all of which go forward and backward through the network."""
        return sum(part.images for part in self.parts)
