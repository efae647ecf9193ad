"""Write published settings, or ours for CamVid, into params.yaml. `python -m segsemi preset`."""

import argparse
import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from segsemi.core.config import load_params, parse_params
from segsemi.core.errors import UserError
from segsemi.core.files import write_text, yaml_names

BASE = "paper"  # with whose values every preset begins, so that nothing of an earlier preset stays
NAMED = ("rounds", "baselines")  # sections whose keys are names, and which are replaced as a whole
_FOLDER = resources.files("segsemi.commands") / "presets"


def run(args: argparse.Namespace) -> int:
    """Write the preset, or list all; return the exit code."""
    if args.name is None:
        for name in preset_names():
            print(f"{name}\n    {read_preset(name)[1].splitlines()[0]}")
        return 0
    values, comment = read_preset(args.name)
    changes = set_values(args.params, values, write=not args.dry_run)
    print(comment)
    print("\n".join(changes) or "nothing to change")
    if changes and not args.dry_run:
        print(f"{args.params} written" + ("; set data.root to the folder of the data set" if "data" in values else ""))
    return 0


def preset_names() -> list[str]:
    """Return the names of the presets."""
    return yaml_names(_FOLDER)


def read_preset(name: str) -> tuple[dict[str, Any], str]:
    """Return the values of a preset, section by section, those of `paper` first, and the comment at its head.

    Raises:
        UserError: there is no such preset.
    """
    if name not in preset_names():
        raise UserError(f"no preset {name!r}; there are {', '.join(preset_names())}")
    text = (_FOLDER / f"{name}.yaml").read_text()
    comment = "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    yaml, values = YAML(typ="safe"), dict[str, Any]()
    for layer in (yaml.load((_FOLDER / f"{BASE}.yaml").read_text()), yaml.load(text)):
        for section, keys in layer.items():
            values[section] = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return values, comment


def set_values(path: Path, values: Mapping[str, Any], *, write: bool = True) -> list[str]:
    """Write `values`, nested as there, into params.yaml at `path`, keeping its comments and all other values.

    Returns:
        The changes, one `section.key: old -> new` each; nothing is written with write=False.

    Raises:
        UserError: there is no such file, or params.yaml or the result is not valid.
    """
    yaml = YAML()
    yaml.width = 4096  # do not wrap lines
    yaml.representer.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))
    load_params(path)  # refuses a file that is broken before
    params = yaml.load(path.read_text())
    changes = []
    for section, keys in values.items():
        within = isinstance(keys, dict) and section not in NAMED
        place, prefix = (params[section], f"{section}.") if within else (params, "")
        for key, value in keys.items() if within else [(section, keys)]:
            old = place.get(key)
            if old != value:
                place[key] = value
                changes.append(f"{prefix}{key}: {old} -> {value}")
    buffer = io.StringIO()
    yaml.dump(params, buffer)
    parse_params(YAML(typ="safe").load(buffer.getvalue()), source=f"{path}, after {', '.join(changes)}")
    if write:
        write_text(path, buffer.getvalue())
    return changes
