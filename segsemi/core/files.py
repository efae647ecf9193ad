"""Small file helpers: atomic writes of text, JSON and CSV, and content hashes."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from segsemi.core.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, then rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name may be as long as allowed
    short = hashlib.md5(os.fsencode(path.name), usedforsecurity=False).hexdigest()[:16]
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def has_content(path: Path) -> bool:
    """Return whether a file exists and is not empty: a power cut may leave the name without the content."""
    return path.exists() and path.stat().st_size > 0


def read_json(path: Path) -> Any:
    """Return a JSON value, in UTF-8, or in UTF-16 or -32 as some editors of Windows write it, with or without a mark.

    Raises:
        ValueError: it is no JSON, or in another encoding.
    """
    return json.loads(decoded(path))


def decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, -16 or -32; raise a ValueError for any other encoding."""
    data = path.read_bytes()
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        raise ValueError(
            "it is not in UTF-8, perhaps in an older encoding such as GBK or Latin-1; save it as UTF-8"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, one line per key, atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table with a header, atomically; skip keys of `rows` that are no column, leave missing ones empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


# What file servers, archives and desktops leave among a user's files.
_LEFTOVERS = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled"),
    *("system volume information", "lost+found", "lost.dir", "__macosx", "__pycache__", "thumbs.db", "desktop.ini"),
}  # fmt: skip


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "~$")) and name.lower() not in _LEFTOVERS


def walk(folder: Path) -> list[Path]:
    """Return all files below `folder`, links that lead nowhere too, in alphabetical order.

    Hidden files and folders are skipped: thumbnails, a notebook's checkpoints, what macOS and file servers put beside each
    file. Links to folders are followed, to each folder once.
    """
    found, seen = [], set()
    for name, folders, files in os.walk(folder, followlinks=True):
        base = Path(name)
        if base.resolve() in seen:
            folders.clear()
            continue
        seen.add(base.resolve())
        folders[:] = sorted(filter(_is_visible, folders))
        found += [base / file for file in files if _is_visible(file)]
    return sorted(found, key=lambda path: path.parts)  # as paths are compared, but ten times as fast


def visible_files(folder: Path, endings: Collection[str]) -> list[Path]:
    """Return the files of `walk` with one of the `endings` (`.png`; upper case counts too)."""
    return [path for path in walk(folder) if path.suffix.lower() in endings and path.is_file()]


def dead_links(paths: Iterable[Path]) -> str:
    """Return `N links lead nowhere, first ...` of those `paths` that are such links; empty if there is none."""
    dead = [path for path in paths if not path.exists()]
    return f"{len(dead)} link{'s lead' * (len(dead) > 1) or ' leads'} nowhere, first {dead[0]}" if dead else ""


def require_usable(root: Path) -> None:
    """Refuse a data set with which dvc, or the pipeline, would fail in a way that does not name the reason.

    Raises:
        UserError: a link leads nowhere, a name is no UTF-8, or `root` has a .dvcignore.
    """
    paths = walk(root)
    if dead := dead_links(paths):
        raise UserError(f"{dead}; fix or remove them")
    foreign = [path for path in paths if not str(path).isascii() and str(path) != _as_utf8(path)]
    if foreign:
        first = _as_utf8(foreign[0])
        raise UserError(
            f"{len(foreign)} names are no UTF-8, first {first}; rename them (convmv -f latin1 -t utf8 -r DIR)"
        )
    if ignores := [path for path in root.rglob(".dvcignore") if ".dvc" not in path.parts]:
        raise UserError(
            f"dvc refuses a data set with {ignores[0]} in it; set data.root to a folder below it, or remove it"
        )


def _as_utf8(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")


def file_hash(path: Path) -> str:
    """Return the MD5 of the content, in hex (what dvc uses; it finds equal files, it protects nothing)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def yaml_names(folder: Traversable) -> list[str]:
    """Return the YAML files of a folder of the package, without their ending."""
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
