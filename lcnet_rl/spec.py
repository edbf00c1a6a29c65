"""What an LCNet is made of: enough to build it again, and stored with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lcnet_rl.backbones import BackboneSpec
from lcnet_rl.policies import PolicyName
from lcnet_rl.rewards.price import PriceRange

Decides = Literal["layers", "channels", "both"]
DEFAULT_GROUPS = 4


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build an LCNet again."""

    backbone: BackboneSpec
    decides: Decides = "both"
    """``layers`` (L-Net), ``channels`` (C-Net) or ``both``."""
    groups: int = DEFAULT_GROUPS
    """Filter groups a block, each kept or dropped as one; 0 decides every filter by itself."""
    confidence: bool = True
    """Whether the gates read how sure a linear probe on the pooled features is; it is billed where they do."""
    prices: PriceRange | None = None
    """The range of prices that one policy is for; None is a policy for a single price."""
    policy: PolicyName = "lc"
    """``lc`` is L-Net and C-Net; a rival's decides ``layers`` in L-Net's place."""
