"""Static pruning, the line that dynamic skipping has to beat: the same filters dropped for all images.

Torch-Pruning does it (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023): filters of the blocks' first
convolutions, of all blocks together, in the order of their group's squared L2 norm relative to the block's mean, which
counts BatchNorm and the second convolution's inputs too. The residual stream stays as wide as it is, as it does where
C-Net drops filters.
"""

from __future__ import annotations

import copy

import torch
import torch_pruning
from torch import nn

from lcnet_rl.backbones import IMAGE_SIZE, Backbone, create_backbone
from lcnet_rl.errors import UserError
from lcnet_rl.macs import dense_macs
from lcnet_rl.progress import Progress

STEPS = 100
"""Filters are ranked anew after every hundredth of them."""
MOST = 0.9
"""Largest share of a block's filters that is dropped."""


def prune(backbone: Backbone, share: float, multiple: int = 1) -> Backbone:
    """A narrower copy of ``backbone`` that costs at most ``share`` of its MACs.

    Args:
        backbone: trained; it is not changed.
        share: of the dense MACs, in (0, 1].
        multiple: every block is left with a multiple of so many filters, which as many groups of C-Net can then share.

    Raises:
        UserError: for a share that is not reached with as few filters as may be left (a tenth, and one multiple), a
            multiple that does not divide the filters of all blocks, or a backbone with networks behind it.
    """
    if backbone.second:
        raise UserError("prune a network before another one is put behind it")
    if not 0 < share <= 1:
        raise UserError(f"prune to a share of the dense MACs in (0, 1], got {share}")
    counts = [block.filters for block in backbone.own_blocks]
    if multiple < 1 or any(count % multiple for count in counts):
        raise UserError(f"blocks have {counts} filters, which are no multiples of {multiple}")
    # A block loses a whole multiple for the first filter of it, so one is taken at a time.
    steps = STEPS if multiple == 1 else sum(counts)
    narrow, budget = copy.deepcopy(backbone).cpu(), share * dense_macs(backbone)
    spec = narrow.spec.name, narrow.spec.classes, narrow.spec.width
    pruned = {id(block.conv1) for block in narrow.own_blocks}
    others = [m for m in narrow.modules() if isinstance(m, nn.Conv2d | nn.Linear) and id(m) not in pruned]
    pruner = torch_pruning.pruner.BasePruner(
        narrow,
        torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=MOST,
        max_pruning_ratio=MOST,
        round_to=None if multiple == 1 else multiple,
        iterative_steps=steps,
        ignored_layers=others,
    )
    with Progress("pruning", steps) as bar:
        for step in range(steps + 1):
            if step:
                pruner.step()
                bar.advance()
            network = (*spec, tuple(block.conv1.out_channels for block in narrow.own_blocks))
            with torch.device("meta"):
                cost = dense_macs(create_backbone(*network))
            if cost <= budget:
                result = create_backbone(*network)
                result.load_state_dict(narrow.state_dict())
                return result
    least = cost / dense_macs(backbone)
    raise UserError(
        f"cannot prune to {share}: with the fewest filters that may be left it costs {least:.3f} of its MACs"
    )
