"""Classes, their colours, and 8-bit palette PNGs that any viewer shows in those colours."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from segsemi.core.files import write_bytes, write_json

IGNORE_INDEX = 255
VOID_COLOURS = ((0, 0, 0), (224, 224, 192))  # black, or, where a class has it, VOC's own


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names, colours: one per class id, in order; colours are RGB, 0..255.
        ignore_ids: ids in the label files that mean "no class"; in memory they become ignore_index.
        file_ids: the ids of the classes in the label files, in order; empty: 0, 1, 2... as in memory.
        label_format: what label files hold: `ids`, or RGB `colours` of the classes.
        ignore_colours: colours in such files that mean "no class".
        value_range: the lowest and highest value of images of more than 8 bits; None: 0 and 65535.
        ignore_index: the id in memory, and in pseudo labels, that losses and metrics skip.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    file_ids: tuple[int, ...] = ()
    label_format: Literal["ids", "colours"] = "ids"
    ignore_colours: tuple[tuple[int, int, int], ...] = ()
    value_range: tuple[float, float] | None = None
    ignore_index: ClassVar[int] = IGNORE_INDEX

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 0 < count <= IGNORE_INDEX or len(set(self.names)) < count:
            raise ValueError(f"names must be 1 to {IGNORE_INDEX} different ones, found {list(self.names)}")
        if odd := [name for name in self.names if name.encode(errors="ignore").decode().splitlines() != [name.strip()]]:
            raise ValueError(f"name {odd[0]!r} must be one line without space around it, in UTF-8")
        if len(self.colours) != count or any(not 0 <= value <= 255 for colour in self.colours for value in colour):
            raise ValueError(f"colours must be {count}, one per name, each [red, green, blue] in 0..255")
        if self.label_format not in ("ids", "colours"):
            raise ValueError(f"labels must be ids or colours, found {self.label_format!r}")
        if self.label_format == "colours" and len({*self.colours, *self.ignore_colours}) < count + len(
            self.ignore_colours
        ):
            raise ValueError("with labels: colours, the colours of the classes and the ignored ones must all differ")
        ids = (*self.label_ids, *self.ignore_ids)
        if len(self.label_ids) != count or len(set(ids)) < len(ids) or any(not 0 <= id_ <= 255 for id_ in ids):
            raise ValueError(f"ids must be {count}, one per name, all different and not ignored, in 0..255")
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise ValueError(f"range must be [low, high], found {list(self.value_range)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Return the id of each class in the label files."""
        return self.file_ids or tuple(range(len(self.names)))

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-like dict that `from_dict` turns back into an equal object."""
        return {**asdict(self), "ignore_index": self.ignore_index}

    @staticmethod
    def from_dict(values: dict) -> Classes:
        """Return the object that `to_dict` described; keys that older files lack have their defaults."""
        return Classes(
            names=tuple(values["names"]),
            colours=tuple((int(r), int(g), int(b)) for r, g, b in values["colours"]),
            ignore_ids=tuple(values["ignore_ids"]),
            file_ids=tuple(values.get("file_ids", ())),
            label_format=values.get("label_format", "ids"),
            ignore_colours=tuple((int(r), int(g), int(b)) for r, g, b in values.get("ignore_colours", ())),
            value_range=tuple(values["value_range"]) if values.get("value_range") else None,
        )

    def as_written(self) -> Classes:
        """Return the classes of label files that we wrote, such as pseudo labels: there the ids are those in memory."""
        return Classes(self.names, self.colours, value_range=self.value_range)

    def save(self, path: Path) -> None:
        """Write classes.json, atomically."""
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: Path) -> Classes:
        """Read what `save` wrote."""
        return Classes.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def lookup(self) -> np.ndarray:
        """Return (256,) uint8: id in a label file -> id in memory; ids of no class -> ignore_index."""
        table = np.full(256, self.ignore_index, dtype=np.uint8)
        table[list(self.label_ids)] = np.arange(len(self), dtype=np.uint8)
        return table

    def colour_lookup(self) -> dict[int, int]:
        """Return colour in a label file, as red << 16 | green << 8 | blue -> id in memory."""
        table = {_code(colour): id_ for id_, colour in enumerate(self.colours)}
        return table | {_code(colour): self.ignore_index for colour in self.ignore_colours}

    def palette(self) -> np.ndarray:
        """Return (256, 3) uint8 RGB; ids without a class have the first of VOID_COLOURS that no class has."""
        void = next((colour for colour in VOID_COLOURS if colour not in self.colours), VOID_COLOURS[0])
        table = np.full((256, 3), void, dtype=np.uint8)
        table[: len(self.colours)] = np.array(self.colours, dtype=np.uint8).reshape(-1, 3)
        return table


def _code(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def write_label_png(path: Path, label: np.ndarray, classes: Classes) -> None:
    """Write (H, W) uint8 class ids as an 8-bit palette PNG, atomically."""
    image = Image.fromarray(label)
    image.putpalette(classes.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    write_bytes(path, buffer.getvalue())


def colourise(label: np.ndarray, classes: Classes) -> np.ndarray:
    """Return (H, W) uint8 class ids as (H, W, 3) uint8 RGB."""
    return classes.palette()[label]
