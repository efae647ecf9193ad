"""Where the time of a student's step goes: torch's operators by their own time, DSBN and SCL, data from memory.

python -m benchmarks.profile_step           # --steps, --top, --size 384 512, --crop 256, --device, --precision
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.ratios import Bench
from segsemi.data.batches import StepBatches, labelled_samples, pseudo_samples
from segsemi.engine import choose_device
from segsemi.processes import Processes
from segsemi.student import student_groups
from segsemi.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--top", type=int, default=15, help="lines to print")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, device, 1, height=args.size[0], width=args.size[1], crop_size=args.crop)
        params = bench.params.student.model_copy(update={"steps": args.steps, "val_every": 0})
        labelled = labelled_samples(bench.train_rows[:8], folder)
        pseudo = pseudo_samples(bench.train_rows[8:], folder, folder / "pseudo")
        groups = student_groups(params, labelled, pseudo, bench.classes)
        model = bench.model()

        def run(stage: str) -> None:
            work = folder / stage
            work.mkdir()
            batches = StepBatches(groups, bench.augment, steps=args.steps, seed=0, stage=stage, cache_mb=2048)
            options = {"pseudo_loss": "scl", "bn": "dsbn", "processes": Processes(device)}
            train(model, batches, params, work=work, precision=args.precision, **options)  # type: ignore[arg-type]

        run("warm-up")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        with profile(activities=activities) as measured:
            run("profiled")
    key = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"
    print(measured.key_averages().table(sort_by=key, row_limit=args.top, max_name_column_width=60))


if __name__ == "__main__":
    main()
