"""The report: its files, its page, its figures, and what changed between teacher and student."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from segsemi.core.classes import write_label_png
from segsemi.core.pictures import BAR, GAP
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.reporting import figures
from segsemi.reporting.comparison import changed, comparison
from segsemi.reporting.report import Measured, write_report

NAMES = list(SCENES.names)
CURVE = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "lr": [0.1, 0.05], "val_miou": [np.nan, 0.4]})
BN = pd.DataFrame(
    {
        "layer": ["a", "b"],
        "mean_standard": [0.5, 0.1],
        "mean_parallel": [0.2, 0.4],
        "variance_standard": [1.0, 2.0],
        "variance_parallel": [1.2, 1.6],
    }
)


def measured(folder: Path, name: str, teacher: str | None, miou: float = 0.4) -> Measured:
    """A model that is right on every pixel but those of "fence", of which there is none; students have DSBN."""
    pixels = [
        {"truth": truth, "prediction": prediction, "pixels": 7 * (truth == prediction != "fence")}
        for truth in NAMES
        for prediction in NAMES
    ]
    (folder / name).mkdir(exist_ok=True)
    pd.DataFrame(pixels).to_csv(folder / name / "confusion.csv", index=False)
    ious = {c: None if c == "fence" else miou - index / 100 for index, c in enumerate(NAMES)}
    return Measured(
        name=name,
        teacher=teacher,
        evaluated=folder / name,
        metrics={"miou": miou, "pixel_accuracy": 0.9, "iou": ious},
        training={"steps_in_all": 600, "keep": "last"},
        curve=CURVE,
        bn=None if teacher is None else BN,
        quality=None if teacher is None else {"images": 2, "miou": 0.415},
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The folder of the report of a teacher, a supervised baseline and a student that is worse than its teacher."""
    models = [
        measured(tmp_path, "teacher", None, 0.4),
        measured(tmp_path, "supervised", None, 0.41),
        measured(tmp_path, "student_1", "teacher", 0.385),
    ]
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(tmp_path / "image.png")
    for path in ("label.png", *(f"{model.name}/predictions/x.png" for model in models)):
        write_label_png(tmp_path / path, np.zeros((20, 30), dtype=np.uint8), SCENES)
    rows = [Row(name, "val", "image.png", "label.png", 20, 30, "", "") for name in ("x", "y")]
    facts, settings = {"data set": "a <b> & c"}, {"teacher": {"steps": 600, "window": None}}
    for out in ("out", "again"):
        write_report(models, SCENES, rows, tmp_path, facts, settings, tmp_path / out)
    return tmp_path / "out"


def test_files_of_the_report_have_the_numbers(report: Path) -> None:
    assert json.loads((report / "metrics.json").read_text()) == {
        "teacher": {"miou": 40.0, "pixel_accuracy": 90.0},
        "supervised": {"miou": 41.0, "pixel_accuracy": 90.0},
        "student_1": {"miou": 38.5, "pixel_accuracy": 90.0, "pseudo_label_miou": 41.5},
    }
    assert "| student_1  | 600            | 38.50  | -1.50 " in (report / "table.md").read_text()
    per_class = pd.read_csv(report / "per_class.csv").set_index(["model", "class"])["iou"]
    assert per_class["student_1", NAMES[2]] == 36.5 and per_class[:, "fence"].isna().all()
    assert pd.read_csv(report / "validation.csv").to_dict("list") == {
        "model": ["teacher", "supervised", "student_1"],
        "step": [2] * 3,
        "val_miou": [40.0] * 3,
    }
    percent = pd.read_csv(report / "confusion.csv").pivot(index="truth", columns="prediction", values="percent")
    assert percent.loc["fence"].isna().all() and percent.loc[NAMES[0], NAMES[0]] == 100
    assert [path.name for path in (report / "examples").iterdir()] == ["x.png"]  # of y there is no prediction


def test_page_is_one_file_with_everything(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert text == (report.with_name("again") / "index.html").read_text()  # the same to the byte
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"') >]+)", text)
    links.remove("experiments/tables.html")
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "a &lt;b&gt; &amp; c" in text and "teacher.steps" in text and "<td>40.00</td>" in text
    assert text.count("<svg") == 5 and "<script" not in text and "mathdefault" not in text  # no formulas
    assert all(f">{name}</text>" in text for name in ("student_1", "its pseudo labels, unlabelled images", *NAMES))
    parser = HTMLParser()
    parser.feed(text)
    parser.close()


