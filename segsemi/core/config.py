"""Typed parameters: params.yaml as frozen models, checked as a whole before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segsemi.core.consistency import METHODS, SUPERVISED, BatchNorm, BelowOne, Consistency, ConsistencyParams, Loss, Mix
from segsemi.core.errors import UserError
from segsemi.core.section import Section

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Pixels = Annotated[int, Field(ge=32)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Model = TypeVar("Model", bound=BaseModel)
Scales = Annotated[list[PositiveFloat], Field(min_length=1)]

# The operations of segsemi.augment.strong, a higher layer; a test compares the two.
SaugOperation = Literal[
    "contrast_gamma",
    "contrast_linear",
    "brightness",
    "brightness_channel",
    "equalize",
    "hsv",
    "invert_channel",
    "blur",
    "noise_gau",
    "noise_pos",
    "Channel_shuffle",
    "dropout",
    "coarse_dropout",
    "multiply",
    "salt_pepper",
    "solarize",
    "jpeg_compression",
]
SAUG_OPERATIONS = get_args(SaugOperation)
TEACHER = "teacher"  # the name of the first model, from which every chain of rounds starts
FINAL = "final"  # the last student's name in reports/metrics.json, beside those of all models


class DataParams(Section):
    """Section data: which images to use."""

    name: Literal["synthetic", "camvid", "cityscapes", "voc", "folder"]
    root: Text
    train_images: Positive
    val_images: Positive
    height: Pixels
    width: Pixels
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    skip_broken: bool

    @property
    def embedded(self) -> bool:
        """Return whether stage prepare writes the data set itself (segsemi/datasets/scenes)."""
        return self.name == "synthetic"

    @field_validator("root")
    @classmethod
    def _whole(cls, root: str) -> str:
        if root.startswith("~"):
            raise ValueError("write the path in full, without ~, which dvc takes for the name of a folder")
        return root


class SplitParams(Section):
    """Section split: which training images are labelled."""

    fraction: Share
    count: Positive | None
    labelled_list: str
    corrected: Text
    extra: Literal["unlabelled", "labelled", "unused"]
    unlabelled_ratio: PositiveFloat | None
    exclude: list[str]
    val: list[str]


class ModelParams(Section):
    """Sections model and student_model: a network and its backbone's weights."""

    decoder: str
    encoder: str
    encoder_weights: str
    output_stride: Literal[8, 16, 32]

    @model_validator(mode="after")
    def _dilated(self) -> ModelParams:
        if self.decoder.lower().startswith("deeplab") and self.output_stride == 32:
            raise ValueError(f"output_stride 32 does not fit {self.decoder}; use 8 or 16")
        return self


class AugmentParams(Section):
    """Section augment: weak augmentation."""

    short_side: Pixels | None
    crop_size: Pixels
    scale_min: PositiveFloat
    scale_max: PositiveFloat
    flip: bool

    @model_validator(mode="after")
    def _ordered(self) -> AugmentParams:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is larger than scale_max {self.scale_max}")
        return self


class OptimParams(Section):
    """The optimizer, its schedule, and what is measured and kept."""

    steps: Positive
    optimizer: Literal["sgd", "adamw"]
    lr: PositiveFloat
    decoder_lr_factor: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegativeFloat
    power: NonNegativeFloat
    val_every: Count
    accumulate: Positive
    keep: Literal["last", "best"]

    @model_validator(mode="after")
    def _measured(self) -> OptimParams:
        if self.keep == "best" and self.val_every == 0:
            raise ValueError("keep: best needs measurements on val; set val_every above 0")
        return self


def _check_pieces(accumulate: int, **batch: int) -> None:
    for name, value in batch.items():
        if value % accumulate:
            raise ValueError(f"{name} {value} is no multiple of accumulate {accumulate}")
    if sum(batch.values()) // accumulate < 2:  # BatchNorm needs two samples where the encoder pools to 1x1
        raise ValueError(f"{' + '.join(batch)} must be at least 2 (times accumulate, BatchNorm)")


class TeacherParams(OptimParams):
    """Section teacher: how the teacher and supervised baselines are trained."""

    batch_size: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _pieces(self) -> TeacherParams:
        _check_pieces(self.accumulate, batch_size=self.batch_size)
        return self


class Part(NamedTuple):
    """Images of one kind in a batch.

    Attributes:
        name: keeps its random choices apart from the other parts'.
        pseudo: whether their labels are pseudo labels.
        strong: whether they get strong augmentation.
        parallel: whether they go through DSBN's parallel batch norm.
        images: how many in a batch.
    """

    name: str
    pseudo: bool
    strong: bool
    parallel: bool
    images: int


