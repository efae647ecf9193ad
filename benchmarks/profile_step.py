"""Where the time of a student's step goes: torch's operators by their own time (decoding and SAUG are none of them).

python -m benchmarks.profile_step           # --steps, --top, --size 384 512, --crop 256, --device, --precision
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks.ratios import Bench
from segsemi.runtime.device import choose_device


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
    with tempfile.TemporaryDirectory() as folder:
        options = {"precision": args.precision, "height": args.size[0], "width": args.size[1], "crop_size": args.crop}
        bench = Bench(Path(folder), device, 1, **options)
        model, batches = bench.model(), bench.batches(args.steps)
        bench.train(model, batches)  # warm up
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        threads = _ExperimentalConfig(profile_all_threads=True)  # passes side by side have a thread each
        with profile(activities=activities, experimental_config=threads) as measured:
            bench.train(model, batches)
    key = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"
    print(measured.key_averages().table(sort_by=key, row_limit=args.top, max_name_column_width=60))


if __name__ == "__main__":
    main()
