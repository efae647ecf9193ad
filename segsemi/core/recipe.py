"""How one model is trained: everything in which teacher, students and baselines differ (paper, algorithm 1)."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from segsemi.core.config import (
    AugmentParams,
    OptimParams,
    Params,
    Part,
    StudentParams,
    TeacherParams,
    ancestors,
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
        init: whose weights it starts from; of ImageNet's, `bn: fixed` keeps the encoder's statistics, for there are no others.
        targets: where pseudo labels come from: `stored` by an earlier stage, or predicted in each step, see `Consistency`.
        saug_ops, saug_replace, saug_without: strong augmentation, SAUG, of the parts that have it.
    """

    name: str
    seed: int
    augment: AugmentParams
    parts: tuple[Part, ...]
    init: Literal["teacher", "pretrained"] = "pretrained"
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
        **student.model_dump(include={"init", "bn", "loss", "mix", "ema", "targets", "threshold", "strong", *SAUG}),
        **_shared(student),
    )


def baseline_recipe(name: str, params: Params) -> Recipe:
    """The method `name`: supervised training as the teacher's, others as a student's.

    It has as many steps as its student and that one's teachers, or as give at least as many images (baseline_budget).
    """
    if name == SUPERVISED:
        recipe = supervised_recipe(name, params.teacher, params.augment, params.seed)
    else:
        student, method = params.student, method_of(params, name)
        strong = method.strong != "none"
        recipe = Recipe(
            name=name,
            seed=params.seed,
            augment=params.augment,
            parts=(
                Part("labelled", pseudo=False, strong=False, parallel=False, images=student.batch_labelled),
                Part("unlabelled", pseudo=True, strong=strong, parallel=True, images=student.batch_pseudo),
            ),
            **_shared(student),
            **student.model_dump(include=SAUG),
            **method.model_dump(),
        )
    steps, images = budget_of(params, params.baselines[name])
    if params.baseline_budget == "images":
        steps = math.ceil(images / recipe.batch_images)
    return recipe.model_copy(update={"steps": steps})


class Budget(NamedTuple):
    """Optimizer steps, and images through the network, forward and backward."""

    steps: int
    images: int


def budget_of(params: Params, name: str) -> Budget:
    """Return what went into model `name`: the budget of the teacher and of each student up to it, or of a baseline."""
    if name in params.baselines:
        recipe = baseline_recipe(name, params)
        return Budget(recipe.steps, recipe.steps * recipe.batch_images)
    teacher, student = params.teacher, params.student
    rounds, batch = len(list(ancestors(params.rounds, name))), student.batch_labelled + student.batch_pseudo
    if rounds and student.init == "pretrained" and not student.batch_pseudo:  # owes nothing to its teachers
        return Budget(student.steps, student.steps * batch)
    steps, images = teacher.steps + rounds * student.steps, teacher.steps * teacher.batch_size
    return Budget(steps, images + rounds * student.steps * batch)


def _shared(params: OptimParams) -> dict:
    return params.model_dump(include=set(OptimParams.model_fields))
