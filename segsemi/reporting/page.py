"""Self-contained HTML pages of one look, readable without a server: templates/*.html."""

import base64
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Return the page that `template`, a file of templates/, makes of `values`; text in them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segsemi.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template(template).render(values)
