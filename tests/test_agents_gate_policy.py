"""The gates as a stable-baselines3 policy: the same logits as the model's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.utils import obs_as_tensor
from test_envs_process import tiny

from agents.gate_policy import GatePolicy
from agents.sb3 import create_algorithm
from agents.sb3_config import A2CConfig
from envs.sb3 import SB3VecEnv
from envs.vector import VECTOR_ENVS
from lcnet_rl.errors import UserError
from lcnet_rl.spec import Decides

CPU = torch.device("cpu")


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("decides", ["layers", "channels", "both"])
def test_the_policy_has_the_models_logits_before_every_block(decides: Decides, confidence: bool) -> None:
    env = SB3VecEnv(VECTOR_ENVS[decides](5, **tiny(decides, confidence=confidence)))
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


def test_log_probability_and_entropy_are_over_the_gates_that_were_asked() -> None:
    env = SB3VecEnv(VECTOR_ENVS["both"](5, **tiny("both", groups=2)))
    algorithm = create_algorithm(env, env.env.process.model, A2CConfig(num_envs=5, episodes=1), 0, CPU)
    observation = obs_as_tensor(env.reset(), CPU)
    assert isinstance(observation, dict)

    @torch.no_grad()
    def evaluated(*bits: float) -> torch.Tensor:
        """Log-probability and entropy, (2, 5), of one action for all images."""
        actions = torch.tensor(bits, dtype=torch.float32).expand(5, -1)
        _, log_likelihood, entropy = algorithm.policy.evaluate_actions(observation, actions)
        return torch.stack((log_likelihood, entropy))

    with torch.no_grad():
        gates = torch.distributions.Bernoulli(logits=algorithm.policy.keep_logits(observation))
    assert torch.equal(evaluated(0, 1, 1), evaluated(0, 0, 1)), "nobody asks C-Net about a block that is skipped"
    assert torch.equal(evaluated(0, 1, 1)[1], gates.entropy()[:, 0])
    assert (evaluated(1, 1, 1)[0] != evaluated(1, 0, 1)[0]).all()
    torch.testing.assert_close(evaluated(1, 0, 1)[0], gates.log_prob(torch.tensor([1.0, 0, 1])).sum(1))
    torch.testing.assert_close(evaluated(1, 0, 1)[1], gates.entropy().sum(1))


def test_a_step_of_a_rollout_asks_the_gates_once() -> None:
    env = SB3VecEnv(VECTOR_ENVS["both"](5, **tiny("both")))
    model = env.env.process.model
    policy = create_algorithm(env, model, A2CConfig(num_envs=5, episodes=1), 0, CPU).policy
    asked: list[torch.nn.Module] = []
    for gate in model.gates():
        gate.keep.register_forward_hook(lambda gate, *_: asked.append(gate))
    observation = obs_as_tensor(env.reset(), CPU)
    with torch.no_grad():
        actions, values, log_likelihood = policy(observation)
        assert len(asked) == len(set(asked)) == 2, "L-Net and C-Net of the first block"
        same_values, same_log_likelihood, _ = policy.evaluate_actions(observation, actions)
    assert torch.equal(values, same_values)
    assert torch.equal(log_likelihood, same_log_likelihood)


def test_an_algorithm_is_loaded_onto_its_environments_network(tmp_path: Path) -> None:
    env = SB3VecEnv(VECTOR_ENVS["both"](5, **tiny("both")))
    model = env.env.process.model
    create_algorithm(env, model, A2CConfig(num_envs=5, episodes=1), 0, CPU).save(tmp_path / "agent.zip")
    saved = [gate.keep.weight.clone() for gate in model.gates()]
    with torch.no_grad():
        for gate in model.gates():
            gate.keep.weight.add_(1)
    loaded = A2C.load(tmp_path / "agent.zip", env=env, custom_objects={"policy_kwargs": {"lcnet": model}}, device=CPU)
    assert all(map(torch.equal, [gate.keep.weight for gate in model.gates()], saved))
    loaded.learn(5 * model.depth)
    assert not any(map(torch.equal, [gate.keep.weight for gate in model.gates()], saved)), "the model learns"


def test_a_policy_is_not_saved_without_its_network(tmp_path: Path) -> None:
    env = SB3VecEnv(VECTOR_ENVS["both"](5, **tiny("both")))
    algorithm = create_algorithm(env, env.env.process.model, A2CConfig(num_envs=5, episodes=1), 0, CPU)
    with pytest.raises(UserError, match="save_model"):
        algorithm.policy.save(str(tmp_path / "policy.pt"))
    assert not list(tmp_path.iterdir())


def test_another_actor_than_the_gates_is_refused() -> None:
    env = SB3VecEnv(VECTOR_ENVS["both"](5, **tiny("both")))
    with pytest.raises(UserError, match="no net_arch"):
        A2C(GatePolicy, env, policy_kwargs={"lcnet": env.env.process.model, "net_arch": [8]}, device="cpu")
