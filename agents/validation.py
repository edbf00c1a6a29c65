"""Validation while an agent trains: how its greedy decisions do, the best model so far, an alarm when they collapse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from agents.alarms import warn_if_collapsed
from agents.pricing import PricingConfig
from lcnet_rl import job
from lcnet_rl.evaluate import Results, evaluate, recalibrate, spread_prices
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange, create_reward, price_matters
from lcnet_rl.runs import BEST
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.weights import save_model


class Validation:
    """All validations of one training run; its state is which was the best."""

    def __init__(self, model: LCNet, config: PricingConfig, setup: TrainingSetup) -> None:
        """Prepare to validate ``model``.

        Args:
            model: the network that is trained.
            config: the settings, for reward and precision.
            setup: of the training: its validation images choose the best model, which its run folder gets.
        """
        self.model, self.config, self.setup = model, config, setup
        self.reward = create_reward(config.reward)
        self.priced = price_matters(self.reward)
        self.best: Results | None = None
        self.collapsed = False

    def validate(self, prices: PriceRange, step: int, settled: bool, calibrated: bool = False) -> dict[str, float]:
        """Evaluate greedily, and save the model if it earns the highest reward so far.

        Args:
            prices: those it is trained for by now.
            step: of the training, for the alarm.
            settled: whether the price's ramp is over: rewards compare at one price only, and those of a price still
                ramping up would win for being cheap.
            calibrated: whether BatchNorm already has the statistics of the greedy policy.

        Returns:
            Scalars for the log.
        """
        model, setup, device, precision = self.model, self.setup, self.setup.device, self.config.precision
        decide = model.greedy()
        model.price.fill_(prices.middle)
        if not calibrated:
            recalibrate(model, setup.train, decide, device, precision=precision, images=2000, prices=prices)
        seen = spread_prices(prices, len(setup.val))
        results = evaluate(model, setup.val, decide, device, precision=precision, prices=seen)
        reward = results.reward(self.reward, seen)
        if settled and (self.best is None or reward >= self.best.reward(self.reward, seen)):
            self.best = replace(results, actions=results.actions[:, :0])  # of which a checkpoint would be full
            job.by_main(save_model)(model, setup.run / BEST)
        spread = results.spread
        if not prices.is_one:  # images that cost unlike because their prices are is not what is asked
            middle = torch.full((len(setup.val),), prices.middle)
            spread = evaluate(model, setup.val, decide, device, precision=precision, prices=middle).spread
        self.collapsed = settled and warn_if_collapsed(
            step,
            spread,
            results.macs_ratio,
            target=self.config.aim,
            known=self.collapsed,
            priced=self.priced,
            ranged=not prices.is_one,
        )
        return {
            "eval/accuracy": results.accuracy,
            "eval/macs_ratio": results.macs_ratio,
            "eval/macs_spread": spread,
            "eval/mean_reward": reward,
            "eval/collapsed": float(self.collapsed),
        }

    def state(self) -> dict[str, Any] | None:
        """For a checkpoint."""
        return None if self.best is None else vars(self.best)

    def restore(self, state: dict[str, Any] | None) -> None:
        """From a checkpoint."""
        self.best = None if state is None else Results(**state)
