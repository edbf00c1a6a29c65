"""What an LCNet is made of: enough to build it again, and stored with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lcnet_rl.backbones import Backbone, BackboneSpec
from lcnet_rl.errors import UserError, unknown_name
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

    @property
    def options(self) -> dict[str, Any]:
        """All but the backbone, as an ``LCNet`` takes them by keyword."""
        return {name: value for name, value in vars(self).items() if name != "backbone"}

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        decides: Decides,
        groups: int,
        confidence: bool,
        prices: PriceRange | None,
        policy: PolicyName,
    ) -> ModelSpec:
        """The spec of gates on ``backbone``; the arguments are those of an ``LCNet``.

        Raises:
            UserError: for what is no ``Backbone``, an unknown ``decides`` or ``policy``, groups that do not divide a
                block's filters, a rival's policy with several networks, a range of prices, filter decisions or
                confidence, BlockDrop's with a single block; or several networks without an L-Net.
        """
        if not isinstance(backbone, Backbone):
            raise UserError(
                f"gates go on a network of create_backbone or load_backbone, not on {type(backbone).__name__}"
            )
        if decides not in get_args(Decides):
            raise unknown_name("decides", decides, get_args(Decides))
        if policy not in get_args(PolicyName):
            raise unknown_name("policy", policy, get_args(PolicyName))
        for filters in (block.filters for block in backbone.own_blocks if decides != "layers"):
            if groups < 0 or (groups and filters % groups):
                hint = "or decide about layers only (--decides layers; of environments LayerSkip)"
                if backbone.spec.filters is not None and groups > 1:
                    hint += f", or prune anew with lcnet-rl pretrain --prune-multiple {groups}"
                raise UserError(f"groups must divide {filters} filters, or be 0, got {groups}; {hint}")
        several = None if prices is None or prices.is_one else prices
        if policy != "lc" and (decides != "layers" or confidence or several):
            raise UserError(f"{policy} decides layers only, without confidence (--no-confidence), at a single price")
        if policy == "blockdrop" and len(backbone.blocks) < 2:
            raise UserError(f"blockdrop chooses blocks, and {backbone.spec.title} has one only: use another --algo")
        if backbone.second and (decides == "channels" or policy != "lc"):
            raise UserError("L-Net decides about further networks: use --decides both or layers, and no rival's policy")
        return cls(backbone.spec, decides, groups, confidence, several, policy)
