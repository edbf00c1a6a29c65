"""Per-image layer and filter skipping (LC-Net, arXiv 2007.15151) as a reinforcement-learning problem.

Importing this package is light (no torch). It registers the environments, so
``gymnasium.make("lcnet_rl:LCNet/LayerSkip-v0")`` works without another import.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

__version__ = "0.1.0"

ENVIRONMENTS = {"layers": "LayerSkip", "channels": "ChannelSkip", "both": "LayerChannelSkip"}
"""What the environments are called, by what they decide; runs are called after them too."""
ENV_IDS = {_decides: f"LCNet/{_name}-v0" for _decides, _name in ENVIRONMENTS.items()}
"""Their ids; with gymnasium write ``"lcnet_rl:" + id``."""

for _decides, _id in ENV_IDS.items():
    if _id not in registry:
        _name = ENVIRONMENTS[_decides]
        _where = f"lcnet_rl.entry_points:{_name}"
        register(id=_id, entry_point=f"{_where}Env", vector_entry_point=f"{_where}VectorEnv")
