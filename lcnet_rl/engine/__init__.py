"""Inference that does not compute what is dropped. Part of the library: imports the model, is imported by export."""

from lcnet_rl.engine import flops
from lcnet_rl.engine.engine import Engine, check_trained

__all__ = ["Engine", "check_trained"]

flops.register()
