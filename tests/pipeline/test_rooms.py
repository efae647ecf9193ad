"""The house keeps its rules: imports point down, and dvc.yaml declares the packages and params that each stage uses."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from segsemi.core.config import EvaluateParams

LAYERS = (  # lowest first, as CONTRIBUTING.md shows them
    {"core"},
    {"losses", "metrics"},
    {"models", "augment", "runtime"},
    {"inference", "dsbn", "data"},
    {"training", "pseudo_label", "pseudo_quality", "evaluate", "datasets", "reporting"},
    {"experiments"},
    {"commands"},
)
BODIES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()
}
# Where the data and the machine are does not decide what comes out; prepare, which depends on the data, declares them.
UNDECLARED = {"data", "machine"}


def modules_imported(path: Path) -> Iterator[Path]:
    """Yield the project's files that `path` imports, at any depth of the code, since a function's import runs too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative imports are not used here"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            base = ROOT.joinpath(*name.split("."))
            if name.startswith("segsemi."):
                yield from (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists())


def room(path: Path) -> str:
    """The package of a file, or the file itself at the root of segsemi/ and in stages/, relative to the repository."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2])


def rooms_used(script: Path) -> set[str]:
    """The rooms of all files that running `script` may import; segsemi/__init__.py, which imports nothing, left out."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += modules_imported(path)
    return {room(path) for path in found}


def stage_script(name: str) -> Path:
    match = re.search(r"-m stages\.(\w+)", BODIES[name]["cmd"])
    assert match, BODIES[name]["cmd"]
    return ROOT / "stages" / f"{match[1]}.py"


@pytest.mark.parametrize("name", BODIES)
def test_a_stage_depends_on_the_rooms_that_it_imports_and_on_no_other(name: str) -> None:
    declared = {dependency for dependency in BODIES[name]["deps"] if dependency.startswith(("segsemi", "stages"))}
    assert declared == rooms_used(stage_script(name))


def test_dvc_yaml_and_the_root_stay_short_and_no_file_inside_a_package_is_named() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 220
    assert not re.search(r"segsemi/\w+/", text)
    assert len(list((ROOT / "segsemi").glob("*.py"))) <= 12


def test_no_import_points_up_and_none_goes_in_a_circle() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    arrows = set()
    for path in (ROOT / "segsemi").rglob("*.py"):
        start = room(path).removeprefix("segsemi/").removesuffix(".py")
        for other in modules_imported(path):
            end = room(other).removeprefix("segsemi/").removesuffix(".py")
            if start not in (end, "__main__"):
                assert level[end] <= level[start], f"{path} imports {other}, which is above it"
                arrows.add((start, end))
    assert not [(start, end) for start, end in arrows if (end, start) in arrows]


@pytest.mark.parametrize("name", [name for name in BODIES if name != "check_params"])
def test_params_are_those_the_script_reads(name: str) -> None:
    declared = {str(key).removesuffix(".${key}") for key in BODIES[name].get("params", [])}
    scripts = [stage_script(name)]
    if name == "plan_baseline":  # hands params on as a whole
        scripts += [ROOT / "segsemi/core/recipe.py", ROOT / "segsemi/core/config.py"]
    used = set().union(*(_params_used(script.read_text()) for script in scripts))
    for key in used:
        section = key.split(".")[0]
        if name == "prepare" or section not in UNDECLARED:
            assert key in declared or section in declared, f"{name} reads {key} but does not declare it"
    if name.startswith("evaluate"):  # hands its section on, but for what the report alone reads
        own = {f"evaluate.{key}" for key in EvaluateParams.model_fields} - {"evaluate.examples"}
        assert declared == own
        return
    for key in declared - {"data.name"}:
        assert any(key in (use, use.split(".")[0]) for use in used), f"{name} declares {key} but does not read it"


def _params_used(script: str) -> set[str]:
    """`params.a.b` and `params.a` in a script, the longest form of each."""
    used = set()
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: Any = node
            while isinstance(inner, ast.Attribute):
                parts.insert(0, inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "params" and parts[0] != "model_dump":
                used.add(".".join(part for part in parts[:2] if part != "model_dump"))
    return used - {long.split(".")[0] for long in used if "." in long}
