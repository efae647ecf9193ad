"""Check params.yaml as a whole; the output never changes, so a valid edit reruns only the stages that use it."""

from pathlib import Path

from segsemi.core.config import load_params
from segsemi.core.errors import UserError, run_stage
from segsemi.core.files import write_text


def main() -> None:
    params = load_params()
    networks = {"model": params.model}
    if params.student.init == "pretrained":
        networks["student_model"] = params.student_model
    for name, network in networks.items():
        weights = network.encoder_weights
        if weights not in ("none", "imagenet") and not Path(weights).is_file():
            raise UserError(f"{name}.encoder_weights: {weights} not found; use none, imagenet or the path of a file")
    write_text(Path("data/params_checked.txt"), "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
