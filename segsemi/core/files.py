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


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, then rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def has_content(path: Path) -> bool:
    """Return whether a file exists and is not empty: a power cut may leave the name without the content."""
    return path.exists() and path.stat().st_size > 0


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


def visible_files(folder: Path, endings: Collection[str]) -> list[Path]:
    """Return the files below `folder` with one of the `endings` (`.png`; upper case counts too), in alphabetical order.

    Hidden files and folders are skipped: thumbnails, a notebook's checkpoints, what macOS puts beside each file. Links to
    folders are followed, to each folder once.
    """
    found, seen = [], set()
    for name, folders, files in os.walk(folder, followlinks=True):
        base = Path(name)
        if base.resolve() in seen:
            folders.clear()
            continue
        seen.add(base.resolve())
        folders[:] = sorted(below for below in folders if not below.startswith("."))
        visible = (base / file for file in files if not file.startswith("."))
        found += [path for path in visible if path.suffix.lower() in endings and path.is_file()]
    return sorted(found)


def visible_pngs(folder: Path) -> list[Path]:
    """Return the PNGs directly in `folder`, in alphabetical order, without hidden ones; none if there is no such folder."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() == ".png" and not path.name.startswith("."))


def file_hash(path: Path) -> str:
    """Return the MD5 of the content, in hex (what dvc uses; it finds equal files, it protects nothing)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def yaml_names(folder: Traversable) -> list[str]:
    """Return the YAML files of a folder of the package, without their ending."""
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
