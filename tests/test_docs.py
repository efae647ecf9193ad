"""The documents say what the code does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from params_page import PAGE, page

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def test_page_of_params_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_param_has_a_comment() -> None:
    keys = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(keys) > 50 and not [line for line in keys if line.endswith("|  |")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    names = re.findall(r"`((?:segsemi|stages|tests|docs|benchmarks)/[\w/.]*\w)`", text)
    missing = [link for link in links if not (path.parent / link).exists()]  # type: ignore[attr-defined]
    missing += [name for name in names if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_examples_of_extensions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), flags=re.DOTALL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {}
    assert len(blocks) == 5
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"docs/extending.md, block {number}", "exec"), names)


def public_names(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_names(node)


@pytest.mark.parametrize("path", sorted(ROOT.glob("segsemi/**/*.py")), ids=lambda path: path.stem)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert not [node.name for node in public_names(tree) if not ast.get_docstring(node)]
