"""The training loop: it learns, resumes, stops on a loss that is not finite, and ends as a plain network."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import jaccard_score
from small_training import ALONE, LABELLED, PSEUDO, Data, a_recipe, batches, new_model
from torch import nn

import segsemi.training.loop as loop
from segsemi.core.errors import UserError
from segsemi.core.recipe import Recipe
from segsemi.models.build import SegmentationModel
from segsemi.runtime.distributed import Runtime
from segsemi.training.checkpoint import Progress, restore_training, save_training
from segsemi.training.loop import train
from segsemi.training.optimiser import make_optimizer

VAL = [(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8))]
PLAIN = {"parts": (LABELLED,), "bn": "trainable", "loss": "ce"}


def run(
    model: SegmentationModel, data: Data, work: Path, recipe: Recipe, val: Any = (), runtime: Runtime = ALONE
) -> list[dict[str, Any]]:
    return train(model, recipe, batches(data, recipe), val, runtime, work).curve


def killed_before(step: int, *arguments: Any) -> None:
    """Train as `run` does, and be interrupted before the optimizer's step number `step`."""
    real = loop.training_step

    def killed(*args: Any) -> torch.Tensor:
        if args[3] == step:
            raise KeyboardInterrupt
        return real(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "training_step", killed)
        run(*arguments)


def test_training_lowers_the_loss(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CURVE_EVERY", 4)
    curve = run(new_model(), data, tmp_path, a_recipe(12, **PLAIN))
    assert [row["step"] for row in curve] == [4, 8, 12]
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]


def test_student_ends_as_the_plain_network_that_was_measured_on_val(data: Data, tmp_path: Path) -> None:
    """Its last mIoU is that of the model that comes out, by scikit-learn, over all pixels with a class."""
    model, chance = new_model(), np.random.default_rng(0)
    names, types = list(model.state_dict()), [type(module) for module in model.modules()]
    images = chance.integers(256, size=(2, 40, 50, 3), dtype=np.uint8)
    labels = chance.choice([0, 1, 2, 255], size=(2, 40, 50)).astype(np.uint8)
    curve = run(model, data, tmp_path, a_recipe(2, val_every=1), list(zip(images, labels, strict=True)))
    assert list(model.state_dict()) == names and [type(module) for module in model.modules()] == types
    assert not model.training
    predictions = np.stack([model.predict(image) for image in images])
    expected = jaccard_score(labels[labels != 255], predictions[labels != 255], average="macro")
    assert [row["step"] for row in curve] == [1, 2] and curve[1]["val_miou"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("mious", [[0.2, 0.5, 0.5], [0.5, 0.1]])
def test_best_checkpoint_is_the_model_of_that_step_also_after_a_stop(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mious: list[float]
) -> None:
    """Stopped in the second measurement: the best one so far counts."""
    states: list[dict[str, torch.Tensor]] = []
    stops = [KeyboardInterrupt()]

    def measured(model: SegmentationModel, *_: object) -> float:
        if states and stops:
            raise stops.pop()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return mious[len(states) - 1]

    monkeypatch.setattr(loop, "validate", measured)
    recipe, model = a_recipe(len(mious), val_every=1, keep="best", **PLAIN), new_model()
    with pytest.raises(KeyboardInterrupt):
        run(new_model(), data, tmp_path, recipe, VAL)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2  # the measurement alone is made again
    assert [row["val_miou"] for row in run(model, data, tmp_path, recipe, VAL)] == mious
    expected = states[mious.index(max(mious))]  # the earliest of equals
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_best_checkpoint_needs_labels_with_a_class(data: Data, tmp_path: Path) -> None:
    """The error comes at the first measurement, not after the last step."""
    pairs = [(VAL[0][0], np.full((40, 50), 255, dtype=np.uint8))]
    with pytest.raises(UserError, match="found no pixel with a class in the validation labels; set keep: last"):
        run(new_model(), data, tmp_path, a_recipe(4, val_every=1, keep="best"), pairs)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def statistics(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for name, value in model.state_dict().items() if "running_mean" in name]


def test_fixed_bn_keeps_its_statistics_and_the_others_do_not(data: Data, tmp_path: Path) -> None:
    for bn in ("fixed", "trainable", "dsbn"):
        model = new_model()
        before = statistics(model)
        run(model, data, tmp_path / bn, a_recipe(1, bn=bn))
        unchanged = all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
        assert unchanged == (bn == "fixed"), bn


def test_fixed_bn_of_a_new_network_learns_in_the_decoder(data: Data, tmp_path: Path) -> None:
    """ImageNet has no statistics for it: with mean 0 and variance 1 its features would not be normalised."""
    model, reference = new_model(), new_model()
    run(model, data, tmp_path, a_recipe(1, bn="fixed", init="pretrained"))
    same = [torch.equal(a, b) for a, b in zip(statistics(reference), statistics(model), strict=True)]
    encoder = len(statistics(model.encoder))
    assert same == [True] * encoder + [False] * (len(same) - encoder) and 0 < encoder < len(same)


def test_dsbn_keeps_strong_images_out_of_the_standard_statistics(data: Data, tmp_path: Path) -> None:
    """Also where weak and strong ones are of a kind (student.saug_share below 1): the standard statistics are those of the
    weak images alone."""
    weak = PSEUDO._replace(strong=False, parallel=False)
    cases = {"dsbn": (weak, PSEUDO._replace(name="strong pseudo")), "trainable": (weak,)}
    models = {bn: new_model() for bn in cases}
    for bn, parts in cases.items():
        run(models[bn], data, tmp_path / bn, a_recipe(1, parts=parts, bn=bn))
    for both, alone in zip(*(statistics(model) for model in models.values()), strict=True):
        torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "mix": "cutmix"}], ids=["paper", "ema, cutmix"])
