"""`python -m segsemi`: the commands around the pipeline."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
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
    about = "Semi-supervised semantic segmentation: all commands beside `dvc repro`."
    parser = argparse.ArgumentParser("segsemi", description=about)
    version = f"segsemi {importlib.metadata.version('segsemi')}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    shtab.add_argument_to(parser, help='print a shell\'s completion script: eval "$(segsemi --print-completion bash)"')
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, **options: Any) -> Callable[..., argparse.Action]:
        """Add a command; return the function that adds its arguments."""
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options).add_argument

    params: dict[str, Any] = {"type": Path, "default": Path("params.yaml"), "help": "default: params.yaml"}

    add = command("init", "make a project of your own: git, dvc, a pipeline, params.yaml, and your images")
    add("folder", type=Path, metavar="DIR", help="folder of the project")
    add("--images", type=Path, nargs="+", default=[], help="folders of your images, which the project links to")
    add("--labels", type=Path, help="folder of the labels of some of them, of equal names or with a suffix")

    add = command("doctor", "check machine, params and data, and measure a training step's time and memory")
    add("--params", **params)
    add("--picture", type=Path, help="write this PNG: nine images with their labels laid over them")

    settings = "the paper's, those of other methods, or ours for CamVid on a CPU"
    add = command("preset", f"write settings into params.yaml: {settings}")
    add("name", nargs="?", help="name of the preset; without it, list all presets")
    add("--params", **params)
    add("--dry-run", action="store_true", help="show the changes, write nothing")

    add = command("experiment", "run a table or figure of the paper as dvc experiments", allow_abbrev=False)
    add("name", nargs="?", help="name of a grid, or path of your own; without it, list all grids")
    add("--dry-run", action="store_true", help="show the cells and which of them are finished, run nothing")
    add("--collect", action="store_true", help="write the table of the finished runs, run nothing")
    add("--queue", action="store_true", help="queue the runs for `dvc queue start --jobs N`")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds (default: 0 1 2)")
    add("--columns", nargs="+", default=[], help="run only these columns of the table")
    add("--rows", nargs="+", default=[], help="run only these rows of the table")
    change = "change this param in all cells"
    add("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=change)
    tables = Path("reports/experiments")
    add("-o", "--out", type=Path, default=tables, help=f"folder of the tables (default: {tables})")

    add = command("labels", "turn what an annotation tool wrote into label PNGs and classes.json")
    formats = ["labelme", "coco", "cvat", "labelstudio"]
    add("format", choices=formats, help="cvat, labelstudio: corrected suggestions")
    add("source", type=Path, help="the JSON file, or the folder of such files; CVAT's zip")
    out = "folder for labels/ and classes.json; data/corrected for corrections"
    add("-o", "--out", type=Path, required=True, help=out)
    add("--classes", nargs="+", default=[], help="class names in the order of their ids (default: all that occur)")
    add("--background", metavar="NAME", help="class of the pixels outside all shapes; else ignored")

    add = command("predict", "predict the classes of pictures with a trained model")
    add("model", type=Path, help="folder of the model, such as models/student_2")
    add("images", type=Path, nargs="+", help="image files, or folders to search for them")
    add("-o", "--out", type=Path, required=True, help="folder to write label PNGs to")
    add("--overlay", action="store_true", help="also write pictures with colours laid over them")
    add("--scales", type=float, nargs="+", default=[1.0], help="average over these (default: 1)")
    add("--flip", action="store_true", help="also average with the mirrored image")
    window = "side of a window, for large images (default: 1024 above 67 million pixels); not with augment.short_side"
    add("--sliding-window", type=int, metavar="PIXELS", help=window)
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")

    add = command("suggest", "list the unlabelled images whose labels would help most")
    add("-n", "--count", type=int, default=20, help="number of images (default: 20)")
    add("-o", "--out", type=Path, default=Path("suggestions"), help="folder (default: suggestions)")

    add = command("export", "export a model: ONNX, or a folder for segmentation-models-pytorch")
    add("model", type=Path, help="folder of the model")
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    kinds = "onnx (the default), or hub: a folder for segmentation-models-pytorch"
    add("--format", choices=["onnx", "hub"], default="onnx", help=kinds)
    return parser
