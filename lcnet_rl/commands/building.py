"""The networks and gates that settings of ``lcnet-rl train`` ask for, and whether they can be."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from agents.pricing import Pricing
from agents.sb3 import minibatch
from agents.sb3_config import PPOConfig
from lcnet_rl.backbones import Backbone
from lcnet_rl.commands.train_settings import AnyTrain, TrainRival
from lcnet_rl.errors import UserError
from lcnet_rl.gates import Standardize
from lcnet_rl.model import LCNet
from lcnet_rl.policies import PolicyName
from lcnet_rl.rewards import price_range
from lcnet_rl.second import start_unsure, with_second
from lcnet_rl.seeds import check_seed
from lcnet_rl.starting import is_agent, starting_networks
from lcnet_rl.weights import load_backbone, load_model


def check(config: AnyTrain, backbone: Backbone) -> None:
    """Refuse settings that can be refused without the data and the teacher."""
    check_seed(config.seed)
    agent = starting_agent(config, backbone)
    Pricing(config.agent, agent, 1.0)
    if isinstance(config.agent, PPOConfig):
        minibatch(config.agent, agent.depth)
    if config.teacher and not config.agent.distill:
        raise UserError("--teacher is learned with the weight --distill, which is 0")
    if config.teacher and not (config.agent.train_backbone or config.agent.train_scales):
        raise UserError("--teacher has no pupil: neither the backbone (--no-train-backbone) nor scales learn here")


def starting_backbone(config: AnyTrain, classes: int | None) -> Backbone:
    """The networks that --init names, or that a run of train which it names began with, and behind them --second.

    With ``classes`` None it may be for any number of them.
    """
    networks = starting_networks(config.init, config.dataset, config.backbone, config.width, classes)
    return put_second(config, networks)


def put_second(config: AnyTrain, first: Backbone) -> Backbone:
    """``first``, and behind its networks --second, where that is asked for."""
    if config.second is None:
        if config.second_weight != 1 or config.second_mirrored:
            raise UserError("--second-weight and --second-mirrored are of the network that --second names")
        return first
    second = load_backbone(config.second, classes=first.spec.classes)
    return with_second(first, second, config.second_weight, config.second_mirrored)


def put_gates(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``backbone``, which is copied, with the gates that ``config`` asks for."""
    if backbone.second is None and not config.second_rule:
        raise UserError(
            "give a --second network: --no-second-rule (also of the preset cifar10-second) is about the gate before it"
        )
    if config.second is not None and config.second_rule and not config.confidence:
        raise UserError("the rule of the gate before --second reads the confidence: give --no-second-rule too")
    model = LCNet(
        copy.deepcopy(backbone),
        config.decides,
        config.groups,
        config.agent.keep_bias,
        config.confidence,
        price_range(config.agent.price),
        cast(PolicyName, config.algo) if isinstance(config, TrainRival) else "lc",
    )
    if config.second_rule:
        start_unsure(model)
    return model


def starting_agent(config: AnyTrain, backbone: Backbone) -> LCNet:
    """``put_gates``, with the weights of the agent that --init names, if it does; then --second's gate is a new one.

    The agent's own gates decide as before where they read the price that it was trained at, though the MACs spent are a
    smaller share where there is a --second. Training begins with its own: --price, or 0 where that has to rise first.

    Raises:
        UserError: when that is another kind of agent.
    """
    if not is_agent(config.init):
        return put_gates(config, backbone)
    trained = load_model(Path(config.init))
    model = put_gates(config, put_second(config, trained.backbone))
    alike: dict[str, Any] = {"backbone": backbone.spec, **({"groups": 0} if config.decides == "layers" else {})}
    specs = [replace(agent.spec, **alike) for agent in (trained, model)]
    theirs, asked = ({**vars(spec), "prices": spec.prices or "one"} for spec in specs)
    if other := [f"{name} {value}, not {asked[name]}" for name, value in theirs.items() if value != asked[name]]:
        raise UserError(f"{config.init} holds another kind of agent than was asked for: {'; '.join(other)}")
    model.take_gates(trained)
    share = trained.costs.dense / model.costs.dense
    for t, standardize in enumerate(model.standardizers[: trained.depth]):
        cast(Standardize, standardize).rescale_spent(share, model.gates_of(t))
    return model
