"""A backbone with gates on it: what decides about its blocks and filters, by what, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl.backbones import Backbone
from lcnet_rl.decisions import Decisions, threshold_logit
from lcnet_rl.errors import UserError
from lcnet_rl.gates import PRICE_REACH, CNet, Gate, LNet, Probe, Standardize
from lcnet_rl.macs import CostTable, cost_table, linear_macs
from lcnet_rl.observation import Observation
from lcnet_rl.policies import LAYER_POLICIES
from lcnet_rl.spec import ModelSpec


class Gated(nn.Module):
    """The gates of an ``LCNet`` (L-Net and C-Net, or a rival's policy) and what they read."""

    price: Tensor
    """Reward lost by spending the dense MACs once, that the policy was trained at; no shape."""

    def __init__(self, backbone: Backbone, spec: ModelSpec, keep_bias: float) -> None:
        """Put fresh gates on ``backbone`` (which is used, not copied).

        Args:
            backbone: the networks.
            spec: theirs, and what the gates are.
            keep_bias: initial keep logit of every gate.
        """
        super().__init__()
        self.spec = spec
        # Unset while a pass in train mode must not count towards the running statistics of the gates' inputs.
        self.counts_in = True
        self.backbone = backbone
        self.classes = backbone.spec.classes
        self.has_confidence = spec.confidence
        blocks = backbone.own_blocks
        seen = accumulate(network.channels for network in backbone.networks[:-1])
        self.input_channels = (*(block.in_channels for block in blocks), *seen)
        has_l_net, has_c_net = spec.decides != "channels", spec.decides != "layers"
        groups = [spec.groups or block.filters for block in blocks] if has_c_net else [0] * len(blocks)
        self.register_buffer("price", torch.zeros(()))
        # Seeds mean what they do by the order in which these draw their weights.
        self.probes = nn.ModuleList(Probe(channels, self.classes) for channels in self.input_channels)
        extras = 2 + (Probe.measures if self.has_confidence else 0)
        # The price is the one input that training sets: it is left as it is, or scaled by the range it comes from.
        self.standardizers = nn.ModuleList(Standardize(channels + extras - 1) for channels in self.input_channels)
        self.policy = None if spec.policy == "lc" else LAYER_POLICIES[spec.policy](backbone, keep_bias)
        self.l_nets = nn.ModuleList(
            LNet(channels + extras, keep_bias) for channels in self.input_channels if has_l_net and self.policy is None
        )
        self.c_nets = nn.ModuleList(
            CNet(block.in_channels + extras, count, block.filters, keep_bias)
            for block, count in zip(blocks, groups, strict=True)
            if has_c_net
        )
        depth = len(self.input_channels)
        for t in range(len(blocks), depth):  # what the networks before know is what the head reads of them
            self.probe(t).start_as(backbone.head)
        costs = replace(self._cost_table(depth), skips_blocks=has_l_net)
        self.decisions = Decisions(costs, (*groups, *[0] * (depth - len(blocks))))

    def _cost_table(self, depth: int) -> CostTable:
        def macs(part: nn.Module | None) -> int:
            return linear_macs(part) if part else 0

        rival, always = self.policy, []
        for t in range(depth):
            probe = self.probe(t) if self.has_confidence else None
            always.append(macs(self.l_net(t)) + macs(probe) + (rival.macs(t) if rival else 0))
        if_kept = [macs(self.c_net(t)) for t in range(depth)]
        return cost_table(self.backbone, always, if_kept, rival.start_macs if rival else 0)

    @property
    def depth(self) -> int:
        """How many blocks are decided about; each network behind the first one is one more."""
        return self.decisions.depth

    @property
    def action_size(self) -> int:
        """How many numbers an action has for an image."""
        return self.decisions.action_size

    @property
    def costs(self) -> CostTable:
        """What every part costs, in MACs."""
        return self.decisions.costs

    def policy_logits(self, observation: Observation) -> Tensor:
        """The policy: Bernoulli logits of the keep decisions, (B, action_size); 0 for bits that the block lacks."""
        if self.policy:
            return observation.decided[0]
        return self.keep_logits(observation.block, observation.gate_input)

    def keep_logits(self, block: int, features: Tensor) -> Tensor:
        """Keep logits of L-Net and C-Net from their raw input, which is standardised here.

        Args:
            block: which block.
            features: an observation's ``gate_input``.

        Returns:
            (B, action_size); bits that the block does not have are 0.

        Raises:
            UserError: when the policy is a rival's, which needs more than that.
        """
        if self.policy:
            raise UserError(
                f"{self.spec.policy} decides by more than a gate's input: use reinforce's kind of policy here"
            )
        features = self._standardized(block, features)
        logits = torch.cat([gate.logits(features) for gate in self.gates_of(block)], 1)
        return F.pad(logits, (0, self.action_size - logits.shape[1]))

    def l_net(self, block: int) -> LNet | None:
        """The block's L-Net; None where only filters are decided about, or a rival's policy decides."""
        return cast(LNet, self.l_nets[block]) if self.l_nets else None

    def c_net(self, block: int) -> CNet | None:
        """The block's C-Net; None where only layers are decided about, and of a network behind the first one."""
        return cast(CNet, self.c_nets[block]) if block < len(self.c_nets) else None

    def probe(self, block: int) -> Probe:
        """The probe on the block's pooled input."""
        return cast(Probe, self.probes[block])

    def standardizer(self, block: int) -> Standardize:
        """What the input of the block's gates is standardised by."""
        return cast(Standardize, self.standardizers[block])

    def gates(self) -> list[Gate]:
        """All L-Nets, then all C-Nets, in the order of the blocks."""
        return [cast(Gate, gate) for gate in (*self.l_nets, *self.c_nets)]

    def gates_of(self, block: int) -> list[Gate]:
        """L-Net and C-Net of a block, as far as there are such."""
        return [gate for gate in (self.l_net(block), self.c_net(block)) if gate]

    def policy_parameters(self) -> list[nn.Parameter]:
        """What policy gradients train: the keep layers of the gates, or a rival's policy."""
        if self.policy:
            return list(self.policy.parameters())
        return [p for gate in self.gates() for p in gate.keep.parameters()]

    def scale_parameters(self) -> list[nn.Parameter]:
        """The scale layers of the gates, which back-propagation trains."""
        return [p for gate in self.gates() for p in gate.scale.parameters()]

    def has_threshold(self, block: int) -> bool:
        """Whether a threshold is for the decision about ``block``; of several networks it is for the last one's only.

        All others stay at 1/2 then: they cost little beside it, and without them nothing is known to decide it by.
        """
        return self.backbone.second is None or block == self.depth - 1

    def cut(self, block: int, threshold: float) -> float:
        """The keep logit that ``block`` must exceed; 0 where ``threshold``, in (0, 1), does not apply."""
        return threshold_logit(threshold) if self.has_threshold(block) else 0.0

    @torch.no_grad()
    def shift_logits(self, amount: float) -> None:
        """Add ``amount`` to all keep logits that a threshold is for."""
        if self.policy:
            self.policy.shift(amount)
        for block in filter(self.has_threshold, range(self.depth)):
            for gate in self.gates_of(block):
                gate.keep.bias.add_(amount)

    def take_gates(self, other: Gated) -> None:
        """Take over all of ``other`` but its backbone; gates of decisions that it does not have stay as they are."""
        theirs = {key: value for key, value in other.state_dict().items() if not key.startswith("backbone.")}
        self.load_state_dict({**self.state_dict(), **theirs})

    def _standardized(self, block: int, features: Tensor) -> Tensor:
        """What the gates of a block read of their input, (B, I) to the same shape."""
        price = features[:, -1:]
        if self.spec.prices is not None:
            price = PRICE_REACH * self.spec.prices.position(price)
        return torch.cat((self.standardizers[block](features[:, :-1]), price), 1)

    def _count_in(self, block: int, features: Tensor) -> None:
        """Let a training pass's gate input (B, I) move the running statistics that it is standardised by."""
        if self.training and torch.is_grad_enabled() and self.counts_in:
            self.standardizer(block).update(features[:, :-1])
