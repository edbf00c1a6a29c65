"""Several processes of one job, started the way torchrun would start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch import multiprocessing

from lcnet_rl.job import joined

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Of the environment, in which torchrun tells a process who it is."""


def together(work: Callable[[Path], None], folder: Path, processes: int = 2) -> None:
    """Have ``processes`` gloo processes do ``work(folder)``, a function of a module; what one raises is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_member, (processes, port, work, folder), nprocs=processes)


def _member(rank: int, processes: int, port: int, work: Callable[[Path], None], folder: Path) -> None:
    os.environ.update(zip(VARIABLES, map(str, (rank, rank, processes, "127.0.0.1", port)), strict=True))
    torch.set_num_threads(1)
    with joined("cpu"):
        work(folder)
