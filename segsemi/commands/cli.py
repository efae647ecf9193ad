"""`python -m segsemi`: the commands around the pipeline."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shtab

from segsemi.core.errors import explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, or 1 after an error that the user can fix."""
    args = _parser().parse_args(arguments)
    try:
        return importlib.import_module(f"segsemi.commands.{args.command}").run(args)  # each imports only what it needs
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
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
        "segsemi", description="Semi-supervised semantic segmentation: all commands beside `dvc repro`."
    )
    version = f"segsemi {importlib.metadata.version('segsemi')}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    shtab.add_argument_to(parser, help='print a shell\'s completion script: eval "$(segsemi --print-completion bash)"')
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options)

    params: dict[str, Any] = {"type": Path, "default": Path("params.yaml"), "help": "default: params.yaml"}

    init = command("init", "make a project of your own: git, dvc, a pipeline, params.yaml, and your images")
    init.add_argument("folder", type=Path, metavar="DIR", help="folder of the project")
    init.add_argument(
        "--images", type=Path, nargs="+", default=[], help="folders of your images, which the project links to"
    )
    init.add_argument(
        "--labels", type=Path, help="folder of the labels of some of them, of equal names or with a suffix"
    )

    doctor = command("doctor", "check machine, params and data, and measure a training step's time and memory")
    doctor.add_argument("--params", **params)
    doctor.add_argument("--picture", type=Path, help="write this PNG: nine images with their labels laid over them")

    preset = command(
        "preset", "write settings into params.yaml: the paper's, those of other methods, or ours for CamVid on a CPU"
    )
    preset.add_argument("name", nargs="?", help="name of the preset; without it, list all presets")
    preset.add_argument("--params", **params)
    preset.add_argument("--dry-run", action="store_true", help="show the changes, write nothing")

    experiment = command("experiment", "run a table or figure of the paper as dvc experiments", allow_abbrev=False)
    experiment.add_argument("name", nargs="?", help="name of a grid, or path of your own; without it, list all grids")
    experiment.add_argument(
        "--dry-run", action="store_true", help="show the cells and which of them are finished, run nothing"
    )
    experiment.add_argument("--collect", action="store_true", help="write the table of the finished runs, run nothing")
    experiment.add_argument("--queue", action="store_true", help="queue the runs for `dvc queue start --jobs N`")
    experiment.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds (default: 0 1 2)")
    experiment.add_argument("--columns", nargs="+", default=[], help="run only these columns of the table")
    experiment.add_argument("--rows", nargs="+", default=[], help="run only these rows of the table")
    experiment.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change this param in all cells"
    )
    experiment.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("reports/experiments"),
        help="folder of the tables (default: reports/experiments)",
    )

    labels = command("labels", "turn what an annotation tool wrote into label PNGs and classes.json")
    labels.add_argument(
        "format", choices=["labelme", "coco", "cvat", "labelstudio"], help="cvat, labelstudio: corrected suggestions"
    )
    labels.add_argument("source", type=Path, help="the JSON file, or the folder of such files; CVAT's zip")
    labels.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="folder for labels/ and classes.json; data/corrected for corrections",
    )
    labels.add_argument(
        "--classes", nargs="+", default=[], help="class names in the order of their ids (default: all that occur)"
    )
    labels.add_argument("--background", metavar="NAME", help="class of the pixels outside all shapes; else ignored")

    predict = command("predict", "predict the classes of pictures with a trained model")
    predict.add_argument("model", type=Path, help="folder of the model, such as models/student_2")
    predict.add_argument("images", type=Path, nargs="+", help="image files, or folders to search for them")
    predict.add_argument("-o", "--out", type=Path, required=True, help="folder to write label PNGs to")
    predict.add_argument("--overlay", action="store_true", help="also write pictures with colours laid over them")
    predict.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these (default: 1)")
    predict.add_argument("--flip", action="store_true", help="also average with the mirrored image")
    predict.add_argument(
        "--sliding-window",
        type=int,
        metavar="PIXELS",
        help="side of a window, for large images (default: 1024 above 67 million pixels); not with augment.short_side",
    )
    predict.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")

    suggest = command("suggest", "list the unlabelled images whose labels would help most")
    suggest.add_argument("-n", "--count", type=int, default=20, help="number of images (default: 20)")
    suggest.add_argument("-o", "--out", type=Path, default=Path("suggestions"), help="folder (default: suggestions)")

    export = command("export", "export a model: ONNX, or a folder for segmentation-models-pytorch")
    export.add_argument("model", type=Path, help="folder of the model")
    export.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    export.add_argument(
        "--format",
        choices=["onnx", "hub"],
        default="onnx",
        help="onnx (the default), or hub: a folder for segmentation-models-pytorch",
    )
    return parser
