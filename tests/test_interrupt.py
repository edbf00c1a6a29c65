"""Ctrl-C and SIGTERM while something runs that is to be saved first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lcnet_rl.interrupt import deferred_interrupt, sigterm_as_ctrl_c


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell that starts tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times: int, noted: list[bool], twice_stops: bool = True) -> None:
    """Ctrl-C so often; what is known after each."""
    with deferred_interrupt(twice_stops) as interrupt:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            noted.append(interrupt.requested)


def test_a_ctrl_c_is_answered_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    press(1, [])
    assert "stopping after this step; a second time stops at once" in capfd.readouterr().err


def test_where_nobody_can_be_told_a_ctrl_c_still_waits_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    noted = list[bool]()
    press(1, noted)
    assert noted == [True]


def test_a_second_ctrl_c_stops_at_once() -> None:
    before, noted = signal.getsignal(signal.SIGINT), list[bool]()
    with pytest.raises(KeyboardInterrupt):
        press(2, noted)
    assert noted == [True], "the first one only asks for it"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_sigterm_after_ctrl_c_still_waits_for_the_step() -> None:
    noted = list[bool]()
    with deferred_interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # would end the tests
        noted.append(interrupt.requested)
    assert noted == [True]


def test_sigterm_is_taken_for_ctrl_c_where_that_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_where_one_ctrl_c_may_arrive_twice_it_does_not_stop_at_once() -> None:
    before, noted = signal.getsignal(signal.SIGINT), list[bool]()
    press(2, noted, twice_stops=False)
    assert noted == [True, True]
    assert signal.getsignal(signal.SIGINT) is before
