"""The states of every generator that stable-baselines3 and its environment draw from, for exact resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from envs.sb3 import SB3VecEnv


def get_random_state(env: SB3VecEnv) -> dict[str, Any]:
    """The states of every generator that stable-baselines3 and the environment draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "env": env.env.np_random.bit_generator.state,
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_state(env: SB3VecEnv, state: dict[str, Any]) -> None:
    """Put back what ``get_random_state`` returned."""
    torch.set_rng_state(state["torch"])
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):  # the run may have begun with more GPUs
        torch.cuda.set_rng_state(cuda, index)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    env.env.np_random.bit_generator.state = state["env"]
