"""The report: its files, its page, its figures, and what changed between teacher and student."""

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from segsemi.core.classes import write_label_png
from segsemi.core.pictures import BAR, GAP, save_png
from segsemi.data.manifest import Row
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.reporting import figures, page
from segsemi.reporting.comparison import changed, comparison, pseudo_label_panels, side_by_side
from segsemi.reporting.experiments import write_page
from segsemi.reporting.measured import Measured
from segsemi.reporting.report import write_report
from segsemi.reporting.verdict import gains, warnings

NAMES = list(SCENES.names)
CURVE = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "lr": [0.1, 0.05], "val_miou": [np.nan, 0.4]})
STATISTICS = ["mean_standard", "mean_parallel", "variance_standard", "variance_parallel"]
BN = pd.DataFrame([[0.5, 0.2, 1.0, 1.2], [0.1, 0.4, 2.0, 1.6]], columns=STATISTICS)


def measured(folder: Path, name: str, teacher: str | None, miou: float = 0.4) -> Measured:
    """A model that is right on every pixel but those of "fence", of which there is none; students have DSBN."""
    pixels = [(truth, other, 7 * (truth == other != "fence")) for truth, other in itertools.product(NAMES, NAMES)]
    (folder / name).mkdir(exist_ok=True)
    cells = pd.DataFrame(pixels, columns=["truth", "prediction", "pixels"])
    cells.to_csv(folder / name / "confusion.csv", index=False)
    bins = {"pixels": [0, 0, 30, 70], "confidence": [np.nan, np.nan, 0.6, 0.9], "accuracy": [np.nan, np.nan, 0.5, 0.8]}
    pd.DataFrame(bins).to_csv(folder / name / "calibration.csv", index=False)
    metrics = {"miou": miou, "mean_dice": 0.6, "pixel_accuracy": 0.9, "calibration_error": 0.1}
    ious = {c: None if c == "fence" else miou - index / 100 for index, c in enumerate(NAMES)}
    by_class = {"dice": dict.fromkeys(NAMES, 0.61), "precision": dict.fromkeys(NAMES, 0.62)}
    labels = dict.fromkeys(NAMES, 0.1)
    quality = {"images": 2, "miou": 0.415, "confidence": 0.7, "labels": labels, "pseudo_labels": {**labels, "pole": 0}}
    return Measured(
        name=name,
        teacher=teacher,
        loss="scl on pseudo labels" if teacher else "cross entropy on labels",
        evaluated=folder / name,
        metrics={**metrics, **by_class, "iou": ious, "recall": dict.fromkeys(NAMES)},
        image_mious=pd.Series({"x": miou, "y": 0.1, "z": np.nan, **{f"m{index}": 0.2 for index in range(4)}}),
        training={"steps_in_all": 600, "images_in_all": 4800, "keep": "last"},
        curve=CURVE,
        bn=BN if teacher else None,
        pseudo=folder / f"{name}_pseudo_labels" if teacher else None,
        quality=quality if teacher else {},
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report of a teacher, a student that is worse, and a supervised baseline; a table is beside it."""
    tmp_path = tmp_path_factory.mktemp("report")
    models = [
        measured(tmp_path, "teacher", None, 0.4),
        measured(tmp_path, "student_1", "teacher", 0.385),
        measured(tmp_path, "supervised", None, 0.41),
    ]
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(tmp_path / "image.png")
    names = list(models[0].image_mious.index)
    rows = [Row(name, "val", "image.png", "label.png", 20, 30) for name in names]
    labels = ["label.png", *(f"{model.name}/predictions/{name}.png" for model in models for name in names)]
    pseudo = [f"student_1_pseudo_labels/{name}.png" for name in ("u", "confidence/u")]
    for path in labels + pseudo:
        write_label_png(tmp_path / path, np.full((20, 30), int(path in pseudo), dtype=np.uint8), SCENES)
    unlabelled = [replace(rows[0], id="u")]
    facts = {"data set": "a <b> & c", "measured on": "val, 7 images"}
    for out in (tmp_path / "out", tmp_path / "again"):
        save_png(out / "saug.png", np.zeros((20, 30, 3), dtype=np.uint8))
        (out / "my tables").mkdir()
        (out / "my tables/tables.html").touch()
        settings: dict = {"teacher": {"steps": 600, "window": None}}
        write_report(models, SCENES, rows, unlabelled, tmp_path, facts, settings, out, examples=2)
    return tmp_path / "out"


def test_files_of_the_report_have_the_numbers(report: Path) -> None:
    assert json.loads((report / "metrics.json").read_text()) == {
        "final": {"model": "student_1", "miou": 38.5},
        "teacher": {"miou": 40.0, "dice": 60.0, "pixel_accuracy": 90.0, "ece": 10.0},
        "student_1": {"miou": 38.5, "dice": 60.0, "pixel_accuracy": 90.0, "ece": 10.0, "pseudo_label_miou": 41.5},
        "supervised": {"miou": 41.0, "dice": 60.0, "pixel_accuracy": 90.0, "ece": 10.0},
    }
    assert "| student_1  | 600            | 4800            | 38.50  | -1.50 " in (report / "table.md").read_text()
    per_class = pd.read_csv(report / "per_class.csv").set_index(["model", "class"])
    assert per_class.loc[("student_1", NAMES[2])].dropna().to_dict() == {"iou": 36.5, "dice": 61.0, "precision": 62.0}
    assert per_class["iou"][:, "fence"].isna().all()
    expected = [["teacher", 2, 40.0], ["student_1", 2, 40.0], ["supervised", 2, 40.0]]
    assert pd.read_csv(report / "validation.csv")[["model", "step", "val_miou"]].to_numpy().tolist() == expected
    percent = pd.read_csv(report / "confusion.csv").pivot(index="truth", columns="prediction", values="percent")
    assert percent.loc["fence"].isna().all() and percent.loc[NAMES[0], NAMES[0]] == 100
    pictures = {path.relative_to(report).as_posix() for path in report.glob("*/*.png")}
    assert pictures == {"examples/x.png", "examples/m3.png", "pseudo_labels/u.png"}  # first and last image


def test_page_is_one_file_with_everything_in_order_and_no_dead_link(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert text == (report.with_name("again") / "index.html").read_text()  # equal to the byte
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"') >]+)", text)
    files = [link for link in links if not link.startswith(("data:", "#"))]
    assert files == ["my%20tables/tables.html"] and all((report / unquote(link)).exists() for link in files)
    assert all(f'id="{link[1:]}"' in text for link in links if link.startswith("#"))
    assert "a &lt;b&gt; &amp; c" in text and "teacher.steps" in text and "<td>40.00</td>" in text
    assert text.count("<svg") == 7 and "<script" not in text and "mathdefault" not in text  # no formulas
    assert all(f">{name}</text>" in text for name in ("student_1", "its pseudo labels, unlabelled images", *NAMES))
    verdict = text.index("</b> on val, 7 images")
    assert verdict < text.index("Few images: with 7") < text.index("<h3>y ") < text.index("<h3>x ")  # worst, best
    headings = ("pictures", "pseudo-labels", "curves", "classes", "confusion", "details")
    places = [text.index(f'<h2 id="{name}">') for name in headings]
    assert places == sorted(places) and places[0] < text.index("<h3>y ") < places[1] < text.index("<h3>u ") < places[2]


def test_verdict_names_the_gains_and_every_reason_for_doubt(tmp_path: Path) -> None:
    teacher, student = measured(tmp_path, "teacher", None, 0.4), measured(tmp_path, "s", "teacher", 0.5)
    weak, strong = measured(tmp_path, "weak", None, 0.3), measured(tmp_path, "strong", None, 0.55)
    assert gains([teacher]) == {} and warnings([teacher], 10) == []
    models = [teacher, student, weak, strong]
    assert gains(models) == {"teacher": pytest.approx(10), "strong": pytest.approx(-5)}
    found = warnings(models, 9)
    assert [text.split(":")[0] for text in found] == ["Few images", "Collapse", "No gain"]
    assert "of s have almost none of these classes: pole." in found[1] and "no better than strong" in found[2]
    for others in ([], [weak]):  # an online method is no longer training on labels
        found = warnings([teacher, student, *others], 10)
        assert [text.split(":")[0] for text in found] == ["Collapse", "Longer training"]
    supervised = replace(weak, name="supervised")
    assert [text.split(":")[0] for text in warnings([teacher, student, supervised], 10)] == ["Collapse"]


def test_a_model_has_one_colour_in_all_plots_and_in_those_of_dvc() -> None:
    colours = figures.colours(["teacher", "student_1"])
    assert colours == {"teacher": "#1f77b4", "student_1": "#ff7f0e"}  # vega's category10 begins with these
    table = CURVE.assign(model="student_1")
    for value in ("loss", "val_miou"):
        assert "#ff7f0e" in figures.curves(table, value, "", colours)
    expected = {"field": "model", "type": "nominal", "sort": None, "scale": {"scheme": "category10"}}
    for template in ("models", "classes"):
        encoding = json.loads((ROOT / f".dvc/plots/{template}.json").read_text())
        assert encoding.get("spec", encoding)["encoding"]["color"] == expected


def test_logarithmic_axes_have_plain_numbers() -> None:
    for values, tick in (([0.9, 0.3], "0.4"), ([1e-6, 1.0], "0.0001"), ([3e5, 9e7], "1000000")):
        drawn = figures.curves(CURVE.assign(model="a", loss=values), "loss", "", {"a": "C0"})
        ticks = re.findall(r">([-0-9.e+]+)</text>", drawn)
        assert tick in ticks and not [other for other in ticks if "e" in other]


def test_both_batch_norms_are_drawn_over_each_other() -> None:
    """Figure 4: the standard one in red, the parallel one in blue, at the heights of their statistics."""
    drawn = re.findall(r'd="M ([^"]+)"[^>]*stroke: (#d62728|#1f77b4)', figures.bn_branches(BN))
    heights = [[float(point.split()[1]) for point in path.split("L")] for path, _ in drawn if path.count("L") == 1]
    colours = [colour for path, colour in drawn if path.count("L") == 1]
    assert colours[:2] == ["#d62728", "#1f77b4"]
    (red_a, red_b), (blue_a, blue_b) = heights[:2]
    assert red_a < blue_b < blue_a < red_b  # downwards: 0.5 above 0.4 above 0.2 above 0.1
    (red_a, red_b), (blue_a, blue_b) = heights[2:4]  # variances
    assert colours[2:4] == ["#d62728", "#1f77b4"] and red_b < blue_b < blue_a < red_a


def test_rounds_of_two_chains_in_any_order() -> None:
    """Students may stand before their teachers in params.yaml, and a teacher may have two."""
    teachers = {"teacher": None, "b": "a", "a": "teacher", "other": "teacher"}
    numbers = [{"model": name, "teacher": teacher, "miou": 40.0} for name, teacher in teachers.items()]
    drawn = figures.rounds(numbers, figures.colours(list(teachers)))
    assert all(f">{name}<" in drawn for name in teachers)


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
    whole = side_by_side(comparison(image, truth, predictions, SCENES, before="a", after="b"))
    assert whole.shape == (BAR + 20, 6 * (30 + GAP) - GAP, 3)
    middles = whole[BAR + 10, 15 :: 30 + GAP].tolist()
    first, second = (list(SCENES.colours[id_]) for id_ in (0, 1))
    assert middles == [[90] * 3, first, first, second, first, [42, 127, 63]]
    panels = comparison(image, truth, predictions, SCENES, before="b", after="b")
    assert len(panels) == 5 and side_by_side(panels, width=100).shape[1] <= 100


def test_pseudo_labels_show_confidence_and_errors() -> None:
    image, label = np.full((1, 3, 3), 90, dtype=np.uint8), np.array([[0, 1, 1]], dtype=np.uint8)
    sure, truth = np.array([[0, 128, 255]], dtype=np.uint8), np.array([[0, 0, 255]], dtype=np.uint8)
    panels = dict(pseudo_label_panels(image, label, sure, truth, SCENES))
    assert panels["confidence"][0, 0].sum() < panels["confidence"][0, 1].sum() < panels["confidence"][0, 2].sum()
    assert (panels["errors"][0] == [255, 0, 0]).all(axis=1).tolist() == [False, True, False]
    assert list(dict(pseudo_label_panels(image, label, sure, None, SCENES))) == ["image", "pseudo label", "confidence"]


def test_pictures_of_a_page_are_shrunk_and_labels_keep_their_colours() -> None:
    label, photo = np.zeros((10, 1600, 3), dtype=np.uint8), np.random.default_rng(0).integers(256, size=(10, 1600, 3))
    label[:, 801:] = 7
    for picture, kind in ((label, "png"), (photo.astype(np.uint8), "jpeg")):
        head, _, data = page._url(picture).partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
            assert head == f"data:image/{kind};base64" and decoded.size == (800, 5)
            assert kind == "jpeg" or set(np.unique(np.asarray(decoded.convert("RGB")))) == {0, 7}


def screenshot(path: Path, folder: Path, *options: str) -> np.ndarray:
    """(2400, 1300, 3) int, as headless Chromium shows the page."""
    shot = folder / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,2400", f"--screenshot={shot}", *options]
    command = ["chromium", *flags, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1300, 3)
    return pixels


def of_colour(pixels: np.ndarray, *colour: int) -> int:
    return int((np.abs(pixels - colour).sum(axis=2) < 10).sum())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's package chromium is not installed")
def test_browser_shows_the_report_and_the_tables_in_light_and_dark(report: Path, tmp_path: Path) -> None:
    pixels = screenshot(report / "index.html", tmp_path)
    assert pixels[0, 0].tolist() == [255] * 3
    assert of_colour(pixels, 90, 90, 90) > 3 * 320 * 200  # of three images: at least 320 pixels wide
    assert of_colour(pixels, *SCENES.colours[0]) > 3 * 4 * 320 * 200  # the truth and three predictions
    for path in ROOT.glob("reports/camvid/*.*"):
        if path.suffix in (".md", ".svg"):
            (tmp_path / "tables").mkdir(exist_ok=True)
            shutil.copyfile(path, tmp_path / "tables" / path.name)
    pixels = screenshot(write_page(tmp_path / "tables"), tmp_path, "--blink-settings=preferredColorScheme=0")
    assert pixels[0, 0].tolist() == [13, 17, 23] and of_colour(pixels, 255, 255, 255) < 1000
    assert of_colour(pixels, 0x1F, 0x77, 0xB4) > 200  # the first line of a figure