def test_resumed_training_equals_an_unbroken_one(
    changes: dict[str, Any], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)  # after every step
    monkeypatch.setattr(loop, "CURVE_EVERY", 2)
    whole, resumed, recipe = new_model(), new_model(), a_recipe(4, **changes)
    curve = run(whole, data, tmp_path / "whole", recipe)
    killed_before(3, new_model(), data, tmp_path / "broken", recipe)
    real, steps = loop.training_step, []
    monkeypatch.setattr(loop, "training_step", lambda *args: steps.append(args[3]) or real(*args))
    assert run(resumed, data, tmp_path / "broken", recipe) == curve
    assert steps == [3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["tensorboard", "dvclive"])
def test_live_curve_of_a_resumed_training_has_each_point_once(
    kind: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the third point, of which the checkpoint knows nothing: it is written again, and shown once."""
    pytest.importorskip(kind)
    runtime, recipe = replace(ALONE, log=kind), a_recipe(4, val_every=2, **PLAIN)  # type: ignore[arg-type]
    monkeypatch.setattr(loop, "CURVE_EVERY", 1)
    killed_before(3, new_model(), data, tmp_path / "work", recipe, VAL, runtime)
    curve = run(new_model(), data, tmp_path / "work", recipe, VAL, runtime)
    logs = tmp_path / "logs/work"
    if kind == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        shown = EventAccumulator(str(logs))
        shown.Reload()
        found = {key: [(e.step, e.value) for e in shown.Scalars(key)] for key in ("loss", "lr", "val_miou")}
        assert [event.step for event in shown.Images("example")] == [2, 4]
    else:
        tables = {key: pd.read_csv(logs / f"plots/metrics/{key}.tsv", sep="\t") for key in ("loss", "lr", "val_miou")}
        found = {key: list(zip(table["step"], table[key], strict=True)) for key, table in tables.items()}
        assert (logs / "plots/images/example.png").exists()
    for key, points in found.items():
        expected = [(point["step"], point[key]) for point in curve if key in point]
        assert [step for step, _ in points] == [step for step, _ in expected], key
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_a_missing_logger_stops_before_the_first_step(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match="dvclive is not installed; pip install dvclive, or set machine.log: none"):
        run(new_model(), data, tmp_path, a_recipe(1, **PLAIN), VAL, replace(ALONE, log="dvclive"))


def test_a_checkpoint_comes_once_a_minute_and_at_the_end_and_the_curve_has_the_mean_loss(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [0.0], []

    def step(network: nn.Module, _: nn.Module, batch: object, number: int, *__: object) -> torch.Tensor:
        now[0] += 25.0
        loss = next(network.parameters()).sum() * 0.0 + number
        loss.backward()
        return loss.detach()

    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(loop, "save_training", lambda *args: written.append(args[4].step))
    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(loop, "CURVE_EVERY", 4)
    curve = run(new_model(), data, tmp_path, a_recipe(10, **PLAIN))
    assert written == [3, 6, 9, 10]
    assert [(point["step"], point["loss"]) for point in curve] == [(4, 1.5), (8, 5.5), (10, 8.5)]


@pytest.mark.parametrize(("where", "checkpoint"), [("loss", True), ("gradient", True), ("gradient", False)])
def test_a_loss_or_gradient_that_is_not_finite_stops_with_step_images_and_the_last_checkpoint(
    where: str, checkpoint: bool, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.training_step

    def broken(network: nn.Module, teacher: nn.Module, batch: Any, step: int, *rest: Any) -> torch.Tensor:
        loss = real(network, teacher, batch, step, *rest)
        if step == 1 and where == "gradient":
            next(p for p in network.parameters() if p.grad is not None).grad.mul_(float("inf"))  # type: ignore[union-attr]
        return loss * float("nan") if step == 1 and where == "loss" else loss

    monkeypatch.setattr(loop, "training_step", broken)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0 if checkpoint else 60.0)
    told = r"the last checkpoint is .*checkpoint\.pt" if checkpoint else "there is no checkpoint yet"
    with pytest.raises(UserError, match=rf"at step 1, images train_000.*{told}"):
        run(new_model(), data, tmp_path, a_recipe(5, **PLAIN))
    if checkpoint:
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert state["step"] == 1 and all(value.isfinite().all() for value in state["model"].values())


# the first step of two; after the last one, while its checkpoint is written
@pytest.mark.parametrize(("moment", "changes"), [(1, {}), (2, {}), (1, {"ema": 0.9})])
def test_a_signal_stops_after_the_step_and_nothing_is_trained_anew(
    moment: int, changes: dict[str, Any], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = a_recipe(2, **PLAIN, **changes)
    expected = run(new_model(), data, tmp_path / "whole", recipe)
    real, real_step = loop.save_training, loop.training_step

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return (real_step if moment == 1 else real)(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "training_step" if moment == 1 else "save_training", signalled)
        run(new_model(), data, tmp_path / "work", recipe)
    assert torch.load(tmp_path / "work/checkpoint.pt", weights_only=True)["step"] == moment
    assert run(new_model(), data, tmp_path / "work", recipe) == expected


def test_an_empty_checkpoint_is_none(data: Data, tmp_path: Path) -> None:
    """As after a power cut. And without validation images nothing is measured."""
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    (point,) = run(new_model(), data, tmp_path, a_recipe(1, val_every=1, **PLAIN))
    assert list(point) == ["step", "loss", "lr"]


def test_a_checkpoint_of_another_device_keeps_this_ones_optimizer(tmp_path: Path) -> None:
    """A run may begin on a GPU, with a fused step and another memory format, and go on here."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    there, here = (torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=fused) for fused in (False, True))
    network(torch.randn(1, 3, 5, 5)).sum().backward()
    there.step()
    save_training(tmp_path / "c.pt", network, network, there, Progress(1, [{"step": 1}], [0.5]))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert restore_training(tmp_path / "c.pt", network, network, here) == Progress(1, [{"step": 1}], [0.5])
    assert here.param_groups[0]["fused"] is True
    momentum = here.state[network[0].weight]["momentum_buffer"]
    assert torch.equal(momentum, there.state[network[0].weight]["momentum_buffer"])
    assert momentum.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_decoder_learns_faster_and_only_weights_of_full_convolutions_decay(optimizer: str) -> None:
    model = new_model()
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    depthwise = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    made = make_optimizer(model, a_recipe(1, optimizer=optimizer))
    groups = made.param_groups
    assert type(made).__name__.lower() == optimizer and len(depthwise) > 16
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {(0.01, 4e-5), (0.01, 0.0), (0.1, 4e-5), (0.1, 0.0)}
    for group in groups:
        for parameter in group["params"]:
            assert (parameter.ndim > 1 and id(parameter) not in depthwise) == (group["weight_decay"] > 0)
        assert {id(parameter) in encoder for parameter in group["params"]} == {group["lr"] == 0.01}


def test_every_step_has_its_rate_and_its_mode(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lr (1 - s / 4) ** power, also in the curve; training mode again after a measurement on val."""
    rates, modes = [], []
    real_step, real = torch.optim.SGD.step, loop.training_step

    def step(self: torch.optim.SGD, *arguments: object) -> object:
        rates.append([(group["lr"], group["momentum"], group["nesterov"]) for group in self.param_groups])
        return real_step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    monkeypatch.setattr(
        loop, "training_step", lambda model, *rest: (real(model, *rest), modes.append(model.training))[0]
    )
    monkeypatch.setattr(loop, "CURVE_EVERY", 1)
    curve = run(new_model(), data, tmp_path, a_recipe(4, power=0.5, val_every=2, **PLAIN), VAL)
    for number, (own, point) in enumerate(zip(rates, curve, strict=True)):
        factor = (1 - number / 4) ** 0.5
        assert sorted({lr for lr, _, _ in own}) == pytest.approx([0.01 * factor, 0.1 * factor])
        assert {(momentum, nesterov) for _, momentum, nesterov in own} == {(0.9, False)}
        assert point["lr"] == pytest.approx(0.01 * factor)
    assert modes == [True] * 4
