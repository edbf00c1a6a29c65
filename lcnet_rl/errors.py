"""Errors that are the user's to fix: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12
"""Names that are all listed, even where one is near to what was asked for."""


class UserError(Exception):
    """Something the person at the command line can put right; the message says what and how."""


def unknown_name(kind: str, name: str, known: Iterable[str], listed: str | None = None) -> UserError:
    """An error for a name that is not registered, with the nearest known names.

    Args:
        kind: what the name should have been, e.g. ``"backbone"``.
        name: what was asked for.
        known: the names that would have been right.
        listed: what is said where none is near, instead of all names.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hints = [f"did you mean {' or '.join(close)}?"] if close else []
    if not close or listed or len(names) <= FEW:
        hints.append(f"known: {listed or ', '.join(names) or 'none'}")
    return UserError(f"unknown {kind} {name!r}; {' '.join(hints)}")


class DivergedError(UserError):
    """A training that stopped as its loss, a gradient or a weight is not a number."""


def diverged(what: str, *rates: str) -> DivergedError:
    """An error for a training that stops before ``what``, which is not a number, is saved.

    Going on from the last checkpoint would end there again.

    Args:
        what: the loss, for instance, and of which step.
        rates: the options, with their values, of which one is too high.
    """
    return DivergedError(f"{what} is not a number; stopped: train anew with a lower {' or '.join(rates)}")
