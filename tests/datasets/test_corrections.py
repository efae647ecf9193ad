"""Pseudo labels come back from CVAT and Label Studio as they were, but for what the annotator changed."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segsemi.commands.cli import main
from segsemi.core.classes import Classes, write_label_png
from segsemi.core.errors import UserError
from segsemi.data.images import read_label
from segsemi.data.manifest import Row, write_rows
from segsemi.datasets.annotations import Notes
from segsemi.datasets.corrections import decode_brush, encode_brush, export_labels, read_cvat, read_label_studio

CLASSES = Classes(("background", 'a "b" <c>', "é"), ((0, 0, 0), *[(9, 9, 9)] * 2))  # colours that tools must not get
OTHERS = Classes(("road", "car"), ((0, 0, 0), (1, 1, 1)))
SHAPE = 12, 17


def generated(classes: Classes) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    ids = np.array([*range(len(classes)), 255], dtype=np.uint8)
    return {name: generator.choice(ids, SHAPE) for name in ("a b#1", "007", "NA", "drive__é?", "x.y")}


def unpacked(export: Path) -> Path:
    with zipfile.ZipFile(export / "cvat.zip") as file:
        file.extractall(export / "task/cvat")
    return export / "task"


def two_tasks(export: Path) -> Path:
    shutil.copytree(unpacked(export), export / "task again")
    return export


def submitted(export: Path, change: Callable[[list[dict]], object] = lambda tasks: None) -> Path:
    """Return an export of Label Studio in which each prediction was accepted."""
    tasks = json.loads((export / "labelstudio.json").read_text())
    for task in tasks:
        task["annotations"] = [{"result": prediction["result"]} for prediction in task["predictions"]]
    change(tasks)
    (export / "export.json").write_text(json.dumps(tasks))
    return export / "export.json"


@pytest.mark.parametrize("classes", [CLASSES, OTHERS], ids=["background", "no background"])
def test_what_nobody_changes_comes_back_equal(tmp_path: Path, classes: Classes) -> None:
    labels, notes = generated(classes), Notes()
    export_labels(labels, classes, "student_1", tmp_path)
    sources = [(read_cvat, tmp_path / "cvat.zip"), (read_cvat, unpacked(tmp_path))]
    for read, source in [*sources, (read_label_studio, submitted(tmp_path))]:
        found = read(source, classes, notes)
        assert found.keys() == labels.keys() and not notes.lines()
        for name, label in labels.items():
            np.testing.assert_array_equal(found[name], label)


def test_brush_code_equals_the_format_written_out() -> None:
    """2 values of 8 bits each; lengths of 16 bits; one run of 8 values 0, one of 4 values 255."""

    def code_of(*parts: str) -> list[int]:
        bits = "".join(parts)
        return [int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)]

    runs = "1", "00", f"{7:016b}", f"{0:08b}", "1", "00", f"{3:016b}", f"{255:08b}"
    assert encode_brush(np.array([[False, False, True]])) == code_of(f"{12:032b}", "00111", "1111" * 4, *runs)
    # as Label Studio may write: other lengths, single values, the soft edge of a brush
    values = (f"{value:08b}" for value in (9, 9, 9, 127, 9, 9, 9, 128))
    code = code_of(f"{8:032b}", "00111", "0010", "0011" * 3, "0", "00", "111", *values)
    assert decode_brush(code, 1, 2).tolist() == [[False, True]]
    for height, width, length, message in ((1, 3, 99, "8 values"), (1, 2, 10, "cut short")):
        with pytest.raises(ValueError, match=message):
            decode_brush(code[:length], height, width)


def test_long_runs_are_split() -> None:
    mask = np.arange(200_000).reshape(400, 500) % 90_000 > 40_000
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), *mask.shape), mask)


def test_the_changed_region_wins_whatever_its_place_in_the_list(tmp_path: Path) -> None:
    label = np.repeat(np.array([[0, 1, 1, 255]], dtype=np.uint8), 2, axis=0)
    export_labels({"x": label}, OTHERS, "student_1", tmp_path)

    def grow(tasks: list[dict]) -> None:
        road, car, _ = tasks[0]["annotations"][0]["result"]
        road["value"]["rle"] = encode_brush(np.array([[1, 1, 0, 0]] * 2, dtype=bool))  # over the car, listed before it
        car["value"]["rle"] = encode_brush(np.array([[0, 1, 0, 0]] * 2, dtype=bool))  # and a hole in the car

    found = read_label_studio(submitted(tmp_path, grow), OTHERS, Notes())
    assert found["x"].tolist() == [[0, 0, 255, 255]] * 2


def test_a_new_region_of_the_suggested_class_counts_where_it_was_painted_back(tmp_path: Path) -> None:
    export_labels({"x": np.zeros((1, 4), dtype=np.uint8)}, OTHERS, "student_1", tmp_path)

    def paint(tasks: list[dict]) -> None:
        regions = tasks[0]["annotations"][0]["result"]
        for id_, name, mask in (("aB3", OTHERS.names[1], [1, 1, 1, 0]), ("cD4", OTHERS.names[0], [1, 1, 0, 0])):
            rle = encode_brush(np.array([mask], dtype=bool))
            regions.append({**regions[0], "id": id_, "value": {"format": "rle", "rle": rle, "brushlabels": [name]}})

    assert read_label_studio(submitted(tmp_path, paint), OTHERS, Notes())["x"].tolist() == [[0, 0, 1, 0]]


def test_cvats_label_editor_wants_attributes(tmp_path: Path) -> None:
    export_labels(generated(OTHERS), OTHERS, "student_1", tmp_path)
    labels = json.loads((tmp_path / "cvat_labels.json").read_text())
    assert {label["name"] for label in labels} > set(OTHERS.names)
    assert all(label["attributes"] == [] for label in labels)


def test_skipped_images_are_counted_and_left_out(tmp_path: Path) -> None:
    labels = generated(OTHERS)
    export_labels(labels, OTHERS, "student_1", tmp_path)

    def skip(tasks: list[dict]) -> None:
        tasks[0]["annotations"] = []
        tasks[1]["annotations"][0]["was_cancelled"] = True
        tasks[2]["annotations"][0]["result"] = [{"type": "rectanglelabels", "value": {"x": 1}}]
        tasks[3]["annotations"].append({"result": tasks[4]["predictions"][0]["result"]})

    notes, folder = Notes(), unpacked(tmp_path) / "cvat"
    found = read_label_studio(submitted(tmp_path, skip), OTHERS, notes)
    assert [*found] == [*labels][3:] and np.array_equal(found["drive__é?"], labels["x.y"])
    assert [len(places) for places in notes.places.values()] == [3, 1, 1]
    notes = Notes()
    (folder / "SegmentationClass/007.png").unlink()
    write_label_png(folder / "SegmentationClass/NA.png", np.zeros(SHAPE, dtype=np.uint8), Classes(("x",), ((0, 0, 0),)))
    assert [*read_cvat(folder, OTHERS, notes)] == ["a b#1", "drive__é?", "x.y"]
    assert "no annotation and get no label (2): 007, NA" in str(notes)


def rename(tasks: list[dict]) -> None:
    tasks[1]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["lorry"]


def cut(tasks: list[dict]) -> None:
    del tasks[1]["annotations"][0]["result"][0]["value"]["rle"][-3:]


def twice(tasks: list[dict]) -> None:
    tasks.append(tasks[0])


def relabelled(export: Path, before: str, after: str) -> Path:
    path = unpacked(export) / "cvat/labelmap.txt"
    path.write_text(path.read_text().replace(before, after, 1))
    return path.parent


def encrypted(export: Path) -> Path:
    path = export / "cvat.zip"
    zipped = path.read_bytes()
    for header in (b"PK\3\4\x14\0", b"PK\1\2\x14\3\x14\0"):  # of a file, and in the directory
        zipped = zipped.replace(header + b"\0", header + b"\1")
    path.write_bytes(zipped)
    return path


BLACK = "background:0,0,0"
STRANGE = r"not the data set's: lorry \(in "


@pytest.mark.parametrize(
    ("read", "write", "message"),
    [
        (read_label_studio, lambda export: submitted(export, rename), STRANGE + r"007\); rename"),
        (read_label_studio, lambda export: submitted(export, cut), "annotation of 007 is broken .*cut short"),
        (read_label_studio, lambda export: submitted(export, twice), "two tasks of a b#1"),
        (read_label_studio, lambda export: export / "labelstudio.json", 'export from Label Studio as "JSON"'),
        (read_label_studio, lambda export: export / "cvat.zip", "is no JSON file"),
        (read_cvat, lambda export: export / "labelstudio.json", "is not a zip file; name"),
        (read_cvat, encrypted, "encrypted.*; name"),
        (read_cvat, lambda export: export, r"no labelmap\.txt; export from CVAT as"),
        (read_cvat, two_tasks, r"has 2 labelmap\.txt; .*one task a file"),
        (read_cvat, lambda export: relabelled(export, "car:", "lorry:"), STRANGE),
        (read_cvat, lambda export: relabelled(export, f"{BLACK}::\nroad:128,0,0", "road:0,0,0"), "class road in black"),
        (read_cvat, lambda export: relabelled(export, BLACK, "background:0,0"), "is no label map"),
    ],
)
def test_a_wrong_export_is_one_clear_error(tmp_path: Path, read: Callable, write: Callable, message: str) -> None:
    export_labels(generated(OTHERS), OTHERS, "student_1", tmp_path)
    with pytest.raises(UserError, match=message):
        read(write(tmp_path), OTHERS, Notes())


def test_command_writes_the_labels_of_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = generated(CLASSES)
    subsets = dict(zip(labels, ["train", "val", "extra", "train", "train"], strict=True))
    CLASSES.save(Path("data/prepared/classes.json"))
    rows = [Row(name, subsets[name], "i.png", "", *(SHAPE if name != "x.y" else (3, 3)), "", "") for name in labels]
    write_rows(Path("data/prepared/manifest.csv"), rows)
    write_label_png(Path("data/pseudo/student_1/NA.png"), labels["NA"], CLASSES)
    export_labels(labels, CLASSES, "student_1", Path("out"))
    assert main(["labels", "cvat", "out/cvat.zip", "-o", "data/corrected"]) == 0
    printed = capsys.readouterr()
    assert "3 corrected labels: data/corrected" in printed.out
    for line in ("no label (1): 007", "no label (1): x.y", "nobody has looked at (1): NA"):
        assert line in printed.err
    for name in ("a b#1", "NA", "drive__é?"):
        path = Path(f"data/corrected/{name}.png")
        np.testing.assert_array_equal(read_label(path, CLASSES.as_written()), labels[name])
    assert main(["labels", "cvat", "out/cvat.zip", "-o", "x", "--background", "y"]) == 1
