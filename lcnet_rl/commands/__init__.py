"""The command line, ``lcnet-rl COMMAND``: one short file a command, and the only place that imports envs and agents.

A command is a module with ``run(config)``; the type of ``config``, a frozen dataclass, is its command-line interface
(tyro), unless the module has a ``parse(arguments, prog)`` of its own.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import typing
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

import lcnet_rl
from lcnet_rl.commands.parsing import parse_options
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.memory import keep_freed_memory
from lcnet_rl.progress import console, say

COMMANDS = {
    "demo": "train and evaluate a skipping agent on the built-in images, from nothing, in a few minutes",
    "data": "fetch, verify and describe a data set",
    "pretrain": "train a dense backbone",
    "train": "train a skipping agent",
    "evaluate": "accuracy, compute and controls of a trained run",
    "predict": "classify image files with a trained run, and show what ran for each",
    "sweep": "search over settings of train, on as many machines as you like",
    "frontier": "which trials or runs no other beats in both accuracy and MACs",
    "compare": "runs side by side: settings, results, significance over seeds",
    "reproduce": "the committed results again, from nothing or from the committed networks; writes RESULTS.md",
    "export": "a trained run as one ONNX file that skips what it drops",
    "bench": "times beside what a user would run instead: a run, the standard cases, env or train",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for a mistake of the user's, after one line that says what to do; 130 after Ctrl-C.
    """
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a screen or a file of another encoding lacks is spelled out
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print("usage: lcnet-rl COMMAND [OPTIONS]      (lcnet-rl COMMAND --help lists a command's options)\n")
        table = Table.grid(padding=(0, 2))
        for name, purpose in COMMANDS.items():
            table.add_row(f"  {name}", purpose)
        console.print(table, highlight=False)
        return 0
    if arguments[0] == "--version":
        console.print(f"lcnet-rl {lcnet_rl.__version__}", highlight=False)
        return 0
    try:
        if arguments[0] not in COMMANDS:
            raise unknown_name("command", arguments[0], COMMANDS)
        command, prog = importlib.import_module(f"lcnet_rl.commands.{arguments[0]}"), f"lcnet-rl {arguments[0]}"
        if hasattr(command, "parse"):
            config = command.parse(arguments[1:], prog)
        else:
            config = parse_options(typing.get_type_hints(command.run)["config"], arguments[1:], prog)
        importlib.import_module("lcnet_rl.device").exact_float32()  # imports torch, which help needs not wait for
        command.run(config)
    except UserError as error:
        return _complain(str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}")
    except (MemoryError, RuntimeError) as error:
        wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
        if not wanted and not isinstance(error, MemoryError):
            raise
        much = f" for {wanted[1]} more" if wanted else ""
        return _complain(f"not enough memory{much}: lower --batch-size, --num-envs or --workers, where there are such")
    except Interrupted as stop:
        say(str(stop))
        return 130
    except KeyboardInterrupt:
        return 130
    return 0


def _complain(message: str) -> int:
    if "WORLD_SIZE" in os.environ and not importlib.import_module("lcnet_rl.job").speaks_first():
        return 2
    Console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {message}"), highlight=False, soft_wrap=True)
    return 2
