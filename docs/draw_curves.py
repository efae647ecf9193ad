"""Draw the curves of docs/results/ from curves.csv beside the pages: `python docs/draw_curves.py`."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from segsemi.reporting.figures import as_svg, new_axes

DOCS = Path(__file__).parent


@as_svg
def curves(rows: pd.DataFrame) -> Figure:
    figure, (ax,) = new_axes(1, width=6, height=3.2)
    for model, curve in rows.groupby("model", sort=False):
        ax.plot(curve["images"], curve["val_miou"], marker=".", linewidth=1.3, label=model)
    ax.set(xlabel="images seen, those of the teacher included", ylabel="mIoU on val, percent")
    ax.legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    for name, rows in pd.read_csv(DOCS / "results/curves.csv").groupby("set"):
        (DOCS / f"pictures/curves_{name}.svg").write_text(curves(rows))
