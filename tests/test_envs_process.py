"""The decision process behind all environments: bills, rewards, observations, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import images as noise

from envs.observations import block_numbers, gate_features
from envs.process import Process
from envs.settings import PRICE, Settings
from lcnet_rl import ENV_IDS
from lcnet_rl.backbones import create_backbone
from lcnet_rl.data import Dataset
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.rewards import Judgement, PriceRange, create_reward, judge, reward_names
from lcnet_rl.runs import MODEL
from lcnet_rl.spec import Decides
from lcnet_rl.weights import load_model, save_model

CLASSES = ("a", "b", "c")
REWARDS = (*reward_names(), "quadratic:penalty=0.5", "confidence:floor=0.2", "potential:weight=3")
IMAGES = 6


def tiny_data(count: int = 12) -> Dataset:
    """Noise with labels."""
    random = torch.Generator().manual_seed(7)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
    return Dataset("tiny", "train", images, torch.arange(count) % len(CLASSES), CLASSES)


def tiny_model(decides: Decides = "both", groups: int = 2, confidence: bool = True) -> LCNet:
    """A small network whose gates are neither open nor neutral."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LCNet(create_backbone("resnet8", len(CLASSES), 4), decides, groups, confidence=confidence)
        with torch.no_grad():
            for parameter in [*model.policy_parameters(), *model.scale_parameters()]:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def tiny(decides: Decides = "both", groups: int = 2, confidence: bool = True, **others: Any) -> dict[str, Any]:
    """Keywords for an environment that is fast."""
    return {"model": tiny_model(decides, groups, confidence), "dataset": tiny_data(), **others}


def tiny_process(decides: Decides = "both", groups: int = 2, **others: Any) -> Process:
    return Process(decides, Settings(**tiny(decides, groups, **others)))


@torch.no_grad()
def first_potential(process: Process, reward: str) -> torch.Tensor:
    """The potential that the present images began with, which shaping takes away in all."""
    indices = torch.from_numpy(process.episode.indices)
    probes = process.model.observe(process.model.begin(process.images[indices])).probe_logits
    return create_reward(reward).potential(judge(probes, process.labels[indices]).double().log_prob)


def random_actions(process: Process, seed: int, keep: float = 0.6) -> np.ndarray:
    """(depth, images, action_size)."""
    shape = (process.model.depth, IMAGES, process.model.action_size)
    return (np.random.default_rng(seed).random(shape) < keep).astype(np.int8)


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(
    ("decides", "groups"), [("layers", 2), ("channels", 2), ("channels", 0), ("both", 2), ("both", 0)]
)
def test_stepping_with_forced_actions_equals_one_call_of_the_model(decides: Decides, groups: int, reward: str) -> None:
    process = tiny_process(decides, groups, reward=reward, price=0.7)
    actions = random_actions(process, seed=len(reward) + groups)
    process.begin(np.arange(IMAGES))
    returns = np.zeros(IMAGES)
    for action in actions:
        rewards, ended, infos = process.step(action)
        returns += rewards
    assert ended

    images, labels = process.dataset.images[:IMAGES], process.dataset.labels[:IMAGES]
    with torch.no_grad():
        outcome = process.model.run(images, lambda seen: torch.from_numpy(actions[seen.block]).float(), price=0.7)
    share = outcome.macs / process.model.costs.dense
    judged, price = judge(outcome.logits, labels).double(), torch.full_like(share, 0.7)
    expected = create_reward(reward)(judged, share, price) - first_potential(process, reward)
    ran, _ = process.model.decisions.kept(outcome.actions)

    assert process.episode.logits is not None
    assert torch.equal(process.episode.logits, outcome.logits)
    assert infos["prediction"].tolist() == outcome.logits.argmax(1).tolist()
    assert infos["is_success"].tolist() == judged.correct.bool().tolist()
    assert infos["macs"].tolist() == outcome.macs.tolist()
    np.testing.assert_allclose(infos["macs_ratio"], share, rtol=1e-12)
    assert infos["kept_blocks"].tolist() == ran.sum(0).tolist()
    np.testing.assert_allclose(returns, expected, atol=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    keep=st.floats(0, 1),
    decides=st.sampled_from(list(ENV_IDS)),
    groups=st.sampled_from([0, 1, 4]),
    reward=st.sampled_from(REWARDS),
    price=st.floats(0, 10),
)
def test_no_actions_break_the_bill_or_the_rewards(
    seed: int, keep: float, decides: Decides, groups: int, reward: str, price: float
) -> None:
    process = tiny_process(decides, groups, reward=reward, price=price)
    costs, depth = process.model.costs, process.model.depth
    cheapest = costs.stem + costs.head + sum(block.shortcut + block.always for block in costs.blocks)
    if decides == "channels":
        cheapest += sum(block.if_kept for block in costs.blocks)
    process.begin(np.random.default_rng(seed).integers(len(process.dataset), size=IMAGES))
    assert process.observe()["pooled"].min() >= 0
    before, returns = process.macs(0), np.zeros(IMAGES)
    for block, action in enumerate(random_actions(process, seed, keep)):
        rewards, ended, infos = process.step(action)
        assert ended == (block == depth - 1)
        assert ("is_success" in infos) == ended
        parts = infos["reward_task"] + infos["reward_cost"] + infos["reward_shaping"]
        np.testing.assert_allclose(parts, rewards, rtol=1e-12)
        assert (infos["reward_cost"] <= 0).all()
        assert (infos["kept_blocks"] <= block + 1).all()
        assert infos["macs"][0] >= before
        before = infos["macs"][0]
        for row in range(IMAGES):
            seen = {key: values[row] for key, values in process.observe().items()}
            assert seen in process.observation_space
        returns += rewards
    assert (infos["macs"] >= cheapest).all()
    assert (infos["macs"] <= costs.ceiling).all()
    assert process.episode.logits is not None
    judged = judge(process.episode.logits, torch.from_numpy(infos["label"]))
    share = torch.from_numpy(infos["macs_ratio"])
    total = create_reward(reward)(judged, share, torch.full_like(share, price)) - first_potential(process, reward)
    np.testing.assert_allclose(returns, total, rtol=1e-5, atol=1e-5)


