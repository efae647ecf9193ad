"""`python -m segsemi`: predict, export, preset, doctor, as a user calls them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

import segsemi
from segsemi.commands.cli import main
from segsemi.commands.export import FixedSame, model_card
from segsemi.commands.preset import preset_names, read_preset
from segsemi.core.classes import Classes
from segsemi.core.config import load_params
from segsemi.core.errors import UserError
from segsemi.data.images import read_image
from segsemi.inference import predict_image
from segsemi.models.build import Architecture, build_model
from segsemi.models.saving import load_model, save_model
from segsemi.models.torchvision_ops import import_torchvision

ROOT = Path(segsemi.__file__).parents[1]
CLASSES = Classes(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with weights drawn at random."""
    return made(tmp_path_factory.mktemp("models") / "tiny", Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16))


def made(folder: Path, architecture: Architecture) -> Path:
    save_model(build_model(architecture, CLASSES, encoder_weights="none", seed=0), folder, {"steps_in_all": 7})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """a.jpg, sub/b.png (grey), sub/turned.jpg (EXIF), a text file and a hidden folder."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    for name in ("sub", ".thumbs"):
        (folder / name).mkdir(parents=True)
    for name in ("a.jpg", ".thumbs/a.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 256, (33, 64), dtype=np.uint8)).save(folder / "sub/b.png")
    turned = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(folder / "sub/turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predict_writes_a_palette_png_under_every_name(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(model), str(pictures), "-o", str(out), "--overlay", "--probabilities"]) == 0
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    stems = ("a", "sub/b", "sub/turned")
    assert names == {f"{stem}{end}" for stem in stems for end in (".png", "_overlay.png", ".npz")}
    network = load_model(model)
    for stem, source in zip(stems, ("a.jpg", "sub/b.png", "sub/turned.jpg"), strict=True):
        image = read_image(pictures / source)
        expected = predict_image(network, image)
        with Image.open(out / f"{stem}.png") as png:
            assert png.mode == "P" and np.array_equal(np.asarray(png), expected.argmax(0).numpy())
            assert np.array_equal(np.asarray(png.convert("RGB")), CLASSES.palette()[expected.argmax(0).numpy()])
        stored = np.load(out / f"{stem}.npz")
        np.testing.assert_allclose(stored["probabilities"], expected.numpy(), atol=1e-3)
        assert stored["classes"].tolist() == list(CLASSES.names)
    with Image.open(out / "sub/turned.png") as png:
        assert png.size == (40, 60)


def test_predict_writes_over_no_image(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    assert main(["predict", str(model), str(pictures), "-o", str(pictures)]) == 1
    assert "b.png is one of the images, and would be written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()} == before
    out = pictures / "out"
    for _ in range(2):  # what the first one wrote is no image of the second
        assert main(["predict", str(model), str(pictures), "-o", str(out), "--overlay"]) == 0
        assert sum(path.is_file() for path in out.rglob("*")) == 6


def test_a_file_in_the_place_of_the_output_is_named(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["predict", str(model), str(pictures)], ["export", str(model), "--format", "hub"]):
        assert main([*command, "-o", str(pictures / "a.jpg")]) == 1
        assert "a.jpg: a file is where a folder is to be" in capsys.readouterr().err.splitlines()[-1]


def test_predict_keeps_overlays_and_labels_apart(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(pictures / "a.jpg", pictures / "a_overlay.jpg")
    out = str(pictures.parent / "out")
    assert main(["predict", str(model), str(pictures), "-o", out, "--overlay"]) == 1
    assert "the overlay of" in capsys.readouterr().err and not Path(out).exists()
    assert main(["predict", str(model), str(pictures), "-o", out]) == 0


def test_predict_options_reach_the_network(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--scales", "0.5", "1.5", "--flip", "--sliding-window", "32", "--probabilities"]
    assert main(["predict", str(model), str(pictures / "a.jpg"), "-o", str(out), *options]) == 0
    expected = predict_image(load_model(model), read_image(pictures / "a.jpg"), (0.5, 1.5), True, 32)
    np.testing.assert_allclose(np.load(out / "a.npz")["probabilities"], expected.numpy(), atol=1e-3)


def test_broken_image_is_reported_and_the_rest_is_done(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "sub/b.png").write_bytes((pictures / "sub/b.png").read_bytes()[:200])
    out = tmp_path / "out"
    assert main(["predict", str(model), str(pictures / "**/*"), "-o", str(out)]) == 1
    assert re.search(r"error: image .*b\.png cannot be read", capsys.readouterr().err)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "turned.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{model}", "nowhere/*.jpg", "-o", "{out}"], "nowhere/*.jpg: no image there"),
        (["predict", "{out}", "{pictures}", "-o", "{out}"], "is no model's folder"),
        (["predict", "{model}", "{pictures}", "-o", "{out}", "--scales", "0"], "--scales must be above 0"),
        (["predict", "{model}", "{pictures}", "-o", "{out}", "--scales", "nan"], "--scales must be above 0"),
        (["export", "{model}", "-o", "{model}"], "is the model itself"),
        (["predict", "{model}", "{pictures}/a.jpg", "{pictures}/sub/a.jpg", "-o", "{out}"], "would both become a.png"),
        (["export", "{out}", "-o", "{out}"], "is no model's folder"),
        (["preset", "cityscape"], "no preset 'cityscape'; there are camvid_cpu, cityscapes_"),
        (["preset", "voc_deeplabv3plus_resnet101", "--params", "nowhere.yaml"], "nowhere.yaml not found"),
        (["doctor", "--params", "nowhere.yaml"], "nowhere.yaml not found"),
    ],
)
def test_error_is_one_line_and_exit_code_1(
    arguments: list[str],
    message: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copyfile(pictures / "a.jpg", pictures / "sub/a.jpg")
    places = {"model": model, "pictures": pictures, "out": tmp_path / "out"}
    assert main([argument.format(**places) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line


def test_module_and_help_work() -> None:
    done = subprocess.run([sys.executable, "-m", "segsemi", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and all(name in done.stdout for name in ("doctor", "preset", "predict", "export"))
    assert subprocess.run([sys.executable, "-m", "segsemi", "nonsense"], cwd=ROOT, capture_output=True).returncode == 2


# presets


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_written_with_all_comments_kept(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    path.write_text(before)
    assert main(["preset", name, "--params", str(path), "--dry-run"]) == 0
    assert path.read_text() == before
    assert main(["preset", name, "--params", str(path)]) == 0
    params, values = load_params(path), read_preset(name)[0]
    for section, keys in values.items():
        for key, value in keys.items():
            assert getattr(getattr(params, section), key) == value, f"{section}.{key}"
    comments = [line.split("#", 1)[1] for line in before.splitlines() if "#" in line]
    assert [line.split("#", 1)[1] for line in path.read_text().splitlines() if "#" in line] == comments
    untouched = YAML(typ="safe").load(before)
    assert params.pseudo_label.scales == untouched["pseudo_label"]["scales"]
    assert f"augment.crop_size: 128 -> {values['augment']['crop_size']}" in capsys.readouterr().out
    assert main(["preset", name, "--params", str(path)]) == 0
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize("name", preset_names())
def test_preset_sets_back_what_of_the_method_was_changed(name: str, tmp_path: Path) -> None:
    path, yaml = tmp_path / "params.yaml", YAML()
    values = yaml.load((ROOT / "params.yaml").read_text())
    values["split"] |= {"count": 7, "unlabelled_ratio": 2.0}
    values["student"] |= {"init": "pretrained", "saug": "none", "saug_share": 0.5, "bn": "fixed", "loss": "ce"}
    values["pseudo_label"] |= {"scales": [1.0], "flip": False}
    yaml.dump(values, path)
    assert main(["preset", name, "--params", str(path)]) == 0
    params = load_params(path)
    assert (params.split.count, params.split.unlabelled_ratio) == (None, None)
    assert params.pseudo_label.flip and len(params.pseudo_label.scales) == 5
    student = params.student
    method = (student.init, student.saug, student.saug_share, student.bn, student.loss)
    assert method == ("teacher", "pseudo", 1.0, "dsbn", "scl")


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n", "seed: 0\n"])
def test_preset_refuses_broken_params(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert main(["preset", "voc_deeplabv3plus_resnet101", "--params", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}") and path.read_text() == text


def test_presets_state_what_the_paper_states() -> None:
    names = set(preset_names()) - {"camvid_cpu"}  # ours
    assert names == {
        "cityscapes_deeplabv2_resnet101",
        "cityscapes_deeplabv3plus_xception65",
        "voc_deeplabv3plus_resnet101",
        "voc_deeplabv3plus_xception65",
    }
    crops = {name: read_preset(name)[0]["augment"]["crop_size"] for name in names}
    assert crops["cityscapes_deeplabv3plus_xception65"] == 769  # section 4.1
    assert crops["voc_deeplabv3plus_resnet101"] == crops["voc_deeplabv3plus_xception65"] == 513  # section 4.3
    assert all(read_preset(name)[0]["teacher"]["lr"] == 0.01 for name in names)


# export


def test_onnx_agrees_for_any_batch_and_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = made(tmp_path / "small", Architecture("FPN", "resnet18", 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
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


@pytest.mark.parametrize("stride, rate", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 5)])
def test_fixed_padding_is_that_of_tensorflow(kernel: int | tuple[int, int], stride: int, rate: int) -> None:
    import_torchvision()  # timm needs it
    from timm.layers.conv2d_same import Conv2dSame

    conv = Conv2dSame(4, 4, kernel, stride=stride, dilation=rate, groups=2)
    for height, width in ((16, 24), (6, 2)):
        x = torch.rand(2, 4, height, width)
        torch.testing.assert_close(FixedSame(conv)(x), conv(x))


def test_hub_folder_is_read_by_smp(model: Path, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp  # after segsemi, which makes this build of torchvision importable

    assert main(["export", str(model), "-o", str(tmp_path), "--format", "hub"]) == 0
    network, own = smp.from_pretrained(str(tmp_path)).eval(), load_model(model)
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), own.forward_normalised(x))


def test_export_leaves_the_model_as_it_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / "model.safetensors").read_bytes()
    assert main(["export", str(model), "-o", str(model), "--format", "hub"]) == 1
    assert "is the model itself" in capsys.readouterr().err
    assert (model / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("decoder", ["DeepLabV3Plus", "Unet"])
def test_code_in_the_card_loads_the_model_without_segsemi(decoder: str, tmp_path: Path) -> None:
    stride = 16 if decoder == "DeepLabV3Plus" else 32
    folder = made(tmp_path / "m", Architecture(decoder, "tf_efficientnet_lite0", stride))
    card = model_card(load_model(folder), folder, "use")
    assert f"multiples of {stride}." in card and ("output stride" in card) == (decoder != "Unet")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code.strip().splitlines()) <= 12 and "segsemi" not in code
    script = (
        code
        + "\nimport torch; torch.manual_seed(0)\ntorch.save(network(torch.rand(1, 3, 64, 64)).detach(), 'out.pt')\n"
    )
    prelude = "from segsemi.models.torchvision_ops import import_torchvision as f; f()\n"  # this build of torchvision
    prelude = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{prelude}"
    subprocess.run([sys.executable, "-c", prelude + script], cwd=folder, check=True)
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_model(folder).forward_normalised(x)
    torch.testing.assert_close(torch.load(folder / "out.pt", weights_only=True), expected, atol=1e-4, rtol=1e-3)


# doctor


def test_doctor_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, rng = tmp_path / "own", np.random.default_rng(0)
    for folder in ("images", "labels", "unlabelled"):
        (root / folder).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(np.repeat(np.array([0, 0, 1, 255], np.uint8), 500).reshape(40, 50)).save(
            root / f"labels/{index}.png"
        )
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(root / "unlabelled/x.png")
    names = {"names": ["ground", "cat", "dog"], "colours": [[0, 0, 0], [255, 0, 0], [0, 0, 255]]}
    (root / "classes.json").write_text(json.dumps(names))
    yaml, path = YAML(), tmp_path / "params.yaml"
    params = yaml.load(ROOT / "params.yaml")
    params["data"].update(name="folder", root=str(root))
    params["augment"]["crop_size"] = 32
    yaml.dump(params, path)
    assert main(["doctor", "--params", str(path), "--picture", str(tmp_path / "nine.png")]) == 0
    out = capsys.readouterr().out
    assert "train: 8 images with a label" in out and "val: 2 images with a label" in out
    assert "extra: 0 images with a label, 1 without" in out
    assert re.search(r"class   0 ground +50\.00 %", out) and re.search(r"class   2 dog +0\.00 %.*no pixel", out)
    assert re.search(r"no class \(ignored\) +25\.00 %", out)
    assert re.search(r"student: \d+\.\d\d s a step", out) and re.search(
        r"disk for models and checkpoints: \d+ MiB", out
    )
    with Image.open(tmp_path / "nine.png") as picture:
        assert picture.width > 3 * 50

    params["student"].update(bn="fixed", batch_labelled=1, batch_pseudo=1)  # one image goes through at a time
    yaml.dump(params, path)
    assert main(["doctor", "--params", str(path)]) == 0

    Image.fromarray(np.zeros((40, 49), np.uint8)).save(root / "labels/0.png")
    assert main(["doctor", "--params", str(path), "--picture", str(tmp_path / "nine.png")]) == 1
    assert "0.png is 40x49, its image 40x50" in capsys.readouterr().err


def test_verbose_shows_the_traceback_and_else_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--params", str(tmp_path / "none.yaml")]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "none.yaml not found" in line
    with pytest.raises(UserError, match=r"none\.yaml not found"):
        main(["-v", *command])


def test_experiment_needs_its_name_before_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "--columns", "1/8", "table1"]) == 1
    assert "the name comes first" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_script_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert not stop.value.code
    script = capsys.readouterr().out
    assert all(word in script for word in ("suggest", "experiment", "--sliding-window"))
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_suggest_needs_rounds_and_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert main(["suggest", "-n", "0"]) == 1 and "--count 0" in capsys.readouterr().err
    assert main(["suggest"]) == 1 and "classes.json not found" in capsys.readouterr().err
    text = (tmp_path / "params.yaml").read_text()
    rounds = "rounds:\n  student_1: teacher\n  student_2: student_1\n"
    assert rounds in text
    (tmp_path / "params.yaml").write_text(text.replace(rounds, "rounds: {}\n"))
    assert main(["suggest"]) == 1 and "has no rounds" in capsys.readouterr().err
