"""Evaluation against counting in a loop, and its state after a stop."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from small_training import ALONE, ARCHITECTURE, scene_rows

import segsemi.evaluate
from segsemi.core.config import EvaluateParams
from segsemi.core.errors import UserError
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES
from segsemi.evaluate import write_evaluation
from segsemi.inference import predict_label
from segsemi.models.build import SegmentationModel, build_model


@pytest.fixture
def val(tmp_path: Path) -> list[Row]:
    """Six labelled images in `tmp_path`/raw."""
    return scene_rows(tmp_path / "raw", 1, 6, 48, 64)[1:]


def network(short_side: int | None = None) -> SegmentationModel:
    architecture = replace(ARCHITECTURE, short_side=short_side)
    return build_model(architecture, CLASSES, encoder_weights="none", seed=0).eval()


def evaluate(model: SegmentationModel, rows: list[Row], root: Path, out: str, **changes: object) -> Path:
    """Write the evaluation to root/OUT, with the state of a stopped run in root/work_OUT."""
    settings = EvaluateParams(
        **{"subset": "val", "scales": [1.0], "flip": False, "window": None, "examples": 0, **changes}
    )
    work = root / f"work_{out}"
    write_evaluation(model, rows, root / "raw", CLASSES, root / out, settings, weights="", work=work, runtime=ALONE)
    return root / out


@pytest.mark.parametrize(
    ("short_side", "window", "scales", "flip"),
    [(None, None, [1.0], False), (32, None, [0.75, 1.0], True), (None, 32, [0.75, 1.0], True)],
)
def test_evaluation_counts_every_labelled_pixel(
    short_side: int | None, window: int | None, scales: list[float], flip: bool, val: list[Row], tmp_path: Path
) -> None:
    """At the labels' own size: against counting in a loop, and bins filled one by one (Guo et al. 2017, equation 3)."""
    model = network(short_side)
    with torch.no_grad():  # confident enough for several bins
        model.network.segmentation_head[0].weight *= 60
    out = evaluate(model, val, tmp_path, "out", scales=scales, flip=flip, window=window)
    expected, images = np.zeros((11, 11), int), pd.read_csv(out / "images.csv").set_index("id")
    sure, right = [], []
    for row in val:
        image, label = read_image(tmp_path / "raw" / row.image), read_label(tmp_path / "raw" / row.label, CLASSES)
        best, highest = predict_label(model, image, scales, flip, window)  # test_inference.py has the reference
        with Image.open(out / f"predictions/{row.id}.png") as written:
            assert np.array_equal(np.asarray(written), best)
        counted = label != 255
        iou = jaccard_score(label[counted], best[counted], average="macro")
        assert images.loc[row.id, "miou"] == pytest.approx(iou, abs=1e-6)
        for truth, prediction in zip(label[counted], best[counted], strict=True):
            expected[truth, prediction] += 1
        sure += highest[counted].tolist()
        right += (best == label)[counted].tolist()
    cells = pd.read_csv(out / "confusion.csv").pivot(index="truth", columns="prediction", values="pixels")
    names = list(CLASSES.names)
    assert cells.loc[names, names].to_numpy().tolist() == expected.tolist()
    bins, calibration = pd.cut(sure, np.linspace(0, 1, 16)), pd.read_csv(out / "calibration.csv")
    groups = pd.DataFrame({"sure": sure, "right": right}).groupby(bins, observed=False)
    error = sum(abs(group["sure"].mean() - group["right"].mean()) * len(group) for _, group in groups if len(group))
    measured = json.loads((out / "metrics.json").read_text())["calibration_error"]
    assert measured == pytest.approx(error / len(sure), abs=1e-5) and (calibration["pixels"] > 0).sum() > 3
    assert calibration["pixels"].sum() == len(sure)
    np.testing.assert_allclose(calibration["accuracy"], groups["right"].mean(), atol=2e-3)  # few pixels near an edge


def test_evaluation_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data set has no labelled image there; choose val"):
        evaluate(network(), [], tmp_path, "out")


def test_evaluation_goes_on_with_the_next_image(
    val: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    whole = evaluate(model, val, tmp_path, "whole")
    monkeypatch.setattr(segsemi.evaluate, "STATE_SECONDS", -1.0)
    real = segsemi.evaluate.LabelledPairs.__getitem__
    read: list[int] = []

    def killed(self, index):  # type: ignore[no-untyped-def]
        read.append(index)
        if read == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return real(self, index)

    monkeypatch.setattr(segsemi.evaluate.LabelledPairs, "__getitem__", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, val, tmp_path, "resumed")
    assert not (tmp_path / "resumed/metrics.json").exists()
    read.clear()
    resumed = evaluate(model, val, tmp_path, "resumed")
    assert read == [3, 4, 5]  # no earlier image is read again
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) == 4 + len(val)  # metrics, confusion, calibration, images, and predictions
    for name in files:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
