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
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.imports import imported
from lcnet_rl.rewards import shapes
from lcnet_rl.rewards.judgement import Judgement
from lcnet_rl.rewards.shapes import Reward
from lcnet_rl.rewards.trial import check_reward, is_linear

Shape = Reward | Callable[..., Any]
"""A ``Reward``, a dataclass that derives from it, or a function of (judged, share, price) and of parameters with
defaults."""
S = TypeVar("S", bound=Shape)
_BUILT_IN: dict[str, Shape] = {
    "linear": shapes.Linear,
    "quadratic": shapes.Quadratic,
    "confidence": shapes.Confidence,
    "confidence-gain": shapes.ConfidenceGain,
    "potential": shapes.Potential,
    "budget": shapes.Budget,
    "lagrangian": shapes.Lagrangian,
    "asymmetric": shapes.Asymmetric,
}
_REWARDS = dict(_BUILT_IN)
_ARGUMENTS = 3


def register_reward(name: str) -> Callable[[S], S]:
    """A decorator that lets ``create_reward`` find a shape as ``name``; run again, it replaces the shape of before.

    Raises:
        UserError: when another shape has the name, or it could not be written on the command line.
    """
    if not name or any(sign in name for sign in ":=, "):
        raise UserError(f"a reward's name is a word without ':', '=' or ',', got {name!r}")

    def register(shape: S) -> S:
        there = _REWARDS.get(name, shape)
        if there is not shape and (name in _BUILT_IN or not _redefined(there, shape)):
            raise UserError(f"there already is a reward {name!r}")
        _REWARDS[name] = shape
        return shape

    return register


def reward_names() -> list[str]:
    """Names of all registered shapes."""
    return sorted(_REWARDS)


@dataclass(frozen=True)
class FunctionReward(Reward):
    """A user's function as a shape whose cost comes with the last step."""

    function: Callable[..., Tensor]
    parameters: tuple[tuple[str, float], ...] = ()

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return self.function(judged, share, price, **dict(self.parameters))


class LinearFunctionReward(FunctionReward):
    """A user's function that was found to be ``task - price * share``."""

    pays_by_step: ClassVar[bool] = True


def create_reward(given: str | Shape) -> Reward:
    """A reward shape from its name and, if any, its parameters: ``"linear"``, ``"quadratic:penalty=0.5"``.

    Args:
        given: in Python also a shape itself.

    Raises:
        UserError: for an unknown name or parameter, a parameter that is given twice, a value that is no number or, of a
            built-in shape, negative, a user's module that cannot be imported, or a shape that is not one; see
            ``check_reward``.
    """
    if not isinstance(given, str):
        return _tried(_label(given), given, "")
    name, shape, arguments = _found(given)
    # Settings ask for the same shape again and again; users' own may be others by then, as a module's constants change.
    return _built_in(name, arguments) if name in _BUILT_IN else _tried(name, shape, arguments)


@functools.cache
def _built_in(name: str, arguments: str) -> Reward:
    """A built-in shape with its parameters, which is tried once."""
    return _tried(name, _BUILT_IN[name], arguments)


def _tried(name: str, shape: Shape, arguments: str) -> Reward:
    """The shape with its parameters, once trying it has shown that it is one, and whether it pays by step."""
    reward = _made(name, shape, arguments)
    check_reward(name, reward)
    if isinstance(reward, FunctionReward) and is_linear(reward):
        return LinearFunctionReward(reward.function, reward.parameters)
    return reward


def _found(text: str) -> tuple[str, Shape, str]:
    """Name, shape, and what follows them."""
    name, _, arguments = text.partition(":")
    if name in _REWARDS:
        return name, _REWARDS[name], arguments
    attribute, _, arguments = arguments.partition(":")
    if not attribute.isidentifier():
        raise unknown_name("reward", name, _REWARDS, f"{', '.join(sorted(_REWARDS))}, or MODULE:FUNCTION of your own")
    return f"{name}:{attribute}", imported("reward", name, attribute, reward_names()), arguments


def _made(name: str, shape: Shape, arguments: str) -> Reward:
    """The shape with its parameters; one that is a ``Reward`` already has them."""
    if isinstance(shape, Reward):
        if arguments:
            raise UserError(f"reward {name} is made already: it takes no parameters, got {arguments}")
        return shape
    if not callable(shape):
        raise UserError(f"reward {name} is no function and no Reward")
    parameters = _parameters(name, shape, arguments)
    return shape(**parameters) if isinstance(shape, type) else FunctionReward(shape, tuple(parameters.items()))


def _parameters(name: str, shape: Callable[..., Any], arguments: str) -> dict[str, float]:
    if isinstance(shape, type) and not (issubclass(shape, Reward) and dataclasses.is_dataclass(shape)):
        raise UserError(f"reward {name} is a class, but no dataclass that is a Reward")
    try:
        signature = inspect.signature(shape).parameters
    except ValueError as error:  # of functions that are not written in Python
        raise UserError(f"reward {name} is no function of (judged, share, price)") from error
    known = list(signature)[0 if isinstance(shape, type) else _ARGUMENTS :]
    parameters = {}
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        if key not in known:
            raise unknown_name(f"parameter of reward {name}", key, known)
        if key in parameters:
            raise UserError(f"reward {name}: {key} is given twice, in {arguments}")
        try:
            parameters[key] = float(value)
        except ValueError as error:
            raise UserError(f"reward {name}: {key} must be a number, got {value!r}") from error
        if name in _BUILT_IN and not 0 <= parameters[key] < math.inf:
            raise UserError(f"reward {name}: {key} must be >= 0, got {value}")
    for key in known:
        if key not in parameters and _is_needed(signature[key]):
            raise UserError(f"reward {name} needs {key}: give it a default, or, by name, write NAME:{key}=NUMBER")
    return parameters


def _is_needed(parameter: inspect.Parameter) -> bool:
    several = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not several


def _redefined(old: Shape, new: Shape) -> bool:
    """Whether two functions or classes are of one place, as of a notebook's cell that is run again."""
    places = [(shape.__module__, getattr(shape, "__qualname__", None)) for shape in (old, new)]
    return places[0] == places[1] and places[0][1] is not None


def _label(shape: Shape) -> str:
    """A name for a shape that was given as it is."""
    return type(shape).__qualname__ if isinstance(shape, Reward) else getattr(shape, "__qualname__", repr(shape))
