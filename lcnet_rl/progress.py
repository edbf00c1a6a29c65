"""Progress of long work: a rich bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

console = Console(markup=False, emoji=False)
"""Names and paths are the user's and may look like markup; what is set off has a ``style`` of its own."""


def say(text: str | Text, style: str | None = None) -> None:
    """Print one line, unbroken however narrow the terminal is, so that commands and paths in it can be copied."""
    console.print(text, style=style, soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """Print one line as a warning."""
    say(text, style="yellow")


class Progress:
    """A context manager over ``total`` steps: ``advance()`` after each, ``note(text)`` to show the latest figures."""

    def __init__(
        self, title: str, total: int | None, done: int = 0, every: float = 15.0, between: bool = False
    ) -> None:
        """Show ``title``, ``done`` steps behind it; without a terminal, a line at most every ``every`` seconds.

        Args:
            title: what the steps are.
            total: how many there are; None where nobody knows.
            done: how many are done already.
            every: seconds.
            between: draw within ``advance()`` only, once a second, where steps are timed: a thread would disturb them.
        """
        self._title, self._total, self._every = title, total, every
        self._between, self._drawn = between, time.monotonic()
        self._start = self._done = done
        self._note, self._began, self._printed = "", time.monotonic(), time.monotonic()
        self._bar: rich_progress.Progress | None = None
        if console.is_terminal:
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[rate]}"),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.fields[note]}"),
                console=console,
                auto_refresh=not between,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar from now on."""
        self._note = text
        if self._bar:
            self._bar.update(self._task, note=text)

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` as done; none just shows that there is life."""
        self._done += steps
        now = time.monotonic()
        rate = (self._done - self._start) / max(now - self._began, 1e-9)
        if self._bar:
            self._bar.update(self._task, advance=steps, rate=f"{rate:.1f}/s")
            if self._between and now - self._drawn > 1:
                self._bar.refresh()
                self._drawn = now
        elif self._total is None:
            if now - self._printed > self._every:
                self._printed = now
                console.print(f"{self._title}: {self._done}, {rate:.1f}/s  {self._note}")
        elif now - self._printed > self._every or (steps and self._done >= self._total):
            self._printed = now
            left = f"{max(0, self._total - self._done) / rate:.0f}" if rate else "?"
            console.print(f"{self._title}: {self._done}/{self._total}, {rate:.1f}/s, {left} s left  {self._note}")
