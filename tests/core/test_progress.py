"""Progress as lines in a log."""

import pytest

from segsemi.core.progress import progress_bar


def test_a_log_gets_whole_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=100, initial=10, desc="teacher", unit="step") as bar:
        for step in range(11, 101):
            if step in (40, 70):
                bar.last_print_t -= 31  # tqdm's own clock
            bar.update()
    lines = capsys.readouterr().err.split("\n")
    counts = [line.strip().split(",")[0] for line in lines if line.strip()]
    assert counts[0] == "teacher: 10/100 step" and counts[-1] == "teacher: 100/100 step" and len(counts) == 4


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress_bar(total=1, desc="teacher", unit="step").close()
    assert "| 0/1 [" in capsys.readouterr().err
