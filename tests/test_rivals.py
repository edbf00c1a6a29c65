"""BlockDrop, SkipNet and ConvNet-AIG: their policies cost what they cost, learn, and run like any other."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import images as noisy
from test_agents_learning import FROZEN, assert_solved, hand_built
from test_agents_learning import setup_in as solvable
from test_agents_runs import setup_in, stop_after
from test_commands import failing
from torch.utils.flop_counter import FlopCounterMode

from agents.deciders import drawn, gumbel, rounded
from agents.reinforce import Reinforce
from agents.rivals.blockdrop import BlockDrop, BlockDropConfig
from agents.rivals.convnet_aig import ConvNetAIG, ConvNetAIGConfig
from agents.rivals.skipnet import SkipNet, SkipNetConfig
from lcnet_rl.backbones import Backbone, BackboneSpec, create_backbone
from lcnet_rl.commands import main
from lcnet_rl.commands.train_settings import parse
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import replay
from lcnet_rl.families import Family
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.model import LCNet
from lcnet_rl.policies import LAYER_POLICIES, OneShot, PolicyName
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.weights import load_model, save_model

CPU = torch.device("cpu")
AGENTS: dict[PolicyName, tuple[type[Reinforce], type[Any]]] = {
    "blockdrop": (BlockDrop, BlockDropConfig),
    "skipnet": (SkipNet, SkipNetConfig),
    "convnet-aig": (ConvNetAIG, ConvNetAIGConfig),
}
every_rival = pytest.mark.parametrize("rival", AGENTS)


def rival_model(rival: PolicyName, name: str = "resnet8", spread: float = 1.0) -> LCNet:
    """One whose decisions differ between images."""
    torch.manual_seed(0)
    model = LCNet(create_backbone(name, 10, 4), "layers", confidence=False, policy=rival, keep_bias=0.0)
    for parameter in model.policy_parameters():
        if parameter.ndim == 2:
            parameter.data.add_(spread * torch.randn(parameter.shape))
    model.eval()
    state = model.begin(noisy(64))
    model.shift_logits(-float(model.policy_logits(model.observe(state)).detach().median()))
    return model


def agent(rival: PolicyName, run: Path, model: LCNet, **settings: Any) -> Reinforce:
    run.mkdir(exist_ok=True)
    trainer, kind = AGENTS[rival]
    config = kind(**{"epochs": 3, "batch_size": 32, "target": 0.6, "save_every": 5, "evals": 3, **settings})
    return trainer(model, config, setup_in(run))


@every_rival
@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_a_policy_costs_what_torch_counts(rival: PolicyName, name: str) -> None:
    model = rival_model(rival, name)
    assert model.policy is not None
    with torch.no_grad():
        state = model.begin(noisy(1))
        with FlopCounterMode(display=False) as start:
            memory = model.policy.begin(noisy(1))
        assert model.costs.start * 2 == start.get_total_flops()
        for t in range(model.depth):
            with FlopCounterMode(display=False) as counter:
                _, memory = model.policy.decide(t, model.observe(state).pooled, memory)
            assert model.costs.blocks[t].always * 2 == counter.get_total_flops()
            state = model.advance(state, torch.ones(1, 1))
    assert model.total_macs(state).item() == model.costs.dense + model.costs.gates


@every_rival
def test_the_engine_decides_and_computes_as_the_model_does(rival: PolicyName) -> None:
    model, pictures = rival_model(rival, "resnet14"), noisy(40)
    engine = Engine(model)
    with torch.no_grad():
        expected, got = model.run(pictures, model.greedy()), engine.run(pictures, engine.greedy())
    assert torch.equal(got.actions, expected.actions)
    assert 0 < float(expected.actions.mean()) < 1, "the comparison must see both decisions"
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(got.macs, expected.macs)


@every_rival
def test_an_executed_run_costs_what_is_billed(rival: PolicyName) -> None:
    engine, pictures = Engine(rival_model(rival, "resnet14")), noisy(16)
    with FlopCounterMode(display=False) as counter:
        macs = engine.run(pictures, engine.greedy()).macs
    assert counter.get_total_flops() == 2 * int(macs.sum())


@every_rival
def test_where_only_a_gates_input_is_known_a_rival_is_refused(rival: PolicyName) -> None:
    model = rival_model(rival)
    with pytest.raises(UserError, match=f"{rival} decides by more than a gate's input"):
        model.keep_logits(0, model.observe(model.begin(noisy(2))).gate_input)


def test_skipnet_remembers_what_came_before() -> None:
    model, pictures = rival_model("skipnet"), noisy(8)
    state = model.begin(pictures)
    state = model.advance(state, torch.ones(8, 1))
    forgetful = replace(state, memory=model.begin(pictures).memory)
    one, other = (model.policy_logits(model.observe(s)) for s in (state, forgetful))
    assert (one - other).abs().max() > 0.01


def test_blockdrop_decides_about_all_blocks_from_the_image_alone() -> None:
    model, pictures = rival_model("blockdrop"), noisy(8)
    paths = []
    for path in (torch.zeros(3, 8, 1), torch.ones(3, 8, 1)):
        state, logits = model.begin(pictures), []
        for _ in range(model.depth):
            observation = model.observe(state)
            logits.append(model.policy_logits(observation))
            state = model.advance(state, replay(path)(observation))
        paths.append(torch.stack(logits))
    assert torch.equal(*paths)


@every_rival
def test_a_saved_model_is_the_same_again(rival: PolicyName, tmp_path: Path) -> None:
    model = rival_model(rival)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == model.spec
    with torch.no_grad():
        one, other = (m.run(noisy(8), m.greedy()) for m in (model, again))
    assert torch.equal(one.logits, other.logits)


@pytest.mark.slow
@every_rival
@pytest.mark.parametrize("steps", [2, 13, 21])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rival: PolicyName, steps: int
) -> None:
    whole = agent(rival, tmp_path / "whole", rival_model(rival, spread=0.1))
    whole.train()
    first = agent(rival, tmp_path / "parts", rival_model(rival, spread=0.1))
    stop_after(first, steps, monkeypatch)
    with pytest.raises(Interrupted):
        first.train()
    second = agent(rival, tmp_path / "parts", rival_model(rival, spread=0.1))
    second.restore()
    second.train()
    one, other = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rival", "settings"),
    [
        # A look at the image costs more than all of this tiny network, so the price is a large one there.
        ("blockdrop", {"reward": "quadratic", "price": 1.0, "epochs": 30, "gate_lr": 0.02}),
        ("skipnet", {"reward": "linear", "price": 1.0, "epochs": 30, "gate_lr": 0.02}),
    ],
)
def test_policy_gradients_find_the_best_decisions(tmp_path: Path, rival: PolicyName, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    trainer, kind = AGENTS[rival]
    config = kind(**{**FROZEN, "epochs": 14, "batch_size": 64, "warmup": 0.05, "polish": 0.05, "evals": 2, **settings})
    model = hand_built(rival)
    trainer(model, config, solvable(tmp_path)).train()
    assert_solved(model)


@pytest.mark.slow
def test_convnet_aig_meets_its_rates_where_the_task_does_not_suffer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = hand_built("convnet-aig")
    costs = model.costs
    half = (costs.floor + costs.ceiling) / 2 / costs.dense
    config = ConvNetAIGConfig(**FROZEN, epochs=14, batch_size=64, target=half, gate_lr=0.02, polish=0.05, evals=2)
    setup = solvable(tmp_path)
    trainer = ConvNetAIG(model, config, setup)
    assert trainer.rate() > 0.98
    trainer.train()
    assert trainer.rate() == pytest.approx(0.5)
    spent = sum(float(model.decisions.bill(torch.full((1, 1), trainer.rate()), t)) for t in range(model.depth))
    assert costs.stem + costs.start + spent + costs.head == pytest.approx(half * costs.dense)
    with torch.no_grad():
        model.eval()
        outcome = model.run(setup.val.images, model.greedy())
        rates = model.policy_logits(model.observe(model.begin(setup.val.images))).sigmoid()[:, 0]
    assert outcome.logits.argmax(1).equal(setup.val.labels)
    bright = setup.val.labels == 1
    assert rates[bright].min() > rates[~bright].max(), "block 0 is kept for bright images, which need it"


def test_blockdrops_decisions_set_in_from_the_last_block(tmp_path: Path) -> None:
    model = rival_model("blockdrop")
    trainer = agent("blockdrop", tmp_path, model, polish=0.5)
    assert isinstance(trainer, BlockDrop)
    free = []
    for step in range(trainer.schedule.polish):
        trainer.step = step
        free.append(trainer.first_free())
    assert free == [2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    trainer.step = 0
    generator = torch.Generator().manual_seed(0)
    rollout = trainer.roll(noisy(16), torch.zeros(16), 1, drawn(generator), 0.2)
    assert rollout.actions[:2].eq(1).all()
    assert not rollout.consulted[:2].any()
    assert rollout.consulted[2].all()
    assert rollout.probabilities.min() >= 0.2


@pytest.mark.parametrize("greedy_rate", [0.1, 0.9])
def test_blockdrops_price_follows_the_policy_without_its_bound(tmp_path: Path, greedy_rate: float) -> None:
    model = rival_model("blockdrop")
    trainer, costs = agent("blockdrop", tmp_path, model, target=0.7), model.costs
    assert isinstance(trainer, BlockDrop)
    share = {}
    for name, rate in (("sampled", 0.2 + 0.6 * greedy_rate), ("unbounded", greedy_rate)):
        blocks = sum(float(model.decisions.bill(torch.full((1, 1), rate), t)) for t in range(model.depth))
        share[name] = (costs.stem + costs.start + blocks + costs.head) / costs.dense
    assert trainer.policy_share(share["sampled"]) == pytest.approx(share["unbounded"])
    trainer.step = 0
    trainer.learn_price(share["sampled"])
    assert trainer.pricing.value == 0.3, "as it started: blocks are kept that the policy has no say in yet"
    trainer.step = trainer.schedule.polish - 1
    trainer.learn_price(share["sampled"])
    push = trainer.config.price_rate * (share["unbounded"] - 0.7)
    assert trainer.pricing.value == pytest.approx(max(0.0, 0.3 + push / trainer.schedule.ramp))


def test_no_price_moves_convnet_aig(tmp_path: Path) -> None:
    trainer = agent("convnet-aig", tmp_path, rival_model("convnet-aig"), price=0.3)
    trainer.train()
    assert trainer.pricing.value == 0.3


def test_blockdrops_decisions_do_not_hang_on_the_batch_once_it_polishes(tmp_path: Path) -> None:
    trainer = agent("blockdrop", tmp_path, rival_model("blockdrop", spread=0.1), epochs=1, polish=0.5)
    model = trainer.model
    assert isinstance(model.policy, OneShot)
    norm = model.policy.network.stem.bn
    assert isinstance(norm, torch.nn.BatchNorm2d)
    trainer.step = trainer.schedule.polish - 1
    trainer.joint_step()
    assert norm.training
    learned = norm.running_mean.clone()  # type: ignore[union-attr]
    trainer.step = trainer.schedule.polish
    trainer.joint_step()
    trainer.hold_to_target()
    assert not norm.training
    assert torch.equal(learned, norm.running_mean)  # type: ignore[arg-type]


def test_gumbel_draws_at_the_probability() -> None:
    action = gumbel(torch.Generator().manual_seed(0), 1.0)(torch.full((20_000, 1), 0.3), None)  # type: ignore[arg-type]
    assert set(action.unique().tolist()) == {0.0, 1.0}
    assert float(action.mean()) == pytest.approx(0.3, abs=0.013)  # four standard errors


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gumbels_gradient_is_that_of_the_relaxation_at_its_temperature(temperature: float) -> None:
    p = torch.tensor([[0.2], [0.5], [0.9]], dtype=torch.float64, requires_grad=True)
    action = gumbel(torch.Generator().manual_seed(0), temperature)(p, None)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(action.sum(), p)
    uniform = torch.rand((3, 1), generator=torch.Generator().manual_seed(0))
    x = (p / (1 - p) * uniform / (1 - uniform)).log().detach()
    soft = 1 / (1 + (-x / temperature).exp())
    torch.testing.assert_close(slope, soft * (1 - soft) / temperature / (p * (1 - p)).detach(), rtol=1e-4, atol=0)
    assert torch.equal(action.detach(), (x > 0).double())


def test_rounding_passes_the_gradient_unchanged() -> None:
    p = torch.tensor([[0.2], [0.7]], requires_grad=True)
    action = rounded(p, None)  # type: ignore[arg-type]
    assert action.flatten().tolist() == [0.0, 1.0]
    (slope,) = torch.autograd.grad((action * torch.tensor([[2.0], [3.0]])).sum(), p)
    assert slope.flatten().tolist() == [2.0, 3.0]


@every_rival
def test_from_the_command_line_to_an_evaluation(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path, rival: PolicyName
) -> None:
    run = tmp_path / "run"
    network = ["--dataset", images, "--backbone", "resnet8", "--width", "4", "--init", "scratch"]
    arguments = ["train", "--algo", rival, *network, "--epochs", "2", "--batch-size", "8", "--target", "0.9"]
    assert main([*arguments, "--run", str(run)]) == 0
    assert f"\n{rival}: " in capsys.readouterr().out
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    figures = json.loads((run / "evaluation-val.json").read_text())
    assert set(figures["controls"]) == {"keep-all", "random", "shuffled", "static"}
    assert load_model(run).spec.policy == rival
    assert "only L-Net and C-Net can be exported" in failing(capsys, "export", str(run))
    assert f"{rival} decides layers only" in failing(capsys, *arguments, "--decides", "both")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "None"], "needs a --target"),
        (["--reward", "lagrangian:target=0.6"], "give another --reward than lagrangian"),
        (["--reward", "lagrangian:target=0.6", "--target", "None"], "give another --reward than lagrangian"),
        (["--price", "0.1..1"], "give one --price"),
        (["--reward", "budget:target=0.9"], "up to convnet-aig's target 0.7: give another one"),
        (["--rollouts", "4"], "no use for --rollouts"),
    ],
)
def test_convnet_aig_refuses_what_it_has_no_use_for_in_its_own_words(
    capsys: pytest.CaptureFixture[str], images: str, arguments: list[str], message: str
) -> None:
    network = ["--dataset", images, "--backbone", "resnet8", "--init", "scratch"]
    assert message in failing(
        capsys, "train", "--algo", "convnet-aig", *network, "--cost-gradient", "sampled", *arguments
    )


def test_settings_that_a_rival_would_ignore_are_refused() -> None:
    policy_gradients = {"rollouts": 4, "baseline": "mean-field", "control_variate": "first-order", "bound": 0.2}
    bonuses = {"entropy": 0.01, "information": 0.03}
    ignored = [(ConvNetAIGConfig, {**policy_gradients, **bonuses, "price_schedule": "cosine"})]
    for kind, settings in (*ignored, (SkipNetConfig, {"warmup_keep": 0.6})):
        for name, value in settings.items():
            with pytest.raises(UserError, match=f"has no use for --{name.replace('_', '-')}: leave it out"):
                kind(**{name: value})


@every_rival
@pytest.mark.parametrize("tail", ["", "-1", "-2"])
def test_a_rivals_committed_runs_have_settings_that_it_takes(rival: PolicyName, tail: str) -> None:
    run = REFERENCE / f"resnet20-65-{rival}{tail}"
    config = parse(["--resume", str(run)], "train")
    assert (config.algo, config.resume) == (rival, run)


@pytest.mark.parametrize(("rival", "refused"), [("skipnet", True), ("blockdrop", False), ("convnet-aig", False)])
def test_a_target_below_what_rollouts_have_to_spend_is_out_of_reach(
    tmp_path: Path, rival: PolicyName, refused: bool
) -> None:
    model = rival_model(rival)
    blocks = sum(float(model.decisions.bill(torch.full((1, 1), 0.1), t)) for t in range(model.depth))
    least = (model.costs.stem + model.costs.start + blocks + model.costs.head) / model.costs.dense
    agent(rival, tmp_path, model, target=least + 1e-3)
    reached = pytest.raises(UserError, match=f"rollouts cost at least {least:.3f} of dense MACs")
    with reached if refused else nullcontext():
        agent(rival, tmp_path, model, target=least - 1e-3)


def test_every_rival_has_a_policy() -> None:
    assert LAYER_POLICIES.keys() == AGENTS.keys()


def test_blockdrops_classifier_of_blocks_needs_two() -> None:
    spec = BackboneSpec("drawn", 10, 8)
    with pytest.raises(UserError, match="drawn has one only: use another --algo"):
        LCNet(Backbone(spec, Family((1,), True, 8)), "layers", 0, confidence=False, policy="blockdrop")
