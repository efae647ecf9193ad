"""A trained model for other programs: ONNX, or the folder that segmentation-models-pytorch's `from_pretrained` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.models.build import ATROUS_RATES, SegmentationModel
from segsemi.models.layers import replace_modules
from segsemi.models.saving import load_description, load_model

TOLERANCE = 1e-3  # of probabilities
SIZES = ((1, 192, 256), (2, 161, 225))  # batch, height, width of the images on which both are compared


class Exported(nn.Module):
    """What is exported: (N, 3, H, W) float32 RGB -> probabilities (N, C, H, W) float32, or class ids (N, H, W) int64.

    Gives what the model gives; its convolutions are written so that torch.export follows the sizes in seconds.
    """

    def __init__(self, model: SegmentationModel, *, normalise: bool, argmax: bool) -> None:
        """`model` is changed."""
        super().__init__()
        self.model, self.normalise, self.argmax = model, normalise, argmax
        _fix_padding(model.network)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images -> probabilities (N, num_classes, H, W), or class ids (N, H, W)."""
        logits = self.model(images) if self.normalise else self.model.forward_normalised(images)
        return _answer(logits, self.argmax)


def _answer(logits: Tensor, argmax: bool) -> Tensor:
    return logits.argmax(dim=1) if argmax else logits.softmax(dim=1)


class FixedSame(nn.Module):
    """A convolution with TensorFlow's "same" padding, for maps of which its stride divides height and width.

    timm's Conv2dSame computes the padding from the size of each map; for these maps it is always the same.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.padding: list[int] = []
        for kernel, rate, stride in zip(conv.kernel_size, conv.dilation, conv.stride, strict=True):
            total = max((kernel - 1) * rate + 1 - stride, 0)
            self.padding = [total // 2, total - total // 2, *self.padding]  # F.pad begins with the last dimension

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        conv = self.conv
        return F.conv2d(F.pad(x, self.padding), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _fix_padding(network: nn.Module) -> None:
    """Put a `FixedSame` in the place of every Conv2dSame, in place: images are padded to multiples of all strides."""
    from timm.layers.conv2d_same import Conv2dSame

    replace_modules(network, lambda layer: FixedSame(layer) if isinstance(layer, Conv2dSame) else None)


def export_onnx(folder: Path, out: Path, *, normalise: bool = True, argmax: bool = False) -> float:
    """Write out/model.onnx, with any batch size, height and width, and out/README.md; compare it with PyTorch.

    Args:
        folder: a model's folder.
        normalise: whether the file takes RGB in 0..1, or images that are normalised already.
        argmax: whether it gives class ids instead of probabilities.

    Returns:
        The largest difference of a probability; with `argmax` the share of pixels of another class.

    Raises:
        UserError: onnx is not installed, the exported network differs from the model, or `out` is `folder`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ModuleNotFoundError as error:
        raise UserError(
            f"export to ONNX needs the package {error.name}: pip install onnx onnxruntime onnxscript"
        ) from None
    wrapped = Exported(load_model(folder), normalise=normalise, argmax=argmax).eval()
    _refuse_model_itself(folder, out)
    path = out / "model.onnx"
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{path.name}.tmp"
    dimensions = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        wrapped,
        (torch.rand(2, 3, 193, 257),),  # sizes that need padding, so that it is part of the graph
        temporary,
        input_names=["images"],
        output_names=["classes" if argmax else "probabilities"],
        dynamic_shapes=(dimensions,),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
    model = load_model(folder)

    def expected(images: Tensor) -> Tensor:
        return _answer(model(images) if normalise else model.forward_normalised(images), argmax)

    difference = _largest_difference(expected, lambda images: session.run(None, {"images": images})[0])
    if difference > TOLERANCE:
        temporary.unlink()
        raise UserError(
            f"the exported network differs from {folder} by {difference:.2g}; report this with your versions"
        )
    temporary.replace(path)
    takes = "RGB in 0..1" if normalise else "RGB, normalised by mean and standard deviation below"
    gives = "class ids (N, H, W) int64" if argmax else "probabilities (N, classes, H, W) float32"
    write_text(
        out / "README.md", model_card(model, folder, f"`model.onnx`: images (N, 3, H, W) float32, {takes} -> {gives}.")
    )
    return difference


