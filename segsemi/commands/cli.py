"""`python -m segsemi`: what users do around the pipeline."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shtab

from segsemi.core.errors import UserError, explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 1 after an error that the user can fix."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = explain(error)
        if message is None or args.verbose or os.environ.get("SEGSEMI_TRACEBACK"):
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "segsemi", description="Semi-supervised semantic segmentation, around the pipeline."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    shtab.add_argument_to(parser, help='print a shell\'s completion script: eval "$(segsemi --print-completion bash)"')
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options)

    params: dict[str, Any] = {"type": Path, "default": Path("params.yaml"), "help": "params.yaml if not given"}

    doctor = command("doctor", "check machine, params and data, and measure a training step's time and memory")
    doctor.add_argument("--params", **params)
    doctor.add_argument("--picture", type=Path, help="write nine images with their labels laid over to this PNG")
    doctor.set_defaults(run=_doctor)

    preset = command("preset", "write settings into params.yaml: the paper's, or those for CamVid on a CPU")
    preset.add_argument("name", nargs="?", help="which; without it, list them")
    preset.add_argument("--params", **params)
    preset.add_argument("--dry-run", action="store_true", help="only show what would change")
    preset.set_defaults(run=_preset)

    experiment = command("experiment", "run a table or figure of the paper as dvc experiments", allow_abbrev=False)
    experiment.add_argument("name", nargs="?", help="which, or the path of a grid of your own; without it, list them")
    experiment.add_argument("--list", action="store_true", help="list what there is")
    experiment.add_argument("--dry-run", action="store_true", help="only show the cells, and the steps to come")
    experiment.add_argument("--collect", action="store_true", help="only write the table of what is done")
    experiment.add_argument("--queue", action="store_true", help="only queue the runs, for `dvc queue start --jobs N`")
    experiment.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="0 1 2 if not given")
    experiment.add_argument("--columns", nargs="+", default=[], help="only these columns")
    experiment.add_argument("--rows", nargs="+", default=[], help="only these rows")
    text = "change this param in all cells"
    experiment.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=text)
    out = Path("reports/experiments")
    experiment.add_argument("-o", "--out", type=Path, default=out, help=f"folder of the tables; {out} if not given")
    experiment.set_defaults(run=_experiment)

    labels = command("labels", "turn what an annotation tool wrote into label PNGs and classes.json")
    labels.add_argument("format", choices=["labelme", "coco"])
    labels.add_argument("source", type=Path, help="labelme: the folder of its JSON files; coco: the JSON file")
    labels.add_argument("-o", "--out", type=Path, required=True, help="folder for labels/ and classes.json")
    labels.add_argument("--classes", nargs="+", default=[], help="in the order of their ids; all if not given")
    labels.add_argument("--background", metavar="NAME", help="class of the pixels outside all shapes; else ignored")
    labels.set_defaults(run=_labels)

    predict = command("predict", "label pictures with a trained model")
    predict.add_argument("model", type=Path, help="a model's folder, such as models/student_2")
    predict.add_argument("images", type=Path, nargs="+", help="files, or folders that are searched through")
    predict.add_argument("-o", "--out", type=Path, required=True, help="folder of the label PNGs")
    predict.add_argument("--overlay", action="store_true", help="also pictures with the classes' colours laid over")
    predict.add_argument("--probabilities", action="store_true", help="also NAME.npz with all probabilities")
    predict.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these; 1 if not given")
    predict.add_argument("--flip", action="store_true", help="average with the mirrored image")
    predict.add_argument("--sliding-window", type=int, metavar="PIXELS", help="for images too large for the memory")
    predict.add_argument("--device", default="auto", help="auto (if not given), cpu, cuda, cuda:1, mps")
    predict.set_defaults(run=_predict)

    suggest = command("suggest", "list the unlabelled images whose labels would help most")
    suggest.add_argument("-n", "--count", type=int, default=20, help="how many; 20 if not given")
    suggest.add_argument("-o", "--out", type=Path, default=Path("suggestions"), help="folder; suggestions if not given")
    suggest.set_defaults(run=_suggest)

    export = command("export", "write a model for other programs")
    export.add_argument("model", type=Path, help="a model's folder")
    export.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    export.add_argument("--format", choices=["onnx", "hub"], default="onnx", help="hub: for smp.from_pretrained")
    export.set_defaults(run=_export)
    return parser


# The libraries of networks take seconds to import: each command imports its own.


def _doctor(args: argparse.Namespace) -> int:
    from segsemi.commands.doctor import examine
    from segsemi.core.config import load_params

    params = load_params(args.params)
    print(f"{args.params}: valid")
    for line in examine(params, args.picture):
        print(line, flush=True)
    return 0


def _preset(args: argparse.Namespace) -> int:
    from segsemi.commands.preset import apply_preset, preset_names, read_preset

    if args.name is None:
        for name in preset_names():
            print(f"{name}\n    {read_preset(name)[1].splitlines()[0]}")
        return 0
    changes = apply_preset(args.name, args.params, write=not args.dry_run)
    print(read_preset(args.name)[1])
    print("\n".join(changes) or "nothing to change")
    if changes and not args.dry_run:
        print(f"{args.params} written; set data.root to the folder of the data set")
    return 0


def _experiment(args: argparse.Namespace) -> int:
    from segsemi.experiments.grid import grid_names, read_grid

    if args.name is None and (args.columns or args.rows or args.overrides):
        raise UserError("experiment: the name comes first, then --columns, --rows and --seeds")
    if args.name is None or args.list:
        for name in grid_names():
            print(f"{name}\n    {read_grid(name)[1]}")
        return 0
    from segsemi.commands.experiment import experiment

    keys = ("seeds", "columns", "rows", "overrides", "out", "dry_run", "collect", "queue")
    return experiment(args.name, **{key: getattr(args, key) for key in keys})


def _labels(args: argparse.Namespace) -> int:
    from segsemi.datasets.annotations import read_coco, read_labelme, write_labels

    images = read_labelme(args.source) if args.format == "labelme" else read_coco(args.source)
    names = write_labels(images, args.out, names=args.classes, background=args.background).names
    print(f"{len(images)} annotated images: {args.out / 'labels'}, {args.out / 'classes.json'} ({', '.join(names)})")
    return 0


def _predict(args: argparse.Namespace) -> int:
    from segsemi.commands.predict import find_images, predict_files
    from segsemi.models.saving import load_model
    from segsemi.runtime.device import choose_device

    window = args.sliding_window
    if not all(0 < scale < math.inf for scale in args.scales) or (window is not None and window < 32):
        raise UserError("--scales must be above 0 and --sliding-window at least 32 pixels")
    images = find_images(args.images, args.out)
    failed = predict_files(
        load_model(args.model).to(choose_device(args.device)),
        images,
        args.out,
        scales=args.scales,
        flip=args.flip,
        window=window,
        overlay=args.overlay,
        probabilities=args.probabilities,
    )
    print(f"{len(images) - failed} label images in {args.out}" + (f", {failed} images failed" if failed else ""))
    return 1 if failed else 0


def _suggest(args: argparse.Namespace) -> int:
    from segsemi.commands.suggest import suggest_next
    from segsemi.core.config import load_params

    params = load_params()
    ids = suggest_next(params, args.count, args.out)
    print("\n".join(ids[:20]))
    print(
        f"{args.out / 'suggestions.csv'}, {args.out / 'index.html'}: {len(ids)} images; put a corrected "
        f"data/pseudo/{list(params.rounds)[-1]}/ID.png into {params.split.corrected}/, and the image counts as labelled"
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    from segsemi.commands.export import export_hub, export_onnx

    if args.format == "hub":
        export_hub(args.model, args.out)
        print(f"{args.out}: read it with segmentation_models_pytorch.from_pretrained({str(args.out)!r})")
    else:
        difference = export_onnx(args.model, args.out)
        print(f"{args.out / 'model.onnx'}: as PyTorch, largest difference of a probability {difference:.2g}")
    return 0
