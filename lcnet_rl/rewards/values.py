"""What a shape returned: one finite float an image, or an error that says where it is not.

Checked wherever a shape is used: a training would go on without a number, and then blame its learning rates, or pay
step by step what was no sum of steps. Shapes get copies, so that one that changes its arguments changes nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.rewards.judgement import Judgement

MOST = 2.5
"""The largest share of dense MACs: rounded up from 2.48, of BlockDrop's policy, a small ResNet of its own, with the
smallest backbone that there is (``resnet14-wide`` of width 2). L-Net and C-Net add 3 % at most."""


def checked_call(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A shape's ``__call__`` that raises a UserError where ``check_values`` or ``check_steps`` would."""

    @functools.wraps(call)
    def checked(self: Any, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        what, where = f"reward {_name(self)}", {"share": share, "price": price, **vars(judged)}
        values = call(self, judged.clone(), share.clone(), price.clone())
        check_values(what, values, where)
        if self.pays_by_step:
            with torch.no_grad():
                whole = call(self, judged.clone(), torch.ones_like(share), price.clone())
            check_steps(what, values.detach(), whole, where)
        return values

    return checked


def checked_potential(potential: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A shape's ``potential`` that raises a UserError where ``check_values`` would."""

    @functools.wraps(potential)
    def checked(self: object, log_prob: Tensor) -> Tensor:
        values = potential(self, log_prob.clone())
        check_values(f"the potential of reward {_name(self)}", values, {"log_prob": log_prob})
        return values

    return checked


def check_values(what: str, values: Any, where: dict[str, Tensor]) -> None:
    """Refuse what is not one finite float an image.

    Args:
        what: returned them, for the message.
        values: that were returned.
        where: the arguments by name; the first has the shape that is due. Where one is no finite number itself, as
            after a training that diverged, nothing is to be said against the values.

    Raises:
        UserError: with the fault and, of a value that is not finite, its arguments.
    """
    if not isinstance(values, Tensor):
        raise UserError(
            f"{what} returned a {type(values).__name__}: it must return a tensor, one float an image; "
            "torch.from_numpy makes one of an array"
        )
    if not values.is_floating_point():
        raise UserError(f"{what} returned {values.dtype}: it must return floats (.float() makes them)")
    due = next(iter(where.values())).shape
    if values.shape != due:
        raise UserError(
            f"{what} returned the shape {tuple(values.shape)} for images of shape {tuple(due)}: it must return one "
            "float an image"
        )
    if bool(values.isfinite().all()):
        return
    wrong = ~values.isfinite() & _finite(where)
    if bool(wrong.any()):
        value = values[wrong][0].item()
        raise UserError(
            f"{what} returned {value} at {_first(wrong, where)}: it must be finite (shares are 0 to {MOST})"
        )


def check_steps(what: str, values: Tensor, whole: Tensor, where: dict[str, Tensor]) -> None:
    """Refuse what is paid step by step, but is not ``task - price * share``.

    Args:
        what: returned them, for the message.
        values: that were returned, without gradients.
        whole: what was returned for spending the whole dense MACs instead of ``share``.
        where: the arguments by name.

    Raises:
        UserError: with the first arguments that show it.
    """
    wrong = off_line(values - whole, (where["share"] - 1) * where["price"], values.abs() + whole.abs())
    if bool(wrong.any()):
        raise UserError(
            f"{what} pays by step, but is not task - price * share at {_first(wrong, where)}: make it a Reward with "
            "pays_by_step = False, which wants --cost-gradient sampled"
        )


def off_line(gained: Tensor, cost: Tensor, size: Tensor) -> Tensor:
    """Where a change of compute that costs ``cost`` changed a reward by more or less; ``size`` is what was rounded."""
    return (gained + cost).abs() > 1e-4 + 1e-5 * size


def slopes(task: Tensor, judged: Judgement) -> dict[str, Tensor]:
    """Derivatives of a task, (B,), by the log-probabilities and confidences that it depends on."""
    by = {"log_prob": judged.log_prob, "confidence": judged.confidence}
    found = torch.autograd.grad(task.sum(), list(by.values()), retain_graph=True, allow_unused=True)
    return {name: slope for name, slope in zip(by, found, strict=True) if slope is not None}


def check_slopes(reward: object, task: Tensor, judged: Judgement) -> None:
    """Refuse a task whose slopes are not finite.

    Args:
        reward: the shape, for the message.
        task: what it returned, (B,).
        judged: for what; where this is no finite number itself, nothing is to be said against the slopes.

    Raises:
        UserError: with the first prediction at which one is not.
    """
    where = vars(judged)
    for name, slope in slopes(task, judged).items():
        wrong = ~slope.isfinite() & _finite(where)
        if bool(wrong.any()):
            raise UserError(
                f"reward {_name(reward)} has a slope of {float(slope[wrong][0])} by {name} at {_first(wrong, where)}: "
                "make it finite, or use --control-variate none, and --baseline batch-mean instead of mean-field"
            )


def _finite(where: dict[str, Tensor]) -> Tensor:
    """Where all arguments are finite numbers."""
    return functools.reduce(torch.logical_and, (argument.isfinite() for argument in where.values()))


def _first(wrong: Tensor, where: dict[str, Tensor]) -> str:
    """The arguments of the first image that something is wrong with."""
    first = tuple(wrong.nonzero()[0].tolist())
    return ", ".join(f"{name} {argument.expand(wrong.shape)[first].item():g}" for name, argument in where.items())


def _name(reward: object) -> str:
    """Where a shape, or the function that it is made of, is defined."""
    shape = getattr(reward, "function", type(reward))
    return f"{shape.__module__}:{getattr(shape, '__qualname__', type(shape).__qualname__)}"
