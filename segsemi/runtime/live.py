"""Curves of a running training, for TensorBoard or dvclive."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segsemi.core.errors import UserError

Point = Mapping[str, Any]  # step, loss, lr and, where measured, val_miou
Picture = Callable[[], np.ndarray | None]  # -> (H, W, 3) uint8, or None; called only if something is logged
WRITERS = {"tensorboard": ("torch.utils.tensorboard", "SummaryWriter"), "dvclive": ("dvclive", "Live")}


@contextmanager
def live_log(
    kind: Literal["none", "tensorboard", "dvclive"], folder: Path, before: Sequence[Point]
) -> Iterator[Callable[[Point, Picture], None]]:
    """Yield a function that writes a point of the training curve, and a picture if there is one, to `folder`.

    Args:
        before: the points that a resumed training has. Later ones in `folder` are dropped, since they come again.

    Raises:
        UserError: the package is not installed.
    """
    if kind == "none":
        yield lambda point, picture: None
        return
    module, name = WRITERS[kind]
    try:
        open_writer: Any = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        raise UserError(f"machine.log: {kind} is not installed; pip install {kind}, or set machine.log: none") from None
    if kind == "tensorboard":
        writer = open_writer(str(folder), purge_step=before[-1]["step"] + 1 if before else 0)
    else:
        writer = open_writer(str(folder), save_dvc_exp=False, dvcyaml=None)  # empties the folder

    def log(point: Point, picture: Picture) -> None:
        step, values, image = point["step"], {key: point[key] for key in point.keys() - {"step"}}, picture()
        if kind == "tensorboard":
            for key, value in values.items():
                writer.add_scalar(key, value, step)
            if image is not None:
                writer.add_image("example", image, step, dataformats="HWC")
            writer.flush()
        else:
            writer.step = step
            for key, value in values.items():
                writer.log_metric(key, value)
            if image is not None:
                writer.log_image("example.png", image)

    with writer:
        for point in before if kind == "dvclive" else ():
            log(point, lambda: None)
        yield log
