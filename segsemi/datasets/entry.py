"""The images of a data set as its reader finds them, and the file search that readers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segsemi.core.classes import Classes
from segsemi.core.errors import UserError
from segsemi.core.files import visible_files
from segsemi.data.images import IMAGE_ENDINGS


@dataclass(frozen=True)
class Entry:
    """One image of a data set that is not checked yet; paths are relative to the root.

    Attributes:
        subset: train, val, test, or extra: images beside the training images, usually without labels.
        label: None where there is none.
    """

    id: str
    subset: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class DataSet:
    """The classes of a data set, with the ids or colours of its label files, and its images."""

    classes: Classes
    entries: list[Entry]


def stems(root: Path, folder: str, endings: Sequence[str]) -> dict[str, Path]:
    """Return path below the folder, without ending -> path below root, of the files with one of the `endings`.

    Raises:
        UserError: the folder is missing or has no such file; two files differ only in their endings.
    """
    base = root / folder
    if not base.is_dir():
        below = next((path for path in sorted(root.glob(f"*/{folder}")) if path.is_dir()), None)
        found = f" ({below} is there: each archive belongs into the same folder)" if below else ""
        raise UserError(f"folder {base} not found{found}; set data.root to the folder that holds {folder}/")
    files: dict[str, Path] = {}
    for path in visible_files(base, endings):
        stem = path.relative_to(base).with_suffix("").as_posix()
        if stem in files:
            raise UserError(f"{path} and {files[stem].name} are the same image twice; remove one")
        files[stem] = path.relative_to(root)
    if not files:
        raise UserError(f"folder {base} has no {' or '.join(endings)} files")
    return files


def read_lines(path: Path, *, may_be_empty: bool = False) -> list[str]:
    """Return the lines of a list file that are neither empty nor a comment (# ...).

    Raises:
        UserError: the file is missing, no text, or names nothing although it must.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error})") from None
    named = [line for line in lines if line and not line.startswith("#")]
    if not named and not may_be_empty:
        raise UserError(f"list {path} is empty; name one image per line, or remove the file")
    return named


def path_ends(path: str) -> Iterator[str]:
    """Yield what a line of a list may mean, longest first: a/b.png -> a/b.png, a/b, b.png, b."""
    parts = PurePosixPath(path).parts
    for start in range(len(parts)):
        end = PurePosixPath(*parts[start:])
        yield str(end)
        if end.suffix.lower() in IMAGE_ENDINGS:
            yield str(end.with_suffix(""))
