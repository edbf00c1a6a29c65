"""The gates as a stable-baselines3 policy: the same logits as the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import obs_as_tensor
from test_envs_process import tiny

from agents.sb3 import ENVS, create_algorithm
from agents.sb3_config import A2CConfig
from envs.sb3 import SB3VecEnv
from lcnet_rl.spec import Decides

CPU = torch.device("cpu")


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("decides", ["layers", "channels", "both"])
def test_the_policy_has_the_models_logits_before_every_block(decides: Decides, confidence: bool) -> None:
    env = SB3VecEnv(ENVS[decides](5, **tiny(decides, confidence=confidence)))
    process = env.env.process
    model = process.model
    algorithm = create_algorithm(env, model, A2CConfig(num_envs=5, episodes=1), 0, CPU)
    observation = env.reset()
    for block in range(model.depth):
        with torch.no_grad():
            got = algorithm.policy.keep_logits(obs_as_tensor(observation, CPU))
            expected = model.keep_logits(block, model.observe(process.state).gate_input)
        assert torch.equal(got, expected)
        assert len(got.unique(dim=0)) > 1
        observation = env.step(np.ones((5, model.action_size)))[0]
