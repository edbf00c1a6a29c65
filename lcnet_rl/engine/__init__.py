"""Inference that does not compute what is dropped.

Part of the library: imports models, and is imported by export, the benchmark and commands. Importing it adds formulas
to torch's FLOP counter that this version lacks, so that the counter tells what an engine executes.
"""

from lcnet_rl.engine import flops
from lcnet_rl.engine.engine import Engine, check_trained

__all__ = ["Engine", "check_trained"]

flops.register()
