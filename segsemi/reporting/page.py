"""Self-contained HTML pages of one look, readable without a server: templates/*.html."""

import base64
import io
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from segsemi.core.pictures import png_bytes, shrunk

PICTURE_WIDTH = 800  # pixels; a page shows 320 and more of them, and all after a click


def render(template: str, **values: Any) -> str:
    """Return the page that `template`, a file of templates/, makes of `values`; text in them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segsemi.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "url": _url}
    return environment.get_template(template).render(values)


def _number(value: float | None, style: str = "%.2f") -> str:
    return "–" if value is None or value != value else style % value


def _url(image: np.ndarray, width: int = PICTURE_WIDTH) -> str:
    """Return a picture, (H, W, 3) uint8, as a data URL: few colours, as of labels, are kept; a photograph becomes a JPEG."""
    if Image.fromarray(image).getcolors(128) is not None:
        kind, data = "png", png_bytes(shrunk(image, width, Image.Resampling.NEAREST), palette=True)
    else:
        buffer = io.BytesIO()
        Image.fromarray(shrunk(image, width)).save(buffer, format="JPEG", quality=85)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
