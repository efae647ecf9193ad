"""Find (or generate) the data set, check every file, write the manifest and the classes."""

from __future__ import annotations

from functools import partial

from tqdm import tqdm

from segsemi.config import load_params
from segsemi.contract import CLASSES, MANIFEST, PREPARED, data_root
from segsemi.data import synthetic
from segsemi.data.datasets import check_entries, classes_of, find_entries
from segsemi.data.manifest import write_rows
from segsemi.errors import run_stage


def main() -> None:
    params = load_params()
    data = params.data
    if data.name == "synthetic":
        synthetic.write(
            PREPARED,
            train=data.train_images,
            val=data.val_images,
            height=data.height,
            width=data.width,
            seed=params.seed,
            progress=partial(tqdm, desc="draw scenes", unit="image", mininterval=1.0),
        )
    root = data_root(data)
    classes = classes_of(data.name)
    entries = find_entries(root)
    rows = check_entries(root, tqdm(entries, desc="check images and labels", unit="image"), classes, warn=tqdm.write)
    classes.save(CLASSES)
    write_rows(MANIFEST, rows)
    print(f"{data.name}: {len(rows)} images, {len(classes)} classes")


if __name__ == "__main__":
    run_stage(main)
