"""Make a project of the user's own, at home in git and dvc, with this library as its dependency. `segsemi init`."""

import argparse
import importlib.metadata
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from segsemi.commands.preset import set_values
from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.core.git import git
from segsemi.data.images import read_size
from segsemi.datasets.guess import Found, link_images

IGNORE_FILES = (".gitignore", ".dvcignore")
REQUIREMENTS = "requirements.txt"  # on which stages depend instead of on the library's folders
NEXT = (
    "segsemi doctor --picture nine.png",
    "dvc add data/raw && git add --all && git commit -m 'my images'",
    "dvc repro",
)
README = """# {name}

A project of segsemi: semantic segmentation from a few labelled and many unlabelled images.

    pip install -r requirements.txt
    segsemi doctor --picture nine.png    # check the data, measure a training step
    dvc repro                            # teacher, pseudo labels, students, reports/index.html

- `data/raw/`: images/, labels/, unlabelled/ and classes.json. `dvc add data/raw` tracks them, `dvc push` shares them.
- `params.yaml`: all settings, each with a comment. One experiment: `dvc exp run -S student.lr=0.005`.
- `stages/` and `dvc.yaml`: the pipeline. They are yours to change.
- `requirements.txt`: the version of the library. All stages depend on this file.
"""


def run(args: argparse.Namespace) -> int:
    """Make the project, link the images, say what was found and what comes next; return the exit code."""
    folder: Path = args.folder
    if args.labels and not args.images:
        raise UserError("--labels needs --images, the folder of their images")
    there = [name for name in ("dvc.yaml", "params.yaml", "stages", REQUIREMENTS) if (folder / name).exists()]
    if there:
        raise UserError(f"{folder} has a {there[0]} already; name another folder, or move it")
    raw = folder / "data/raw"
    if args.images and raw.exists():
        raise UserError(f"{raw} exists already; move it, or leave out --images")
    found = link_images(args.images, args.labels, raw) if args.images else Found([], [], {}, [], [])
    start_git_and_dvc(folder)
    write_project(folder)
    set_values(folder / "params.yaml", settings(found.labelled, found.unlabelled))
    for name in ("images", "labels"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    print(f"{folder}: a project with git and dvc")
    steps = ["put your images and labels into data/raw, and write data/raw/classes.json (docs/own-data.md)"]
    if args.images:
        numbers = f"{len(found.labelled)} images with a label, {len(found.unlabelled)} without"
        print(f"data/raw: {numbers}; links to your files")
        steps = ["label some images, and write data/raw/classes.json (docs/own-data.md)"]
    if found.classes:
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.classes.items()]
        write_text(raw / "classes.json", "{" + ",\n ".join(lines) + "}\n")
        print("data/raw/classes.json is a guess from all labels:", *found.lines, sep="\n")
        steps = ["correct names and colours in data/raw/classes.json"]
        if not found.unlabelled:
            steps += ["put images without a label into data/raw/unlabelled, or write `rounds: {}` into params.yaml"]
    for line in found.notes:
        print(line, file=sys.stderr)
    print(f"next, in {folder}:", *steps, *NEXT, sep="\n  ")
    return 0


def write_project(folder: Path) -> None:
    """Write dvc.yaml, params.yaml, stages/ and all that belongs to them into `folder`; files that are there stay."""
    package = Path(__file__).parents[1]
    root = package / "project" if (package / "project").is_dir() else package.parent  # in the wheel; in the repository
    patterns = (package / "commands/project.txt").read_text().split()
    for name in sorted(str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in IGNORE_FILES and not (folder / name).exists():
            shutil.copyfile(root / name, folder / name)
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", README.format(name=folder.resolve().name))
    write_text(folder / REQUIREMENTS, requirement() + "\n")
    for name in IGNORE_FILES:
        there = (folder / name).read_text().splitlines() if (folder / name).exists() else []
        lines = [line for line in (root / name).read_text().splitlines() if "data/raw" not in line]
        lines += ["/data/raw/"] if name == ".gitignore" else []
        write_text(folder / name, "\n".join([*there, *(line for line in lines if line not in there)]) + "\n")
    write_text(folder / "dvc.yaml", own_pipeline((root / "dvc.yaml").read_text()))


def own_pipeline(text: str) -> str:
    """Return a dvc.yaml with requirements.txt in place of the library's files among the dependencies of each stage."""
    pipeline = YAML(typ="safe").load(text)
    for stage in pipeline["stages"].values():
        body = stage.get("do", stage)
        own = (REQUIREMENTS if dep.startswith("segsemi/") else dep for dep in body["deps"])
        body["deps"] = list(dict.fromkeys(own))
    yaml, buffer = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = None, 120  # lists on one line
    yaml.dump(pipeline, buffer)
    head = "".join(line for line in text.splitlines(keepends=True)[:1] if line.startswith("#"))
    return head + re.sub(r"\n(?=  \w+:\n)", "\n\n", buffer.getvalue())


def requirement() -> str:
    """Return the line of requirements.txt that installs this library: a version, or the commit or place pip took it from."""
    package = importlib.metadata.distribution("segsemi")
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f"segsemi @ git+{origin['url']}@{commit}"
    if url := origin.get("url"):
        return f"segsemi @ {url}"
    return f"segsemi=={package.version}"


def start_git_and_dvc(folder: Path) -> None:
    """Run `git init`, unless a repository is above, and `dvc init`, unless the folder has been dvc's before."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        git("-C", str(folder), "rev-parse", "--show-toplevel")
    except UserError:
        git("init", "--quiet", str(folder))
    if (folder / ".dvc/config").exists():
        return
    # subdir: git's repository may be above
    done = subprocess.run([sys.executable, "-m", "dvc", "init", "--subdir"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc init in {folder}: {' '.join(done.stderr.split())}")


def settings(labelled: Sequence[Path], unlabelled: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return values of params.yaml that suit a folder of these images: steps, batches, the size that is seen, augmentation.

    SAUG's magnitudes are those of crops of 769 pixels; of 96, colour jitter gained more (docs/findings.md).
    """
    images = [*labelled, *unlabelled]
    sides = [min(read_size(path)) for path in images[:: len(images) // 50 + 1]] or [256]
    side = int(np.median(sides))
    crop = min(256, max(32, side // 16 * 16))
    teacher, student = (min(4000, max(1000, 10 * len(part))) if part else 2000 for part in (labelled, images))
    return {
        "data": {"name": "folder", "root": "data/raw"},
        "split": {"fraction": 1.0},
        "augment": {"short_side": 512 if side > 640 else None, "crop_size": crop},
        "teacher": {"steps": teacher, "val_every": teacher // 10},
        "student": {
            **{"steps": student, "val_every": student // 10, "batch_labelled": 8, "batch_pseudo": 8},
            "strong": "colour" if crop <= 128 else "saug",
        },
    }
