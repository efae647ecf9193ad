"""The training loop: it learns, resumes, stops on a loss that is not finite, and DSBN ends as a plain network."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from segsemi.training.student import student_groups
from small_training import ALONE, CPU, batches, new_model, optim
from torch import nn

import segsemi.training.checkpoint
import segsemi.training.loop
import segsemi.training.optimiser
from segsemi.core.config import StudentParams, load_params
from segsemi.core.errors import UserError
from segsemi.data.batches import Group, Part
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.dsbn import bn_statistics, convert_dsbn, labelled_first, strip_dsbn
from segsemi.losses import cross_entropy, self_correction_loss
from segsemi.models.build import SegmentationModel
from segsemi.runtime.device import one_thread, training_format
from segsemi.training.loop import train
from segsemi.training.step import StepPasses, set_train_mode


class Spoilt(Part):
    """Images that are not finite."""

    def on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = super().on(device)
        return images.fill_(float("inf")), targets


def without_dropout() -> SegmentationModel:
    """For comparisons with another order of passes, whose masks would differ."""
    model = new_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def run(model: SegmentationModel, groups: list[Group], work: Path, steps: int, **options: object) -> list[dict]:
    settings: dict = {"pseudo_loss": "scl", "bn": "dsbn", "work": work, "processes": ALONE, **options}
    params = settings.pop("params", optim(steps))
    return train(model, batches(groups, steps, params.accumulate), params, **settings).curve


def test_training_lowers_the_loss(groups: list[Group], tmp_path: Path) -> None:
    curve = run(new_model(), groups[:1], tmp_path, 60, pseudo_loss="ce", bn="trainable")
    assert [row["step"] for row in curve] == [20, 40, 60]
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]


def test_student_ends_as_the_plain_network_and_evaluates(groups: list[Group], tmp_path: Path) -> None:
    model = new_model()
    keys = list(model.state_dict())
    pairs = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
    curve = run(model, groups, tmp_path, 2, params=optim(2, val_every=1), val=pairs)
    assert list(model.state_dict()) == keys and not model.training
    assert all(0 <= row["val_miou"] <= 1 for row in curve) and len(curve) == 2


@pytest.mark.parametrize("mious", [[0.2, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4]])
def test_best_checkpoint_is_the_model_of_that_step(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mious: list[float]
) -> None:
    states: list[dict[str, torch.Tensor]] = []

    def measured(model: SegmentationModel, *_: object) -> float:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return mious[len(states) - 1]

    monkeypatch.setattr(segsemi.training.loop, "_validate", measured)
    pairs = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
    model = new_model()
    run(model, groups, tmp_path, 4, params=optim(4, val_every=1, keep="best"), val=pairs)
    expected = states[mious.index(max(mious))]  # the earliest of equals
    for name, value in model.state_dict().items():  # DSBN's own tensors have another name in `expected`
        if name in expected:
            assert torch.equal(value, expected[name]), name
    assert sum(name in expected for name in model.state_dict()) > 50


def test_best_checkpoint_needs_validation_images(groups: list[Group], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep: best needs validation images"):
        run(new_model(), groups, tmp_path, 1, params=optim(1, val_every=1, keep="best"), val=[])


def test_best_checkpoint_needs_labels_with_a_class(groups: list[Group], tmp_path: Path) -> None:
    """Said at the first measurement, not after the last step."""
    pairs = [(np.zeros((40, 50, 3), dtype=np.uint8), np.full((40, 50), 255, dtype=np.uint8))]
    with pytest.raises(UserError, match="found no pixel with a class in the validation labels; set keep: last"):
        run(new_model(), groups, tmp_path, 4, params=optim(4, val_every=1, keep="best"), val=pairs)
    assert not (tmp_path / "checkpoint.pt").exists()


def statistics(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for name, value in model.state_dict().items() if "running_mean" in name]


def test_fixed_bn_keeps_its_statistics_and_the_others_do_not(groups: list[Group], tmp_path: Path) -> None:
    for bn in ("fixed", "trainable", "dsbn"):
        model = new_model()
        before = statistics(model)
        run(model, groups, tmp_path / bn, 1, bn=bn)
        unchanged = all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
        assert unchanged == (bn == "fixed"), bn


def test_dsbn_keeps_strong_images_out_of_the_standard_statistics(groups: list[Group], tmp_path: Path) -> None:
    """With a learning rate of almost 0, DSBN's standard statistics are those of the labelled images alone."""
    tiny = optim(1, lr=1e-12)
    with_pseudo, alone, mixed = new_model(), new_model(), new_model()
    run(with_pseudo, groups, tmp_path / "a", 1, params=tiny)
    run(alone, groups[:1], tmp_path / "b", 1, params=tiny, bn="trainable")
    run(mixed, groups, tmp_path / "c", 1, params=tiny, bn="trainable")
    pairs = list(zip(statistics(with_pseudo), statistics(alone), statistics(mixed), strict=True))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b, _ in pairs)
    assert not all(torch.allclose(a, c, atol=1e-4) for a, _, c in pairs)


