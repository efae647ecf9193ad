"""The project's files that a stage's script imports, directly or not; and dvc.yaml, brought in line with them.

`python tests/stage_deps.py --write` rewrites the code dependencies in dvc.yaml (`make deps`).
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGES = ("segsemi", "stages")


def import_closure(script: Path) -> set[str]:
    """Paths, relative to the root, of every module of ours that running `script` may import; `script` included."""
    found: set[Path] = set()
    todo = [script.resolve()]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        todo += [file for name in _imported_modules(path) for file in _files_of(name)]
        package = path.parent / "__init__.py"
        if package.exists():
            todo.append(package)
    return {path.relative_to(ROOT).as_posix() for path in found}


def _imported_modules(path: Path) -> Iterator[str]:
    """Absolute names in import statements at any depth, since a function's import runs too; type-only ones left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(module: str) -> Iterator[Path]:
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return
    base = ROOT.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            yield path.resolve()


def stage_bodies(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Stage name -> its body; for a foreach, what stands under `do`."""
    return {name: stage.get("do", stage) for name, stage in pipeline["stages"].items()}


def stage_script(body: dict[str, Any]) -> Path:
    """The script behind a stage's `-m stages.NAME`."""
    match = re.search(r"-m stages\.(\w+)", body["cmd"])
    assert match, body["cmd"]
    return ROOT / "stages" / f"{match[1]}.py"


def is_code(dependency: Any) -> bool:
    return isinstance(dependency, str) and dependency.endswith(".py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite dvc.yaml instead of printing")
    args = parser.parse_args()
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(ROOT / "dvc.yaml")
    for name, body in stage_bodies(pipeline).items():
        code = sorted(import_closure(stage_script(body)))
        data = [dependency for dependency in body.get("deps", []) if not is_code(dependency)]
        body["deps"] = data + code
        print(f"{name}: {len(code)} files")
    if args.write:
        yaml.dump(pipeline, ROOT / "dvc.yaml")


if __name__ == "__main__":
    main()
