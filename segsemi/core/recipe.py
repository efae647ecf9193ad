"""How one model is trained: everything in which teacher, students and baselines differ (paper, algorithm 1)."""

from collections.abc import Sequence
from typing import Literal

from segsemi.core.config import (
    AugmentParams,
    OptimParams,
    Params,
    Part,
    StudentParams,
    TeacherParams,
    baseline_steps,
    method_of,
)
from segsemi.core.consistency import SUPERVISED, Switches

SAUG = {"saug_ops", "saug_replace", "saug_without"}


class Recipe(OptimParams, Switches):
    """Everything that decides what a model learns, apart from its network and its images; names as in params.yaml.

    Attributes:
        name: the name of the model, from which its random numbers derive.
        augment: weak augmentation of all images.
        parts: the kinds of images in a batch.
        targets: where pseudo labels come from: `stored` by an earlier stage, or predicted in each step, see `Consistency`.
        saug_ops, saug_replace, saug_without: strong augmentation, SAUG, of the parts that have it.
    """

    name: str
    seed: int
    augment: AugmentParams
    parts: tuple[Part, ...]
    targets: Literal["stored", "ema", "student"] = "stored"
    saug_ops: int = 0
    saug_replace: bool = True
    saug_without: Sequence[str] = ()

    @property
    def batch_images(self) -> int:
        """Return the images that go forward and backward through the network in a step."""
        return sum(part.images * (self.passes if part.pseudo else 1) for part in self.parts)


def supervised_recipe(name: str, teacher: TeacherParams, augment: AugmentParams, seed: int) -> Recipe:
    """Cross entropy on weakly augmented labelled images: the teacher (line 1), and the supervised baseline."""
    labelled = Part("labelled", pseudo=False, strong=False, parallel=False, images=teacher.batch_size)
    return Recipe(name=name, seed=seed, augment=augment, parts=(labelled,), **_shared(teacher))


def student_recipe(name: str, student: StudentParams, augment: AugmentParams, seed: int) -> Recipe:
    """Labelled and pseudo-labelled images with SAUG, DSBN and SCL, as far as `student` asks for them (lines 3 to 12)."""
    return Recipe(
        name=name,
        seed=seed,
        augment=augment,
        parts=tuple(student.parts),
        **student.model_dump(include={"bn", "loss", "mix", "ema", "targets", "threshold", "strong", *SAUG}),
        **_shared(student),
    )


def baseline_recipe(name: str, params: Params) -> Recipe:
    """The method `name` with the budget of its student: supervised training as the teacher's, others as a student's."""
    steps = {"steps": baseline_steps(params, name)}
    if name == SUPERVISED:
        return supervised_recipe(name, params.teacher.model_copy(update=steps), params.augment, params.seed)
    student, method = params.student, method_of(params, name)
    return Recipe(
        name=name,
        seed=params.seed,
        augment=params.augment,
        parts=(
            Part("labelled", pseudo=False, strong=False, parallel=False, images=student.batch_labelled),
            Part("unlabelled", pseudo=True, strong=method.strong != "none", parallel=True, images=student.batch_pseudo),
        ),
        **{**_shared(student), **steps},
        **student.model_dump(include=SAUG),
        **method.model_dump(),
    )


def _shared(params: OptimParams) -> dict:
    return params.model_dump(include=set(OptimParams.model_fields))
