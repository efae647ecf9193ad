"""Draw the strong augmentation on one labelled image: reports/saug.png. Of SAUG each operation, and some full draws."""

from segsemi.augment.colour import colour_augment
from segsemi.augment.strong import StrongAugment, pool_without
from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import run_stage
from segsemi.core.paths import CLASSES, LABELLED, REPORTS, data_root
from segsemi.core.pictures import captioned, grid, save_png, shrunk
from segsemi.core.resize import resize_image, scaled_to_short_side
from segsemi.core.seeds import derive_rng
from segsemi.data.images import read_image
from segsemi.data.manifest import read_rows

COLUMNS = 6


def main() -> None:
    params = load_params()
    pool = pool_without(params.student.saug_without)
    row = read_rows(LABELLED)[0]
    image = read_image(data_root(params.data) / row.image, Classes.load(CLASSES).value_range)
    size = scaled_to_short_side(image.shape[0], image.shape[1], params.augment.short_side)
    image = resize_image(image, *size)
    pictures = [captioned(image, "clean")]
    rng = derive_rng(params.seed, "show")
    if params.student.strong == "colour":
        pictures += [captioned(colour_augment(image, rng), "colour jitter") for _ in range(2 * COLUMNS - 1)]
    else:
        for name, operation in pool.items():
            pictures.append(captioned(operation(image, derive_rng(params.seed, "show", name)), name))
        saug = StrongAugment(params.student.saug_ops, pool, rng, replace=params.student.saug_replace)
        pictures += [captioned(saug(image), f"SAUG, N = {params.student.saug_ops}") for _ in range(COLUMNS)]
    save_png(REPORTS / "saug.png", shrunk(grid(pictures, COLUMNS), 1280), palette=True)


if __name__ == "__main__":
    run_stage(main)