def test_the_first_step_pays_for_the_stem_and_the_last_for_the_head() -> None:
    process = tiny_process(price=1.0)
    costs = process.model.costs
    process.begin(np.arange(IMAGES))
    paid = []
    for block in costs.blocks:
        rewards, _, infos = process.step(np.zeros((IMAGES, process.model.action_size)))
        paid.append(-infos["reward_cost"][0] * costs.dense)
        assert rewards[0] == infos["reward_task"][0] + infos["reward_cost"][0]
        assert paid[-1] >= block.always
    assert paid[0] == pytest.approx(costs.stem + costs.blocks[0].shortcut + costs.blocks[0].always)
    assert paid[1] == pytest.approx(costs.blocks[1].shortcut + costs.blocks[1].always)
    assert paid[2] == pytest.approx(costs.blocks[2].shortcut + costs.blocks[2].always + costs.head)


def test_a_shape_that_does_not_pay_by_step_pays_with_the_last() -> None:
    process = tiny_process(reward="quadratic")
    process.begin(np.arange(IMAGES))
    rewards = [process.step(action)[0] for action in random_actions(process, seed=3)]
    assert not np.any(rewards[:-1])
    assert np.all(rewards[-1] != 0)


def linear_on_the_grid(judged: Judgement, share: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    """Linear where rewards are tried, and all the same between two of these shares."""
    return judged.correct - price * torch.where((share > 0.1301) & (share < 0.1399), share * 0 + 0.13, share)


def test_a_function_that_is_linear_on_the_grid_only_ends_the_episode_that_has_another_share() -> None:
    process = tiny_process("layers", 1, reward=linear_on_the_grid, price=1.0)
    assert process.reward.pays_by_step
    process.begin(np.arange(IMAGES))
    for _ in range(3):
        _, _, infos = process.step(np.ones((IMAGES, 1)))
    assert infos["macs_ratio"].min() > 0.2, "where it is linear"
    process.begin(np.arange(IMAGES))
    for _ in range(2):
        process.step(np.zeros((IMAGES, 1)))
    with pytest.raises(UserError, match=r"linear_on_the_grid pays by step, but is not .* share 0\.13"):
        process.step(np.zeros((IMAGES, 1)))


def all_returns(reward: str, price: float) -> np.ndarray:
    """The return of every sequence of decisions (sequences, images), block by block through the environment."""
    process, rows = tiny_process("layers", 1, reward=reward, price=price), []
    for bits in itertools.product((0, 1), repeat=process.model.depth):
        process.begin(np.arange(IMAGES))
        rows.append(sum(process.step(np.full((IMAGES, 1), bit))[0] for bit in bits))
    return np.stack(rows)


@pytest.mark.parametrize("weight", [0.3, 1, 20])
def test_potential_based_shaping_leaves_the_best_decisions_as_they_are(weight: float) -> None:
    plain, shaped = all_returns("linear", 0.5), all_returns(f"potential:weight={weight}", 0.5)
    best = shaped.argmax(0)
    np.testing.assert_allclose(plain[best, np.arange(IMAGES)], plain.max(0), atol=1e-9)
    assert len(set(best.tolist())) > 1, "the best decisions differ between images"
    difference = shaped - plain
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], difference.shape), atol=1e-9)
    assert (np.abs(difference) > 0.05 * weight).all(), "shaping did something"


