"""Pseudo labels as files, and their quality, against the formulas written out."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_training import ALONE, ARCHITECTURE

from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import PseudoLabelParams
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.inference import predict_image
from segsemi.models.build import SegmentationModel, build_model
from segsemi.pseudo_label import write_pseudo_labels
from segsemi.pseudo_quality import write_quality


def network(classes: Classes) -> SegmentationModel:
    return build_model(ARCHITECTURE, classes, encoder_weights="imagenet", seed=0).eval()


def pseudo_labels(model: SegmentationModel, rows: list[Row], folder: Path, scales: list[float], flip: bool) -> Path:
    """Write the pseudo labels of images in `folder`, and return their folder."""
    out, work, settings = folder / "out", folder / "work", PseudoLabelParams(scales=scales, flip=flip)
    work.mkdir()
    write_pseudo_labels(model, rows, folder, out, settings, work=work, runtime=ALONE)
    return out


def test_labels_are_the_most_probable_classes_over_scales_and_flips(tmp_path: Path) -> None:
    model, rng = network(SCENES), np.random.default_rng(0)
    rows = []
    for name, size in (("b", (50, 61)), ("a", (40, 48))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        rows.append(Row(name, "train", f"{name}.png"))
    out = pseudo_labels(model, rows, tmp_path, [0.5, 1.0], True)
    with (out / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ["b", "a"]
    for row, line in zip(rows, lines, strict=True):
        with Image.open(tmp_path / row.image) as image:
            probabilities = predict_image(model, np.asarray(image), (0.5, 1.0), True)
        expected = probabilities.argmax(0).numpy()
        with Image.open(out / f"{row.id}.png") as label:
            assert label.mode == "P" and np.array_equal(np.asarray(label), expected)
        assert float(line["confidence"]) == pytest.approx(float(probabilities.amax(0).mean()), abs=1e-4)
        with Image.open(out / f"confidence/{row.id}.png") as sure:
            assert np.allclose(np.asarray(sure) / 255, probabilities.amax(0), atol=0.5 / 255 + 1e-6)
        for id_, name in enumerate(SCENES.names):
            assert float(line[name]) == pytest.approx((expected == id_).mean(), abs=1e-4)


def test_classes_named_like_other_columns(tmp_path: Path) -> None:
    """Their shares have columns of their own in summary.csv."""
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    model = network(Classes(("id", "confidence"), ((0, 0, 0), (9, 9, 9))))
    out = pseudo_labels(model, [Row("a", "train", "a.png")], tmp_path, [1.0], False)
    header, line = (out / "summary.csv").read_text().splitlines()
    assert header == "id,confidence,class id,class confidence"
    name, confidence, *shares = line.split(",")
    assert name == "a" and 0.5 <= float(confidence) <= 1 and sum(map(float, shares)) == 1


def test_quality_counts_all_images_and_passes_over_what_is_no_class_on_either_side(tmp_path: Path) -> None:
    pairs = {
        "a": ([[0, 1], [1, 255]], [[0, 1], [0, 3]]),  # 2 of 3 pixels that have a class are right
        "b": ([[2, 2], [2, 2]], [[2, 255], [2, 2]]),  # 3 of 3
    }
    for name, (label, pseudo) in pairs.items():
        write_label_png(tmp_path / f"{name}_label.png", np.array(label, np.uint8), SCENES)
        write_label_png(tmp_path / f"pseudo/{name}.png", np.array(pseudo, np.uint8), SCENES)
        write_label_png(tmp_path / f"pseudo/confidence/{name}.png", np.full((2, 2), 9, np.uint8), SCENES)
    (tmp_path / "pseudo/summary.csv").write_text(
        "id,confidence," + ",".join(SCENES.names) + "\na,0.5,1,0" + ",0" * 9 + "\nb,0.75,0,1" + ",0" * 9 + "\n"
    )
    rows = [Row(name, "train", "", f"{name}_label.png") for name in pairs]
    out = tmp_path / "out"
    found = write_quality(tmp_path / "pseudo", rows[:1], rows, tmp_path, SCENES, out)
    assert found["images"] == 2 and found["pixel_accuracy"] == pytest.approx(5 / 6, abs=1e-6)
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3, abs=1e-6)  # classes 0, 1 and 2
    assert found["confidence"] == 0.625 and list(found["pseudo_labels"].values())[:3] == [0.5, 0.5, 0.0]
    assert list(found["labels"].values())[:3] == [pytest.approx(1 / 3, abs=1e-6), pytest.approx(2 / 3, abs=1e-6), 0.0]
    assert json.loads((out / "quality.json").read_text()) == found
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {
        *("a.png", "b.png", "confidence/a.png", "confidence/b.png"),
    }
    assert "miou" not in write_quality(tmp_path / "pseudo", rows, [], tmp_path, SCENES, out)
    (tmp_path / "pseudo/summary.csv").write_text("id,confidence," + ",".join(SCENES.names) + "\n")
    assert write_quality(tmp_path / "pseudo", rows, [], tmp_path, SCENES, out) == {"images": 0}
