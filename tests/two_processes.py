"""Run by test_distributed, alone and under torchrun: one training, whose curve and model the first process writes.

python -m tests.two_processes OUT ACCUMULATE LOSS BN
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from small_training import AUGMENT, LABELLED, PSEUDO, Data, a_recipe, batches, new_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segsemi.core.config import MachineParams
from segsemi.data.batches import labelled_samples
from segsemi.data.images import LabelledPairs
from segsemi.datasets import check_entries, find_dataset, scenes
from segsemi.runtime.distributed import Runtime, start_runtime
from segsemi.training import step
from segsemi.training.loop import train


class MeanOverProcesses(torch.autograd.Function):
    """The loss is the mean of the processes' losses, so the gradient of a mean over them is a mean over them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.detach().clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return MeanOverProcesses.forward(ctx, grad)


class Synced:
    """SyncBatchNorm by its formula, since torch has none for the CPU: in front of a batch norm's own class."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[misc]
        mean = MeanOverProcesses.apply(x.mean([0, 2, 3]))
        centred = x - mean.view(1, -1, 1, 1)
        variance = MeanOverProcesses.apply(centred.square().mean([0, 2, 3]))
        self.num_batches_tracked.add_(1)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * (count / (count - 1)), self.momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        x = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        for name in ("drop", "act"):  # what timm fuses into a batch norm
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


def synchronised(network: nn.Module, runtime: Runtime) -> nn.Module:
    """In the place of segsemi.training.step's, which is for GPUs."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = type("Synced", (Synced, type(module)), {})
    return network


def main(out: Path, accumulate: int, loss: str, bn: str, runtime: Runtime) -> None:
    raw = runtime.from_first(out.with_suffix(".raw"))
    if runtime.first:
        scenes.write(raw, train=8, val=3, height=64, width=96, seed=0)
    runtime.wait()
    found = find_dataset("synthetic", raw, val_fraction=0.2, seed=0)
    rows = check_entries(raw, found.entries, found.classes, warn=lambda _: None)
    train_rows, val_rows = rows[:8], rows[8:]
    # the true labels serve as pseudo labels
    data = Data(labelled_samples(train_rows[:4], raw), labelled_samples(train_rows[4:], raw))
    # 4 images of a kind in each piece: batch norm over 2 values, where the network pools to 1x1, multiplies rounding
    parts = tuple(part._replace(images=4 * accumulate) for part in (LABELLED, PSEUDO))
    augment = AUGMENT.model_copy(update={"scale_min": 0.5, "scale_max": 1.0})  # some padding
    recipe = a_recipe(2, lr=3e-5, val_every=1, accumulate=accumulate, loss=loss, bn=bn, parts=parts, augment=augment)
    model = new_model()  # lr: larger ones amplify rounding from step to step
    for module in model.modules():
        if isinstance(module, nn.Dropout):  # processes draw other random numbers
            module.p = 0.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    work = out.with_suffix(".work")
    work.mkdir(exist_ok=True)
    val = LabelledPairs(val_rows, raw, found.classes)
    history = train(model, recipe, batches(data, recipe, runtime), val, runtime, work)
    if runtime.first:
        out.mkdir()
        safetensors.torch.save_file(before, out / "before.safetensors")
        (out / "curve.json").write_text(json.dumps([history.curve, history.bn]))
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(state, out / "model.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    step.synchronised = synchronised
    machine = MachineParams(device="cpu", workers=0, cache_mb=20, precision="fp32")
    with start_runtime(machine) as started:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], started)
