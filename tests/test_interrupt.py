"""Ctrl-C and SIGTERM while something runs that is to be saved first."""

from __future__ import annotations

import signal

import pytest

from lcnet_rl.interrupt import deferred_interrupt


def press(times: int, noted: list[bool], twice_stops: bool = True) -> None:
    """Ctrl-C so often; what is known after each."""
    with deferred_interrupt(twice_stops) as interrupt:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            noted.append(interrupt.requested)


def test_a_second_ctrl_c_stops_at_once() -> None:
    before, noted = signal.getsignal(signal.SIGINT), list[bool]()
    with pytest.raises(KeyboardInterrupt):
        press(2, noted)
    assert noted == [True], "the first one only asks for it"
    assert signal.getsignal(signal.SIGINT) is before


def test_where_one_ctrl_c_may_arrive_twice_it_does_not_stop_at_once() -> None:
    before, noted = signal.getsignal(signal.SIGINT), list[bool]()
    press(2, noted, twice_stops=False)
    assert noted == [True, True]
    assert signal.getsignal(signal.SIGINT) is before
