"""LCNet: a residual backbone with gates, and inference as a decision process in four calls.

    state  = model.begin(images)
    for _ in range(model.depth):
        observation = model.observe(state)       # what the policy may see
        state = model.advance(state, action)     # run or skip one block for every image of the batch
    logits = model.classify(state)

Environments, agents and evaluation all use these four (LC-Net: arXiv 2007.15151). ``advance`` here is the masked one:
it computes every block for all images and zeroes what was dropped, which is what training needs and saves no time. Only
networks behind the first one see just the images that keep them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl.backbones import IMAGE_SIZE, Backbone, pool, scale_channels
from lcnet_rl.decisions import Decisions, threshold_logit
from lcnet_rl.device import no_autocast
from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.gates import PRICE_REACH, CNet, Gate, LNet, Probe, Standardize
from lcnet_rl.macs import cost_table, linear_macs
from lcnet_rl.observation import Observation
from lcnet_rl.policies import LAYER_POLICIES, PolicyName
from lcnet_rl.rewards.price import PriceRange, prices_of
from lcnet_rl.spec import DEFAULT_GROUPS, Decides, ModelSpec
from lcnet_rl.state import Outcome, State


class LCNet(Decisions):
    """A backbone whose blocks and filters are kept or dropped, image by image.

    An action is a row of ``action_size`` numbers, 1 = keep: L-Net's bit (unless ``decides="channels"``), then C-Net's
    bits, one a group (unless ``decides="layers"``). With ``groups=0`` the row is as long as the widest block needs, and
    narrower blocks ignore the rest. Each network behind the first one counts as one more block, with L-Net's bit only.
    """

    price: Tensor

    def __init__(
        self,
        backbone: Backbone,
        decides: Decides = "both",
        groups: int = DEFAULT_GROUPS,
        keep_bias: float = 2.0,
        confidence: bool = True,
        prices: PriceRange | None = None,
        policy: PolicyName = "lc",
    ) -> None:
        """Put gates on ``backbone`` (which is used, not copied).

        Args:
            backbone: a network of ``create_backbone`` or ``load_backbone``.
            decides: which decisions there are.
            groups: filter groups a block; 0 for every filter by itself. Ignored with ``decides="layers"``.
            keep_bias: initial keep logit of every gate; positive starts open.
            confidence: whether the gates read the probes' confidence. Probes exist and are trained in any case.
            prices: what the policy is for; where that is a range, the gates read the price on its scale.
            policy: what decides. A rival's reads the pooled features only, and has no scales.

        Raises:
            UserError: for what is no ``Backbone``, an unknown ``decides`` or ``policy``, groups that do not divide a
                block's filters, a rival's policy for several networks, prices, more than layers, or with confidence;
                or several without L-Net.
        """
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise UserError(
                f"gates go on a network of create_backbone or load_backbone, not on {type(backbone).__name__}"
            )
        if decides not in get_args(Decides):
            raise unknown_name("decides", decides, get_args(Decides))
        if policy not in get_args(PolicyName):
            raise unknown_name("policy", policy, get_args(PolicyName))
        blocks = [backbone.block(t) for t in range(len(backbone.blocks))]
        for filters in (block.filters for block in blocks if decides != "layers"):
            if groups < 0 or (groups and filters % groups):
                raise UserError(f"groups must divide {filters} filters, or be 0, got {groups}; or use --decides layers")
        several = None if prices is None or prices.is_one else prices
        if policy != "lc" and (decides != "layers" or confidence or several):
            raise UserError(f"{policy} decides layers only, without confidence (--no-confidence), at a single price")
        behind = backbone.networks[1:]
        if behind and (decides == "channels" or policy != "lc"):
            raise UserError("L-Net decides about further networks: use --decides both or layers, and no rival's policy")
        self.spec = ModelSpec(backbone.spec, decides, groups, confidence, several, policy)
        # Set while a pass in train mode must not count towards the running statistics of the gates' inputs.
        self.statistics_kept = False
        self.backbone = backbone
        self.depth = len(blocks) + len(behind)
        seen = accumulate(network.channels for network in backbone.networks[:-1])
        self.input_channels = (*(block.in_channels for block in blocks), *seen)
        self.filter_counts = (*(block.filters for block in blocks), *[1] * len(behind))
        self.group_counts = (*(groups or block.filters for block in blocks), *[0] * len(behind))
        self.has_l_net, self.has_c_net = decides != "channels", decides != "layers"
        self.has_confidence = confidence
        self.action_size = int(self.has_l_net) + (max(self.group_counts) if self.has_c_net else 0)
        self.classes = backbone.spec.classes
        self.probes = nn.ModuleList(Probe(channels, self.classes) for channels in self.input_channels)
        extras = 2 + (Probe.measures if confidence else 0)
        # The price is the one input that training sets: it is left as it is, or scaled by the range it comes from.
        self.standardizers = nn.ModuleList(Standardize(channels + extras - 1) for channels in self.input_channels)
        self.policy = None if policy == "lc" else LAYER_POLICIES[policy](backbone, keep_bias)
        self.l_nets = nn.ModuleList(
            LNet(channels + extras, keep_bias)
            for channels in self.input_channels
            if self.has_l_net and self.policy is None
        )
        self.c_nets = nn.ModuleList(
            CNet(block.in_channels + extras, count, block.filters, keep_bias)
            for block, count in zip(blocks, self.group_counts[: len(blocks)], strict=True)
            if self.has_c_net
        )
        for t in range(len(blocks), self.depth):  # what the networks before know is what the head reads of them
            cast(Probe, self.probes[t]).start_as(backbone.head)
        rival, billed = self.policy, [self.l_nets, *([self.probes] if confidence else [])]
        always = [
            sum(linear_macs(gates[t : t + 1]) for gates in billed) + (rival.macs(t) if rival else 0)
            for t in range(self.depth)
        ]
        if_kept = [linear_macs(self.c_nets[t : t + 1]) for t in range(self.depth)]
        table = cost_table(backbone, always, if_kept, rival.start_macs if rival else 0)
        self.costs = replace(table, skips_blocks=self.has_l_net)
        self.register_buffer("price", torch.zeros(()))
        self.bits = tuple(int(self.has_l_net) + count * self.has_c_net for count in self.group_counts)
        mask = torch.arange(self.action_size) < torch.tensor(self.bits)[:, None]
        self.register_buffer("action_mask", mask, persistent=False)

    def begin(self, images: Tensor, price: float | Tensor | None = None) -> State:
        """Run the stem.

        Args:
            images: uint8, (B, 3, 32, 32).
            price: reward lost by spending the dense MACs once, a number or (B,); None is the price trained at.

        Raises:
            UserError: when the images have another type or shape, or the number is no price.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise UserError(f"images must be uint8 (B, 3, 32, 32), got {images.dtype} {tuple(images.shape)}")
        features = self.backbone.stem(images)
        spent = images.new_full((len(images),), self.costs.stem + self.costs.start, dtype=torch.float64)
        prices = prices_of(self.price if price is None else price, len(images), images.device)
        memory = self.policy.begin(images) if self.policy else None
        later = images if self.backbone.second else None
        return State(features, pool(features), 0, spent, prices, memory, later)

    def observe(self, state: State) -> Observation:
        """What the policy may see before the next block. The confidence comes from the block's probe."""
        return Observation(
            pooled=state.pooled.detach(),
            spent=(state.spent.detach() / self.costs.dense).float(),
            price=state.price,
            block=state.block,
            probe=cast(Probe, self.probes[state.block]),
            has_confidence=self.has_confidence,
            policy=self.policy,
            memory=state.memory,
        )

    def policy_logits(self, observation: Observation) -> Tensor:
        """The policy: Bernoulli logits of the keep decisions, (B, action_size); 0 for bits that the block lacks."""
        if self.policy:
            return observation.decided[0]
        return self.keep_logits(observation.block, observation.gate_input)

    def keep_logits(self, block: int, features: Tensor) -> Tensor:
        """The same of L-Net and C-Net, from a gate input (standardised here).

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
        parts = []
        if self.has_l_net:
            parts.append(self._l_net(block).logits(features))
        if self.decides_filters(block):
            parts.append(self._c_net(block).logits(features))
        logits = torch.cat(parts, 1)
        return F.pad(logits, (0, self.action_size - logits.shape[1]))

    def advance(self, state: State, action: Tensor) -> State:
        """Run or skip the next block for every image; masked, so all of it is computed whatever is kept.

        ``x' = ReLU(shortcut(x) + l * S_L * F(x; m * S_C))``; keeping no filter counts as ``l = 0``.

        Args:
            state: before the block.
            action: (B, action_size), 1 = keep; numbers between 0 and 1 give a mean-field pass, with gradients to them.

        Raises:
            UserError: for an action of another shape, and after the last block.
        """
        t = state.block
        self.check_action(action, t, len(state.spent))
        keep, filters = self.split(action, t)
        raw = self.observe(state).gate_input
        if self.training and torch.is_grad_enabled() and not self.statistics_kept:
            cast(Standardize, self.standardizers[t]).update(raw[:, :-1])
        features = self._standardized(t, raw)
        scale = keep * (filters.detach().amax(1) > 0)
        if self.l_nets:
            scale = scale * self._l_net(t).scales(features)[:, 0]
        if t >= len(self.backbone.blocks):
            return self.ask_network(state, action, keep, scale)
        filter_scale = filters * self._c_net(t).scales(features) if self.has_c_net else None
        block = self.backbone.block(t)
        residual = scale_channels(block.residual(state.features, filter_scale), scale[:, None])
        x = block.exit(F.relu(block.shortcut(state.features) + residual))
        return self.after(state, action, x, pool(x))

    def consume(self, state: State, action: Tensor) -> State:
        """``advance`` from a state that nobody looks at any more."""
        return self.advance(state, action)

    def ask_network(self, state: State, action: Tensor, keep: Tensor, scale: Tensor) -> State:
        """Let the next network behind the first one see the images that keep it, in training too.

        Its pooled features (B, C_2), times L-Net's scale and 0 where it does not run, join those of the ones before.

        Args:
            state: before it.
            action: (B, action_size).
            keep: L-Net's bit (B,); in a mean-field pass a number between 0 and 1, with gradients to it.
            scale: the same times L-Net's scale.
        """
        network = self.backbone.networks[1 + state.block - len(self.backbone.blocks)]
        images, rows = state.images, keep.detach().nonzero()[:, 0]
        assert images is not None
        seen = state.pooled.new_zeros(len(images), network.channels)
        if len(rows):
            seen = seen.index_copy(0, rows, network.features(images[rows])) * scale[:, None]
        return self.after(state, action, state.features, torch.cat((state.pooled, seen), 1))

    def after(self, state: State, action: Tensor, features: Tensor, pooled: Tensor, excess: int = 0) -> State:
        """The state after the block of ``state``, from what came out of it and ``action`` (B, action_size)."""
        t, total = state.block, state.excess + excess
        spent = state.spent + self.bill(action, t)
        return State(features, pooled, t + 1, spent, state.price, self.remember(state), state.images, total)

    def remember(self, state: State) -> Tensor | None:
        """What a rival's policy notes as it decides about the next block, (B, M); None for L-Net and C-Net."""
        return self.observe(state).decided[1] if self.policy else None

    def classify(self, state: State) -> Tensor:
        """Logits (B, classes), float32, once every block is done."""
        with no_autocast(state.pooled.device):
            return self.backbone.head(state.pooled)

    def total_macs(self, state: State) -> Tensor:
        """The bill (B,) of a finished state: what was spent, and the head."""
        return state.spent + self.costs.head

    def run(
        self, images: Tensor, decide: Callable[[Observation], Tensor], price: float | Tensor | None = None
    ) -> Outcome:
        """Classify a batch, asking ``decide`` for an action (B, action_size) before every block."""
        state = self.begin(images, price)
        actions = []
        for _ in range(self.depth):
            action = decide(self.observe(state))
            actions.append(action)
            state = self.consume(state, action)
        return Outcome(self.classify(state), torch.stack(actions), self.total_macs(state), state.excess)

    def greedy(self, threshold: float = 0.5) -> Callable[[Observation], Tensor]:
        """The trained policy without noise: keep iff its probability exceeds ``threshold``.

        Of several networks it is that of the last one's decision, and 1/2 that of all others: they cost little beside
        it, and without them nothing is known to decide about it by.
        """

        def decide(observation: Observation) -> Tensor:
            return (self.policy_logits(observation) > self.cut(observation.block, threshold)).float()

        return decide

    def keep_everything(self, observation: Observation) -> Tensor:
        """All ones (B, action_size): the whole backbone, with its scales."""
        return torch.ones(observation.pooled.shape[0], self.action_size, device=observation.pooled.device)

    def train(self, mode: bool = True) -> LCNet:
        """As in PyTorch, but BatchNorms of networks behind the first keep statistics of all images, not of a part."""
        super().train(mode)
        if self.backbone.second:
            self.backbone.second.eval()
        return self

    def norms(self) -> list[nn.BatchNorm2d]:
        """The BatchNorms whose statistics depend on the decisions: those of the first network."""
        parts = (self.backbone.stem, self.backbone.blocks)
        return [module for part in parts for module in part.modules() if isinstance(module, nn.BatchNorm2d)]

    def policy_parameters(self) -> list[nn.Parameter]:
        """What policy gradients train: the keep layers of the gates, or a rival's policy."""
        if self.policy:
            return list(self.policy.parameters())
        return [p for gate in self.gates() for p in gate.keep.parameters()]

    @torch.no_grad()
    def shift_logits(self, amount: float) -> None:
        """Add ``amount`` to all keep logits that a threshold is for."""
        if self.policy:
            self.policy.shift(amount)
        for gate in [self._l_net(-1)] if self.backbone.second else self.gates():
            gate.keep.bias.add_(amount)

    def cut(self, block: int, threshold: float) -> float:
        """The logit that a block's must exceed where the network's ``threshold`` is that, in (0, 1); see ``greedy``."""
        moves = not self.backbone.second or block == self.depth - 1
        return threshold_logit(threshold) if moves else 0.0

    def scale_parameters(self) -> list[nn.Parameter]:
        """The scale layers of the gates, which back-propagation trains."""
        return [p for gate in self.gates() for p in gate.scale.parameters()]

    def _standardized(self, block: int, features: Tensor) -> Tensor:
        price = features[:, -1:]
        if self.spec.prices is not None:
            price = PRICE_REACH * self.spec.prices.position(price)
        return torch.cat((self.standardizers[block](features[:, :-1]), price), 1)

    def gates(self) -> list[Gate]:
        """All L-Nets, then all C-Nets, in the order of the blocks."""
        return [cast(Gate, gate) for gate in (*self.l_nets, *self.c_nets)]

    def _l_net(self, block: int) -> LNet:
        return cast(LNet, self.l_nets[block])

    def _c_net(self, block: int) -> CNet:
        return cast(CNet, self.c_nets[block])
