"""What is left of a training in which something stopped being a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lcnet_rl.errors import DivergedError
from lcnet_rl.runs import CHECKPOINT


@contextmanager
def naming_checkpoint(run: Path) -> Iterator[None]:
    """Inside the block a run is trained; should it diverge, the error names its checkpoint too, if there is one."""
    try:
        yield
    except DivergedError as error:
        path = run / CHECKPOINT
        if not path.is_file():
            raise
        raise DivergedError(f"{error}; the last good checkpoint is {path}") from error
