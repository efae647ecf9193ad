"""reports/index.html: one self-contained page, readable without a server."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from segsemi.core.classes import Classes

safe = jinja2.filters.do_mark_safe  # HTML that is not to be escaped

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; display: block; margin: .5em 0; }
svg { max-width: 100%; height: auto; }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -2px; margin-right: .4em; }
"""

_SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
{{ style }}</style></head><body>
{{ body }}
</body></html>
"""

_REPORT = """<h1>segsemi: teacher and students</h1>
<p>{% for name, value in facts.items() %}{{ name }}: <b>{{ value }}</b>{{ ", " if not loop.last }}{% endfor %}</p>
<p>Tables and figures of <code>python -m segsemi experiment</code>, with several seeds, are a page of their own, where there
are some: <a href="experiments/tables.html">experiments/tables.html</a></p>
<h2>Results</h2>
{{ table }}
<p>"steps in all" counts the optimizer steps that went into a model, those of its teachers included. Models without a
value under "gain on its teacher" learnt from labels alone.</p>
<h2>IoU of each class, percent</h2>
<table><tr><th>class</th>{% for name in by_class.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for name, row in by_class.iterrows() %}<tr><td><span class="swatch" style="background: rgb{{ colours[name] }}"></span>{{ name
}}</td>{% for value in row %}<td>{{ "–" if value is none or value != value else "%.2f" | format(value) }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% for title, figure in figures.items() %}<h2>{{ title }}</h2>
{{ figure }}
{% endfor %}
<h2>Examples</h2>
<p>"better, worse": green where this student is right and the teacher wrong, red the other way round.</p>
{% for example in examples %}<img alt="{{ example.name }}" src="data:image/png;base64,{{ example.data }}">
{% endfor %}
<h2>Settings</h2>
<table><tr><th>param</th><th>value</th></tr>
{% for section, values in settings.items() %}{% for key, value in values.items() %}<tr><td>{{ section }}.{{ key }}</td><td>{{
"" if value is none else value }}</td></tr>
{% endfor %}{% endfor %}</table>"""


def render(title: str, template: str, **values: Any) -> str:
    """A self-contained HTML page of our look; `template` is jinja's, of what stands in its body."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    body = environment.from_string(template).render(values)
    return environment.from_string(_SHELL).render(title=title, style=safe(_STYLE), body=safe(body))


def render_page(
    table: pd.DataFrame,
    by_class: pd.DataFrame,
    figures: Mapping[str, str],
    facts: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    examples: Sequence[Path],
    classes: Classes,
) -> str:
    """The page as one HTML text.

    Args:
        table: one row a model.
        by_class: IoU in percent, rows classes, columns models.
        figures: heading -> SVG.
        facts: what to state at the head.
        settings: params to list.
        examples: pictures to embed.
    """
    pictures = [{"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode()} for path in examples]
    return render(
        "segsemi report",
        _REPORT,
        facts=facts,
        settings=settings,
        table=safe(table.to_html(index=False, border=0)),
        by_class=by_class,
        colours=dict(zip(classes.names, classes.colours, strict=True)),
        figures={title: safe(svg) for title, svg in figures.items()},
        examples=pictures,
    )
