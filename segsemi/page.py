"""reports/index.html: one self-contained page, readable without a server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import pandas as pd

from segsemi.palette import Classes

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>segsemi report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; display: block; margin: .5em 0; image-rendering: pixelated; }
svg { max-width: 100%; height: auto; }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -2px; margin-right: .4em; }
</style></head><body>
<h1>segsemi: teacher and students</h1>
<p>{% for name, value in facts.items() %}{{ name }}: <b>{{ value }}</b>{{ ", " if not loop.last }}{% endfor %}</p>
<h2>Results</h2>
{{ table }}
<p>"steps in all" counts the optimizer steps that went into a model, those of its teachers included. Models without a
value under "gain on its teacher" learnt from labels alone.</p>
<h2>IoU of each class, percent</h2>
<table><tr><th>class</th>{% for name in by_class.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for name, row in by_class.iterrows() %}<tr><td><span class="swatch" style="background: rgb{{ colours[name] }}"></span>{{ name
}}</td>{% for value in row %}<td>{{ "–" if value != value else "%.2f" | format(value) }}</td>{% endfor %}</tr>
{% endfor %}</table>
<h2>Training</h2>
{{ curves }}
<h2>Examples</h2>
{% for example in examples %}<img alt="{{ example.name }}" src="data:image/png;base64,{{ example.data }}">
{% endfor %}
</body></html>
"""


def render_page(
    table: pd.DataFrame,
    by_class: pd.DataFrame,
    curves: pd.DataFrame,
    facts: dict[str, Any],
    examples: Sequence[Path],
    classes: Classes,
) -> str:
    """The page as one HTML text.

    Args:
        table: one row a model.
        by_class: IoU in percent, rows classes, columns models.
        curves: columns model, step, loss, val_miou (percent, NaN where not measured).
        facts: settings to state.
        examples: pictures to embed.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pictures = [{"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode()} for path in examples]
    return environment.from_string(_TEMPLATE).render(
        facts=facts,
        table=jinja2.filters.do_mark_safe(table.to_html(index=False, border=0)),
        by_class=by_class,
        colours=dict(zip(classes.names, classes.colours, strict=True)),
        curves=jinja2.filters.do_mark_safe(_curves_svg(curves)),
        examples=pictures,
    )


def _curves_svg(curves: pd.DataFrame) -> str:
    """Loss and validation mIoU over the steps, a line a model, as SVG with fixed ids (equal in, equal out)."""
    with plt.rc_context({"svg.hashsalt": "segsemi", "svg.fonttype": "none", "font.size": 9}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
        for name, curve in curves.groupby("model", sort=False):
            left.plot(curve["step"], curve["loss"], label=name, linewidth=1)
            measured = curve.dropna(subset=["val_miou"])
            right.plot(measured["step"], measured["val_miou"], marker="o", markersize=3, label=name, linewidth=1)
        left.set(xlabel="step", ylabel="training loss", yscale="log")
        right.set(xlabel="step", ylabel="validation mIoU, percent")
        right.legend(frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
