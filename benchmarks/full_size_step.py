"""Time and memory of a student's training step at the paper's size: DSBN, its parts one after the other, SCL, SGD with
momentum, on random images.

python -m benchmarks.full_size_step --preset cityscapes_deeplabv3plus_xception65 --labelled 2 --pseudo 2
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch

from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.dsbn import convert_dsbn, labelled_first
from segsemi.losses import cross_entropy, self_correction_loss
from segsemi.models.build import Architecture, SegmentationModel
from segsemi.runtime.device import autocast, choose_device

GIB = 2**30
NUM_CLASSES = {"cityscapes": 19, "voc": 21}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=preset_names(), default="cityscapes_deeplabv3plus_xception65")
    parser.add_argument("--labelled", type=int, default=2, help="labelled images in a batch")
    parser.add_argument("--pseudo", type=int, default=2, help="pseudo-labelled images in a batch")
    parser.add_argument("--steps", type=int, default=2, help="steps to time, after one to warm up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    args = parser.parse_args()

    values, _ = read_preset(args.preset)
    network, crop = values["model"], values["augment"]["crop_size"]
    number = NUM_CLASSES[values["data"]["name"]]
    classes = Classes(tuple(f"class {i}" for i in range(number)), tuple((i, i, i) for i in range(number)))
    architecture = Architecture(network["decoder"], network["encoder"], network["output_stride"])
    batch = args.labelled + args.pseudo

    device = choose_device(args.device)
    before = _peak(device)
    torch.manual_seed(0)
    model = SegmentationModel(architecture, classes)
    convert_dsbn(model.network)
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.rand(batch, 3, crop, crop, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(number, (batch, crop, crop), device=device)
    count = args.labelled
    parts = [(slice(0, count), count, cross_entropy), (slice(count, batch), 0, self_correction_loss)]
    seconds = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for part, branch, loss in parts:
            with labelled_first(model, branch), autocast(device, args.precision):
                logits = model(images[part])
            loss(logits.float(), targets[part]).backward()
        optimizer.step()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - start)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{args.preset}, {args.labelled} + {args.pseudo} images of {crop}x{crop}, {device} ({name}), {args.precision}"
    )
    print(f"{min(seconds[1:]):.2f} s a step; peak {(_peak(device) - before) / GIB:.2f} GiB")


def _peak(device: torch.device) -> int:
    """Bytes: the process's on the CPU, the allocator's on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
