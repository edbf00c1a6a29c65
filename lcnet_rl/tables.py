"""Tables for the screen: where a terminal is narrow, names give way, and figures stay whole."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def table_of(title: str, names: Sequence[str], figures: Sequence[str]) -> Table:
    """A table without rows: columns of names at the left, which are folded where they have to be, then of figures."""
    table = Table(title=title, title_justify="left")
    for column in names:
        table.add_column(column, overflow="fold")
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    return table
