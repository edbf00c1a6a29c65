"""Warnings about a policy that trains on, but not to where it should."""

from __future__ import annotations

from lcnet_rl.progress import console

COLLAPSED = 0.005
"""Below this standard deviation over images of the MACs share, decisions are called collapsed."""
MISSED = 0.05
"""How far from its target the sampled MACs share may be at the end of the policy's training."""


def warn_if_collapsed(step: int, spread: float) -> bool:
    """Whether validation images, whose MACs shares differ by ``spread``, all get the same decisions; says so."""
    if spread >= COLLAPSED:
        return False
    console.print(
        f"[yellow]step {step}: collapsed decisions, the MACs of validation images differ by {spread:.4f} of dense "
        "only; raise --information or --entropy, or lower --price[/]"
    )
    return True


def warn_if_missed(share: float, target: float | None) -> bool:
    """Whether the policy has learned to spend another ``share`` of dense MACs than its target, if any; says so."""
    if target is None or abs(share - target) <= MISSED:
        return False
    console.print(
        f"[yellow]at the end of its training the policy spends {share:.3f} of the dense MACs, not the target of "
        f"{target}; a threshold will make up for it, at a loss of accuracy. Give it more --epochs, --price-rate or "
        "--gate-lr[/]"
    )
    return True
