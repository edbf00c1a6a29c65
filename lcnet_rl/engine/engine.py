"""The engine: an LCNet for inference that does not compute what its decisions drop.

The same four calls as the model's, the same logits up to rounding, but ``advance`` runs a block for the images that
keep it, and only with the filters they keep: images that keep the same groups go through two small convolutions
together. Where this machine is faster computing more (few images, narrow layers, gates), it does, once ``tune`` has
timed it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl.backbones import pool
from lcnet_rl.decisions import threshold_logit
from lcnet_rl.engine.crossover import Crossover, measure
from lcnet_rl.engine.fold import folded, set_type
from lcnet_rl.engine.fused import ConvReLU, FusedBlock, fuse
from lcnet_rl.engine.gates import BlockGates
from lcnet_rl.engine.packed import Chunk, PackedBlock, as_rows, count, take
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Decider, Observation
from lcnet_rl.state import State

Bits = NDArray[np.float32]
"""An action (B, action_size) in NumPy, which takes less time than PyTorch over numbers as few as these."""
MOST_GROUPS = 6
"""With more filter groups a block (as with ``groups=0``), hardly two images keep the same ones: then all filters run,
masked, for the images that keep the block, and the difference is counted as excess."""


@dataclass(frozen=True)
class Plan:
    """How a batch goes through a block."""

    chunks: list[Chunk]
    rows: list[Tensor | slice]
    """Each chunk's images: their numbers, or a slice where all images run alike."""
    skipped: Tensor
    """The numbers of the images in no chunk."""


def check_trained(model: object) -> None:
    """Refuse what is no network with its gates and BatchNorms.

    Raises:
        UserError: for an engine, whose weights are laid out already, and anything that is no ``LCNet``.
    """
    if isinstance(model, Engine):
        raise UserError("an engine's weights are laid out already: give the trained network that it was built with")
    if not isinstance(model, LCNet):
        raise UserError(f"an LCNet is wanted (as load_model gives, or LCNet(backbone)), not a {type(model).__name__}")


