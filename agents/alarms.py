"""Warnings of a training: that its price changes nothing, its decisions have collapsed, or it has missed its target."""

from __future__ import annotations

from lcnet_rl.progress import warn
from lcnet_rl.rewards import create_reward, price_matters

COLLAPSED = 0.005
"""Below this standard deviation over images of the MACs share, decisions are called collapsed."""
EVERYTHING = 0.97
"""Above this share of dense MACs, nearly everything is kept."""
MISSED = 0.05
"""How far from its target the sampled MACs share may be at the end of the policy's training."""


def warn_if_price_is_idle(reward: str) -> bool:
    """Warn where compute costs the same at all prices: nothing, or what the reward itself has written into it.

    Args:
        reward: as ``create_reward`` takes it.

    Returns:
        Whether there was a warning.
    """
    if price_matters(create_reward(reward)):
        return False
    warn(
        f"reward {reward} charges the same at all prices, if anything: no --price makes compute dearer",
    )
    return True


def warn_if_collapsed(
    step: int,
    spread: float,
    share: float,
    *,
    target: float | None = None,
    known: bool = False,
    priced: bool = True,
    ranged: bool = False,
) -> bool:
    """Warn where all images cost about the same, which mostly means that all get the same decisions.

    Args:
        step: of the training.
        spread: standard deviation over validation images of the share of dense MACs.
        share: its mean.
        target: what that is to become, if there is one: then the price is not the user's.
        known: whether they had collapsed at the last validation: that is said once.
        priced: whether the price changes what compute costs.
        ranged: whether the policy is for a range of prices, for which there can be no target.

    Returns:
        Whether they have collapsed.
    """
    if known or spread >= COLLAPSED:
        return spread < COLLAPSED
    exploration = "more exploration (--entropy; of reinforce also --information) may help"
    if target is not None:
        advice = (
            "a longer training (--epochs; of ppo and a2c --timesteps) or a larger --gate-lr may help, or more "
            "exploration (--entropy; of reinforce also --information; of convnet-aig --temperature)"
        )
    elif not priced:
        advice = f"a --reward whose cost rises with the price, or {exploration}"
    elif share > EVERYTHING:
        instead = "a longer training (--epochs)" if ranged else "a --target"
        advice = f"everything is kept: a higher --price, or {instead}, makes skipping worth it"
    else:
        advice = f"a lower --price, or {exploration}"
    warn(
        f"step {step}: collapsed decisions, all validation images spend {share:.1%} of dense MACs, give or "
        f"take {spread:.2%}; {advice}",
    )
    return True


def warn_if_missed(share: float, target: float | None) -> bool:
    """Warn where a policy has not learned to spend its target.

    Args:
        share: of the dense MACs, what the last batch of the policy's training spent.
        target: what it was to be, if there is one.

    Returns:
        Whether there was a warning.
    """
    if target is None or abs(share - target) <= MISSED:
        return False
    warn(
        f"as its training ends, the policy spends {share:.1%} of dense MACs and not the target of {target:.1%}: "
        "from here on a threshold has to make up for it. A longer training (--epochs; of ppo and a2c --timesteps) or a "
        "larger --gate-lr may help, or a faster price (--price-rate; of convnet-aig --rate-weight)",
    )
    return True
