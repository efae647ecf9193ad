"""Online methods: what a step learns from, and its loss against each method's formulas in float64."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_training import ALONE, AUGMENT, LABELLED, PSEUDO, a_recipe
from torch import Tensor, nn

from segsemi.augment.mix import classmix_masks, cutmix_masks
from segsemi.core.consistency import METHODS
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_rng, derive_seed
from segsemi.data.batches import PartBatch
from segsemi.training.average import update_average
from segsemi.training.examples import examples_of
from segsemi.training.perturb import perturbed_features
from segsemi.training.step import training_step

UNLABELLED = PSEUDO._replace(name="unlabelled", images=3)


class Tiny(nn.Module):
    """An encoder of two maps and a decoder, in float64, without batch norm or dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Module()
        self.network.encoder = Encoder()
        self.head = nn.Conv2d(6, 4, 1)
        self.double()

    @property
    def encoder(self) -> nn.Module:
        return self.network.encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.network.encoder(x.double()))

    def decode(self, maps: list[Tensor]) -> Tensor:
        return 3 * self.head(torch.cat(maps, 1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x).tanh()
        return [first, self.second(first).tanh()]


def recipe_of(method: str, **changes: object) -> Recipe:
    values = {**METHODS[method].model_dump(), **changes}
    parts = (LABELLED, UNLABELLED)
    return a_recipe(1, name=method, parts=parts, init="pretrained", saug_ops=1, augment=AUGMENT, **values)


def batch_of(recipe: Recipe) -> list[PartBatch]:
    """2 labelled and 3 unlabelled images of 12x16 pixels, of which some are padding."""
    generator = torch.Generator().manual_seed(1)

    def images(count: int) -> Tensor:
        return torch.randint(256, (count, 3, 12, 16), generator=generator, dtype=torch.uint8)

    labels = torch.randint(4, (2, 12, 16), generator=generator, dtype=torch.uint8)
    padding = torch.zeros(3, 12, 16, dtype=torch.uint8)
    labels[0, :3], padding[1, 9:], padding[2, :, 12:] = 255, 255, 255
    views = tuple(images(3) for _ in range(recipe.views + 1))
    ids = [str(index) for index in range(3)]
    return [PartBatch(LABELLED, (images(2),), labels, ids[:2]), PartBatch(UNLABELLED, views, padding, ids)]


def masks_of(recipe: Recipe, ids: Tensor, ignored: Tensor) -> list[Tensor]:
    rng = derive_rng(recipe.seed, recipe.name, "unlabelled", "mix", 0, 0)
    if recipe.mix == "none":
        return [torch.zeros(3, 12, 16, dtype=torch.bool)] * recipe.views
    if recipe.mix == "classmix":
        return [classmix_masks(ids, ignored, rng)]
    return [cutmix_masks(3, 12, 16, rng, half=recipe.mix == "cutmix_half") for _ in range(recipe.views)]


def factors_of(recipe: Recipe, index: int) -> list[list[Tensor]]:
    """What multiplies the channels of both maps, for each image of the pass `index` of a step: pairs of views, or images."""
    torch.manual_seed(derive_seed(recipe.seed, recipe.name, "step", 0, index, 0))
    if recipe.perturb == "dropout":  # torch's own dropout of channels
        whole = [F.dropout2d(torch.ones(3, channels, 1, 1).double(), 0.5)[..., 0, 0] for channels in (4, 2)]
        return [[factor[own] for factor in whole] for own in range(3)]
    spared = torch.randperm(3)[:1]
    found = [[] for _ in range(6)]
    for channels in (4, 2):
        drawn = 2.0 * (torch.rand(3, channels) < 0.5).double()
        for own in range(3):
            first = torch.ones(channels).double() if own in spared else drawn[own]
            found[2 * own].append(first)
            found[2 * own + 1].append(2 - first)
    return found


def perturbed(student: Tiny, image: Tensor, factors: list[Tensor]) -> Tensor:
    maps = student.encoder(image[None].double())
    return student.decode([x * factor[None, :, None, None] for x, factor in zip(maps, factors, strict=True)])


def formula(method: str, student: Tiny, teacher: Tiny, recipe: Recipe) -> Tensor:
    """The loss of a step as docs/methods.md has it, image by image and pixel by pixel."""
    labelled, unlabelled = batch_of(recipe)
    x = labelled.views[0].double() / 255
    total = F.cross_entropy(student(x), labelled.targets.long(), ignore_index=255)
    *strong, weak = (view.double() / 255 for view in unlabelled.views)
    with torch.no_grad():
        p = teacher(weak).softmax(1)
    ignored = unlabelled.targets == 255
    losses = []
    pairs = factors_of(recipe, 1) if recipe.perturb == "complementary" else None
    for place, (view, mask) in enumerate(zip(strong, masks_of(recipe, p.argmax(1), ignored), strict=True)):
        rows, valid, sure = [], 0, 0
        for own in range(3):
            partner, box = (own + 1) % 3, mask[own]
            image = torch.where(box, view[partner], view[own])
            target = torch.where(box, p[partner], p[own])
            outside = torch.where(box, ignored[partner], ignored[own])
            q = (perturbed(student, image, pairs[2 * own + place]) if pairs else student(image[None])).softmax(1)[0]
            label = target.argmax(0)
            loss = (q - target).square().sum(0) if recipe.soft else -q.gather(0, label[None])[0].log()
            counted = (target.max(0).values >= recipe.threshold) & ~outside
            valid, sure = valid + (~outside).sum(), sure + counted.sum()
            rows.append((loss * (~outside if recipe.confidence == "batch" else counted)).sum())
        share = sure / valid if recipe.confidence == "batch" else 1.0
        losses.append((torch.stack(rows).sum() * share, valid))
    consistency = sum(loss for loss, _ in losses) / sum(valid for _, valid in losses)
    if recipe.perturb == "dropout":  # the weak views, unmixed, with dropped channels: half of the loss
        sure, ids = p.max(1)
        logits = [perturbed(student, image, own) for image, own in zip(weak, factors_of(recipe, 2), strict=True)]
        entropy = F.cross_entropy(torch.cat(logits), ids, reduction="none")
        consistency = (consistency + (entropy * (sure >= recipe.threshold))[~ignored].sum() / (~ignored).sum()) / 2
    return total + consistency


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_the_methods_formulas(method: str) -> None:
    """Loss and gradient, and no hook is left. The network has no batch norm, so passes apart show what goes together."""
    recipe = recipe_of(method, threshold=0.0 if method == "mean_teacher" else 0.5, bn="separate")
    student, teacher = Tiny(), Tiny()
    if recipe.targets == "student":  # UniMatch predicts its own targets
        teacher = student
    else:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.add_(0.1)
    reference = copy.deepcopy(student)
    targets = reference if teacher is student else teacher
    learnt = []  # images; the passes of a teacher have no gradient
    student.register_forward_pre_hook(lambda _, inputs: learnt.append(torch.is_grad_enabled() * len(inputs[0])))
    loss = training_step(student, teacher, batch_of(recipe), 0, recipe, ALONE)
    assert sum(learnt) == recipe.batch_images and not student.encoder._forward_hooks
    expected = formula(method, reference, targets, recipe)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)
    for (name, own), other in zip(student.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-8, msg=name)
    assert teacher is student or all(parameter.grad is None for parameter in teacher.parameters())


