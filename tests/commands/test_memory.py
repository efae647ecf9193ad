"""The estimate of a training step's memory, and what the presets say of it."""

from __future__ import annotations

import itertools
import re
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segsemi.commands.memory import step_memory
from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.dsbn import convert_dsbn, labelled_first
from segsemi.losses import cross_entropy, self_correction_loss
from segsemi.models.build import Architecture, SegmentationModel

GIB = 2**30
NUM_CLASSES = {"cityscapes": 19, "voc": 21}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and their peak: an independent way to the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata)
                    self.peak = max(self.peak, sum(self.live.values()))
        return out


@pytest.mark.parametrize(
    ("decoder", "encoder"), [("DeepLabV3Plus", "tf_efficientnet_lite0"), ("DeepLabV2", "resnet18")]
)
def test_estimate_is_near_the_peak_of_a_real_student_step(decoder: str, encoder: str) -> None:
    """The step here has DSBN, one part after the other, and SCL; momentum is added from its size."""
    architecture = Architecture(decoder, encoder, 16)
    model = SegmentationModel(architecture, SCENES)
    convert_dsbn(model.network)
    model.train()
    images, targets = torch.rand(8, 3, 129, 129), torch.randint(11, (8, 129, 129))
    with LiveBytes() as counter:
        for part, labelled, loss in ((slice(0, 4), 4, cross_entropy), (slice(4, 8), 0, self_correction_loss)):
            with labelled_first(model, labelled):
                loss(model(images[part]), targets[part]).backward()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    measured = counter.peak + 2 * weights  # the gradients are among the live bytes
    assert step_memory(architecture, SCENES, batch=4, crop_size=129).step == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "camvid_cpu"])
def test_memory_lines_of_a_preset(name: str) -> None:
    values, comment = read_preset(name)
    number = NUM_CLASSES[values["data"]["name"]]
    classes = Classes(tuple(f"class {i}" for i in range(number)), tuple((i, i, i) for i in range(number)))
    network = values["model"]
    architecture = Architecture(network["decoder"], network["encoder"], network["output_stride"])

    def gib(changes: str, parts: int = 1) -> float:
        changed = dict(re.findall(r"(\S+)=(\d+)", changes))
        accumulate = {part: int(changed.get(f"{part}.accumulate", 1)) for part in ("teacher", "student")}
        labelled, pseudo = (values["student"][f"batch_{part}"] for part in ("labelled", "pseudo"))
        assert labelled % accumulate["student"] == pseudo % accumulate["student"] == 0
        assert values["teacher"]["batch_size"] % accumulate["teacher"] == 0
        batch = max(labelled, pseudo) // accumulate["student"]  # one part at a time: DSBN
        assert values["teacher"]["batch_size"] // accumulate["teacher"] <= batch  # so the teacher's step fits too
        crop = int(changed.get("augment.crop_size", values["augment"]["crop_size"]))
        return step_memory(architecture, classes, batch=parts * batch, crop_size=crop).step / GIB

    full = re.search(r"16 \+ 16 images: ([\d.]+) GiB", comment)
    assert full is not None and gib("") == pytest.approx(float(full[1]), abs=0.02)
    cards = re.findall(r"(\d+) GB: (.+) \(([\d.]+) GiB\)", comment)
    assert [int(card) for card, _, _ in cards] == [24, 16, 8]
    for card, changes, stated in cards:
        assert gib(changes) == pytest.approx(float(stated), abs=0.02)
        assert 1.25 * float(stated) * GIB < 0.95 * int(card) * 1e9
    for (card, _, _), (_, changes, _) in itertools.pairwise(cards):  # bn: trainable, by the next smaller card's line
        assert 1.25 * gib(changes, parts=2) * GIB < 0.95 * int(card) * 1e9