class Engine(LCNet):
    """Inference with real skipping, for any batch size, on CPU or CUDA.

    It cannot be trained, and its weights, type and device are final: they are laid out for the machine as it runs.
    """

    def __init__(self, model: LCNet, dtype: torch.dtype = torch.float32) -> None:
        """Build an engine with a copy of ``model``'s weights, on the same device.

        Args:
            model: the trained network.
            dtype: of the convolutions: float32 or bfloat16. Gates and head always compute in float32.

        Raises:
            UserError: for another dtype, an engine instead of a trained network, or anything that is no ``LCNet``.
        """
        check_trained(model)
        if dtype not in (torch.float32, torch.bfloat16):
            raise UserError(f"the engine computes in float32 or bfloat16, not {dtype}")
        super().__init__(folded(model.backbone), **model.spec.options)
        self.take_gates(model)
        self.to(model.price.device).eval().requires_grad_(False)
        self._fold_standardizers()
        decided = range(0 if self.policy else self.depth)
        self.block_gates = [BlockGates(self.l_net(t), self.c_net(t)) for t in decided]
        self.dtype = dtype
        set_type(self.backbone, dtype)
        fuse(self.backbone)
        grouped = self.decisions.has_c_net and max(self.decisions.group_counts) <= MOST_GROUPS
        self.packed = [
            PackedBlock(block, self.decisions.group_counts[t] if grouped else 1, size)
            for t, (block, size) in enumerate(zip(self.backbone.own_blocks, self.backbone.sizes()[:-1], strict=True))
        ]
        self.crossover: Crossover | None = None
        self._observed: tuple[State, Observation] | None = None
        self._read: tuple[Observation, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its weights, with the copies for sets of groups and for the machine that it has made so far."""
        stored = sum(tensor.nbytes for tensor in self.state_dict().values())
        of_blocks = sum(packed.nbytes for packed in self.packed) + sum(gates.nbytes for gates in self.block_gates)
        others = (part.copied for part in self.modules() if isinstance(part, ConvReLU | FusedBlock))
        return stored + of_blocks + sum(others)

    def train(self, mode: bool = True) -> Engine:
        """Stay in eval mode.

        Raises:
            UserError: when asked to train.
        """
        if mode:
            raise UserError("an engine cannot be trained: train the model, and build a new engine")
        super().train(False)
        return self

    def shift_logits(self, amount: float) -> None:
        """Leave the gates alone, whose weights are laid out already.

        Raises:
            UserError: always.
        """
        raise UserError("an engine's decisions cannot be shifted: shift the model's, and build a new engine")

    @torch.no_grad()
    def tune(self, batch: int) -> None:
        """Time this machine's blocks at up to ``batch`` images, and from now on compute dropped parts where faster.

        Raises:
            UserError: for less than one image.
        """
        if batch < 1:
            raise UserError(f"tune for batches of at least one image, got {batch}")
        inputs, generator = [], torch.Generator(self.price.device).manual_seed(0)
        for packed, size in zip(self.packed, self.backbone.sizes()[:-1], strict=True):
            x = torch.randn(batch, packed.block.in_channels, size, size, generator=generator, device=generator.device)
            inputs.append(x.to(self.dtype, memory_format=torch.channels_last))
        self.crossover = measure(self.packed, inputs)
        for gates in self.block_gates:
            gates.tune(batch)

    @torch.no_grad()
    def begin(self, images: Tensor, price: float | Tensor | None = None) -> State:
        """Run the stem, as ``LCNet.begin``."""
        return super().begin(images, price)

    @torch.no_grad()
    def observe(self, state: State) -> Observation:
        """As ``LCNet.observe``; a probe runs at most once, however often the same state is looked at."""
        known = self._observed  # read once: another thread may put its own there at any time
        if known is None or known[0] is not state:
            self._observed = known = state, super().observe(state)
        return known[1]

    @torch.no_grad()
    def advance(self, state: State, action: Tensor) -> State:
        """Run the next block for the images and filters that are kept: ``LCNet.advance`` without the waste.

        Args:
            state: before the block.
            action: (B, action_size), 0 or 1.

        Raises:
            UserError: for an action of another shape, after the last block, and for numbers between 0 and 1: a
                mean-field pass needs the model.
        """
        return self._advance(state, action, in_place=False)

    @torch.no_grad()
    def consume(self, state: State, action: Tensor) -> State:
        """As ``advance``, writing over the state's features: those of images that skip a block stay where they are."""
        return self._advance(state, action, in_place=True)

    def _advance(self, state: State, action: Tensor, in_place: bool) -> State:
        t, action = state.block, action.float()
        self.decisions.check_action(action, t, len(state.spent))
        bits = action.cpu().numpy()
        if not ((bits == 0) | (bits == 1)).all():
            raise UserError("an engine's action holds zeros and ones only")
        scale, filter_scale = self._scales(self.observe(state), action)
        if t >= len(self.packed):
            return self.ask_network(state, action, action[:, 0], action[:, 0] * scale)
        groups = self._groups_kept(bits, t)
        # A plan may run images that keep nothing with all the others.
        scale = scale * self._here(np.asarray(groups.any(1)))
        plan = self._plan(groups, t)
        x, pooled = self._run(state, plan, filter_scale, scale, in_place)
        ran = sum(chunk.images * self.packed[t].filters(chunk.groups) for chunk in plan.chunks)
        cost = self.costs.blocks[t]
        kept = int(groups.sum()) * (cost.filters // groups.shape[1])
        excess = (ran - kept) * cost.filter
        if self.decisions.has_l_net and self.decisions.has_c_net and self.block_gates[t].together:
            excess += int((bits[:, 0] == 0).sum()) * cost.if_kept
        return self.after(state, action, x, pooled, excess)

    @torch.no_grad()
    def classify(self, state: State) -> Tensor:
        """As ``LCNet.classify``; and what was remembered of the images, features and all, is let go."""
        self._observed = self._read = None
        for gates in self.block_gates:
            gates.forget()
        return super().classify(state)

    def greedy(self, threshold: float = 0.5) -> Decider:
        """As ``LCNet.greedy``, but C-Net may be asked only about the images whose L-Net keeps the block."""
        if self.policy:
            return super().greedy(threshold)
        threshold_logit(threshold)

        def decide(observation: Observation) -> Tensor:
            t = observation.block
            bits = self.block_gates[t].decide(self._gate_input(observation), self.cut(t, threshold))
            return F.pad(bits, (0, self.action_size - bits.shape[1]))

        return decide

    def _gate_input(self, observation: Observation) -> Tensor:
        """What the gates read, one tensor however often it is asked for, by which they know their answer again."""
        known = self._read  # as in ``observe``
        if known is None or known[0] is not observation:
            self._read = known = observation, self._standardized(observation.block, observation.gate_input)
        return known[1]

    def _standardized(self, block: int, features: Tensor) -> Tensor:
        """The gates' weights have the standardising in them already; a range's price is left to scale."""
        return features if self.spec.prices is None else super()._standardized(block, features)

    def _fold_standardizers(self) -> None:
        for t in range(self.depth):
            for gate in self.gates_of(t):
                for layer in (gate.keep, gate.scale):
                    weight, bias = self.standardizer(t).folded(layer)
                    layer.weight.copy_(weight)
                    layer.bias.copy_(bias)
            self.standardizers[t] = nn.Identity()

    def _scales(self, observation: Observation, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """L-Net's (B,), ones without one, and C-Net's (B, filters), 0 for dropped filters, or None without one."""
        t, scale, filter_scale = observation.block, None, None
        if not self.policy:
            scale, filter_scale = self.block_gates[t].scales(self._gate_input(observation), action[:, 0])
        if filter_scale is not None:
            groups = action[:, self.decisions.group_bits(t), None]
            filter_scale = (filter_scale.unflatten(1, (groups.shape[1], -1)) * groups).flatten(1)
        return action.new_ones(len(action)) if scale is None else scale, filter_scale

    def _groups_kept(self, bits: Bits, block: int) -> NDArray[np.int64]:
        """Which groups run for each image, 1 or 0: (B, groups), or (B, 1) for a block that runs whole or not at all."""
        keep = bits[:, : self.decisions.first_group].all(1, keepdims=True)
        groups = bits[:, self.decisions.group_bits(block)] if self.decisions.has_c_net else np.ones_like(keep)
        return (keep * groups).astype(np.int64)

    def _plan(self, groups: NDArray[np.int64], block: int) -> Plan:
        """What to run in a block where images keep ``groups`` (B, groups), and for which images each."""
        packed = self.packed[block]
        # Each image's set of groups, as the bits of a number: 0 is a skipped block.
        kept = groups.max(1) if packed.groups == 1 else (groups << np.arange(packed.groups)).sum(1)
        order, most = kept.argsort(), packed.most
        chunks = [Chunk(kind, len(list(same))) for kind, same in itertools.groupby(kept[order].tolist()) if kind]
        if self.crossover is not None:
            chunks = self.crossover.plan(block, chunks, len(kept))
        chunks = [part for chunk in chunks for part in chunk.split(most)]
        if all(chunk.groups == packed.all for chunk in chunks) and count(chunks) == len(kept):
            starts = range(0, len(kept), most)
            return Plan(chunks, [slice(start, start + most) for start in starts], self._here(order[:0]))
        # Images that skip the block come first in the order, so what runs is always its end.
        skipped, running = self._here(order).split([len(order) - count(chunks), count(chunks)])
        return Plan(chunks, list(running.split([chunk.images for chunk in chunks])), skipped)

    def _here(self, numbers: NDArray[Any]) -> Tensor:
        """NumPy's numbers on the engine's device."""
        return torch.from_numpy(numbers).to(self.price.device)

    def _run(
        self, state: State, plan: Plan, filter_scale: Tensor | None, scale: Tensor, in_place: bool
    ) -> tuple[Tensor, Tensor]:
        """The next block's output (B, C_out, H', W'): chunk by chunk where it runs, the shortcut's ReLU elsewhere.

        Args:
            state: before the block.
            plan: what to run.
            filter_scale: (B, filters), 0 where dropped, or None for ones.
            scale: L-Net's (B,), 0 where dropped.
            in_place: whether the state's features may be written over.

        Returns:
            The output, and its global average (B, C_out).
        """
        packed, x = self.packed[state.block], state.features.contiguous(memory_format=torch.channels_last)
        block = packed.block
        shortcut = block.shortcut(x).contiguous(memory_format=torch.channels_last)
        # A block's input is a ReLU's output, so an identity needs no further one.
        unchanged = shortcut is x
        out = torch.empty_like(x) if unchanged and not in_place else shortcut
        if out is not x:
            skipped = take(shortcut, plan.skipped)
            as_rows(out)[plan.skipped] = as_rows(skipped if unchanged else skipped.relu_())
        # What is averaged here is still in the cache; of images that skip the block, the average is known.
        known = unchanged and isinstance(block.exit, nn.Identity)
        pooled = state.pooled.clone() if known else None
        for chunk, here in zip(plan.chunks, plan.rows, strict=True):
            scales = None if filter_scale is None else filter_scale[here]
            part = take(x, here)
            beside = part if unchanged else take(shortcut, here)
            if isinstance(here, slice):
                done = packed.run(part, beside, chunk.groups, scales, scale[here], out[here])
            else:
                done = packed.run(part, beside, chunk.groups, scales, scale[here], out=beside)
                as_rows(out)[here] = as_rows(done)
            if pooled is not None:
                pooled[here] = pool(done)
        out = block.exit(out)
        return out, pool(out) if pooled is None else pooled
