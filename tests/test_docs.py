"""The documents say what the code does, in plain English."""

import ast
import re
import shlex
from itertools import pairwise
from pathlib import Path

import params_page
import pytest
import reference_page
from conftest import ROOT
from dvc.cli import parse_args
from ruamel.yaml import YAML

from segsemi.commands.cli import _parser
from segsemi.core.config import load_values, parse_params
from segsemi.experiments.grid import overridden

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
CODE = sorted([*ROOT.glob("segsemi/**/*.py"), *ROOT.glob("stages/*.py")])
GENERATED = {params_page.PAGE: params_page.page, params_page.SCHEMA: params_page.schema}
GENERATED[reference_page.PAGE] = reference_page.reference
pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path: Path) -> None:
    assert path.read_text() == GENERATED[path](), "run `make docs`"


def test_every_param_has_a_comment() -> None:
    keys = [line for line in params_page.page().splitlines() if line.startswith("| `")]
    assert len(keys) > 50 and not [line for line in keys if line.endswith("|  |")]


@pages
def test_files_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link and "/actions/" not in link]
    names = re.findall(r"`((?:segsemi|stages|tests|docs|benchmarks)/[\w/.]*\w)`", text)
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in names if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_pictures_are_small_and_shown() -> None:
    pictures = list((ROOT / "docs/pictures").iterdir())
    sizes = [picture.stat().st_size for picture in pictures]
    assert max(sizes) < 150_000 and sum(sizes) < 700_000
    shown = "".join(path.read_text() for path in PAGES)
    assert not [picture.name for picture in pictures if f"pictures/{picture.name})" not in shown]


@pages
def test_commands_of_a_page_are_understood(path: Path) -> None:
    text, values = path.read_text(), load_values(ROOT / "params.yaml")
    lines = re.findall(r"(?:^ {4}|^|`)((?:python -m segsemi|dvc exp run) [^`\n]+)", text, flags=re.MULTILINE)
    lines += re.findall(r"(?:^ {4}|`)(segsemi \w+ [^`\n]+)", text, flags=re.MULTILINE)
    for line in lines:
        words = shlex.split(line, comments=True)
        arguments = words[words.index("segsemi") + 1 :] if "segsemi" in words else []
        if len(arguments) > 1:  # not the mere name of a command
            _parser().parse_args(arguments)
        changes = [change for flag, change in pairwise(words) if flag == "-S" and "key=value" not in change]
        parse_params(overridden(values, changes), source=line)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "docs/cml.yml"], ids=lambda path: path.name)
def test_dvc_knows_the_commands_of_a_page(path: Path) -> None:
    text = path.read_text()
    for line in re.findall(r"(?:^ {4,}|`)(dvc [^`\n]+)", text, flags=re.MULTILINE):
        words = shlex.split(line.replace("\\|", "|").split(" >>")[0], comments=True)
        if "..." not in words and words[1:] and not words[1].isupper() and words != ["dvc", "add"]:  # a mere name
            parse_args(words[1:])
    if path.suffix == ".yml":
        assert YAML(typ="safe").load(text)["jobs"]


def sentences(text: str) -> tuple[list[str], list[str]]:
    """Return the sentences of a Markdown page's paragraphs and lists, and those of its tables' cells."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`\n]*`", "code", text))
    blocks, cells = [""], [""]
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("|"):
            cells += words.strip("|").split(" | ")
        elif not words or words.startswith("#") or (line.startswith("    ") and not blocks[-1]):
            blocks.append("")
        else:
            begins = re.match(r"([-*]|\d+\.) ", words)
            blocks += [""] if begins else []
            blocks[-1] += f" {words[begins.end() :] if begins else words}"
    prose, short = (
        [part for item in items for part in re.split(r"(?<=[.!?])\W*\s", item)] for items in (blocks, cells)
    )
    return [part for part in prose if part.strip()], short


@pages
def test_sentences_are_short(path: Path) -> None:
    prose, cells = sentences(path.read_text())
    lengths = [len(sentence.split()) for sentence in prose]
    assert not [sentence for sentence in [*prose, *cells] if len(sentence.split()) > 35]
    assert lengths and sum(lengths) / len(lengths) <= 22


def test_first_page_fits() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 160
    code = [line[4:] for line in lines if line.startswith("    ")]
    assert max(map(len, code)) <= 88
    assert len((ROOT / "CHANGELOG.md").read_text().split("## 0.1.0")[1].splitlines()) <= 20


def test_examples_of_extensions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), flags=re.DOTALL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {}
    assert len(blocks) == 6
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"docs/extending.md, block {number}", "exec"), names)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_docstrings_begin_with_what_a_function_does(path: Path) -> None:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    texts = [ast.get_docstring(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    assert not [text for text in texts if re.match(r"(Those|Them|The same|Of|What)\b", text or "")]
