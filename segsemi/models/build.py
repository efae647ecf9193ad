"""Networks from segmentation-models-pytorch and timm, and DeepLabV2, with backbone weights that load online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, ModelParams
from segsemi.core.errors import UserError
from segsemi.core.resize import resize_image, scaled_to_short_side
from segsemi.models.deeplabv2 import DeepLabV2
from segsemi.models.weights import HALF, libraries, load_encoder, normalisation

# Output stride -> dilation of the three ASPP branches (DeepLabV3, Chen et al. 2017, section 3.3).
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}


@dataclass(frozen=True)
class Architecture:
    """The description of a network without its weights.

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

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Architecture:
        """Return the object that `asdict` described, also after a round trip through JSON."""
        values = dict(values)
        return Architecture(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def architecture_of(model: ModelParams, augment: AugmentParams) -> Architecture:
    """Return the network that `model` describes, with its encoder's normalisation and augment.short_side."""
    mean, std = normalisation(model)
    return Architecture(
        **model.model_dump(exclude={"encoder_weights"}), mean=mean, std=std, short_side=augment.short_side
    )


class SegmentationModel(nn.Module):
    """A network with its classes and normalisation, which pads images to multiples of its stride.

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
        for name in ("mean", "std"):
            values = torch.tensor(getattr(architecture, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)  # kept in model.json, not among the weights

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W) of images (N, 3, H, W), float RGB in 0..1, of any H and W."""
        return self.forward_normalised((images - self.mean) / self.std)

    def forward_normalised(self, x: Tensor) -> Tensor:
        """Return logits of images that are normalised already."""
        height, width = x.shape[-2:]
        stride = self.padding_multiple
        # in whole strides, so that torch.export sees that those of the layers divide them
        rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
        x = F.pad(x, (0, columns * stride - width, 0, rows * stride - height))  # zeros: the mean colour
        return self.network(x)[..., :height, :width]

    def as_batch(self, image: np.ndarray) -> Tensor:
        """Return an image, (H, W, 3) uint8 RGB, as (1, 3, h, w) float32 in 0..1, shrunk to architecture.short_side.

        Raises:
            ValueError: it has another shape or type, such as floats in 0..1.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image is (H, W, 3) uint8 RGB, found {image.shape} {image.dtype}")
        size = scaled_to_short_side(image.shape[0], image.shape[1], self.architecture.short_side)
        batch = torch.from_numpy(resize_image(image, *size)).to(self.mean.device)
        batch = batch.permute(2, 0, 1).unsqueeze(0).float() / 255
        return batch.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids, (H, W) uint8, of an image, (H, W, 3) uint8 RGB, at one scale (see segsemi.inference).

        Raises:
            ValueError: see `as_batch`.
        """
        scores = self(self.as_batch(image))
        if scores.shape[-2:] != image.shape[:2]:  # else the logits have the order of the probabilities
            scores = scores.float().softmax(dim=1)
            scores = F.interpolate(scores, size=image.shape[:2], mode="bilinear", align_corners=False)
        # max: argmax alone is ten times as slow over this dimension
        return scores[0].max(dim=0).indices.to(torch.uint8).cpu().numpy()

    @property
    def encoder(self) -> nn.Module:
        """Return the backbone; the rest of `network` is the decoder and the head."""
        return self.network.get_submodule("encoder")

    @property
    def padding_multiple(self) -> int:
        """Return the number whose multiples are height and width of what enters `network`."""
        halved = 2 if self.architecture.decoder == "DPT" else 1  # its last map has half the encoder's resolution
        return halved * int(getattr(self.encoder, "output_stride", 32))


def _create_network(architecture: Architecture, num_classes: int) -> nn.Module:
    smp, _ = libraries()
    decoder, encoder, stride = architecture.decoder, architecture.encoder, architecture.output_stride
    name = encoder if encoder in smp.encoders.encoders else f"tu-{encoder}"
    options: dict[str, Any] = {}
    if decoder.lower().startswith("deeplabv3"):
        options = {"encoder_output_stride": stride, "decoder_atrous_rates": ATROUS_RATES.get(stride)}
    elif decoder == "DPT":
        options = {"dynamic_img_size": True}  # position embeddings are resampled to the size of the image
        if "patch14" in encoder:
            options["patch_size"] = 16  # smp's decoder needs a power of 2; `load_encoder` resamples the weights
    try:
        if decoder == "DeepLabV2":
            backbone = smp.encoders.get_encoder(name, weights=None, output_stride=stride)
            return DeepLabV2(backbone, backbone.out_channels[-1], num_classes)
        network = smp.create_model(decoder, encoder_name=name, encoder_weights=None, classes=num_classes, **options)
    except (KeyError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"model: cannot build decoder {decoder!r} on encoder {encoder!r} with output stride {stride} "
            f"({error or type(error).__name__}); decoders are DeepLabV2 and those of segmentation_models_pytorch, "
            "encoders its own and timm's"
        ) from None
    align_pixel_centres(network)
    return network


def align_pixel_centres(network: nn.Module) -> None:
    """Let upsampling layers align the centres of pixels, not those of the corner pixels, in place.

    segmentation-models-pytorch aligns corners, which is exact only for sides of 16 k + 1: at others a map is stretched by up
    to a stride, more at one edge than at the other (docs/method.md).
    """
    for module in network.modules():
        if isinstance(module, nn.Upsample) and module.align_corners:
            module.align_corners = False


def build_model(architecture: Architecture, classes: Classes, *, encoder_weights: str, seed: int) -> SegmentationModel:
    """Return a new model: its decoder drawn from `seed`, its encoder's weights from `encoder_weights`.

    Args:
        encoder_weights: `none` (random), `imagenet` (from an installed package of PACKAGED_WEIGHTS, else downloaded by
            segmentation-models-pytorch for its own encoders and by timm for the others), or the path of a state dict
            (.safetensors, .pt, .pth).

    Raises:
        UserError: unknown network; weights that are missing or do not fit, with the names of the tensors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SegmentationModel(architecture, classes)
        if encoder_weights != "none":
            load_encoder(model.encoder, architecture.encoder, encoder_weights)
    return model
