"""One training step against the sums of algorithm 1, lines 8 and 9, written out."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from small_training import ALONE, CPU, LABELLED, PSEUDO, Data, a_recipe, batches, new_model
from torch import nn
from torch.nn.utils import get_total_norm

from segsemi.core.config import Part
from segsemi.core.recipe import Recipe
from segsemi.data.batches import PartBatch
from segsemi.dsbn import labelled_first
from segsemi.losses import cross_entropy, self_correction_loss
from segsemi.models.build import SegmentationModel
from segsemi.runtime.cpu import fast_atrous_convolutions
from segsemi.runtime.device import training_format
from segsemi.runtime.distributed import Runtime
from segsemi.training import step as step_module
from segsemi.training.step import set_train_mode, training_network, training_step


def ready(recipe: Recipe, *, dropout: bool = False) -> SegmentationModel:
    """A model in the state of a training step; without dropout, whose masks would differ with the order of passes."""
    model = new_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    training_network(model, recipe, ALONE)
    set_train_mode(model, recipe)
    return model


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(loss: torch.Tensor, model: nn.Module, expected: torch.Tensor, reference: nn.Module) -> None:
    """Equal but for rounding, which the batch norm of two pooled values enlarges."""
    if expected.requires_grad:
        expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    ours, theirs = gradients(model), gradients(reference)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, value in theirs.items():
        off = (ours[name] - value).double().norm()
        assert off <= 0.01 * value.double().norm() + 1e-6, (name, float(off))


def test_parts_one_after_the_other_are_the_step_of_the_concatenated_batch(data: Data) -> None:
    """DSBN's two passes against one pass of both parts: loss, gradients and statistics."""
    recipe = a_recipe(1)
    model, reference = ready(recipe), ready(recipe)
    batch = batches(data, recipe)[0]
    loss = training_step(model, model, batch, 0, recipe, ALONE)

    ((images,), targets), ((pseudo_images,), pseudo_targets) = (own.to(CPU) for own in batch)
    with labelled_first(reference, 2):
        logits = reference(torch.cat([images, pseudo_images]).contiguous(memory_format=torch.channels_last))
    expected = cross_entropy(logits[:2], targets) + self_correction_loss(logits[2:], pseudo_targets)
    assert_same_step(loss, model, expected, reference)
    for (name, value), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5, msg=name)


def test_an_accumulated_step_is_the_step_of_the_whole_batch(data: Data) -> None:
    """Each piece has its share of each part; every pixel counts alike, also where one piece has more ignored ones."""
    parts = (LABELLED._replace(images=4), PSEUDO._replace(images=4))
    recipe = a_recipe(1, accumulate=2, bn="fixed", loss="ce", parts=parts)
    model, reference = ready(recipe), ready(recipe)
    batch = batches(data, recipe)[0]
    for own in batch:
        own.targets[0], own.targets[1, :40] = 255, 255
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    loss = training_step(model, model, batch, 0, recipe, ALONE)
    assert seen == [2, 2, 2, 2]
    first, second = part_losses(reference, batch)
    assert_same_step(loss, model, first + second, reference)


def part_losses(network: nn.Module, batch: list[PartBatch]) -> list[torch.Tensor]:
    """The cross entropy of each part."""
    parts = [own.to(CPU) for own in batch]
    return [F.cross_entropy(network(images), y.long(), ignore_index=255) for (images,), y in parts]


def test_parts_of_one_kind_count_by_their_images(data: Data) -> None:
    """1 weak and 3 strong images of the same kind: the loss is (1 CE + 3 CE') / 4; so is the gradient."""
    weak = Part("labelled", pseudo=False, strong=False, parallel=False, images=1)
    recipe = a_recipe(1, bn="fixed", parts=(weak, Part("strong labelled", False, True, True, 3)))
    model, reference = ready(recipe), ready(recipe)
    batch = batches(data, recipe)[0]
    loss = training_step(model, model, batch, 0, recipe, ALONE)
    first, second = part_losses(reference, batch)
    assert_same_step(loss, model, (first + 3 * second) / 4, reference)


