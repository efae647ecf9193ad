"""Which images to label next."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from segsemi.commands.suggest import describe, run, spread_out, suggest, write_suggestions
from segsemi.core.classes import Classes, write_label_png
from segsemi.core.config import load_params
from segsemi.core.errors import UserError
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row

CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))
CONFIDENCE = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.6}
CHANGED = {"a": 0.0, "b": 0.25, "c": 0.5, "d": 0.0}  # share of the pixels that differ between the rounds


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Four images with pseudo labels of two rounds in tmp_path/second and tmp_path/first."""
    generator = np.random.default_rng(0)
    for name, share in CHANGED.items():
        Image.fromarray(generator.integers(0, 256, (8, 16, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        label = generator.integers(0, 3, (8, 16), dtype=np.uint8)
        write_label_png(tmp_path / "second" / f"{name}.png", label, CLASSES)
        changed = label.copy()
        changed[: round(8 * share)] = (changed[: round(8 * share)] + 1) % 3
        write_label_png(tmp_path / "first" / f"{name}.png", changed, CLASSES)
    table = pd.DataFrame({"id": list(CONFIDENCE), "confidence": list(CONFIDENCE.values())})
    table.to_csv(tmp_path / "second/summary.csv", index=False)
    return [Row(name, "train", f"{name}.png", "", 8, 16, "", "") for name in CONFIDENCE]


def suggested(
    rows: list[Row], folder: Path, count: int, known: Sequence[np.ndarray] = (), earlier: bool = True
) -> pd.DataFrame:
    return suggest(rows, known, folder, folder / "second", folder / "first" if earlier else None, CLASSES, count)


def test_scores_are_mean_ranks_of_doubt_and_disagreement(rows: list[Row], tmp_path: Path) -> None:
    found = suggested(rows, tmp_path, 4).set_index("id")
    assert found["confidence"].to_dict() == CONFIDENCE and found["disagreement"].to_dict() == CHANGED
    # ranks of doubt: a 0, c 1/3, d 2/3, b 1; of disagreement: a and d share 1/6, b 2/3, c 1
    assert found["score"].to_dict() == pytest.approx({"a": 1 / 12, "b": 5 / 6, "c": 2 / 3, "d": 5 / 12})


def test_the_worst_image_comes_first_whatever_its_name(rows: list[Row], tmp_path: Path) -> None:
    """One round is enough; pandas reads NA as a missing value."""
    assert list(suggested(rows, tmp_path, 1)["id"]) == ["b"]
    for folder in ("first", "second"):
        (tmp_path / folder / "b.png").rename(tmp_path / folder / "NA.png")
    table = (tmp_path / "second/summary.csv").read_text().replace("b,", "NA,")
    (tmp_path / "second/summary.csv").write_text(table)
    rows = [replace(row, id="NA") if row.id == "b" else row for row in rows]
    assert list(suggested(rows, tmp_path, 1)["id"]) == ["NA"]
    (item,) = suggested(rows, tmp_path, 1, earlier=False).to_dict("records")
    assert item["id"] == "NA" and np.isnan(item["disagreement"]) and item["score"] == 1


def test_what_is_labelled_already_is_kept_away_from(rows: list[Row], tmp_path: Path) -> None:
    pair = read_image(tmp_path / "b.png"), read_label(tmp_path / "second/b.png", CLASSES)
    known = [describe(*pair, CLASSES)]  # as if b, the worst, had been labelled
    assert sorted(suggested(rows, tmp_path, 3, known)["id"]) == ["a", "c", "d"]


def test_few_sure_images_are_never_candidates(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segsemi.commands.suggest.CANDIDATES", 1)
    assert set(suggested(rows, tmp_path, 2)["id"]) == {"b", "c"}


def test_spread_is_farthest_first() -> None:
    points = np.array([[0.0], [1.0], [5.0], [5.1], [9.0]])
    assert spread_out(points, np.empty((0, 1)), 3) == [0, 4, 2]  # 5 is 4 from 9, 5.1 only 3.9
    assert spread_out(points, np.array([[9.0]]), 2) == [0, 2]
    assert sorted(spread_out(points, np.empty((0, 1)), 99)) == [0, 1, 2, 3, 4]


def test_description_has_shares_and_colours_of_each_cell() -> None:
    label = np.zeros((4, 6), dtype=np.uint8)
    label[2:, 3:] = 2
    label[0, 0] = 255  # no class: in no share
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:2, :3] = (255, 0, 51)
    cells = describe(image, label, CLASSES).reshape(4, 6)
    np.testing.assert_allclose(cells[0], [5 / 6, 0, 0, 1, 0, 0.2])
    np.testing.assert_allclose(cells[1], [1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(cells[3], [0, 0, 1, 0, 0, 0])


@pytest.mark.parametrize("earlier", [True, False])
def test_table_and_page(rows: list[Row], tmp_path: Path, earlier: bool) -> None:
    found = suggested(rows, tmp_path, 2, earlier=earlier)
    first = tmp_path / "first" if earlier else None
    write_suggestions(found, tmp_path, tmp_path / "second", first, CLASSES, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/suggestions.csv")
    pd.testing.assert_frame_equal(table, found.reset_index(drop=True), atol=1e-4, rtol=0)
    page = (tmp_path / "out/index.html").read_text()
    assert page.count('src="data:image/') == 2 * (2 + earlier) and ("changed their class" in page) == earlier


def test_missing_pseudo_labels_are_named(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pseudo label of e; run `dvc repro`"):
        suggested([*rows, Row("e", "train", "a.png", "", 8, 16, "", "")], tmp_path, 1)
    with pytest.raises(UserError, match=r"there is no unlabelled image"):
        suggested([], tmp_path, 1)
    (tmp_path / "second/summary.csv").unlink()
    with pytest.raises(UserError, match=r"summary\.csv not found"):
        suggested(rows, tmp_path, 1)


def test_without_rounds_there_is_nothing_to_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(ROOT / "params.yaml").model_copy(update={"rounds": {}})
    monkeypatch.setattr("segsemi.commands.suggest.load_params", lambda: params)
    with pytest.raises(UserError, match=r"params\.yaml has no rounds"):
        run(Namespace(count=3))
