"""How much of each loss's gradient comes from wrong pseudo labels, after `dvc repro`, where hidden labels are at hand.

python -m benchmarks.label_noise            # --student, --model, --batches

The gradient with respect to the logits, summed in absolute value over classes and pixels. The model is in training mode,
without dropout: by default the student's teacher, with which the student starts. A finished student looks at the images
through its standard batch norm, since the parallel one is dropped after training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from segsemi.core.classes import Classes
from segsemi.core.config import Params, load_params
from segsemi.core.paths import CLASSES, HIDDEN, UNLABELLED, data_root, model_folder, pseudo_folder
from segsemi.data.batches import Group, Sample, StepBatches, pseudo_samples
from segsemi.data.manifest import read_rows
from segsemi.losses import LOSSES
from segsemi.models.saving import load_model
from segsemi.runtime.device import choose_device

RARE = 0.02  # a class with a smaller share of the pixels


def batches_of(samples: Sequence[Sample], params: Params, classes: Classes, count: int) -> StepBatches:
    """A student's pseudo-labelled batches; samples that differ in their labels alone get the same images and crops."""
    student = params.student
    operations = student.saug_ops if student.saug in ("pseudo", "both") else 0
    group = Group(
        "pseudo",
        samples,
        student.batch_pseudo,
        classes,
        strong_ops=operations,
        replace=student.saug_replace,
        without=student.saug_without,
    )
    return StepBatches([group], params.augment, steps=count, seed=params.seed, stage="label_noise", cache_mb=2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="student_1", help="whose pseudo labels")
    parser.add_argument("--model", help="what looks at them; its teacher if not given")
    parser.add_argument("--batches", type=int, default=25)
    args = parser.parse_args()
    params = load_params()
    device, classes, root = choose_device(params.machine.device), Classes.load(CLASSES), data_root(params.data)
    model = load_model(model_folder(args.model or params.rounds[args.student])).to(device).train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    hidden = {row.id: row.label for row in read_rows(HIDDEN)}
    rows = [row for row in read_rows(UNLABELLED) if row.id in hidden]
    pseudo_labelled = pseudo_samples(rows, root, pseudo_folder(args.student))
    truly_labelled = [Sample(row.id, root / row.image, root / hidden[row.id]) for row in rows]
    shape = (2, len(classes))  # right and wrong pseudo labels, by true class
    pixels, confidence, sums = np.zeros(shape), np.zeros(2), {name: np.zeros(shape) for name in LOSSES}
    learnt, true = (batches_of(samples, params, classes, args.batches) for samples in (pseudo_labelled, truly_labelled))
    for step in range(args.batches):
        (part,), (true_part,) = learnt[step], true[step]
        with torch.no_grad():
            images, pseudo = part.on(device)
            logits = model(images).float()
        _, truth = true_part.on(device)
        known = (pseudo != classes.ignore_index) & (truth != classes.ignore_index)
        masks = (known & (pseudo == truth), known & (pseudo != truth))
        top = logits.softmax(dim=1).amax(dim=1)
        pixels += by_class(torch.ones_like(top), truth, masks, len(classes))
        confidence += by_class(top, truth, masks, len(classes)).sum(axis=1)
        for name, loss in LOSSES.items():
            leaf = logits.clone().requires_grad_()
            loss(leaf, pseudo, ignore_index=classes.ignore_index).backward()
            assert leaf.grad is not None
            sums[name] += by_class(leaf.grad.abs().sum(dim=1), truth, masks, len(classes))
    right, wrong = confidence / pixels.sum(axis=1)
    rare = pixels.sum(axis=0) < RARE * pixels.sum()
    names = ", ".join(name for name, is_rare in zip(classes.names, rare, strict=True) if is_rare)
    print(f"{100 * pixels[1].sum() / pixels.sum():.1f} % of the pixels are wrong; rare classes: {names or 'none'}")
    print(f"confidence of the network {right:.2f} on right and {wrong:.2f} on wrong labels\n")
    print("| loss | gradient of all pixels, of CE's | from wrong labels, percent | from rare classes, percent |")
    print("| --- | --- | --- | --- |")
    for name, parts in sums.items():
        total, shares = parts.sum(), (parts[1].sum(), parts[:, rare].sum())
        print(
            f"| {name} | {total / sums['ce'].sum():.2f} | "
            + " | ".join(f"{100 * x / total:.1f}" for x in shares)
            + " |"
        )


def by_class(values: Tensor, truth: Tensor, masks: Sequence[Tensor], num_classes: int) -> np.ndarray:
    """Sums of values (N, S, S) over each mask, by true class: (masks, num_classes) float64."""
    sums = [torch.bincount(truth[mask], values[mask].double(), minlength=num_classes) for mask in masks]
    return torch.stack(sums).cpu().numpy()


if __name__ == "__main__":
    main()