class StudentParams(OptimParams):
    """Section student: how students are trained."""

    batch_labelled: Count
    batch_pseudo: Count
    init: Literal["teacher", "pretrained"]
    saug: Literal["none", "pseudo", "labelled", "both"]
    saug_share: Share
    saug_ops: Positive
    saug_replace: bool
    saug_without: list[SaugOperation]
    bn: BatchNorm
    loss: Loss
    mix: Mix
    ema: BelowOne
    targets: Literal["stored", "ema"]
    threshold: BelowOne
    strong: Literal["saug", "colour"]

    @property
    def parts(self) -> list[Part]:
        """Return the parts of a batch that have images."""
        found = []
        for name, pseudo, batch in (("labelled", False, self.batch_labelled), ("pseudo", True, self.batch_pseudo)):
            strong = round(batch * self.saug_share) if self.saug in (name, "both") else 0
            if self.saug_share == 1:
                found.append(Part(name, pseudo, strong > 0, pseudo, batch))
            else:
                found.append(Part(name, pseudo, False, False, batch - strong))
                found.append(Part(f"strong {name}", pseudo, True, True, strong))
        return [part for part in found if part.images > 0]

    @model_validator(mode="after")
    def _groups(self) -> StudentParams:
        if self.targets == "ema" and self.ema == 0:
            raise ValueError("targets: ema needs an average of the weights: set ema, such as 0.99")
        _check_pieces(self.accumulate, batch_labelled=self.batch_labelled, batch_pseudo=self.batch_pseudo)
        pool = len(set(SAUG_OPERATIONS) - set(self.saug_without))
        if pool == 0:
            raise ValueError("saug_without leaves no operation; set saug: none")
        if not self.saug_replace and self.saug_ops > pool:
            raise ValueError(
                f"saug_ops {self.saug_ops} without replacement is more than the {pool} operations that SAUG has"
            )
        for name, batch in (("labelled", self.batch_labelled), ("pseudo", self.batch_pseudo)):
            strong = batch * self.saug_share / self.accumulate  # images in a piece
            wanted = batch > 0 and self.saug in (name, "both")
            if wanted and (round(strong) < 1 or abs(strong - round(strong)) > 1e-6):
                raise ValueError(
                    f"saug_share {self.saug_share:g} of batch_{name} {batch} is no whole number of images in each of the "
                    f"{self.accumulate} pieces of a batch (accumulate); change one of the three"
                )
        images = [sum(part.images for part in self.parts if part.parallel == parallel) for parallel in (False, True)]
        new = self.bn == "fixed" and self.init == "pretrained" and min(images) > 0  # its decoder's learn, in two passes
        if (self.bn in ("dsbn", "separate") or new) and min(images) < 2 * self.accumulate:
            raise ValueError(
                f"bn: {self.bn} needs two parts of at least 2 images (times accumulate), since each has its own batch "
                "statistics: batch_labelled and batch_pseudo, or, with saug_share below 1, weak and strong; raise them, lower "
                "accumulate or set bn: trainable"
            )
        return self


class PseudoLabelParams(Section):
    """Section pseudo_label: the predictions that are averaged for a pseudo label."""

    scales: Scales
    flip: bool


class EvaluateParams(Section):
    """Section evaluate: how models are evaluated."""

    subset: Literal["val", "test"]
    scales: Scales
    flip: bool
    window: Pixels | None
    examples: Count


