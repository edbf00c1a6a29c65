"""Inference that does not compute what is dropped."""

from lcnet_rl.engine.engine import Engine, EngineState

__all__ = ["Engine", "EngineState"]
