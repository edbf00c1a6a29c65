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

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lcnet_rl.backbones import Backbone, check_images, pool
from lcnet_rl.batchnorm import batch_norms, frozen_statistics
from lcnet_rl.decisions import threshold_logit
from lcnet_rl.device import no_autocast
from lcnet_rl.gated import Gated
from lcnet_rl.observation import Decider, Observation
from lcnet_rl.policies import PolicyName
from lcnet_rl.rewards.price import PriceRange, prices_of
from lcnet_rl.spec import DEFAULT_GROUPS, Decides, ModelSpec
from lcnet_rl.state import Outcome, State


class LCNet(Gated):
    """A backbone whose blocks and filters are kept or dropped, image by image.

    An action is a row of ``action_size`` numbers, 1 = keep: L-Net's bit (unless ``decides="channels"``), then C-Net's
    bits, one a group (unless ``decides="layers"``). With ``groups=0`` the row is as long as the widest block needs, and
    narrower blocks ignore the rest. Each network behind the first one counts as one more block, with L-Net's bit only.
    """

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
            UserError: for what ``ModelSpec.of`` refuses.
        """
        super().__init__(backbone, ModelSpec.of(backbone, decides, groups, confidence, prices, policy), keep_bias)

    def begin(self, images: Tensor, price: float | Tensor | None = None) -> State:
        """Run the stem.

        Args:
            images: uint8, (B, 3, 32, 32).
            price: reward lost by spending the dense MACs once, a number or (B,); None is the price trained at.

        Raises:
            UserError: when the images are no tensor of that type and shape, or the number is no price.
        """
        check_images(images)
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
            probe=self.probe(state.block),
            has_confidence=self.has_confidence,
            policy=self.policy,
            memory=state.memory,
        )

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
        self.decisions.check_action(action, t, len(state.spent))
        keep, filters = self.decisions.split(action, t)
        raw = self.observe(state).gate_input
        self._count_in(t, raw)
        features = self._standardized(t, raw)
        scale = keep * (filters.detach().amax(1) > 0)
        if l_net := self.l_net(t):
            scale = scale * l_net.scales(features)[:, 0]
        if t >= len(self.backbone.blocks):
            return self.ask_network(state, action, keep, scale)
        filter_scale = filters * c_net.scales(features) if (c_net := self.c_net(t)) else None
        x = self.backbone.block(t)(state.features, scale, filter_scale)
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
        return replace(
            state,
            features=features,
            pooled=pooled,
            block=state.block + 1,
            spent=state.spent + self.decisions.bill(action, state.block),
            memory=self.remember(state),
            excess=state.excess + excess,
        )

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

    def run(self, images: Tensor, decide: Decider, price: float | Tensor | None = None) -> Outcome:
        """Classify a batch, asking ``decide`` for an action (B, action_size) before every block."""
        state = self.begin(images, price)
        actions = []
        for _ in range(self.depth):
            action = decide(self.observe(state))
            actions.append(action)
            state = self.consume(state, action)
        return Outcome(self.classify(state), torch.stack(actions), self.total_macs(state), state.excess)

    def greedy(self, threshold: float = 0.5) -> Decider:
        """The trained policy without noise: keep iff its probability exceeds ``threshold``, see ``has_threshold``.

        Raises:
            UserError: for a threshold outside (0, 1).
        """
        threshold_logit(threshold)

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
        return [*batch_norms(self.backbone.stem), *batch_norms(self.backbone.blocks)]

    @contextmanager
    def statistics_frozen(self) -> Iterator[None]:
        """Passes in train mode inside use their batch's statistics, and move no running ones, the gates' neither."""
        self.counts_in = False
        try:
            with frozen_statistics(batch_norms(self)):
                yield
        finally:
            self.counts_in = True
