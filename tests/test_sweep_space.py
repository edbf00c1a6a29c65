"""Search spaces: names and values are checked against the settings, before anything runs."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lcnet_rl.commands.sweep_settings import Sweep, settings_of, starting_settings
from lcnet_rl.commands.train_settings import ALGOS
from lcnet_rl.errors import UserError
from lcnet_rl.sweep.space import Space, entries_of, nested, read_space, scalar


def space(*entries: str) -> Space:
    return read_space(entries, ALGOS, "reinforce")


def check(*entries: str, base: dict[str, Any] | None = None) -> Space:
    read = space(*entries)
    read.check(lambda values: settings_of(base or {}, values, read))
    return read


@pytest.mark.parametrize(
    ("spec", "distribution"),
    [
        ("agent.price=0.1..2", FloatDistribution(0.1, 2.0)),
        ("agent.price=0.1..2:log", FloatDistribution(0.1, 2.0, log=True)),
        ("agent.price={low: 0.1, high: 2, log: true}", FloatDistribution(0.1, 2.0, log=True)),
        ("agent.price=1e-3..1", FloatDistribution(0.001, 1.0)),
        ("agent.price=0..1:step=0.25", FloatDistribution(0.0, 1.0, step=0.25)),
        ("agent.price=0.1,0.3", CategoricalDistribution([0.1, 0.3])),
        ("agent.rollouts=2..8:step=2", IntDistribution(2, 8, step=2)),
        ("width=8..32:log", IntDistribution(8, 32, log=True)),
        ("agent.epochs=1..4", FloatDistribution(1.0, 4.0)),
        ("agent.reward=linear,quadratic:penalty=0.5", CategoricalDistribution(["linear", "quadratic:penalty=0.5"])),
        ('agent.reward=[linear, "confidence:floor=3"]', CategoricalDistribution(["linear", "confidence:floor=3"])),
        ("agent.target=none,0.6", CategoricalDistribution([None, 0.6])),
        ("groups=4", CategoricalDistribution([4])),
    ],
)
def test_a_spec_is_read_as_the_distribution_that_it_says(spec: str, distribution: object) -> None:
    assert list(space(spec).dimensions.values()) == [distribution]


def test_yaml_and_flags_are_one_notation() -> None:
    table = {"agent.price": {"low": 0.1, "high": 2.0, "log": True}, "agent.reward": ["linear"], "groups": "2,4"}
    assert space(*entries_of(table)).dimensions == space("price=0.1..2:log", "reward=linear", "groups=2,4").dimensions


def test_a_bare_name_is_enough_where_only_one_setting_has_it() -> None:
    assert set(space("price=0.1..1", "groups=2,4").dimensions) == {"agent.price", "groups"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no search space"),
        (["agent.prise=0.1..1"], "did you mean agent.price"),
        (["timesteps=1..2"], "unknown setting 'timesteps'"),
        (["agent.price"], "give NAME=LOW..HIGH"),
        (["agent.price=2..1"], "space agent.price"),
        (["agent.price=0..1:log"], "space agent.price"),
        (["agent.price={low: 1}"], "two numbers, low and high"),
        (["agent.price={low: 1, hihg: 2}"], "did you mean high"),
        (["agent.price=[[1]]"], "plain values"),
        (["agent.rollouts=1.5..3"], "whole number"),
        (["agent.rollouts=1..inf"], "space agent.rollouts"),
        (["agent.price=0.1..1:step=0.4"], "agent.price: steps of 0.4 from 0.1 end at 0.9, not 1; give 0.1..0.9"),
        (["agent.rollouts=2..7:step=2"], "agent.rollouts: steps of 2 from 2 end at 6, not 7; give 2..6"),
        (["agent.price=0.1..1:step=0"], "space agent.price"),
        (["runs=a,b"], "cannot be searched over"),
        (["price=1,2", "agent.price=1,2"], "given twice"),
        (["algo=reinforce,pp"], "did you mean ppo"),
    ],
)
def test_a_faulty_space_is_refused_in_one_line(entries: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        space(*entries)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("agent.price=-1..1", "space agent.price: -1.0 will not do: price must be >= 0"),
        ("agent.bound=0.1..0.6", "0.6 will not do"),
        ("agent.reward=linear,liner", "did you mean linear"),
        ("decides=layers,blocks", "decides"),
        ("agent.reward=0.1..1", "reward"),
        ("agent.rollouts=0..2", "0 will not do"),
    ],
)
def test_a_value_that_the_settings_refuse_is_refused_before_the_study(entry: str, message: str) -> None:
    with pytest.raises(UserError, match="will not do") as caught:
        check(entry)
    assert message in str(caught.value)


def test_a_value_will_do_if_some_combination_accepts_it() -> None:
    check("agent.rollouts=1..4", "agent.baseline=leave-one-out,mean-field")
    with pytest.raises(UserError, match=r"1 will not do.*--rollouts 2"):
        check("agent.rollouts=1..4")
    check("agent.reward=linear,quadratic", "agent.cost_gradient=exact,sampled", "agent.price=0.1..1")


def test_settings_that_an_algorithm_does_not_have_are_not_suggested_for_it() -> None:
    read = space("algo=reinforce,ppo", "agent.information=0.5..0.9", "agent.timesteps=1000,2000", "agent.price=0.1..1")
    base = {"agent": {"epochs": 3, "price": 0.2}}
    read.check(lambda values: settings_of(base, values, read))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(12):
        values = read.suggest(study.ask())
        seen.add(values["algo"])
        assert ("agent.information" in values) == (values["algo"] == "reinforce")
        assert ("agent.timesteps" in values) == (values["algo"] == "ppo")
        config = settings_of(base, values, read)
        assert (config.algo, config.agent.price) == (values["algo"], values["agent.price"])
    assert seen == {"reinforce", "ppo"}


def test_an_algorithm_can_be_searched_over_without_the_usual_one() -> None:
    read = space("algo=ppo,a2c", "gate_lr=0.001,0.01")
    values = read.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
    assert values["algo"] in ("ppo", "a2c")
    assert "agent.gate_lr" in values


def test_values_are_put_over_the_base_without_changing_it() -> None:
    base = {"groups": 2, "agent": {"price": 1, "lr": 0.1}}
    assert nested({"agent.price": 3, "seed": 1}, base) == {"groups": 2, "seed": 1, "agent": {"price": 3, "lr": 0.1}}
    assert base == {"groups": 2, "agent": {"price": 1, "lr": 0.1}}
    deep = {"agent": {"augmentation": {"cutout": 4}}}
    assert nested({"agent.augmentation.padding": 7}, deep)["agent"]["augmentation"] == {"cutout": 4, "padding": 7}
    assert deep == {"agent": {"augmentation": {"cutout": 4}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-3", -3), ("0.5", 0.5), ("1e-3", 0.001), ("true", True), ("none", None), ("a:b=1", "a:b=1")],
)
def test_a_word_means_the_plainest_value_that_it_can(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_a_word_that_a_setting_has_as_a_choice_means_itself() -> None:
    for name in ("agent.control_variate", "agent.augmentation.flips"):
        assert check(f"{name}=none").grid() == {name: ["none"]}
    fixed = starting_settings(Sweep(fixed=("agent.control_variate=none", "agent.target=none")))
    assert fixed == {"agent": {"control_variate": "none", "target": None}}


def test_a_searched_algorithm_keeps_settings_within_settings() -> None:
    read = space("algo=reinforce,ppo", "agent.augmentation.cutout=4,8")
    base = {"agent": {"augmentation": {"padding": 2}}}
    for algo in ("reinforce", "ppo"):
        augmentation = settings_of(base, {"algo": algo, "agent.augmentation.cutout": 8}, read).agent.augmentation
        assert (augmentation.cutout, augmentation.padding) == (8, 2)


def test_a_grid_stays_within_its_range() -> None:
    assert space("agent.price=0.1..0.7:step=0.2").grid() == {"agent.price": [0.1, 0.3, 0.5, 0.7]}


def test_a_grid_needs_choices_or_steps() -> None:
    grid = space("agent.price=0..1:step=0.25", "agent.rollouts=2..6:step=2", "agent.reward=linear").grid()
    assert grid == {"agent.price": [0, 0.25, 0.5, 0.75, 1], "agent.rollouts": [2, 4, 6], "agent.reward": ["linear"]}
    with pytest.raises(UserError, match="a grid needs choices or steps"):
        space("agent.price=0..1").grid()


def test_a_grid_over_what_some_algorithms_lack_would_repeat_itself() -> None:
    lacking = space("algo=reinforce,ppo", "agent.rollouts=2,3")
    with pytest.raises(UserError, match="rollouts: ppo has no such setting"):
        lacking.grid()
    assert lacking.points is None
    assert space("algo=reinforce,ppo", "agent.price=1,2").points == 4
