"""Whatever is in a file: either it is read rightly, or there is one UserError."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segsemi.core.config import Params, load_params, load_values, parse_params
from segsemi.core.errors import UserError
from segsemi.core.pictures import png_bytes
from segsemi.data.images import read_image, read_label
from segsemi.data.manifest import Row, read_rows, write_rows
from segsemi.datasets.scenes import CLASSES as SCENES

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
VALUES = load_values(ROOT / "params.yaml")
names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0\r\n", exclude_categories=["Cs"]), min_size=1)
file_names = names.filter(lambda name: name not in (".", ".."))
paths = st.lists(file_names, min_size=1, max_size=3).map("/".join)
subsets, sides = st.sampled_from(["train", "val", "test", "extra"]), st.integers(1, 10**5)
hashes = st.text("0123456789abcdef", max_size=32)
rows = st.builds(Row, file_names, subsets, paths, st.one_of(st.just(""), paths), sides, sides, hashes, hashes)


@quick
@given(st.lists(rows, max_size=5))
def test_any_manifest_survives_the_disk(tmp_path: Path, listed: list[Row]) -> None:
    write_rows(tmp_path / "manifest.csv", listed)
    assert read_rows(tmp_path / "manifest.csv") == listed


@quick
@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: f"id,image\n{text}".encode())))
def test_any_bytes_as_a_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    try:
        found = read_rows(tmp_path / "manifest.csv")
    except UserError as error:
        assert "manifest.csv" in str(error)
    else:
        assert all(row.id and "/" not in row.id and not row.image.startswith("/") for row in found)


@pytest.mark.parametrize("path", ["../secret.png", "a/../../b.png", "/etc/passwd"])
@pytest.mark.parametrize("column", ["image", "label"])
def test_paths_cannot_leave_the_data_set(tmp_path: Path, column: str, path: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"id,{column}\na,{path}\n")
    with pytest.raises(UserError, match=r"manifest\.csv, line 2: .* leaves the folder of the data set"):
        read_rows(tmp_path / "manifest.csv")


WHOLE = png_bytes(np.arange(24, dtype=np.uint8).reshape(4, 6) % 11)
cut_short = st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
one_byte_changed = st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
    lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
)


@quick
@given(st.one_of(st.binary(max_size=200), cut_short, one_byte_changed))
def test_any_bytes_as_an_image_or_label(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    for read in (lambda: read_label(path, SCENES), lambda: read_image(path)):
        try:
            array = read()
        except UserError as error:
            assert "file.png" in str(error)
        else:
            assert array.shape[:2] == (4, 6) or content != WHOLE[: len(content)]
            assert array.ndim == 3 or ((array < 11) | (array == 255)).all()


texts, floats = st.text(max_size=8), st.floats()
leaves = st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), floats, texts, st.lists(floats, max_size=3))


@quick
@given(section=st.sampled_from(sorted(VALUES)), value=leaves, data=st.data())
def test_any_value_of_any_param(section: str, value: Any, data: st.DataObject) -> None:
    changed = {name: dict(item) if isinstance(item, dict) else item for name, item in VALUES.items()}
    if isinstance(changed[section], dict) and data.draw(st.booleans()):
        keys = st.one_of(st.sampled_from(sorted(changed[section]) or ["key"]), st.text(max_size=5))
        changed[section][data.draw(keys)] = value
    else:
        changed[section] = value
    try:
        params = parse_params(changed)
    except UserError as error:
        assert str(error).startswith("params.yaml: ")
    else:
        assert params.augment.crop_size >= 32 and math.isfinite(params.student.lr) and params.student.lr > 0


@quick
@given(st.binary(max_size=200))
def test_any_bytes_as_params(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml"):
        assert not isinstance(load_params(tmp_path / "params.yaml"), Params)
