"""Ctrl-C, or a cluster's SIGTERM, that lets the current step finish, so that what is saved is a whole state."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (not an error)
    """Training was stopped by Ctrl-C or SIGTERM, after its checkpoint was saved."""

    def __init__(self, command: str, step: int, total: int, unit: str = "step") -> None:
        super().__init__(f"stopped at {unit} {step} of {total}; continue with: {command}")


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed, or SIGTERM has come."""

    requested: bool = False


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def deferred_interrupt(twice_stops: bool = True, terminate: bool = True) -> Iterator[Interrupt]:
    """Turn the first Ctrl-C or SIGTERM inside the block into ``requested``; a second one stops at once, as usual.

    Args:
        twice_stops: False where one Ctrl-C may arrive twice, from the terminal and from a launcher, whose SIGTERM means
            that other processes are lost, and is left alone.
        terminate: False leaves SIGTERM alone too, where the work is another process's, which does not get it.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    signals = (signal.SIGINT, signal.SIGTERM) if twice_stops and terminate else (signal.SIGINT,)
    previous = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.requested = True
        if twice_stops:  # by the same signal: after Ctrl-C in a terminal, whoever started this may send SIGTERM too
            signal.signal(number, previous[signal.Signals(number)])
        if twice_stops and terminate:
            with suppress(OSError):  # Ctrl-C may have ended who reads this, too
                os.write(2, b"\nstopping after this step; a second time stops at once, and loses what is not saved\n")

    for number in signals:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        restore()