def test_a_stored_pseudo_label_is_mixed_with_its_image() -> None:
    recipe = a_recipe(1, mix="cutmix_half", parts=(LABELLED, UNLABELLED), loss="ce")
    labelled, pseudo = batch_of(recipe_of("fixmatch"))
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 12, 16)
    pseudo = replace(pseudo, views=(images,), targets=images[:, 0].contiguous())
    first, second = examples_of([labelled, pseudo], Tiny(), 0, recipe, ALONE)
    assert torch.equal((second.images[:, 0] * 255).round().to(torch.uint8), second.targets)
    assert (second.targets != images[:, 0]).float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(first.images, labelled.views[0].float() / 255)  # labelled images are not mixed


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1000, [2.0, 4.0, 4.8]), (40, [2.0, 4.0, 5.0])],  # decays 0, 1/2, 0.6; of 40 steps it remembers two: 0, 1/2, 1/2
)
def test_the_average_starts_as_a_copy_and_follows_slowly(steps: int, expected: list[float]) -> None:
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        for step, value in enumerate([2.0, 6.0, 6.0]):
            model.weight.fill_(value)
            model.running_mean.fill_(value)
            model.num_batches_tracked.fill_(step)
            update_average(average, model, step, steps, decay=0.6)
            assert average.weight.tolist() == pytest.approx([expected[step]] * 2) == average.running_mean.tolist()
            assert int(average.num_batches_tracked) == step


@pytest.mark.parametrize("kind", ["dropout", "complementary"])
def test_perturbed_features_leave_the_decoders_running_statistics(kind: str) -> None:
    network = Tiny()
    network.head = nn.Sequential(network.head, nn.BatchNorm2d(4)).double()
    network.encoder.second = nn.Sequential(network.encoder.second, nn.BatchNorm2d(2)).double()
    inner, outer = network.encoder.second[1], network.head[1]
    x = torch.rand(4, 3, 8, 8)
    with perturbed_features(network, kind):
        batch = network(x).detach() / 3
    assert batch.mean((0, 2, 3)).abs().max() < 1e-6  # normalised by the batch's own statistics
    assert outer.running_mean.tolist() == [0.0] * 4
    assert inner.running_mean.abs().min() > 0
    network(x)
    assert outer.running_mean.abs().min() > 0
