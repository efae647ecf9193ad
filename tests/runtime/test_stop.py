"""A clean stop: signals wait for the end of a step."""

import os
import signal

import pytest

from segsemi.runtime.stop import stop_requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_one_acts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requested() as stopping:
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_among_several_processes_a_second_sigterm_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own and torchrun's."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_requested() as stopping:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
