"""What a shape returned: one finite float an image, or an error that says where it is not.

Checked wherever a shape is used: a training would go on without a number, and then blame its learning rates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.rewards.judgement import Judgement


def checked_call(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A shape's ``__call__`` that raises a UserError where ``check_values`` would."""

    @functools.wraps(call)
    def checked(self: object, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        values = call(self, judged, share, price)
        judgement = {name: getattr(judged, name) for name in ("correct", "log_prob", "confidence")}
        where = {"share": share, "price": price, **judgement}
        check_values(f"reward {_name(self)}", values, where)
        return values

    return checked


def checked_potential(potential: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A shape's ``potential`` that raises a UserError where ``check_values`` would."""

    @functools.wraps(potential)
    def checked(self: object, log_prob: Tensor) -> Tensor:
        values = potential(self, log_prob)
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
    wrong = ~values.isfinite()
    for argument in where.values():
        wrong = wrong & argument.isfinite()
    if bool(wrong.any()):
        first = tuple(wrong.nonzero()[0].tolist())
        point = ", ".join(f"{name} {float(argument.expand(due)[first]):g}" for name, argument in where.items())
        raise UserError(f"{what} returned {float(values[first])} at {point}: it must be finite (shares are 0 to 1.2)")


def _name(reward: object) -> str:
    """Where a shape, or the function that it is made of, is defined."""
    shape = getattr(reward, "function", type(reward))
    return f"{shape.__module__}:{getattr(shape, '__qualname__', type(shape).__qualname__)}"
