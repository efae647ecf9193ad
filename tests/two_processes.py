"""Called by test_distributed and, under torchrun, run by it: trainings whose curves and models the first process writes.

python -m tests.two_processes OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from small_training import AUGMENT, LABELLED, PSEUDO, Data, a_recipe, batches, new_model, scene_rows
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segsemi.core.config import MachineParams
from segsemi.data.batches import labelled_samples, unlabelled_samples
from segsemi.data.images import LabelledPairs
from segsemi.datasets import scenes
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


CASES: tuple[dict[str, Any], ...] = (
    {"accumulate": 2, "loss": "scl", "bn": "dsbn"},
    {"accumulate": 1, "loss": "scl_released", "bn": "trainable"},
    {
        "accumulate": 1,
        "bn": "separate",
        "strong": "colour",
        "targets": "ema",
        "ema": 0.9,
        "confidence": "batch",
        "threshold": 0.2,
    },
)


def main(out: Path, runtime: Runtime) -> None:
    """Train once per case, each in a folder of its own in `out`."""
    raw = out / "raw"
    rows = runtime.from_first(scene_rows(raw, 8, 2, 64, 96) if runtime.first else [])
    # the true labels serve as pseudo labels
    labelled, pseudo, unlabelled = (
        labelled_samples(rows[:4], raw),
        labelled_samples(rows[4:8], raw),
        unlabelled_samples(rows[4:8], raw),
    )
    val = LabelledPairs(rows[8:], raw, scenes.CLASSES)
    augment = AUGMENT.model_copy(update={"scale_min": 0.5, "scale_max": 1.0})  # some padding
    for case in CASES:
        # 4 images of a kind in each piece: batch norm over 2 values, where the network pools to 1x1, multiplies rounding
        parts = tuple(part._replace(images=4 * case["accumulate"]) for part in (LABELLED, PSEUDO))
        # lr: larger ones amplify rounding from step to step
        recipe = a_recipe(2, lr=3e-5, val_every=1, parts=parts, augment=augment, **case)
        model = new_model()
        for module in model.modules():
            if isinstance(module, nn.Dropout):  # processes draw other random numbers
                module.p = 0.0
        folder = out / case["bn"]
        folder.mkdir(exist_ok=True)
        data = Data(labelled, unlabelled if recipe.targets == "ema" else pseudo)
        history = train(model, recipe, batches(data, recipe, runtime), val, runtime, folder)
        if runtime.first:
            (folder / "curve.json").write_text(json.dumps([history.curve, history.bn]))
            state = {name: value.contiguous() for name, value in model.state_dict().items()}
            safetensors.torch.save_file(state, folder / "model.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    step.synchronised = synchronised
    machine = MachineParams(device="cpu", workers=0, cache_mb=20, precision="fp32", log="none")
    with start_runtime(machine) as started:
        main(Path(sys.argv[1]), started)
