"""Per-image layer and filter skipping (LC-Net, arXiv 2007.15151) as a reinforcement-learning problem.

Importing this package is light (no torch). It registers the environments, so
``gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0")`` works without another import.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

__version__ = "0.1.0"

for _decides in ("Layer", "Channel", "LayerChannel"):
    _id = f"LCNet/{_decides}Skip-v0"
    if _id not in registry:
        register(
            id=_id,
            entry_point=f"envs.single:{_decides}SkipEnv",
            vector_entry_point=f"envs.vector:{_decides}SkipVectorEnv",
        )