def test_logarithmic_axes_have_plain_numbers() -> None:
    for values, tick in (([0.9, 0.3], "0.4"), ([1e-6, 1.0], "0.0001"), ([3e5, 9e7], "1000000")):
        ticks = re.findall(r">([-0-9.e+]+)</text>", figures.curves(CURVE.assign(model="teacher", loss=values)))
        assert tick in ticks and not [other for other in ticks if "e" in other]


def test_both_batch_norms_are_drawn_over_each_other() -> None:
    """Figure 4: the standard one in red, the parallel one in blue, at the heights of their statistics."""
    drawn = re.findall(r'd="M ([^"]+)"[^>]*stroke: (#d62728|#1f77b4)', figures.bn_branches(BN))
    heights = [[float(point.split()[1]) for point in path.split("L")] for path, _ in drawn if path.count("L") == 1]
    colours = [colour for path, colour in drawn if path.count("L") == 1]
    assert colours[:2] == ["#d62728", "#1f77b4"]
    (red_a, red_b), (blue_a, blue_b) = heights[:2]
    assert red_a < blue_a < red_b and red_a < blue_b < red_b  # downwards: 0.5 above 0.4 above 0.2 above 0.1
    assert blue_b < blue_a
    (red_a, red_b), (blue_a, blue_b) = heights[2:4]  # variances
    assert colours[2:4] == ["#d62728", "#1f77b4"] and red_b < blue_b < blue_a < red_a


def test_rounds_of_two_chains_in_any_order() -> None:
    """Students may stand before their teachers in params.yaml, and a teacher may have two."""
    teachers = {"teacher": None, "b": "a", "a": "teacher", "other": "teacher"}
    numbers = [{"model": name, "teacher": teacher, "miou": 40.0} for name, teacher in teachers.items()]
    assert all(f">{name}<" in figures.rounds(numbers) for name in teachers)


def test_changed_pixels_are_green_red_or_grey() -> None:
    truth = np.array([[0, 1, 2, 255, 3]], dtype=np.uint8)
    before = np.array([[1, 1, 2, 1, 0]], dtype=np.uint8)
    after = np.array([[0, 0, 2, 2, 1]], dtype=np.uint8)
    green, red, *grey = changed(truth, before, after, 255)[0].tolist()
    assert green[1] > green[0] and red[0] > red[1] and grey == [[225, 225, 225]] * 3


def test_comparison_shows_every_prediction_and_what_changed() -> None:
    image = np.full((20, 30, 3), 90, dtype=np.uint8)
    truth = np.zeros((20, 30), dtype=np.uint8)
    predictions = {"truth": truth, "a": truth + 1, "b": truth}  # a model may have any name
    options = {"before": "a", "after": "b"}
    whole = comparison(image, "id", truth, predictions, SCENES, width=1280, **options)
    assert whole.shape == (BAR + 20, 6 * (30 + GAP) - GAP, 3)
    middles = whole[BAR + 10, 15 :: 30 + GAP].tolist()
    first, second = (list(SCENES.colours[id_]) for id_ in (0, 1))
    assert middles == [[90] * 3, first, first, second, first, [42, 127, 63]]
    assert comparison(image, "id", truth, predictions, SCENES, width=1280, before="b", after="b").shape[1] == 166
    assert comparison(image, "id", truth, predictions, SCENES, width=100, **options).shape[1] <= 100


def screenshot(path: Path, folder: Path) -> np.ndarray:
    """(2400, 1300, 3) int, as headless Chromium shows the page."""
    shot = folder / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,2400", f"--screenshot={shot}"]
    command = ["chromium", *options, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1300, 3)
    return pixels


def of_colour(pixels: np.ndarray, *colour: int) -> int:
    return int((np.abs(pixels - colour).sum(axis=2) < 10).sum())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's package chromium is not installed")
def test_browser_shows_the_page_and_the_committed_ones(report: Path, tmp_path: Path) -> None:
    """Copies of these, so that nothing beside them is read: figures and pictures are there."""
    pixels = screenshot(report / "index.html", tmp_path)
    assert of_colour(pixels, 0x2A, 0x7F, 0x3F) == 0  # no class gains
    assert of_colour(pixels, 0xB3, 0x40, 0x2F) > 2000  # and ten lose
    assert of_colour(pixels, 8, 48, 107) > 2000  # 100 percent in the confusion matrix
    for name in ("reports/index.html", "reports/camvid/tables.html"):
        copy = tmp_path / Path(name).name
        shutil.copyfile(ROOT / name, copy)
        assert "mathdefault" not in copy.read_text()
        pixels = screenshot(copy, tmp_path)
        assert of_colour(pixels, 0x1F, 0x77, 0xB4) > 200, name  # the first line of a figure
        assert (pixels != 255).any(axis=2).mean() > 0.05, name
