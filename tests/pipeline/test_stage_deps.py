"""dvc.yaml declares what the stages use: code files, params, nothing more and nothing less."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from ruamel.yaml import YAML
from stage_deps import ROOT, import_closure, is_code, stage_bodies, stage_script

BODIES = stage_bodies(YAML(typ="safe").load(ROOT / "dvc.yaml"))
# Where data and machine are does not decide what comes out; prepare, which does depend on the data, declares them.
UNDECLARED = {"data", "machine"}


@pytest.mark.parametrize("name", BODIES)
def test_code_dependencies_are_the_import_closure(name: str) -> None:
    declared = [dependency for dependency in BODIES[name]["deps"] if is_code(dependency)]
    assert declared == sorted(import_closure(stage_script(BODIES[name]))), "run `make deps`"


def test_import_closure_follows_imports_but_not_the_whole_package() -> None:
    closure = import_closure(ROOT / "stages/report.py")
    assert {"segsemi/reporting/report.py", "segsemi/reporting/page.py", "segsemi/__init__.py"} <= closure
    assert "segsemi/training/loop.py" not in closure
    assert "segsemi/reporting/report.py" not in import_closure(ROOT / "stages/train_student.py")


@pytest.mark.parametrize("name", [name for name in BODIES if name != "check_params"])
def test_params_are_those_the_script_reads(name: str) -> None:
    declared = {str(key) for key in BODIES[name].get("params", [])}
    used = _params_used(stage_script(BODIES[name]).read_text())
    for key in used:
        section = key.split(".")[0]
        if name == "prepare" or section not in UNDECLARED:
            assert key in declared or section in declared, f"{name} reads {key} but does not declare it"
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
