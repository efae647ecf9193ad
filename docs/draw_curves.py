"""Draw the curves of docs/results/ from curves.csv beside the pages: `python docs/draw_curves.py`."""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

DOCS = Path(__file__).parent


def main() -> None:
    matplotlib.rcParams |= {"svg.hashsalt": "segsemi", "svg.fonttype": "none"}
    for name, rows in pd.read_csv(DOCS / "results/curves.csv").groupby("set"):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        ax = figure.subplots()
        for model, curve in rows.groupby("model", sort=False):
            ax.plot(curve["images"], curve["val_miou"], marker=".", linewidth=1.3, label=model)
        ax.set(xlabel="images seen, those of the teacher included", ylabel="mIoU on val, percent")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        figure.savefig(DOCS / f"pictures/curves_{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
