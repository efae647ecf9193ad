"""`python -m segsemi`: what users do around the pipeline."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shtab

from segsemi.core.errors import explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 1 after an error that the user can fix."""
    args = _parser().parse_args(arguments)
    try:
        return importlib.import_module(f"segsemi.commands.{args.command}").run(args)  # each imports what it needs
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options)

    params: dict[str, Any] = {"type": Path, "default": Path("params.yaml"), "help": "params.yaml if not given"}

    doctor = command("doctor", "check machine, params and data, and measure a training step's time and memory")
    doctor.add_argument("--params", **params)
    doctor.add_argument("--picture", type=Path, help="write nine images with their labels laid over to this PNG")

    preset = command("preset", "write settings into params.yaml: the paper's, or those for CamVid on a CPU")
    preset.add_argument("name", nargs="?", help="which; without it, list them")
    preset.add_argument("--params", **params)
    preset.add_argument("--dry-run", action="store_true", help="only show what would change")

    experiment = command("experiment", "run a table or figure of the paper as dvc experiments", allow_abbrev=False)
    experiment.add_argument("name", nargs="?", help="which, or the path of a grid of your own; without it, list them")
    experiment.add_argument(
        "--dry-run", action="store_true", help="only show the cells, which are done, and the steps to come"
    )
    experiment.add_argument("--collect", action="store_true", help="only write the table of what is done")
    experiment.add_argument("--queue", action="store_true", help="only queue the runs, for `dvc queue start --jobs N`")
    experiment.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="0 1 2 if not given")
    experiment.add_argument("--columns", nargs="+", default=[], help="only these columns")
    experiment.add_argument("--rows", nargs="+", default=[], help="only these rows")
    experiment.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change this param in all cells"
    )
    experiment.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("reports/experiments"),
        help="folder of the tables; reports/experiments if not given",
    )

    labels = command("labels", "turn what an annotation tool wrote into label PNGs and classes.json")
    labels.add_argument("format", choices=["labelme", "coco"])
    labels.add_argument("source", type=Path, help="the JSON file, or the folder of such files")
    labels.add_argument("-o", "--out", type=Path, required=True, help="folder for labels/ and classes.json")
    labels.add_argument("--classes", nargs="+", default=[], help="in the order of their ids; all if not given")
    labels.add_argument("--background", metavar="NAME", help="class of the pixels outside all shapes; else ignored")

    predict = command("predict", "label pictures with a trained model")
    predict.add_argument("model", type=Path, help="a model's folder, such as models/student_2")
    predict.add_argument("images", type=Path, nargs="+", help="files, or folders that are searched through")
    predict.add_argument("-o", "--out", type=Path, required=True, help="folder of the label PNGs")
    predict.add_argument("--overlay", action="store_true", help="also pictures with the classes' colours laid over")
    predict.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these; 1 if not given")
    predict.add_argument("--flip", action="store_true", help="average with the mirrored image")
    predict.add_argument("--sliding-window", type=int, metavar="PIXELS", help="for images too large for the memory")
    predict.add_argument("--device", default="auto", help="auto (if not given), cpu, cuda, cuda:1, mps")

    suggest = command("suggest", "list the unlabelled images whose labels would help most")
    suggest.add_argument("-n", "--count", type=int, default=20, help="how many; 20 if not given")
    suggest.add_argument("-o", "--out", type=Path, default=Path("suggestions"), help="folder; suggestions if not given")

    export = command("export", "write a model for other programs")
    export.add_argument("model", type=Path, help="a model's folder")
    export.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    export.add_argument("--format", choices=["onnx", "hub"], default="onnx", help="hub: for smp.from_pretrained")
    return parser