@pytest.mark.parametrize(("bn", "passes"), [("trainable", [4]), ("fixed", [2, 2]), ("dsbn", [2, 2])])
def test_images_go_through_together_only_where_one_batch_norm_sees_all(bn: str, passes: list[int], data: Data) -> None:
    recipe, seen = a_recipe(1, bn=bn), []
    model = ready(recipe)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    training_step(model, model, batches(data, recipe)[0], 0, recipe, ALONE)
    assert seen == passes


def test_dropout_follows_from_the_step_and_the_process(data: Data) -> None:
    recipe = a_recipe(1, bn="fixed")
    model = ready(recipe, dropout=True)
    batch = batches(data, recipe)[0]

    def loss(step: int, runtime: Runtime = ALONE) -> float:
        return float(training_step(model, model, batch, step, recipe, runtime))

    assert loss(3) == loss(3) != loss(4)
    assert loss(3, Runtime(CPU, rank=1)) != loss(3)


@pytest.mark.parametrize(
    ("bn", "loss"), [("dsbn", "scl"), ("fixed", "scl_released"), ("trainable", "sce"), ("trainable", "ce")]
)
def test_a_step_computes_on_its_device_alone_and_waits_for_it_nowhere(
    bn: str, loss: str, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device, which has no values: reading one, or mixing devices, is an error."""
    monkeypatch.setattr(Runtime, "autocast", lambda _: nullcontext())  # it has no autocast
    meta = Runtime(torch.device("meta"))
    recipe = a_recipe(1, bn=bn, loss=loss)
    batch = batches(data, recipe)[0]
    model = new_model()
    network = training_network(model, recipe, meta)
    set_train_mode(model, recipe)
    value = training_step(network, model, batch, 0, recipe, meta)
    assert value.is_meta and value.shape == () and get_total_norm(gradients(model).values()).is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(value)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weights_and_images_have_the_memory_format_of_the_device(
    memory_format: torch.memory_format, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Apple's GPUs, also where the model comes out of a file in channels_last, and the batches do."""
    assert training_format(torch.device("cpu")) == training_format(torch.device("cuda:1")) == torch.channels_last
    assert training_format(torch.device("mps")) == torch.contiguous_format
    monkeypatch.setattr(step_module, "training_format", lambda _: memory_format)
    recipe, seen = a_recipe(1), []
    model = new_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = training_network(model, recipe, ALONE)
    set_train_mode(model, recipe)
    model.register_forward_pre_hook(lambda _, x: seen.append(x[0].is_contiguous(memory_format=memory_format)))
    training_step(network, model, batches(data, recipe)[0], 0, recipe, ALONE)
    assert seen == [True, True]
    assert all(p.is_contiguous(memory_format=memory_format) for p in model.parameters() if p.ndim == 4)


def test_a_step_in_bfloat16_stays_near_float32(data: Data) -> None:
    """Weights and gradients stay float32; the loss differs by bfloat16's 8 bits, not more."""
    recipe = a_recipe(1)
    batch = batches(data, recipe)[0]
    model = ready(recipe)
    exact = float(training_step(ready(recipe), model, batch, 0, recipe, Runtime(CPU, "fp32")))
    rounded = float(training_step(model, model, batch, 0, recipe, Runtime(CPU, "bf16")))
    assert all(value.dtype == torch.float32 for value in gradients(model).values())
    assert rounded == pytest.approx(exact, rel=0.02) and rounded != exact


def test_a_step_with_fast_atrous_convolutions_is_the_step_without(data: Data) -> None:
    recipe = a_recipe(1)
    model, reference = ready(recipe), ready(recipe)
    batch = batches(data, recipe)[0]
    with fast_atrous_convolutions(model):
        loss = training_step(model, model, batch, 0, recipe, ALONE)
    assert_same_step(loss, model, training_step(reference, reference, batch, 0, recipe, ALONE), reference)
