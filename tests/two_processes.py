"""Run by test_processes, alone and under torchrun: one training, whose curve and model the first process writes.

python -m tests.two_processes OUT ACCUMULATE LOSS BN
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch

from segsemi.core.config import AugmentParams, OptimParams
from segsemi.data.batches import Group, StepBatches, labelled_samples, pseudo_samples
from segsemi.data.images import LabelledPairs
from segsemi.datasets import check_entries, scenes
from segsemi.datasets.camvid import find_camvid
from segsemi.models.build import Architecture, build_model
from segsemi.runtime.distributed import Processes, start_processes
from segsemi.training.loop import train

STEPS = 3


def main(out: Path, accumulate: int, loss: str, bn: str, processes: Processes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        scenes.write(raw, train=8, val=3, height=64, width=96, seed=0)
        found = find_camvid(raw)
        rows = check_entries(raw, found.entries, found.classes, warn=lambda _: None)
        labelled, rest = rows[:4], [row for row in rows[4:] if row.subset == "train"]
        classes = found.classes
        (raw / "pseudo").mkdir()
        for row in rest:  # the true labels serve as pseudo labels
            (raw / f"pseudo/{row.id}.png").write_bytes((raw / row.label).read_bytes())
        # 4 images of a kind in each piece: batch norm over 2 values, where the network pools to 1x1, multiplies rounding
        groups = [
            Group("labelled", labelled_samples(labelled, raw), 4 * accumulate, classes),
            Group(
                "pseudo",
                pseudo_samples(rest, raw, raw / "pseudo"),
                4 * accumulate,
                classes,
                pseudo=True,
                parallel=True,
                strong_ops=2,
            ),
        ]
        augment = AugmentParams(short_side=None, crop_size=64, scale_min=0.5, scale_max=1.0, flip=True)  # some padding
        batches = StepBatches(
            groups,
            augment,
            steps=STEPS,
            seed=0,
            stage="s",
            cache_mb=10,
            pieces=accumulate,
            rank=processes.rank,
            processes=processes.count,
        )
        model = build_model(
            Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), classes, encoder_weights="imagenet", seed=0
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        params = OptimParams(
            steps=STEPS,
            lr=3e-5,  # larger ones amplify rounding from step to step
            decoder_lr_factor=10.0,
            momentum=0.9,
            weight_decay=4e-5,
            power=0.9,
            val_every=1,
            accumulate=accumulate,
            keep="last",
        )
        val = LabelledPairs([row for row in rows if row.subset == "val"], raw, classes)
        work = processes.from_first(out.with_suffix(".work"))
        work.mkdir(exist_ok=True)
        history = train(model, batches, params, pseudo_loss=loss, bn=bn, work=work, processes=processes, val=val)
        if processes.first:
            out.mkdir()
            safetensors.torch.save_file(before, out / "before.safetensors")
            (out / "curve.json").write_text(json.dumps([history.curve, history.bn]))
            safetensors.torch.save_file(
                {name: value.contiguous() for name, value in model.state_dict().items()}, out / "model.safetensors"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with start_processes("cpu") as started:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], started)
