"""Export a trained model: ONNX, or the folder that segmentation-models-pytorch's `from_pretrained` reads."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segsemi.core.errors import UserError
from segsemi.core.files import write_text
from segsemi.models.build import SegmentationModel
from segsemi.models.layers import replace_modules
from segsemi.models.saving import load_description, load_model

TOLERANCE = 1e-3  # of probabilities
SHAPES = ((1, 3, 192, 256), (2, 3, 161, 225))  # of the images on which both are compared


def run(args: argparse.Namespace) -> int:
    """Write the model in the format asked for; return the exit code."""
    if args.format == "hub":
        export_hub(args.model, args.out)
        print(f"{args.out}: load it with segmentation_models_pytorch as {args.out / 'README.md'} shows")
    else:
        difference = export_onnx(args.model, args.out)
        print(f"{args.out / 'model.onnx'}: as PyTorch, largest difference of a probability {difference:.2g}")
    return 0


def export_onnx(folder: Path, out: Path) -> float:
    """Write out/model.onnx, with any batch size, height and width, and out/README.md; compare it with PyTorch.

    Args:
        folder: a model's folder.

    Returns:
        The largest difference of a probability.

    Raises:
        UserError: onnx is not installed, the exported network differs from the model, or `out` is `folder`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ModuleNotFoundError as error:
        packages = "onnx onnxruntime onnxscript"
        raise UserError(f"export to ONNX needs the package {error.name}: pip install {packages}") from None
    model, exported = _load(folder, out), load_model(folder)
    fix_padding(exported.network)
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / ".model.onnx.tmp"
    torch.onnx.export(
        nn.Sequential(exported, nn.Softmax(dim=1)).eval(),
        (torch.rand(2, 3, 193, 257),),  # sizes that need padding, so that it is part of the graph
        temporary,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
    difference = 0.0
    for shape in SHAPES:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = model(images).softmax(dim=1).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        difference = max(difference, float(np.abs(found - expected).max()))
    if difference > TOLERANCE:
        temporary.unlink()
        raise UserError(
            f"the exported network differs from {folder} by {difference:.2g}; report this with your versions"
        )
    temporary.replace(out / "model.onnx")
    use = (
        "`model.onnx`: images (N, 3, H, W) float32, RGB in 0..1 -> probabilities (N, classes, H, W) float32. It"
        " normalises and pads the images itself."
    )
    write_text(out / "README.md", model_card(model, folder, use))
    return difference


def fix_padding(network: nn.Module) -> None:
    """Replace timm's convolutions with TensorFlow's "same" padding, in place, for maps which the strides divide.

    timm computes the padding from the size of each map, which torch.export follows for minutes. Images are padded to
    multiples of all strides, so that it is always the same.
    """
    from timm.layers.conv2d_same import Conv2dSame

    def fixed(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, Conv2dSame):
            return None
        sides = zip(layer.kernel_size, layer.dilation, layer.stride, strict=True)
        height, width = (max((kernel - 1) * rate + 1 - stride, 0) for kernel, rate, stride in sides)
        padding = nn.ZeroPad2d((width // 2, width - width // 2, height // 2, height - height // 2))
        layer.__class__ = nn.Conv2d  # type: ignore[assignment]  # whose forward pass pads nothing
        return nn.Sequential(padding, layer)

    replace_modules(network, fixed)


def export_hub(folder: Path, out: Path) -> None:
    """Write what `segmentation_models_pytorch.from_pretrained(out)` reads, and out/README.md.

    Raises:
        UserError: the decoder is not one of that library's; `out` is `folder`.
    """
    model = _load(folder, out)
    save = getattr(model.network, "save_pretrained", None)
    if save is None:
        decoder = model.architecture.decoder
        raise UserError(f"{decoder} is not part of segmentation_models_pytorch; export to onnx instead")
    save(out)
    use = """Load it with these lines. It takes normalised images, see below. The loop is needed: the network was trained with
upsampling that aligns the centres of pixels; without it, predictions are shifted and less accurate.

```python
import segmentation_models_pytorch as smp
import torch

network = smp.from_pretrained("FOLDER").eval()
for module in network.modules():
    if isinstance(module, torch.nn.Upsample):
        module.align_corners = False
```"""
    write_text(out / "README.md", model_card(model, folder, use))


def _load(folder: Path, out: Path) -> SegmentationModel:
    model = load_model(folder)
    if out.resolve() == folder.resolve():
        raise UserError(f"{out} is the model itself, whose files dvc keeps as they are; give another folder with -o")
    return model


def model_card(model: SegmentationModel, folder: Path, use: str) -> str:
    """Return the README of a model from `folder`: its use, its classes, its input and how it was made."""
    network, classes = model.architecture, model.classes
    stride = f", output stride {network.output_stride}" if network.decoder.startswith("DeepLab") else ""
    size = (
        f"Shrunk to a shorter side of {network.short_side} pixels first" if network.short_side else "At their own size"
    )
    return f"""# {folder.name}

{use}

- Network: {network.decoder} on {network.encoder}{stride}.
- Classes, in the order of their ids: {", ".join(classes.names)}. {classes.ignore_index} is no class.
- Images: RGB / 255, minus {network.mean}, divided by {network.std} (mean, standard deviation); padded with zeros to
  multiples of {model.padding_multiple}. {size}.
- Trained for {load_description(folder)["training"]["steps_in_all"]} steps in all, those of its teachers included.
- The backbone's ImageNet weights come from timm or segmentation_models_pytorch; see there for their licence.
"""
