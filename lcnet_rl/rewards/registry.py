"""Reward shapes by name, and users' own.

On the command line a shape is ``NAME``, or ``NAME:parameter=value,...``; a user's own is ``MODULE:FUNCTION``, with the
module in the working folder or installed, for example ``my_rewards.py`` with

    def cubic(judged, share, price, penalty=0.5):
        return judged.correct - penalty * (1 - judged.correct) - price * share**3

as ``--reward my_rewards:cubic`` or ``--reward my_rewards:cubic:penalty=1``. In Python ``@register_reward("cubic")``
over such a function, or over a frozen dataclass that is a ``Reward``, gives it a name.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.rewards import shapes
from lcnet_rl.rewards.judgement import Judgement
from lcnet_rl.rewards.shapes import Reward

Shape = Callable[..., Any]
"""A ``Reward`` dataclass, or a function of (judged, share, price) and of parameters with defaults."""
S = TypeVar("S", bound=Shape)
_REWARDS: dict[str, Shape] = {}
_ARGUMENTS = 3


def register_reward(name: str) -> Callable[[S], S]:
    """A decorator that lets ``create_reward`` find a shape as ``name``.

    Raises:
        UserError: when another shape has the name, or it could not be written on the command line.
    """
    if not name or any(sign in name for sign in ":=, "):
        raise UserError(f"a reward's name is a word without ':', '=' or ',', got {name!r}")

    def register(shape: S) -> S:
        if _REWARDS.get(name, shape) is not shape:
            raise UserError(f"there already is a reward {name!r}")
        _REWARDS[name] = shape
        return shape

    return register


for _name, _shape in (
    ("linear", shapes.Linear),
    ("quadratic", shapes.Quadratic),
    ("confidence", shapes.Confidence),
    ("confidence-gain", shapes.ConfidenceGain),
    ("potential", shapes.Potential),
    ("budget", shapes.Budget),
    ("lagrangian", shapes.Lagrangian),
    ("asymmetric", shapes.Asymmetric),
):
    register_reward(_name)(_shape)


def reward_names() -> list[str]:
    """Names of all registered shapes."""
    return sorted(_REWARDS)


@dataclass(frozen=True)
class FunctionReward(Reward):
    """A user's function as a shape; nothing is known of its cost, so it comes with the last step."""

    function: Callable[..., Tensor]
    parameters: tuple[tuple[str, float], ...] = ()

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return self.function(judged, share, price, **dict(self.parameters))


def create_reward(text: str) -> Reward:
    """A reward shape from its name and, if any, its parameters: ``"linear"``, ``"quadratic:penalty=0.5"``.

    Raises:
        UserError: for an unknown name or parameter, a value that is negative or no number, a user's module that cannot
            be imported, or a shape that is not one: wrong results, or more reward for more compute.
    """
    name, _, arguments = text.partition(":")
    if name in _REWARDS:
        shape = _REWARDS[name]
    else:
        attribute, _, arguments = arguments.partition(":")
        if not attribute.isidentifier():
            raise unknown_name("reward", name, _REWARDS)
        shape, name = _imported(name, attribute), f"{name}:{attribute}"
    parameters = _parameters(name, shape, arguments)
    reward = shape(**parameters) if isinstance(shape, type) else FunctionReward(shape, tuple(parameters.items()))
    _check(name, reward)
    return reward


def is_smooth(reward: Reward) -> bool:
    """Whether a reward has a gradient with respect to what is judged, as a first-order control variate needs."""
    parts = (torch.full((1,), value, requires_grad=True) for value in (0.5, -0.7, 0.5))
    return reward(Judgement(*parts), torch.full((1,), 0.5), torch.ones(1)).requires_grad


def _imported(module: str, attribute: str) -> Shape:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module can raise
        raise UserError(
            f"reward {module}:{attribute} cannot be imported ({type(error).__name__}: {error}); built-in rewards: "
            f"{', '.join(reward_names())}"
        ) from error
    if not callable(found):
        raise UserError(f"reward {module}:{attribute} is no function and no Reward")
    return found


def _parameters(name: str, shape: Shape, arguments: str) -> dict[str, float]:
    if isinstance(shape, type) and issubclass(shape, Reward) and dataclasses.is_dataclass(shape):
        known = [field.name for field in dataclasses.fields(shape)]
    elif isinstance(shape, type):
        raise UserError(f"reward {name} is a class, but no dataclass that is a Reward")
    else:
        try:
            known = list(inspect.signature(shape).parameters)[_ARGUMENTS:]
        except ValueError as error:  # of functions that are not written in Python
            raise UserError(f"reward {name} is no function of (judged, share, price)") from error
    parameters = {}
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        if key not in known:
            raise unknown_name(f"parameter of reward {name}", key, known)
        try:
            parameters[key] = float(value)
        except ValueError as error:
            raise UserError(f"reward {name}: {key} must be a number, got {value!r}") from error
        if not 0 <= parameters[key] < math.inf:
            raise UserError(f"reward {name}: {key} must be >= 0, got {value}")
    return parameters


def _check(name: str, reward: Reward) -> None:
    """Refuse a shape that is not finite, of the wrong size, or rises with compute, at a grid of points."""
    shares = torch.linspace(0, 1.2, 13)
    for correct, log_prob, price in itertools.product((0.0, 1.0), (-4.0, -0.7, -0.05), (0.0, 0.3, 2.0)):
        confidence = math.exp(log_prob) if correct else 0.5
        judged = Judgement(*(torch.full_like(shares, value) for value in (correct, log_prob, confidence)))
        try:
            values = reward(judged, shares, torch.full_like(shares, price))
        except Exception as error:  # whatever a user's function can raise
            raise UserError(f"reward {name} failed: {type(error).__name__}: {error}") from error
        numbers = isinstance(values, Tensor) and values.is_floating_point() and values.shape == shares.shape
        if not numbers or not bool(values.isfinite().all()):
            raise UserError(f"reward {name} must return one finite float an image, of the shape of share")
        rises = values.diff() > 1e-6
        if bool(rises.any()):
            share = float(shares[1:][rises][0])
            raise UserError(f"reward {name} rises with compute at a share of {share:.1f} (price {price}); it must not")
        if reward.pays_by_step and not torch.allclose(values.float(), values[0].float() - price * shares, atol=1e-4):
            raise UserError(
                f"reward {name} says that it pays by step, but at price {price} it is not task - price * share; "
                "leave pays_by_step at False"
            )