def test_resumed_training_equals_an_unbroken_one(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segsemi.training.loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(segsemi.training.loop, "CHECKPOINT_SHARE", float("inf"))
    monkeypatch.setattr(segsemi.training.loop, "CURVE_EVERY", 2)
    whole, broken, resumed = new_model(), new_model(), new_model()
    curve = run(whole, groups, tmp_path / "whole", 5)

    real, calls = StepPasses.__call__, []

    def killed(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:  # in the fourth step; the last checkpoint is of step 3
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(StepPasses, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        run(broken, groups, tmp_path / "broken", 5)
    monkeypatch.setattr(StepPasses, "__call__", real)
    assert run(resumed, groups, tmp_path / "broken", 5) == curve
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_slow_checkpoints_are_rare(groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes 2 s is written to every 100 s at most: 2 % of the time."""
    now, written = [0.0], []

    def save(path: Path, *args: object) -> None:
        written.append(args[2])
        now[0] += 2.0

    real = StepPasses.__call__

    def step(*args: object) -> torch.Tensor:
        now[0] += 30.0
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(segsemi.training.loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(segsemi.training.loop, "save_training", save)
    monkeypatch.setattr(StepPasses, "__call__", step)
    run(new_model(), groups[:1], tmp_path, 10, bn="trainable")
    assert written == [3, 7, 10]  # 90 s: more than a minute; then 120 s: more than 100; the last step


@pytest.mark.parametrize("where", ["images", "loss", "gradient"])
def test_loss_or_gradient_that_is_not_finite_stops_with_step_images_and_the_last_good_state(
    where: str, groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = StepPasses._loss, itertools.count(1)

    def broken(*args: object) -> torch.Tensor:
        third = next(calls) == 5  # step: one call for each of DSBN's two parts, perhaps in two threads
        if third and where == "images":  # spoils the running statistics of every batch norm too
            parts = cast(list[Part], args[2])
            parts[0] = Spoilt(*(getattr(parts[0], field.name) for field in dataclasses.fields(Part)))
        loss = real(*args)  # type: ignore[arg-type]
        if third and where == "loss":
            loss = loss * float("nan")
        if third and where == "gradient":
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(StepPasses, "_loss", broken)
    with pytest.raises(UserError, match=r"at step 2, images train_000.*last_good\.pt"):
        run(new_model(), groups, tmp_path, 5)
    state = torch.load(tmp_path / "last_good.pt", weights_only=True)
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["model"].values())


def test_accumulated_step_is_the_step_of_the_mean_loss_of_its_pieces(groups: list[Group], tmp_path: Path) -> None:
    """Against the sum written out: same weights after one step; each piece has its share of each part."""
    model, reference = without_dropout(), without_dropout()
    run(model, groups, tmp_path, 1, params=optim(1, accumulate=2), bn="fixed", pseudo_loss="ce")

    batch = batches(groups, 1)[0]
    pieces = [[part.piece(index, 2) for part in batch] for index in range(2)]
    for whole, first, second in zip(batch, *pieces, strict=True):
        assert len(first.ids) == len(second.ids) and first.ids + second.ids == whole.ids
    set_train_mode(reference, "fixed")
    optimizer = segsemi.training.optimiser.sgd(reference, optim(1))
    images = {part.pseudo: len(part.ids) // 2 for part in batch}
    passes = StepPasses(reference, reference, batches(groups, 1), ALONE, "ce", "fixed", "fp32")
    losses = [passes._loss(reference, piece, images) for piece in pieces]
    (sum(losses) / 2).backward()
    optimizer.step()
    for (name, value), expected in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)


@one_thread()  # more of them round differently
def test_parts_one_after_the_other_are_the_step_of_the_concatenated_batch(groups: list[Group], tmp_path: Path) -> None:
    """DSBN's two passes against one pass of both parts, algorithm 1, lines 8 and 9, written out: weights and statistics."""
    model, reference = without_dropout(), without_dropout()
    history = train(model, batches(groups, 1), optim(1), pseudo_loss="scl", bn="dsbn", work=tmp_path, processes=ALONE)

    labelled, pseudo = batches(groups, 1)[0]
    convert_dsbn(reference.network)
    reference.train()
    optimizer = segsemi.training.optimiser.sgd(reference, optim(1))
    with labelled_first(reference, len(labelled.ids)):
        (images, targets), (pseudo_images, pseudo_targets) = labelled.on(CPU), pseudo.on(CPU)
        logits = reference(torch.cat([images, pseudo_images]).contiguous(memory_format=torch.channels_last))
    count = len(labelled.ids)
    loss = cross_entropy(logits[:count], targets) + self_correction_loss(logits[count:], pseudo_targets)
    loss.backward()
    optimizer.step()
    assert history.curve[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for row, expected in zip(history.bn, bn_statistics(reference.network), strict=True):
        assert row["layer"] == expected["layer"]
        for key in ("mean_parallel", "variance_parallel"):
            assert row[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-5)
    strip_dsbn(reference.network)
    before, states = new_model().state_dict(), (model.state_dict(), reference.state_dict())
    for (name, value), expected in zip(states[0].items(), states[1].values(), strict=True):
        # of the way that the step went: the batch norm of two pooled values enlarges rounding
        way, off = ((x - y).double().norm() for x, y in ((expected, before[name]), (value, expected)))
        assert off <= 0.01 * way + 1e-6, (name, float(off), float(way))


def test_groups_of_a_student_have_the_images_and_the_augmentation_of_its_parts(groups: list[Group]) -> None:
    values = load_params(ROOT / "params.yaml").student.model_dump()
    values |= {"batch_labelled": 3, "batch_pseudo": 8, "saug_share": 0.25, "saug_ops": 2, "saug_without": ["hsv"]}
    labelled, pseudo = (group.samples for group in groups)
    found = student_groups(StudentParams(**values), labelled, pseudo, SCENES)
    assert [(g.samples, g.batch_size, g.pseudo, g.parallel, g.strong_ops) for g in found] == [
        (labelled, 3, False, False, 0),
        (pseudo, 6, True, False, 0),
        (pseudo, 2, True, True, 2),
    ]
    assert found[2].without == ["hsv"]
    assert len({group.name for group in found}) == 3  # each has random choices of its own


def test_parts_of_one_kind_count_by_their_images(groups: list[Group], tmp_path: Path) -> None:
    """1 weak and 3 strong images of the same kind: the loss is (1 CE + 3 CE') / 4; so is the gradient."""
    weak = dataclasses.replace(groups[0], batch_size=1)
    strong = dataclasses.replace(groups[0], name="strong", batch_size=3, strong_ops=1, parallel=True)
    model, reference = without_dropout(), without_dropout()
    curve = run(model, [weak, strong], tmp_path, 1, bn="fixed")
    set_train_mode(reference, "fixed")
    parts = batches([weak, strong], 1)[0]
    pairs = [part.on(CPU) for part in parts]
    losses = [F.cross_entropy(reference(images), targets.long(), ignore_index=255) for images, targets in pairs]
    loss = (losses[0] + 3 * losses[1]) / 4
    loss.backward()
    optimizer = segsemi.training.optimiser.sgd(reference, optim(1))
    optimizer.step()
    assert curve[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, value), expected in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_decoder_learns_faster_and_batch_norms_and_biases_do_not_decay() -> None:
    optimizer = segsemi.training.optimiser.sgd(new_model(), optim(1))
    settings = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert settings == {(0.01, 4e-5), (0.01, 0.0), (0.1, 4e-5), (0.1, 0.0)}
    for group in optimizer.param_groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])
    model = new_model()
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    for group in segsemi.training.optimiser.sgd(model, optim(1)).param_groups:
        assert {id(parameter) in encoder for parameter in group["params"]} == {group["lr"] == 0.01}


def test_every_step_has_its_rate_its_momentum_its_mode_and_its_dropout(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lr (1 - s / 4) ** power, also in the curve; training mode again after a measurement on val."""
    rates, seeds, modes, parts = [], [], [], []
    real_step, real_loss = torch.optim.SGD.step, StepPasses._loss

    def step(self: torch.optim.SGD, *arguments: object) -> object:
        rates.append([(group["lr"], group["momentum"], group["nesterov"]) for group in self.param_groups])
        return real_step(self, *arguments)  # type: ignore[arg-type]

    def loss(self: StepPasses, network: nn.Module, own: list[Part], images: dict[bool, int]) -> torch.Tensor:
        seeds.append(torch.initial_seed())
        modes.append(all(module.training for module in network.modules()))
        parts.append(len(own))
        return real_loss(self, network, own, images)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    monkeypatch.setattr(StepPasses, "_loss", loss)
    monkeypatch.setattr(segsemi.training.loop, "CURVE_EVERY", 1)
    val = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
    params = optim(4, power=0.5, val_every=2)
    curve = run(new_model(), groups, tmp_path, 4, params=params, val=val, bn="trainable")
    for number, (own, point) in enumerate(zip(rates, curve, strict=True)):
        factor = (1 - number / 4) ** 0.5
        assert sorted({lr for lr, _, _ in own}) == pytest.approx([0.01 * factor, 0.1 * factor])
        assert {(momentum, nesterov) for _, momentum, nesterov in own} == {(0.9, False)}
        assert point["lr"] == pytest.approx(0.01 * factor)
    assert len(set(seeds)) == 4 and modes == [True] * 4
    assert parts == [2] * 4  # one batch norm for all sees all at once


def test_weak_pseudo_images_go_through_the_standard_batch_norm(groups: list[Group], tmp_path: Path) -> None:
    """With student.saug_share below 1 there are such: the statistics are those of the weak images alone."""
    weak = dataclasses.replace(groups[1], name="pseudo", parallel=False, strong_ops=0)
    strong = dataclasses.replace(groups[1], name="strong pseudo")
    model, alone = new_model(), new_model()
    run(model, [weak, strong], tmp_path / "both", 1, params=optim(1, lr=1e-12))
    run(alone, [weak], tmp_path / "weak", 1, params=optim(1, lr=1e-12), bn="trainable")
    for (name, ours), expected in zip(model.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(ours, expected, msg=name, atol=1e-4, rtol=1e-4)


def test_memory_format_follows_the_device() -> None:
    assert training_format(torch.device("cpu")) == training_format(torch.device("cuda:1")) == torch.channels_last
    assert training_format(torch.device("mps")) == torch.contiguous_format


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weights_and_images_have_the_memory_format_of_the_device(
    memory_format: torch.memory_format, groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Apple's GPUs, also where the model comes out of a file in channels_last, and the batches do."""
    for module in ("train", "passes"):
        monkeypatch.setattr(f"segsemi.{module}.training_format", lambda _: memory_format)
    seen: list[bool] = []
    model = new_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            seen.extend(x.is_contiguous(memory_format=memory_format) for x in inputs)

    model.register_forward_pre_hook(look)
    run(model, groups, tmp_path, 1)
    assert seen and all(seen)
    assert all(p.is_contiguous(memory_format=memory_format) for p in model.parameters() if p.ndim == 4)


def test_bfloat16_training_stays_near_float32(groups: list[Group], tmp_path: Path) -> None:
    """Weights stay float32; the first losses differ by bfloat16's 8 bits, not more."""
    curves = {}
    for precision in ("fp32", "bf16"):
        model = new_model()
        curves[precision] = run(model, groups, tmp_path / precision, 1, precision=precision)
        assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    first, other = curves["fp32"][0]["loss"], curves["bf16"][0]["loss"]
    assert other == pytest.approx(first, rel=0.02) and other != first


def test_a_stop_during_validation_loses_no_step(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the curve is that of a training that was never stopped."""
    pairs = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
    options = {"params": optim(4, val_every=2), "val": pairs}
    expected = run(new_model(), groups, tmp_path / "whole", 4, **options)
    real = segsemi.training.loop._validate

    def stopped(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(segsemi.training.loop, "_validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(new_model(), groups, tmp_path / "work", 4, **options)
    assert torch.load(tmp_path / "work/checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.setattr(segsemi.training.loop, "_validate", real)
    assert run(new_model(), groups, tmp_path / "work", 4, **options) == expected


def test_a_stop_in_the_last_moment_is_heard(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(new_model(), groups, tmp_path / "whole", 2)
    real = segsemi.training.loop.save_training

    def interrupted(path: Path, *arguments: Any) -> None:
        real(path, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(segsemi.training.loop, "save_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(new_model(), groups, tmp_path / "work", 2)
    monkeypatch.setattr(segsemi.training.loop, "save_training", real)
    assert run(new_model(), groups, tmp_path / "work", 2) == expected  # nothing is trained anew
    (tmp_path / "work/checkpoint.pt").write_bytes(b"")  # as after a power cut
    assert run(new_model(), groups, tmp_path / "work", 2) == expected


def test_a_checkpoint_of_another_device_keeps_this_ones_optimizer(tmp_path: Path) -> None:
    """Not every device has fused SGD, and the state of a run says how it was begun."""
    network = nn.Linear(2, 2)
    there, here = (torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=fused) for fused in (True, False))
    network(torch.ones(1, 2)).sum().backward()
    there.step()
    segsemi.training.checkpoint.save_training(tmp_path / "c.pt", network, there, 1, [], [])
    assert segsemi.training.checkpoint.restore_training(tmp_path / "c.pt", network, here)[0] == 1
    assert not here.param_groups[0]["fused"]
    weight = network.weight
    torch.testing.assert_close(here.state[weight]["momentum_buffer"], there.state[weight]["momentum_buffer"])


def test_a_checkpoint_of_another_memory_format_goes_on_as_it_would_have(tmp_path: Path) -> None:
    """As on Apple's GPUs, where nothing is channels_last; a fused step of unlike formats mixes up the weights."""
    contiguous = nn.Conv2d(3, 4, 3)
    networks = [contiguous, copy.deepcopy(contiguous).to(memory_format=torch.channels_last)]
    there, here = (torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True) for net in networks)
    image = torch.rand(1, 3, 5, 5)
    contiguous(image).square().sum().backward()
    there.step()
    segsemi.training.checkpoint.save_training(tmp_path / "c.pt", contiguous, there, 1, [], [])
    segsemi.training.checkpoint.restore_training(tmp_path / "c.pt", networks[1], here)
    for network, optimizer in zip(networks, (there, here), strict=True):
        optimizer.zero_grad()
        network(image).square().sum().backward()
        optimizer.step()
    assert networks[1].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(networks[1].weight, contiguous.weight)
