"""The switches of methods that learn from unlabelled images, and the published online methods as settings of them.

Facts and differences from the published code: docs/methods.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from segsemi.core.section import Section

BatchNorm = Literal["trainable", "separate", "fixed", "dsbn"]
Loss = Literal["scl", "scl_detached", "scl_released", "sce", "ce", "mse"]  # keys of segsemi.losses.LOSSES
Mix = Literal["none", "cutmix", "cutmix_half", "classmix"]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Switches(Section):
    """How unlabelled images are learnt from; the defaults are those of training on stored labels.

    Attributes:
        ema: decay of the exponential moving average of the weights; 0: none. Where there is one, it is measured and kept.
        mix: how strong views are mixed with those of a partner, and their targets with them.
        views: strong views of each image.
        perturb: features that the decoder gets: `dropout` (another pass of the weak view), `complementary` (of two views).
        soft: the targets are probabilities; else the most probable class.
        threshold, confidence: `pixel`: targets below the threshold do not count; `batch`: all count by the share that is above.
        loss, weight: on (pseudo) targets. Labels have cross entropy.
        strong: the augmentation of the strong views.
        bn: `trainable`: one pass and one batch norm for all images; `separate`: a pass for each part; `dsbn`: and its own
            batch norm; `fixed`: the running statistics of the start stay and normalise, ImageNet's in the encoder alone.
    """

    ema: BelowOne = 0.0
    mix: Mix = "none"
    views: Literal[1, 2] = 1
    perturb: Literal["none", "dropout", "complementary"] = "none"
    soft: bool = False
    threshold: BelowOne = 0.0
    confidence: Literal["pixel", "batch"] = "pixel"
    loss: Loss = "ce"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    strong: Literal["none", "colour", "saug"] = "saug"
    bn: BatchNorm = "trainable"

    @property
    def passes(self) -> int:
        """Return how often each unlabelled image goes forward and backward through the network in a step."""
        return self.views + (self.perturb == "dropout")


class Consistency(Switches):
    """One online method; `targets`: whose predictions of the weak view it learns, the EMA model's or the student's own."""

    targets: Literal["ema", "student"]

    @model_validator(mode="after")
    def _fits(self) -> Consistency:
        if (self.targets == "ema") != (self.ema > 0):
            raise ValueError(
                f"targets {self.targets} with ema {self.ema:g}: set ema above 0 for targets ema, 0 for student"
            )
        if self.perturb == "complementary" and self.views != 2:
            raise ValueError("perturb complementary is of two views: set views to 2")
        if self.soft and self.loss != "mse":
            raise ValueError(f"loss {self.loss} takes hard targets: set soft to false")
        return self


def _constrained(field: Any) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


_optional: dict[str, Any] = {
    name: (_constrained(field) | None, None) for name, field in Consistency.model_fields.items()
}
ConsistencyParams = create_model("ConsistencyParams", __base__=Section, **_optional)
"""Overrides of single switches; None: the method's own."""

# where a method names nothing else; the other switches have their defaults
_FIXMATCH: dict[str, Any] = {"targets": "ema", "ema": 0.996, "mix": "cutmix", "threshold": 0.95, "strong": "colour"}
_MEAN_TEACHER: dict[str, Any] = {"ema": 0.99, "soft": True, "loss": "mse", "threshold": 0.97, "confidence": "batch"}

METHODS: dict[str, Consistency] = {
    name: Consistency(**{**_FIXMATCH, **switches})
    for name, switches in {
        # Tarvainen and Valpola 2017, as French et al. 2020 apply it to segmentation
        "mean_teacher": {**_MEAN_TEACHER, "mix": "none", "strong": "none"},
        # Sohn et al. 2020, with EMA and CutMix as in the code of UniMatch V2
        "fixmatch": {},
        # French et al. 2020
        "cutmix_seg": {**_MEAN_TEACHER, "mix": "cutmix_half", "bn": "fixed"},
        # Olsson et al. 2021
        "classmix": {"ema": 0.99, "mix": "classmix", "threshold": 0.968, "confidence": "batch", "bn": "separate"},
        # Yang et al. 2023
        "unimatch": {"targets": "student", "ema": 0.0, "views": 2, "perturb": "dropout", "bn": "separate"},
        # Yang et al. 2025
        "unimatch_v2": {"views": 2, "perturb": "complementary", "bn": "separate"},
    }.items()
}  # fmt: skip
SUPERVISED = "supervised"  # the baseline without unlabelled images