def test_shaping_rewards_a_step_for_what_it_did_to_the_probe() -> None:
    process = tiny_process("both", 2, reward="confidence-gain", price=0.0)
    process.begin(np.arange(IMAGES))

    def says() -> torch.Tensor:
        with torch.no_grad():
            known = process.episode.logits
            logits = process.model.observe(process.state).probe_logits if known is None else known
        return logits.double().softmax(1).gather(1, process.labels[:IMAGES, None])[:, 0]

    before = says()
    for action in random_actions(process, seed=9):
        rewards, _, _ = process.step(action)
        np.testing.assert_allclose(rewards, says() - before, atol=1e-6)
        before = says()


def test_a_range_of_prices_gives_every_image_one_of_its_own() -> None:
    process = tiny_process(reward="linear", price="0.1..0.9")
    prices = process.draw_prices(IMAGES, np.random.default_rng(0))
    assert len(set(prices.tolist())) == IMAGES
    process.begin(np.arange(IMAGES), prices)
    np.testing.assert_array_equal(process.observe()["price"][:, 0], prices)
    shares = np.zeros(IMAGES)
    for action in random_actions(process, seed=3):
        _, _, infos = process.step(action)
        np.testing.assert_allclose(infos["reward_cost"], -prices * (infos["macs_ratio"] - shares), rtol=1e-6)
        shares = infos["macs_ratio"]
    assert process.price == "0.1..0.9"


@pytest.mark.parametrize(("decides", "groups"), [("layers", 2), ("channels", 0), ("both", 2)])
@pytest.mark.parametrize("confidence", [True, False])
def test_a_policy_reads_the_gate_input_back_bit_for_bit(decides: Decides, groups: int, confidence: bool) -> None:
    process = tiny_process(decides, groups, confidence=confidence)
    process.begin(np.arange(IMAGES))
    for block, action in enumerate(random_actions(process, seed=5)):
        seen = {key: torch.from_numpy(values) for key, values in process.observe().items()}
        assert all(values.dtype == torch.float32 for values in seen.values())
        assert block_numbers(seen).tolist() == [block] * IMAGES
        with torch.no_grad():
            expected = process.model.observe(process.state).gate_input
        assert torch.equal(gate_features(process.model, seen, block), expected)
        process.step(action)


@pytest.mark.parametrize("confidence", [True, False])
def test_the_last_observation_names_no_block_and_shows_the_whole_bill(confidence: bool) -> None:
    process = tiny_process(confidence=confidence)
    process.begin(np.arange(IMAGES))
    for action in random_actions(process, seed=6):
        _, _, infos = process.step(action)
    last = process.observe()
    assert not last["block"].any()
    assert not last["pooled"].any()
    np.testing.assert_allclose(last["spent"][:, 0], infos["macs_ratio"], rtol=1e-6)
    assert process.episode.logits is not None
    assert last.keys() == process.observation_space.keys()
    assert ("confidence" in last) == confidence
    if confidence:
        np.testing.assert_allclose(last["confidence"][:, 0], process.episode.logits.softmax(1).amax(1), rtol=1e-5)


