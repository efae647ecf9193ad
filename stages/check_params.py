"""Check params.yaml as a whole; the output never changes, so a valid edit reruns only the stages that use it."""

from pathlib import Path

from segsemi.core.config import load_params
from segsemi.core.errors import UserError, run_stage
from segsemi.core.files import require_usable, write_text
from segsemi.core.paths import data_root


def main() -> None:
    params = load_params()
    networks = {"model": params.model}
    if params.student.init == "pretrained":
        networks["student_model"] = params.student_model
    for name, network in networks.items():
        weights = network.encoder_weights
        if weights not in ("none", "imagenet") and not Path(weights).is_file():
            raise UserError(f"{name}.encoder_weights: {weights} not found; use none, imagenet or the path of a file")
    for root in (Path(params.split.corrected), *([] if params.data.embedded else [data_root(params.data)])):
        require_usable(root)  # dvc, which reads it next, would not name the reason
    write_text(Path("data/params_checked.txt"), "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
