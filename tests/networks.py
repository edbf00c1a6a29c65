"""Networks and images in which nothing is neutral, for tests of inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lcnet_rl.backbones import BackboneSpec, create_backbone
from lcnet_rl.gates import Standardize
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides

BEHIND = BackboneSpec("resnet8", 10, 8, second=BackboneSpec("resnet11-pool", 10, 8, mirrored=True))
"""Two networks behind another one, the last of which sees mirror images too."""


def lively(
    name: str = "resnet8",
    decides: Decides = "both",
    groups: int = 4,
    width: int | None = 8,
    confidence: bool = True,
    prices: PriceRange | None = None,
    filters: tuple[int, ...] | None = None,
    second: str | BackboneSpec | None = None,
    classes: int = 10,
) -> LCNet:
    """A model in which nothing is neutral: all statistics, gates and scales differ from their start.

    ``second`` names the backbone of a second network, of the same width, or says all of it.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        behind = BackboneSpec(second, classes, width or 8) if isinstance(second, str) else second
        backbone = create_backbone(name, classes, width, filters, behind)
        model = LCNet(backbone, decides, groups, confidence=confidence, prices=prices).eval()
    for gate in model.gates():
        for parameter in gate.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        gate.keep.weight.data *= 10
        gate.keep.bias.data -= gate.keep.weight.data.sum(1) / 4  # near the middle of what the weights add
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = 0.2 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
            module.weight.data = 0.5 + torch.rand(module.num_features, generator=generator)
            module.bias.data = 0.2 * torch.randn(module.num_features, generator=generator)
        if isinstance(module, Standardize):
            module.mean = 0.1 * torch.randn(module.mean.shape, generator=generator)
            module.var = 0.5 + torch.rand(module.var.shape, generator=generator)
    return model


def images(count: int) -> torch.Tensor:
    """Noise of many brightnesses, so that gates see differences."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, 3, 32, 32, generator=generator) * torch.rand(count, 3, 1, 1, generator=generator)
    return (255 * pixels).to(torch.uint8)


@torch.no_grad()
def balance(model: LCNet, images: torch.Tensor) -> LCNet:
    """Shift every keep logit so that half of the images keep, block by block."""
    state, greedy = model.begin(images), model.greedy()
    for t in range(model.depth):
        observation = model.observe(state)
        middles = model.keep_logits(t, observation.gate_input).quantile(0.5, 0)[: model.decisions.bits[t]]
        gates = model.gates_of(t)
        for gate, middle in zip(gates, middles.split([gate.keep.out_features for gate in gates]), strict=True):
            gate.keep.bias -= middle
        state = model.advance(state, greedy(observation))
    return model


def force(model: LCNet, actions: torch.Tensor) -> LCNet:
    """A copy of ``model`` whose gates run and then decide ``actions`` (depth, action_size), whatever they see."""
    model = copy.deepcopy(model)
    for t, row in enumerate(actions):
        for gate, bits in ((model.l_net(t), row[:1]), (model.c_net(t), row[model.decisions.group_bits(t)])):
            if gate is not None:
                gate.keep.weight.data.zero_()
                gate.keep.bias.data.copy_(20 * (2 * bits - 1))
    return model


class Convolutions(TorchDispatchMode):
    """Notes every convolution's type and number of images, whichever operator it is, and counts ReLUs by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.types: list[torch.dtype] = []
        self.relus = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "convolution" in func.name() and "weight" not in func.name():
            self.batches.append(len(result))
            self.types.append(result.dtype)
        self.relus += "relu" in func.name() or ("clamp" in func.name() and result.ndim == 4)
        return result