def test_a_block_without_any_filter_counts_as_skipped() -> None:
    process = tiny_process("both", 2)
    process.begin(np.arange(1))
    actions = ([1, 0, 0], [0, 1, 1], [1, 0, 1])
    kept = [int(process.step([action])[2]["kept_blocks"][0]) for action in actions]
    assert kept == [0, 0, 1]
    assert process.trace(0) == [(False, [False, False]), (False, [False, False]), (True, [False, True])]


def test_a_new_price_holds_from_the_next_images_on() -> None:
    process = tiny_process(price=0.0)
    process.begin(np.arange(IMAGES))
    process.price = 1.0
    actions = random_actions(process, seed=8)
    assert not process.step(actions[0])[2]["reward_cost"].any()
    process.begin(np.arange(IMAGES))
    assert process.step(actions[0])[2]["reward_cost"].all()
    with pytest.raises(UserError, match="price"):
        process.price = -1.0


def test_steps_are_in_eval_mode_and_leave_no_gradient() -> None:
    process = tiny_process()
    process.begin(np.arange(IMAGES))
    process.model.train()
    before = {key: value.clone() for key, value in process.model.state_dict().items()}
    process.step(random_actions(process, seed=9)[0])
    assert not process.model.training
    assert not process.state.features.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in process.model.state_dict().items())


def test_refresh_equals_starting_over_with_the_new_weights() -> None:
    process = tiny_process()
    actions = random_actions(process, seed=10)
    process.begin(np.arange(IMAGES))
    process.step(actions[0])
    with torch.no_grad():
        process.model.backbone.stem.conv.weight.mul_(1.5)
    stale = process.observe()
    process.refresh()
    fresh = process.observe()
    again = Process("both", Settings(model=process.model, dataset=process.dataset))
    again.begin(np.arange(IMAGES))
    again.step(actions[0])
    assert not np.array_equal(stale["pooled"], fresh["pooled"])
    for key, values in again.observe().items():
        np.testing.assert_array_equal(values, fresh[key])


@pytest.mark.parametrize("action", [np.ones(3), np.ones((IMAGES, 2)), np.full((IMAGES, 3), 0.5)])
def test_actions_of_another_kind_are_refused(action: np.ndarray) -> None:
    process = tiny_process()
    process.begin(np.arange(IMAGES))
    with pytest.raises(ValueError, match="actions must"):
        process.step(action)


def test_steps_without_an_image_are_refused() -> None:
    process = tiny_process()
    with pytest.raises(ResetNeeded):
        process.step(np.ones((IMAGES, 3)))
    process.begin(np.arange(IMAGES))
    for action in random_actions(process, seed=11):
        process.step(action)
    with pytest.raises(ResetNeeded):
        process.step(np.ones((IMAGES, 3)))


def test_the_price_is_the_one_that_the_model_was_trained_for_unless_another_is_given(tmp_path: Path) -> None:
    model = tiny_model()
    model.price.fill_(2.0)
    save_model(model, tmp_path / MODEL)
    by_run = {"run": tmp_path, "dataset": tiny_data()}
    assert Process("both", Settings(**by_run)).price == 2.0
    assert Process("both", Settings(**by_run, price=0.5)).price == 0.5
    model.price.fill_(0.0)
    save_model(model, tmp_path / MODEL)
    assert Process("both", Settings(**by_run)).price == 0
    assert tiny_process().price == PRICE, "trained at none"
    several = LCNet(create_backbone("resnet8", len(CLASSES), 4), prices=PriceRange(0.1, 2.0))
    assert Process("both", Settings(model=several, dataset=tiny_data())).price == "0.1..2"


def test_a_trained_run_decides_in_an_environment_as_it_does_when_evaluated() -> None:
    model = load_model(REFERENCE / "resnet20-65-layers")
    data = Dataset("noise", "val", noise(16), torch.zeros(16, dtype=torch.int64), tuple("abcdefghij"))
    process = Process("layers", Settings(model=model, dataset=data))
    process.begin(np.arange(16))
    greedy, ended = model.greedy(), False
    while not ended:
        _, ended, infos = process.step(greedy(model.observe(process.state)).numpy())
    assert infos["macs"].tolist() == model.run(data.images, greedy).macs.tolist()