def _largest_difference(network: Callable[[Tensor], Tensor], run: Callable[[np.ndarray], np.ndarray]) -> float:
    largest = 0.0
    for batch, height, width in SIZES:
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = network(images).numpy()
        found = run(images.numpy())
        if found.shape != expected.shape:
            raise UserError(f"the exported network gives {found.shape} for {tuple(images.shape)}, not {expected.shape}")
        wrong = np.mean(found != expected) if expected.dtype.kind == "i" else np.abs(found - expected).max()
        largest = max(largest, float(wrong))
    return largest


def export_hub(folder: Path, out: Path) -> None:
    """Write what `segmentation_models_pytorch.from_pretrained(out)` reads, and out/README.md.

    Raises:
        UserError: the decoder is not one of that library's; `out` is `folder`.
    """
    model = load_model(folder)
    save = getattr(model.network, "save_pretrained", None)
    if save is None:
        raise UserError(
            f"{model.architecture.decoder} is not part of segmentation_models_pytorch; export to onnx instead"
        )
    _refuse_model_itself(folder, out)
    save(out)
    use = "`segmentation_models_pytorch.from_pretrained(folder)` gives the network; it takes normalised images, see below."
    write_text(out / "README.md", model_card(model, folder, use))


def _refuse_model_itself(folder: Path, out: Path) -> None:
    if out.resolve() == folder.resolve():
        raise UserError(f"{out} is the model itself, whose files dvc keeps as they are; give another folder with -o")


def model_card(model: SegmentationModel, folder: Path, use: str) -> str:
    """The README of a model from `folder`: how to use it, its classes, how it was made, and how to load it without segsemi."""
    description = load_description(folder)
    architecture, classes = description["architecture"], description["classes"]
    metrics = _metrics(folder)
    lines = [
        f"# {folder.name}",
        "",
        use,
        "",
        f"- Network: {architecture['decoder']} on {architecture['encoder']}"
        + (
            f", output stride {architecture['output_stride']}."
            if architecture["decoder"].startswith("DeepLab")
            else "."
        ),
        f"- Classes, in the order of their ids: {', '.join(classes['names'])}. {classes['ignore_index']} is no class.",
        f"- Images: RGB / 255, minus {architecture['mean']}, divided by {architecture['std']} (mean, standard deviation);"
        f" padded with zeros to multiples of {model.padding_multiple}.",
        f"- Shrunk to a shorter side of {architecture['short_side']} pixels first."
        if architecture["short_side"]
        else "- Seen at their own size.",
        f"- Trained for {description['training']['steps_in_all']} steps in all, those of its teachers included.",
        *(f"- {line}" for line in metrics),
        "- The backbone's ImageNet weights come from timm or segmentation_models_pytorch; see there for their licence.",
        "",
        "Without segsemi, from the folder with `model.safetensors` and `model.json`:",
        "",
        "```python",
        loading_code(architecture, len(classes["names"])),
        "```",
        "",
    ]
    return "\n".join(lines)


def _metrics(folder: Path) -> list[str]:
    """What stage evaluate measured, where the model lies in a repository that has it."""
    path = folder.parent.parent / "data/evaluated" / folder.name / "metrics.json"
    if not path.exists():
        return []
    metrics = json.loads(path.read_text())
    if metrics["miou"] is None:  # no pixel with a class
        return []
    return [f"mIoU {100 * metrics['miou']:.2f} on {metrics['images']} images."]


def loading_code(architecture: dict, num_classes: int) -> str:
    """Lines of Python that load the weights with torch, segmentation-models-pytorch and safetensors alone."""
    decoder, stride = architecture["decoder"], architecture["output_stride"]
    if decoder == "DeepLabV2":
        return "# DeepLabV2 is not part of segmentation_models_pytorch: use segsemi.load_model(folder)"
    options = f'encoder_name="{_smp_name(architecture["encoder"])}", encoder_weights=None, classes={num_classes}'
    lines = [
        "import segmentation_models_pytorch as smp",
        "from safetensors.torch import load_file",
        "",
        "network = smp.create_model(",
        f'    "{decoder}", {options},',
    ]
    if decoder.lower().startswith("deeplabv3"):
        lines.append(f"    encoder_output_stride={stride}, decoder_atrous_rates={ATROUS_RATES[stride]},")
    lines += [
        ")",
        'weights = load_file("model.safetensors")',
        'network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})',
        f"network.eval()  # normalised images (N, 3, H, W), H and W padded -> logits (N, {num_classes}, H, W)",
    ]
    return "\n".join(lines)


def _smp_name(encoder: str) -> str:
    import segmentation_models_pytorch as smp

    return encoder if encoder in smp.encoders.encoders else f"tu-{encoder}"
