"""Find the data set (or write the embedded one), check every file, write the manifest and the classes."""

from functools import partial

from tqdm import tqdm

from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import CLASSES, MANIFEST, PREPARED, data_root
from segsemi.core.progress import progress_bar
from segsemi.data.manifest import write_rows
from segsemi.datasets import check_entries, find_dataset, scenes


def main() -> None:
    params = load_params()
    data = params.data
    if data.embedded:
        scenes.write(
            PREPARED,
            train=data.train_images,
            val=data.val_images,
            height=data.height,
            width=data.width,
            seed=params.seed,
        )
    root = data_root(data)
    found = find_dataset(data.name, root, val_fraction=data.val_fraction, seed=params.seed)
    for note in found.notes:
        print(note)
    bar = partial(progress_bar, desc="check images and labels", unit="image", total=len(found.entries))
    skip, errors = data.skip_broken, PREPARED / "errors.txt"
    rows = check_entries(root, found.entries, found.classes, tqdm.write, skip_broken=skip, bar=bar, errors=errors)
    found.classes.save(CLASSES)
    write_rows(MANIFEST, rows)
    print(f"{data.name}: {len(rows)} images, {len(found.classes)} classes")


if __name__ == "__main__":
    run_stage(main)
