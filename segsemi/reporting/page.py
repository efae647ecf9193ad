"""Self-contained HTML pages of one look, readable without a server: templates/*.html."""

import base64
import io
from typing import Any

import jinja2
import numpy as np
from PIL import Image

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
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["number"] = _number
    environment.filters["url"] = _url
    return environment.get_template(template).render(values)


def _number(value: float | None, style: str = "%.2f") -> str:
    return "–" if value is None or value != value else style % value


def _url(image: np.ndarray, width: int = PICTURE_WIDTH) -> str:
    """Return a picture, (H, W, 3) uint8, as a data URL: few colours, as of labels, are kept; a photograph becomes a JPEG."""
    picture, buffer = Image.fromarray(image), io.BytesIO()
    flat = picture.getcolors(128) is not None
    if picture.width > width:
        size = (width, max(1, round(picture.height * width / picture.width)))
        picture = picture.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.BOX)
    if flat:
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    else:
        picture.save(buffer, format="JPEG", quality=85)
    kind = "png" if flat else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
