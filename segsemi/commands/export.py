"""Export a trained model: ONNX, or the folder that segmentation-models-pytorch's `from_pretrained` reads."""

import argparse
import copy
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, read_json, write_text
from segsemi.core.paths import evaluated_folder
from segsemi.models.build import SegmentationModel
from segsemi.models.layers import replace_modules
from segsemi.models.saving import load_description, load_model
from segsemi.models.weights import weights_origin

TOLERANCE = 1e-3  # of probabilities
SHAPES = ((1, 3, 192, 256), (2, 3, 161, 225))  # of the images on which both are compared
INPUT = "images: float32 (N, 3, H, W), RGB in 0..1, of any H and W"
OUTPUT = "probabilities: float32 (N, classes, H, W)"


def run(args: argparse.Namespace) -> int:
    """Write the model in the format asked for, and README.md; return the exit code."""
    folder, out, card = args.model, args.out, args.out / "README.md"
    model = load_model(folder)
    if out.resolve() == folder.resolve():
        raise UserError(f"{out} is the model itself, whose files dvc keeps as they are; give another folder with -o")
    if args.format == "hub":
        export_hub(model, out)
        write_text(card, model_card(model, folder, "segmentation-models-pytorch", HUB_USE))
        print(f"{out}: load it with segmentation_models_pytorch as {card} shows")
    else:
        difference = export_onnx(model, folder, out)
        write_text(card, model_card(model, folder, "onnx", _onnx_use(model)))
        print(f"{out / 'model.onnx'}: as PyTorch, largest difference of a probability {difference:.2g}")
    return 0


def export_onnx(model: SegmentationModel, folder: Path, out: Path) -> float:
    """Write the model of `folder` as out/model.onnx, with any batch size, height and width, and compare it with PyTorch.

    Returns:
        The largest difference of a probability.

    Raises:
        UserError: onnx is not installed, or the exported network differs from the model.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ModuleNotFoundError as error:
        packages = "onnx onnxruntime onnxscript"
        raise UserError(f"export to ONNX needs the package {error.name}: pip install {packages}") from None
    exported = copy.deepcopy(model)
    fix_padding(exported.network)
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / ".model.onnx.tmp"
    program = torch.onnx.export(
        nn.Sequential(exported, nn.Softmax(dim=1)).eval(),
        (torch.rand(2, 3, 193, 257),),  # sizes that need padding, so that it is part of the graph
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # dynamo=True
    program.model.metadata_props.update(onnx_metadata(model, folder))
    program.save(temporary, external_data=False)
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
    return difference


def onnx_metadata(model: SegmentationModel, folder: Path) -> dict[str, str]:
    """Return what an ONNX file says of itself: texts, and JSON values of lists and numbers."""
    network, classes, measured = model.architecture, model.classes, metrics_of(folder)
    values: dict[str, Any] = {"model": _name(folder), "classes": classes.names, "colours": classes.colours}
    values |= {"range": classes.value_range, "ignore_index": classes.ignore_index}
    values |= {"input": INPUT, "output": OUTPUT, "normalisation": "inside"}
    values |= {"mean": network.mean, "std": network.std, "short_side": network.short_side}
    values |= {"miou": measured.get("miou"), "measured_on": measured.get("subset")}
    values |= {"segsemi_version": importlib.metadata.version("segsemi")}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def metrics_of(folder: Path) -> dict[str, Any]:
    """Return what stage evaluate measured: from model.json, as in final_model, else from data/evaluated beside models/.

    Empty: nothing was measured, or another model, whose weights had another hash.
    """
    found = load_description(folder).get("metrics")
    path = folder.resolve().parent.parent / evaluated_folder(folder.name) / "metrics.json"
    if found is None and path.exists():
        found = read_json(path)
    return found if found and found.get("weights") == file_hash(folder / "model.safetensors") else {}


def _name(folder: Path) -> str:
    return load_description(folder).get("name", folder.name)


def _onnx_use(model: SegmentationModel) -> str:
    side, (low, high) = model.architecture.short_side, model.classes.value_range or (0, 65535)
    shrink = f"""
scale = min(1, {side} / min(image.size))  # the network learnt at this size; the label is as small
image = image.resize([round(length * scale) for length in image.size], Image.Resampling.BOX)"""
    return f"""- Input: {INPUT}. Normalisation and padding are inside.
- Output: {OUTPUT}.
- Pictures of more than 8 bits: spread {low} to {high} over 0 to 255 first. The lines below read pictures of 8 bits.
- The file's metadata has classes, colours, range, input and mIoU.

```python
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image = ImageOps.exif_transpose(Image.open("picture.png")).convert("RGB"){shrink if side else ""}
images = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255
(probabilities,) = session.run(None, {{"images": images}})
label = probabilities[0].argmax(axis=0)  # (H, W) class ids
print({{name: round(float((label == id_).mean()), 3) for id_, name in enumerate(names)}})
```"""


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


def export_hub(model: SegmentationModel, out: Path) -> None:
    """Write what `segmentation_models_pytorch.from_pretrained(out)` reads; refuse a decoder that is not one of its own."""
    save = getattr(model.network, "save_pretrained", None)
    if save is None:
        decoder = model.architecture.decoder
        raise UserError(f"{decoder} is not part of segmentation_models_pytorch; export to onnx instead")
    save(out)


HUB_USE = """Load it with these lines. Normalisation is outside: it takes normalised images, see below.
The loop is needed: the network was trained with upsampling that
aligns the centres of pixels; without it, predictions are shifted and less accurate.

```python
import segmentation_models_pytorch as smp
import torch

network = smp.from_pretrained("FOLDER").eval()
for module in network.modules():
    if isinstance(module, torch.nn.Upsample):
        module.align_corners = False
```"""


def model_card(model: SegmentationModel, folder: Path, library: str, use: str) -> str:
    """Return the README of a model from `folder`, as the Hugging Face hub reads it: its use, classes, input and origin."""
    network, classes = model.architecture, model.classes
    training, measured = load_description(folder)["training"], metrics_of(folder)
    stride = f", output stride {network.output_stride}" if network.decoder.startswith("DeepLab") else ""
    side = network.short_side
    size = f"Shrunk to a shorter side of {side} pixels first" if side else "At their own size"
    quality = "Not measured with these weights."
    if measured.get("miou") is not None:
        quality = f"mIoU {100 * measured['miou']:.2f} percent on {measured['subset']}, {measured['images']} images."
    return f"""---
license: unknown  # yours to choose, as far as the images and the backbone allow
library_name: {library}
pipeline_tag: image-segmentation
tags: [semantic-segmentation, semi-supervised, segsemi]
metrics: [mean_iou]
---
# {_name(folder)}

{use}

- {quality}
- Network: {network.decoder} on {network.encoder}{stride}.
- Classes, in the order of their ids: {", ".join(classes.names)}. {classes.ignore_index} is no class.
- What enters the network: RGB / 255, minus {network.mean}, divided by {network.std} (mean, standard deviation); padded
  with zeros to multiples of {model.padding_multiple}. {size}.
- Trained for {training["steps_in_all"]} steps in all, those of its teachers included, with segsemi.
- {_backbone(network.encoder, training.get("encoder_weights"))}
"""


def _backbone(encoder: str, weights: str | None) -> str:
    """Return a sentence on the weights with which the backbone of a model began."""
    if weights == "imagenet":
        origin, licence = weights_origin(encoder)
        return f"The backbone began with ImageNet weights from {origin}. Their licence: {licence}."
    began = {None: "weights that model.json does not name", "none": "random weights"}.get(weights, "those of a file")
    return f"The backbone began with {began}."
