"""Small file helpers: atomic writes and content hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, then rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def file_hash(path: Path) -> str:
    """MD5 of the content, in hex (what dvc uses; it finds equal files, it protects nothing)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
