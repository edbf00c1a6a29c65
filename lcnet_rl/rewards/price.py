"""The price of compute: one for a whole run, or a range that one agent is trained for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcnet_rl.errors import UserError


def check_price(price: float) -> float:
    """``price`` as a float.

    Raises:
        UserError: when it is negative or no finite number, also as the float32 that networks read.
    """
    if not 0 <= price < math.inf or float(price) > torch.finfo(torch.float32).max:
        raise UserError(f"price must be >= 0 (0 = compute is free) and fit into float32, got {price}")
    return float(price)


def prices_of(price: float | Tensor, count: int, device: torch.device) -> Tensor:
    """A price for each of ``count`` images, (count,), float32, from one number or tensor for all, or as many.

    Raises:
        UserError: for a number that ``check_price`` refuses, and a tensor of another length; its prices are taken as
            they are.
    """
    if not isinstance(price, Tensor):
        for number in np.ravel(price):  # NumPy's numbers are no float or int, and arrays work as well
            check_price(number)
    prices = torch.as_tensor(price, dtype=torch.float32, device=device)
    if prices.shape not in ((), (1,), (count,)):
        raise UserError(f"one price, or one for each of {count} images, got prices {tuple(prices.shape)}")
    return prices.expand(count)


@dataclass(frozen=True)
class PriceRange:
    """Prices from ``low`` to ``high``, both included; one price where they are equal.

    A price is the reward lost by spending the dense model's MACs once.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < math.inf or 0 == self.low < self.high:
            raise ValueError(f"a range of prices rises from above 0, got {self.low} to {self.high}")

    @property
    def is_one(self) -> bool:
        """Whether there is nothing to draw."""
        return self.low == self.high

    @property
    def middle(self) -> float:
        """The geometric mean: half of the draws are below it."""
        return self.low if self.is_one else math.sqrt(self.low * self.high)

    def checked(self, price: float) -> float:
        """``price``, if a run for these prices was trained for it.

        Raises:
            UserError: when it was not: what gates do at prices that they never saw means nothing.
        """
        if self.is_one:
            raise UserError("the run was trained at one price; train --price 0.05..1.0 is for several")
        if not self.low <= price <= self.high:
            raise UserError(f"the run was trained for prices {self}, got {price:g}")
        return price

    def ramped(self, factor: float) -> PriceRange:
        """The way to these prices, at ``factor`` in [0, 1]: one price rises from 0, a range opens from its lowest."""
        if self.is_one:
            return PriceRange(self.low * factor, self.high * factor)
        return PriceRange(self.low, self.low * (self.high / self.low) ** factor)

    def position(self, prices: Tensor) -> Tensor:
        """Where prices are in a range, from -1 (lowest) to 1 (highest), evenly in the logarithm.

        Prices beyond its ends count as the ends; of a single price there is no such position.
        """
        return (2 * (prices / self.middle).log() / math.log(self.high / self.low)).clamp(-1, 1)

    def at(self, quantiles: Tensor) -> Tensor:
        """The prices (B,) below which these shares (B,) of draws fall.

        Draws are uniform in the logarithm: between 0.1 and 0.2 a policy changes about as much as between 1 and 2.
        """
        if self.low == self.high:
            return torch.full_like(quantiles, self.low)
        return self.low * (self.high / self.low) ** quantiles

    def __str__(self) -> str:
        return f"{self.low:g}" if self.is_one else f"{self.low:g}..{self.high:g}"


def price_range(price: float | str) -> PriceRange:
    """Read a price, ``0.3``, or a range, ``"0.05..1.0"``.

    Raises:
        UserError: for text that is neither, a negative price, or a range that does not rise from above 0.
    """
    low, dots, high = str(price).partition("..")
    try:
        first, last = check_price(float(low)), check_price(float(high if dots else low))
    except ValueError as error:
        raise UserError(f'price is a number like 0.3 or a range like "0.05..1.0", got {price!r}') from error
    if dots and not 0 < first < last:
        raise UserError(f"a range of prices rises from above 0, like 0.05..1.0, got {price}")
    return PriceRange(first, last)
