"""Classes, their colours, and 8-bit palette PNGs that any viewer shows in those colours."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from segsemi.files import write_bytes, write_json

IGNORE_INDEX = 255
VOID_COLOUR = (0, 0, 0)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names, colours: one a class id, in order; colours are RGB, 0..255.
        ignore_ids: ids in the label files that mean "no class"; in memory they become ignore_index.
        ignore_index: the id in memory, and in pseudo labels, that losses and metrics pass over.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    ignore_index: ClassVar[int] = IGNORE_INDEX

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "ignore_index": self.ignore_index}

    @staticmethod
    def from_dict(values: dict) -> Classes:
        return Classes(
            names=tuple(values["names"]),
            colours=tuple((int(r), int(g), int(b)) for r, g, b in values["colours"]),
            ignore_ids=tuple(values["ignore_ids"]),
        )

    def as_written(self) -> Classes:
        """The classes of label files that we wrote, such as pseudo labels: there the ids are those in memory."""
        return Classes(self.names, self.colours)

    def save(self, path: Path) -> None:
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: Path) -> Classes:
        return Classes.from_dict(json.loads(path.read_text()))

    def lookup(self) -> np.ndarray:
        """(256,) uint8: id in a label file -> id in memory; ignored ids -> ignore_index, the rest unchanged."""
        table = np.arange(256, dtype=np.uint8)
        table[list(self.ignore_ids)] = self.ignore_index
        return table

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB; ids without a class are black."""
        table = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
        table[: len(self.colours)] = np.array(self.colours, dtype=np.uint8).reshape(-1, 3)
        return table


def write_label_png(path: Path, label: np.ndarray, classes: Classes) -> None:
    """Write (H, W) uint8 class ids as an 8-bit palette PNG, atomically."""
    image = Image.fromarray(label)
    image.putpalette(classes.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    write_bytes(path, buffer.getvalue())


def colourise(label: np.ndarray, classes: Classes) -> np.ndarray:
    """(H, W) uint8 class ids -> (H, W, 3) uint8 RGB."""
    return classes.palette()[label]
