"""Tables and figures of results, against scipy and the numbers that went in."""

import statistics
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_grid import VALUES

from segsemi.experiments.grid import Cell, Grid, cells_of
from segsemi.experiments.table import summarise
from segsemi.reporting.experiments import dots, lines, write_page

ROWS: dict[str, dict[str, Any]] = {
    "base": {"model": "teacher", "rounds": 0},
    "better": {"model": "student_1", "set": ["split.unlabelled_ratio=2.0"]},
    "noisy": {"model": "student_2", "rounds": 2},
    "longer": {"model": "supervised", "rounds": 2, "baseline": "student_2", "set": ["baseline_budget=steps"]},
    "alone": {"model": "supervised", "baseline": "student_1", "set": ["baseline_budget=images"]},
    "weaker": {"model": "supervised", "baseline": "student_1", "set": ["baseline_budget=steps"]},
}
TWICE = ["student.batch_labelled=8", "student.batch_pseudo=8"]  # of the images of a teacher's step
MIOU = {"base": [50.0, 52.0, 57.0], "better": [51.0, 53.5, 58.0], "noisy": [54.0, 50.0, 59.0]}
MIOU |= {"longer": [53.0, 53.0, 53.0], "alone": [50.0, 53.0, 57.0], "weaker": [49.0, 53.0, 55.0]}


def result(cell: Cell) -> dict[str, Any]:
    """In column 1/4 all is 10 points better."""
    miou = MIOU[cell.row][cell.seed] + (10 if cell.column == "1/4" else 0)
    pseudo = [41.0, 42.0, np.nan][cell.seed] if cell.row == "noisy" else np.nan
    place = {"row": cell.row, "column": cell.column, "seed": cell.seed, "model": cell.model}
    return {**place, **cell.budget._asdict(), "miou": miou, "pseudo_label_miou": pseudo}


def test_table_has_the_mean_the_deviation_and_the_paired_gain() -> None:
    columns = {"1/8": ["split.fraction=0.125"], "1/4": ["split.fraction=0.25"]}
    comparisons = {"against": ["base"], "ladder": ["base", "better", "noisy"]}
    grid = Grid.model_validate({"columns": columns, "rows": ROWS, **comparisons})
    cells = cells_of(grid, VALUES, seeds=[0, 1, 2], extra=["teacher.steps=100", "student.steps=50", *TWICE])
    measured = [c for c in cells if c.column == "1/8" or (c.seed == 2 and c.row in ("base", "better"))]
    shown, numbers = summarise(grid, cells, pd.DataFrame(map(result, measured)))
    assert shown["row"].tolist() == [*MIOU, "base", "better"] and shown["column"].tolist() == ["1/8"] * 6 + ["1/4"] * 2
    assert shown["steps in all"].tolist() == ["100", "150", "200", "200", "200", "150", "100", "150"]
    assert shown["images in all"].tolist() == ["800", "1600", "2400", "1600", "1600", "1200", "800", "1600"]
    spread = statistics.stdev(MIOU["base"])
    assert shown["mIoU"][[0, 6]].tolist() == [f"53.00 ± {spread:.2f}", "67.00"]
    assert shown["seeds"].tolist() == ["3"] * 6 + ["1"] * 2
    assert shown["mIoU of pseudo labels"].tolist() == ["", "", "41.50", *[""] * 5]

    def gain(row: str, other: str) -> str:
        differences = np.subtract(MIOU[row], MIOU[other])
        p = scipy.stats.ttest_rel(MIOU[row], MIOU[other]).pvalue
        return f"{differences.mean():+.2f} ± {differences.std(ddof=1):.2f} (p = {p:.2f})"

    assert shown["gain on base"].tolist() == ["", *(gain(row, "base") for row in list(MIOU)[1:]), "", "+1.00"]
    ladder = ["", gain("better", "base"), gain("noisy", "better"), *[""] * 4, "+1.00"]
    assert shown["gain on the row before"].tolist() == ladder
    # of the same column, whatever unlabelled images the student had; `alone` has as many steps as `longer`, and is better
    stronger = ["", gain("better", "alone"), gain("noisy", "alone"), *[""] * 5]
    assert shown["gain on the stronger supervised baseline"].tolist() == stronger

    assert numbers["miou"][0] == 53.0 and numbers["deviation"][0] == pytest.approx(spread)
    assert np.isnan(numbers["deviation"][6]) and numbers["gain on base"][7] == 1.0


@pytest.mark.parametrize("along", [None, "rows", "columns"])
def test_figure_has_the_names(along: str | None) -> None:
    strange = r"SAUG < $\foo$"
    mious = {("base", "1/8"): [50.0, 52.0, 57.0], (strange, "1/8"): [51.0, 53.5, 58.0], ("base", "1/4"): [60.0]}
    results = pd.DataFrame(
        {"row": row, "column": column, "miou": miou, "pseudo_label_miou": miou - 2 if row == strange else np.nan}
        for (row, column), values in mious.items()
        for miou in values
    )
    curves = results.assign(step=2, val_miou=results["miou"] - 10)
    rows, columns = ["base", strange], ["1/8", "1/4"]
    svg = lines(results, rows, columns, along) if along else dots(results, curves, rows, columns)
    text = " ".join(ElementTree.fromstring(svg).itertext())
    assert "base" in text and strange in text and "1/4" in text and ("validation mIoU" in text) == (along is None)
    assert "validation mIoU" not in dots(results, curves[:0], rows, columns)  # val_every: 0


def test_page_has_all_tables_with_their_figures(tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    for name, title in (("größe 2", "A < B"), ("b", "Other")):
        table = f"# {title}\n\n| a | b |\n|:--|:--|\n| <i> | 5 |\n\n![x]({quote(name)}.svg)\n"
        (folder / f"{name}.md").write_text(table)
        (folder / f"{name}.svg").write_text(f"<svg><text>figure of {title[0]}</text></svg>")
    (folder / "README.md").write_text("# Not a table\n")
    assert "index.html" not in write_page(folder).read_text()
    (tmp_path / "index.html").touch()
    page = write_page(folder).read_text()
    assert page.count('<a href="../index.html">') == 1  # the report of a run, if there is one
    for part in ("<h1>A &lt; B</h1>", "<svg><text>figure of A</text></svg>", "<h1>Other</h1>", "figure of O"):
        assert page.count(part) == 1, part
    assert page.count("&lt;i&gt;</td>") == 2
    assert ".svg" not in page and "Not a table" not in page  # nothing is read from beside it
