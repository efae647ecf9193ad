"""`python -m segsemi`: what users do around the pipeline."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segsemi.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 1 after an error that the user can mend."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except UserError as error:
        if os.environ.get("SEGSEMI_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segsemi", description="Semi-supervised semantic segmentation, around the pipeline."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check machine, params and data, and estimate the run's time and disk")
    doctor.add_argument("--params", type=Path, default=Path("params.yaml"))
    doctor.add_argument("--picture", type=Path, help="write nine images with their labels laid over to this PNG")
    doctor.set_defaults(run=_doctor)

    preset = commands.add_parser("preset", help="write the paper's settings into params.yaml")
    preset.add_argument("name", nargs="?", help="which; without it, list them")
    preset.add_argument("--params", type=Path, default=Path("params.yaml"))
    preset.add_argument("--dry-run", action="store_true", help="only show what would change")
    preset.set_defaults(run=_preset)

    predict = commands.add_parser("predict", help="label pictures with a trained model")
    predict.add_argument("model", type=Path, help="a model's folder, such as models/student_2")
    predict.add_argument("images", nargs="+", help="files, folders or glob patterns")
    predict.add_argument("-o", "--out", type=Path, required=True, help="folder of the label PNGs")
    predict.add_argument("--overlay", action="store_true", help="also pictures with the classes' colours laid over")
    predict.add_argument("--probabilities", action="store_true", help="also NAME.npz with all probabilities")
    predict.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these scales")
    predict.add_argument("--flip", action="store_true", help="average with the mirrored image")
    predict.add_argument("--sliding-window", type=int, metavar="PIXELS", help="for images larger than memory allows")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    predict.set_defaults(run=_predict)

    export = commands.add_parser("export", help="write a model for other programs")
    export.add_argument("model", type=Path, help="a model's folder")
    export.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    export.add_argument("--format", choices=["onnx", "hub"], default="onnx")
    export.add_argument("--normalised", action="store_true", help="onnx: the input is normalised already")
    export.add_argument("--argmax", action="store_true", help="onnx: give class ids instead of probabilities")
    export.set_defaults(run=_export)
    return parser


# The libraries of networks take seconds to import: each command imports its own.


def _doctor(args: argparse.Namespace) -> int:
    from segsemi import doctor
    from segsemi.config import load_params
    from segsemi.contract import data_root

    params = load_params(args.params)
    for line in doctor.machine_lines(params):
        print(line)
    print(f"{args.params}: valid")
    data, root = doctor.find_data(params), data_root(params.data)
    for line in doctor.data_lines(data, root):
        print(line)
    if args.picture:
        doctor.save_nine(data, root, args.picture)
        print(f"picture: {args.picture}")
    for line in doctor.cost_lines(params, data):
        print(line)
    return 0


def _preset(args: argparse.Namespace) -> int:
    from segsemi.preset import apply_preset, preset_names, read_preset

    if args.name is None:
        for name in preset_names():
            print(f"{name}\n    {read_preset(name)[1].splitlines()[0]}")
        return 0
    changes = apply_preset(args.name, args.params, write=not args.dry_run)
    print(read_preset(args.name)[1])
    print("\n".join(changes) or "nothing to change")
    if not args.dry_run:
        print(f"{args.params} written; set data.root to the folder of the data set")
    return 0


def _predict(args: argparse.Namespace) -> int:
    from segsemi.checkpoint import load_model
    from segsemi.engine import choose_device
    from segsemi.predict import find_images, predict_files

    if min(args.scales) <= 0 or (args.sliding_window is not None and args.sliding_window < 32):
        raise UserError("--scales must be above 0 and --sliding-window at least 32 pixels")
    images = find_images(args.images)
    model = load_model(args.model).to(choose_device(args.device))
    failed = predict_files(
        model,
        images,
        args.out,
        scales=args.scales,
        flip=args.flip,
        window=args.sliding_window,
        overlay=args.overlay,
        probabilities=args.probabilities,
    )
    print(f"{len(images) - failed} label images in {args.out}" + (f", {failed} images failed" if failed else ""))
    return 1 if failed else 0


def _export(args: argparse.Namespace) -> int:
    from segsemi.export import export_hub, export_onnx

    if args.format == "hub":
        export_hub(args.model, args.out)
        print(f"{args.out}: read it with segmentation_models_pytorch.from_pretrained({str(args.out)!r})")
        return 0
    difference = export_onnx(args.model, args.out, normalise=not args.normalised, argmax=args.argmax)
    what = "share of pixels of another class" if args.argmax else "largest difference of a probability"
    print(f"{args.out / 'model.onnx'}: checked against PyTorch, {what} {difference:.2g}")
    return 0
