"""Write docs/params.md and params.schema.json from params.yaml and segsemi/core/config.py: `make docs`."""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from segsemi.core.config import Params

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "params.md"
SCHEMA = ROOT / "params.schema.json"
HEAD = """# Every param

Made from `params.yaml` and `segsemi/core/config.py` by `make docs`; do not edit. Change a value in `params.yaml`, or for one
experiment with `dvc exp run -S section.key=value`.
"""


def page() -> str:
    """The text of docs/params.md."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    comments, schema = _comments((ROOT / "params.yaml").read_text()), Params.model_json_schema()
    parts = [HEAD]
    top = [(key, schema["properties"][key]) for key, value in values.items() if not isinstance(value, dict)]
    parts.append(_table([(key, item, values[key], comments[key]) for key, item in top]))
    for section, content in values.items():
        reference = schema["properties"][section].get("$ref")
        if not isinstance(content, dict):
            continue
        parts.append(f"## {section}\n\n{comments.get(section, '')}".rstrip() + "\n")
        if reference is not None:
            properties = schema["$defs"][reference.rpartition("/")[2]]["properties"]
            parts.append(
                _table([(key, properties[key], value, comments[f"{section}.{key}"]) for key, value in content.items()])
            )
        elif content:
            parts.append("".join(f"    {key}: {value}\n" for key, value in content.items()))
    return "\n".join(parts)


def schema() -> str:
    """The text of params.schema.json, with which editors complete and check params.yaml: types, limits and comments."""
    found = Params.model_json_schema()
    for name, comment in _comments((ROOT / "params.yaml").read_text()).items():
        section, _, key = name.partition(".")
        item = found["properties"][section]
        if not key:
            item["description"] = comment
        elif "$ref" in item:  # else it is a round
            found["$defs"][item["$ref"].rpartition("/")[2]]["properties"][key]["description"] = comment
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"


def _table(rows: list[tuple[str, dict[str, Any], Any, str]]) -> str:
    lines = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    for key, item, value, comment in rows:
        shown = "`null`" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
        lines.append(f"| `{key}` | {_values(item)} | {shown} | {comment.replace('|', ',')} |")
    return "\n".join(lines) + "\n"


def _values(item: dict[str, Any]) -> str:
    """The type and limits of one JSON schema in words."""
    if "anyOf" in item:
        return " or ".join(_values(option) for option in item["anyOf"])
    if "const" in item:
        return f"`{item['const']}`"
    if "enum" in item:
        return ", ".join(f"`{value}`" for value in item["enum"])
    if item["type"] == "array":
        return f"list of {_values(item['items'])}"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    text = ", ".join(f"{sign} {item[limit]:g}" for limit, sign in limits.items() if limit in item)
    return " ".join(part for part in (words[item["type"]], text) if part)


def _comments(text: str) -> dict[str, str]:
    """`section`, or `section.key` -> the comment behind it, or above it where none is behind."""
    found: dict[str, str] = {}
    section, above = "", ""
    for line in text.splitlines():
        if line.startswith("# "):
            above = f"{above} {line[2:]}".strip()
            continue
        match = re.match(r"( *)(\w+):(?:[^#]*?)(?:\s# ?(.*))?$", line)
        if match is None:
            above = "" if not line.strip() else above
            continue
        indent, key, comment = match.groups()
        section = section if indent else key
        found[f"{section}.{key}" if indent else key] = comment or above
        above = ""
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
    SCHEMA.write_text(schema())
