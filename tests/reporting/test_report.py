"""The report: figures, page, and what changed between teacher and student."""

from __future__ import annotations

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

from segsemi.core.pictures import BAR, GAP
from segsemi.datasets.camvid import SYNTHETIC
from segsemi.reporting import figures
from segsemi.reporting.comparison import changed, comparison
from segsemi.reporting.page import render
from segsemi.reporting.report import Measured, longest_chain

NAMES = list(SYNTHETIC.names)
CURVES = pd.DataFrame({"model": ["teacher"] * 2, "step": [1, 2], "loss": [2.0, 1.0], "val_miou": [np.nan, 40.0]})
MODELS = pd.DataFrame(
    {
        "model": ["teacher", "student_1", "supervised"],
        "teacher": [None, "teacher", None],
        "miou": [40.0, 42.5, 41.0],
        "pseudo_label_miou": [np.nan, 41.5, np.nan],
    }
)
BY_CLASS = pd.DataFrame({"teacher": np.arange(11.0), "student_1": [np.nan, *np.arange(10.0)]}, index=NAMES)
CELLS = pd.DataFrame([{"truth": t, "prediction": p, "percent": 100.0 * (t == p)} for t in NAMES for p in NAMES]).assign(
    percent=lambda cells: cells["percent"].where(cells["truth"] != "fence")
)
BN = pd.DataFrame(
    {
        "layer": ["a", "b"],
        "mean_standard": [0.5, 0.1],
        "mean_parallel": [0.2, 0.4],
        "variance_standard": [1.0, 2.0],
        "variance_parallel": [1.2, 1.6],
        "mean_shift": [0.1, 0.3],
        "variance_ratio": [1.2, 0.8],
    }
)


def page(folder: Path) -> str:
    example = folder / "example.png"
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(example)
    drawn = {
        "Training": figures.curves(CURVES),
        "Rounds": figures.rounds(MODELS),
        "Gain": figures.class_gains(BY_CLASS, "teacher", "student_1"),
        "Confusion": figures.confusion(CELLS),
        "Batch norm": figures.bn_branches(BN),
        "Its shift": figures.bn_shift([("student_1", BN)]),
    }
    table = pd.DataFrame({"model": ["teacher"], "mIoU": ["40.00"]})
    facts, settings = {"data set": "a <b> & c"}, {"teacher": {"steps": 600, "window": None}}
    return render(
        "report.html",
        facts=facts,
        settings=settings,
        table=table.to_html(index=False, border=0),
        by_class=BY_CLASS,
        colours=dict(zip(NAMES, SYNTHETIC.colours, strict=True)),
        figures=drawn,
        examples={"example": example.read_bytes()},
    )


def test_page_is_one_file_with_everything(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert text == page(tmp_path)  # the same to the byte
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"') >]+)", text)
    links.remove("experiments/tables.html")
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "a &lt;b&gt; &amp; c" in text and "teacher.steps" in text and "40.00" in text
    assert text.count("<svg") == 6 and "<script" not in text and "mathdefault" not in text  # no formulas
    parser = HTMLParser()
    parser.feed(text)
    parser.close()


def test_figures_show_the_numbers() -> None:
    for text in ("student_1", "its pseudo labels", "supervised"):
        assert text in figures.rounds(MODELS)
    assert all(name in figures.confusion(CELLS) for name in NAMES)
    assert ">100<" in figures.confusion(CELLS)


def test_logarithmic_axes_have_plain_numbers() -> None:
    for values, tick in (([0.9, 0.3], "0.4"), ([1e-6, 1.0], "0.0001"), ([3e5, 9e7], "1000000")):
        ticks = re.findall(r">([-0-9.e+]+)</text>", figures.curves(CURVES.assign(loss=values)))
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
    names, teachers = ["teacher", "b", "a", "other"], [None, "a", "teacher", "teacher"]
    columns = {"model": names, "teacher": teachers, "miou": [40.0, 44.0, 42.0, 41.0], "pseudo_label_miou": [None] * 4}
    models = pd.DataFrame(columns)
    assert all(f">{name}<" in figures.rounds(models) for name in ("teacher", "a", "b", "other"))
    chain = longest_chain([measured(*pair) for pair in zip(names, teachers, strict=True)])
    assert [model.name for model in chain] == ["teacher", "a", "b"]
    assert [model.name for model in longest_chain([measured("teacher", None), measured("base", None)])] == ["teacher"]


def measured(name: str, teacher: str | None) -> Measured:
    return Measured(name, teacher, Path(), {}, 1, "last", CURVES, None, None)


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
    whole = comparison(image, "id", truth, predictions, SYNTHETIC, width=1280, **options)
    assert whole.shape == (BAR + 20, 6 * (30 + GAP) - GAP, 3)
    middles = whole[BAR + 10, 15 :: 30 + GAP].tolist()
    first, second = (list(SYNTHETIC.colours[id_]) for id_ in (0, 1))
    assert middles == [[90] * 3, first, first, second, first, [42, 127, 63]]
    assert comparison(image, "id", truth, predictions, SYNTHETIC, width=1280, before="b", after="b").shape[1] == 166
    assert comparison(image, "id", truth, predictions, SYNTHETIC, width=100, **options).shape[1] <= 100


def screenshot(path: Path, folder: Path) -> np.ndarray:
    """(2400, 1300, 3) int, as headless Chromium shows the page."""
    shot = folder / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,2400", f"--screenshot={shot}"]
    subprocess.run(
        ["chromium", *options, f"--user-data-dir={folder / 'profile'}", path.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1300, 3)
    return pixels


def of_colour(pixels: np.ndarray, *colour: int) -> int:
    return int((np.abs(pixels - colour).sum(axis=2) < 10).sum())


in_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's package chromium is not installed")


@in_browser
def test_browser_shows_the_page(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page(tmp_path))
    pixels = screenshot(tmp_path / "index.html", tmp_path)
    assert of_colour(pixels, 0x2A, 0x7F, 0x3F) == 0  # no class gains in BY_CLASS
    assert of_colour(pixels, 0xB3, 0x40, 0x2F) > 2000  # and ten lose
    assert of_colour(pixels, 8, 48, 107) > 2000  # 100 percent in the confusion matrix


@in_browser
def test_browser_shows_the_committed_pages(tmp_path: Path) -> None:
    """Copies of them, so that nothing beside them is read: figures and pictures are there."""
    for name in ("reports/index.html", "reports/camvid/tables.html"):
        copy = tmp_path / Path(name).name
        shutil.copyfile(ROOT / name, copy)
        assert "mathdefault" not in copy.read_text()
        pixels = screenshot(copy, tmp_path)
        assert of_colour(pixels, 0x1F, 0x77, 0xB4) > 200, name  # the first line of a figure
        assert (pixels != 255).any(axis=2).mean() > 0.05, name
