"""Progress as lines in a log."""

from __future__ import annotations

import pytest

import segsemi.core.progress
from segsemi.core.progress import progress_bar


def test_a_log_gets_whole_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(segsemi.core.progress.time, "monotonic", lambda: now[0])
    with progress_bar(total=100, initial=10, desc="teacher", unit="step") as bar:
        for step in range(10, 100):
            now[0] += 1.0
            bar.last_print_t -= 5  # tqdm's own clock: as if it were time to draw
            bar.update()
            if step == 50:
                bar.set_postfix(loss="0.5")
                bar.write("teacher step 50: val mIoU 12.34")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    counts = [line.split(",")[0] for line in lines]
    assert counts == ["teacher: 10/100 step", *(f"teacher: {n}/100 step" for n in (40, 70, 100))]
    assert "\r" not in captured.err and lines[-1].endswith("left, loss=0.5")
    assert captured.out == "teacher step 50: val mIoU 12.34\n"


def test_an_iterable_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar([3, 1, 2], desc="images", unit="image")) == [3, 1, 2]
    assert capsys.readouterr().err.splitlines()[-1].startswith("images: 3/3 image, ")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = progress_bar(total=1, desc="teacher", unit="step")
    assert type(bar) is segsemi.core.progress.tqdm
    bar.close()