class MachineParams(Section):
    """Section machine: where and how stages run. It changes results by rounding only, so no stage depends on it."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
    workers: Count | Literal["auto"]
    cache_mb: Count
    precision: Literal["auto", "fp32", "bf16"]
    log: Literal["none", "tensorboard", "dvclive"]


class Params(Section):
    """The whole of params.yaml; the comments there say what each key means."""

    seed: Count
    data: DataParams
    split: SplitParams
    model: ModelParams
    augment: AugmentParams
    teacher: TeacherParams
    rounds: dict[ModelName, str]
    pseudo_label: PseudoLabelParams
    student: StudentParams
    student_model: ModelParams
    baselines: dict[ModelName, str]
    baseline_budget: Literal["steps", "images"]
    consistency: ConsistencyParams  # type: ignore[valid-type]
    evaluate: EvaluateParams
    machine: MachineParams

    @model_validator(mode="after")
    def _model_names(self) -> Params:
        names = [TEACHER, FINAL, *self.rounds, *self.baselines]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"model name {name!r} stands twice among {TEACHER}, {FINAL}, rounds and baselines")
        for student, teacher in self.rounds.items():
            if teacher not in (TEACHER, *self.rounds):
                raise ValueError(
                    f"rounds.{student}: unknown teacher {teacher!r}; expected {TEACHER} or a key of rounds"
                )
            if TEACHER not in list(ancestors(self.rounds, student)):
                raise ValueError(f"rounds.{student}: its chain of teachers never reaches {TEACHER}; break the cycle")
        if self.evaluate.window and self.augment.short_side:
            raise ValueError("evaluate.window: images are shrunk to augment.short_side; set one of the two to null")
        for baseline, student in self.baselines.items():
            if baseline not in (SUPERVISED, *METHODS):
                raise ValueError(
                    f"baselines.{baseline}: there is no such method; expected {SUPERVISED}, {', '.join(METHODS)}"
                )
            if baseline != SUPERVISED:
                self._check_method(baseline)
            if student not in self.rounds:
                raise ValueError(
                    f"baselines.{baseline}: {student!r} is no key of rounds; name the student whose steps it gets"
                )
        return self

    def _check_method(self, baseline: str) -> None:
        try:
            method = method_of(self, baseline)
        except ValidationError as error:
            reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
            raise ValueError(f"baselines.{baseline}: section consistency: {reasons}") from None
        least = 1 if method.bn == "trainable" else 2 * self.student.accumulate
        if min(self.student.batch_labelled, self.student.batch_pseudo) < least:
            raise ValueError(
                f"baselines.{baseline}: with bn: {method.bn} it needs at least {least} labelled and {least} unlabelled images "
                "per step; raise student.batch_labelled and student.batch_pseudo"
            )


def ancestors(rounds: dict[str, str], student: str) -> Iterator[str]:
    """Yield the teachers of `student`, nearest first; stop at `teacher` or when a name comes back."""
    name, seen = student, set()
    while name in rounds and name not in seen:
        seen.add(name)
        name = rounds[name]
        yield name


def learns_pseudo_labels(params: Params, name: str) -> bool:
    """Return whether model `name` is a student whose batches have the pseudo labels of its teacher."""
    return name in params.rounds and params.student.batch_pseudo > 0 and params.student.targets == "stored"


def method_of(params: Params, baseline: str) -> Consistency:
    """Return the switches of an online method, with those that `consistency` overrides."""
    overrides = params.consistency.model_dump(exclude_none=True)  # type: ignore[attr-defined]
    return Consistency(**{**METHODS[baseline].model_dump(), **overrides})


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    ruamel.yaml reads YAML 1.2, in which `1e-05`, as `dvc exp run -S` writes small numbers, is a number.

    Raises:
        UserError: naming each key that is unknown, missing, or has a wrong type or value.
    """
    return parse_params(load_values(path), source=str(path))


def load_values(path: Path | str = "params.yaml") -> Any:
    """Return params.yaml as nested dicts, unchecked.

    Raises:
        UserError: if it is missing or no YAML.
    """
    try:
        return YAML(typ="safe").load(Path(path))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the root of the repository") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def parse_params(values: Any, *, source: str = "params.yaml") -> Params:
    """Check already parsed values (nested dicts) against the typed parameters; errors as in `load_params`."""
    return parse(Params, values, source=source)


def parse(model: type[Model], values: Any, *, source: str) -> Model:
    """Return the values (nested dicts) of the file `source` as a `model`; errors as in `load_params`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, dict(item)) for item in error.errors()]
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    """Return one pydantic error as `key: what is wrong (found ...)`, with the nearest known key for a misspelt one."""
    path = [str(part) for part in item["loc"]]
    key = ".".join(path) or "the file as a whole"
    if item["type"] == "extra_forbidden":
        known = list(_model_at(model, path[:-1]).model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{key}: missing; add it (see the committed params.yaml)"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if isinstance(item.get("input"), dict | BaseModel) else f" (found {item.get('input')!r})"
    if item.get("input") == "":
        field = getattr(_model_at(model, path[:-1]), "model_fields", {}).get(path[-1])
        nullable = field is not None and type(None) in get_args(field.annotation)
        found = f" (found nothing{'; for no value write null' if nullable else ''})"
    return f"{key}: {message}{found}"


def _model_at(model: Any, path: list[str]) -> Any:
    for part in path:
        fields = getattr(model, "model_fields", None)
        model = fields[part].annotation if fields else get_args(model)[1]  # of a dict: its values
    return model
