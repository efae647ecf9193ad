"""Write docs/reference.md, the Python API in one page, from the docstrings: `make docs`."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
HEAD = """# Python API

Made from the docstrings by `make docs`; do not edit. [Extending](extending.md) has examples.

    import segsemi
    network = segsemi.load_model("models/student_2")    # a SegmentationModel
    label = network.predict(image)                      # (H, W, 3) uint8 RGB -> (H, W) uint8 class ids
"""
# file -> public names; `segsemi.load_model` is segsemi.models.saving.load_model
NAMES = {
    "models/saving.py": ["load_model", "save_model"],
    "models/build.py": ["SegmentationModel", "Architecture", "build_model"],
    "inference.py": ["predict_label", "predict_image", "predict_probabilities"],
    "losses.py": ["self_correction_loss", "symmetric_cross_entropy", "cross_entropy", "squared_error"],
    "dsbn.py": ["convert_dsbn", "labelled_first", "strip_dsbn", "bn_statistics"],
    "augment/strong.py": ["StrongAugment"],
    "augment/weak.py": ["weak_augment"],
    "metrics.py": ["ConfusionMatrix"],
    "core/classes.py": ["Classes", "colourise", "write_label_png"],
    "core/errors.py": ["UserError"],
    "datasets/__init__.py": ["find_dataset"],
    "datasets/entries.py": ["DataSet"],
    "pseudo_label.py": ["write_pseudo_labels"],
}


def reference() -> str:
    """Return the text of docs/reference.md."""
    parts = [HEAD]
    for file, names in NAMES.items():
        tree = ast.parse((ROOT / "segsemi" / file).read_text())
        module = "segsemi." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        parts.append(f"## {module}\n\n{_text(tree)}\n")
        nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name in names:
            node = nodes[name]
            if isinstance(node, ast.FunctionDef):
                parts.append(_entry(name, node, node))
                continue
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            start = next((method for method in methods if method.name == "__init__"), None)
            parts.append(_entry(name, node, start))
            for method in methods:
                if ast.get_docstring(method) and not re.match("_(?!_call)", method.name):
                    parts.append(_entry(f"{name}.{method.name}", method, method))
    return "\n".join(parts)


def _entry(name: str, node: ast.FunctionDef | ast.ClassDef, call: ast.FunctionDef | None) -> str:
    """Return the section of one name; `call` has its arguments, None for a dataclass or an exception."""
    if call is None:
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item)]
        arguments, result = [ast.unparse(field) for field in fields], ""
    else:
        positional = [ast.unparse(argument) for argument in call.args.args]
        for place, default in enumerate(reversed(call.args.defaults), start=1):
            positional[-place] += f" = {ast.unparse(default)}"
        named = [
            ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")
            for argument, default in zip(call.args.kwonlyargs, call.args.kw_defaults, strict=True)
        ]
        arguments = [item for item in positional if item != "self"] + (["*", *named] if named else [])
        result = f" -> {ast.unparse(call.returns)}" if call.returns and call is node else ""
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) > 110:
        line = "\n".join([f"{name}(", *(f"    {item}," for item in arguments), f"){result}"])
    if any(ast.unparse(item) == "property" for item in node.decorator_list):
        line = f"{name}{result}"
    return f"### `{name}`\n\n```python\n{line}\n```\n\n{_text(node)}\n"


def _text(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """Return the docstring as Markdown, with lists below `Args:`, `Returns:` and the like."""
    lines: list[str] = []
    listed = False
    for line in (ast.get_docstring(node) or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            listed = True
            lines += [f"*{line[:-1]}*", ""]
        elif listed and re.match(r" {4}\S", line):
            lines.append(f"- {line.strip()}")
        else:
            lines.append(f"  {line.strip()}" if listed and line.strip() else line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(reference())
