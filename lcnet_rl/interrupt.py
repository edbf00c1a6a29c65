"""Ctrl-C that lets the current step finish, so that what is saved is a whole state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (not an error)
    """Training was stopped by Ctrl-C, after its checkpoint was saved."""

    def __init__(self, command: str, step: int, total: int, unit: str = "step") -> None:
        super().__init__(f"stopped at {unit} {step} of {total}; continue with: {command}")


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed."""

    requested: bool = False


@contextmanager
def deferred_interrupt(twice_stops: bool = True) -> Iterator[Interrupt]:
    """Turn the first Ctrl-C inside the block into ``requested``; a second one stops at once, as usual.

    Args:
        twice_stops: False where one Ctrl-C may arrive twice, from the terminal and from a launcher.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.requested = True
        if twice_stops:
            signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
