"""reports/experiments/tables.html: the tables and figures of all experiments as one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token

from segsemi.core.files import write_text
from segsemi.reporting.page import render


def write_page(folder: Path) -> Path:
    """Put all tables of `folder`, NAME.md and NAME.csv as tables.write_tables writes them, with their figures into
    tables.html there; the path of this page."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", _embedded)
    tables = {
        path.stem: markdown.render(path.read_text(), {"folder": folder})
        for path in sorted(folder.glob("*.md"))
        if path.with_suffix(".csv").exists()  # other texts may lie there
    }
    write_text(folder / "tables.html", render("tables.html", tables=tables))
    return folder / "tables.html"


def _embedded(_: Any, tokens: Sequence[Token], index: int, __: Any, environment: dict[str, Path]) -> str:
    """The file of an image in place of its link: SVG as it is, PNG as data; its text, where there is no file."""
    path = environment["folder"] / unquote(str(tokens[index].attrs["src"]))
    text = jinja2.filters.escape(tokens[index].content)
    if not path.is_file():
        return str(text)
    if path.suffix == ".svg":
        return path.read_text()
    return f'<img alt="{text}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
