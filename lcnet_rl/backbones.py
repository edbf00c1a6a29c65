"""Residual networks for 32x32 images, as stem, blocks and head; ``lcnet_rl.families`` has their shapes.

Images go in as uint8; scaling and normalisation are the first thing a backbone does, so nobody else needs to know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import floordiv
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl.errors import UserError
from lcnet_rl.families import Family, family

IMAGE_SIZE = 32
# ImageNet's channel statistics: the public CIFAR checkpoints expect them, and BatchNorm makes others equivalent.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class PaddedShortcut(nn.Module):
    """Option A of He et al.: subsample, and pad the new channels with zeros on both sides. No parameters, no MACs."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class ConvPool(nn.Module):
    """A 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling: how a stage begins where no block halves the features."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.relu: nn.Module = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / 2, W / 2)."""
        return F.max_pool2d(self.relu(self.bn(self.conv(x))), 2)


class Stem(nn.Module):
    """Normalisation, a 3x3 convolution, BatchNorm and ReLU; then, where ``stride`` is 2, 2x2 max-pooling.

    ``exit`` leads to the first stage, where that begins with a convolution of its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.exit: nn.Module = nn.Identity()
        self.conv = nn.Conv2d(3, out_channels, 3, padding=1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.relu: nn.Module = nn.ReLU()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """What the convolution sees of uint8 images (B, 3, H, W): the same shape, with about unit variance."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, 32, 32) to features (B, C, 32 / stride, 32 / stride), an exit halves them again."""
        x = self.normalised(images).to(self.conv.weight.dtype, memory_format=torch.channels_last)
        x = self.relu(self.bn(self.conv(x)))
        return self.exit(x if self.stride == 1 else F.max_pool2d(x, self.stride))


class Block(nn.Module):
    """A basic residual block whose first convolution's filters can be scaled or dropped.

    ``F(x; g) = BN2(conv2(g * ReLU(BN1(conv1(x)))))`` (LC-Net, section 3): ``g`` multiplies after the ReLU, so a
    filter with ``g = 0`` hands zeros to the second convolution and needs no arithmetic in either.

    ``exit`` follows the block for every image, kept or not, and leads to the next stage, where that begins with a
    convolution of its own.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, projection: bool, filters: int | None = None
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.filters = out_channels if filters is None else filters
        self.conv1 = nn.Conv2d(in_channels, self.filters, 3, stride=stride, padding=1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(self.filters)
        self.conv2 = nn.Conv2d(self.filters, out_channels, 3, padding=1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(out_channels)
        self.exit: nn.Module = nn.Identity()
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif projection:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
        else:
            self.shortcut = PaddedShortcut(in_channels, out_channels, stride)

    def residual(self, x: Tensor, filter_scale: Tensor | None = None) -> Tensor:
        """The block's own work, without the shortcut.

        Args:
            x: shape (B, C_in, H, W).
            filter_scale: shape (B, filters), multiplies each filter's output after its ReLU; None means all ones.

        Returns:
            Shape (B, C_out, H / stride, W / stride).
        """
        hidden = F.relu(self.bn1(self.conv1(x)))
        if filter_scale is not None:
            hidden = scale_channels(hidden, filter_scale)
        return self.bn2(self.conv2(hidden))

    def forward(self, x: Tensor, scale: Tensor | None = None, filter_scale: Tensor | None = None) -> Tensor:
        """``ReLU(shortcut(x) + scale * F(x; filter_scale))``, and the exit: LC-Net, section 3.

        Everything is computed for all images, and counts in BatchNorm's statistics, whatever is multiplied by 0.

        Args:
            x: shape (B, C_in, H, W).
            scale: shape (B,), multiplies ``residual``; 0 leaves the shortcut alone, None means all ones.
            filter_scale: as for ``residual``.

        Returns:
            Shape (B, C_out, H / stride, W / stride), half as high and wide behind an exit that pools.
        """
        residual = self.residual(x, filter_scale)
        if scale is not None:
            residual = scale_channels(residual, scale[:, None])
        return self.exit(F.relu(self.shortcut(x) + residual))


@dataclass(frozen=True)
class BackboneSpec:
    """What it takes to build a backbone again; stored with every weights file."""

    name: str
    classes: int
    width: int
    filters: tuple[int, ...] | None = None
    """Of each block's first convolution, in a pruned network; None is as many as the block has outputs."""
    second: BackboneSpec | None = None
    """Of the network that is one more layer behind this one, if there is one: see ``lcnet_rl.second``."""
    mirrored: bool = False
    """Whether a network behind another one sees every image twice, once as its mirror image: its features are means."""

    @property
    def networks(self) -> list[BackboneSpec]:
        """This one's own, its second's, that one's second's, and so on."""
        return [self, *([] if self.second is None else self.second.networks)]

    @property
    def title(self) -> str:
        """The name, and those of the networks behind it, with their widths where these are not the usual ones."""
        return " + ".join([self.name, *(network.label for network in self.networks[1:])])

    @property
    def label(self) -> str:
        """This network's own part of ``title``, behind another one."""
        width = "" if self.width == family(self.name).width else f"-{self.width}"
        return f"{self.name}{width}" + (" (mirrored)" if self.mirrored else "")


class Backbone(nn.Module):
    """Stem, residual blocks and a linear head over globally pooled features.

    Where there is a ``second`` network, or a second one behind that, they have no heads of their own: the head reads
    the pooled features of all.
    """

    def __init__(self, spec: BackboneSpec, shape: Family) -> None:
        super().__init__()
        self.spec = spec
        self.stem = Stem(spec.width, shape.stem_stride)
        blocks: list[Block] = []
        channels = spec.width
        for stage, count in enumerate(shape.stages):
            out_channels = spec.width * shape.growth[stage]
            if shape.pooled:
                before = blocks[-1] if blocks else self.stem
                before.exit = ConvPool(channels, out_channels)
                channels = out_channels
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 and not shape.pooled else 1
                filters = None if spec.filters is None else spec.filters[len(blocks)]
                blocks.append(Block(channels, out_channels, stride, shape.projection, filters))
                channels = out_channels
        self.blocks: nn.ModuleList = nn.ModuleList(blocks)
        self.second = None if spec.second is None else Backbone(spec.second, family(spec.second.name))
        self.channels = channels
        if self.second is not None:
            self.second.head = cast(nn.Linear, nn.Identity())
        self.head: nn.Linear = nn.Linear(sum(network.channels for network in self.networks), spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        self.to(memory_format=torch.channels_last)

    @property
    def networks(self) -> list[Backbone]:
        """This one, its second, that one's second, and so on."""
        return [self, *([] if self.second is None else self.second.networks)]

    @property
    def own_blocks(self) -> list[Block]:
        """This network's blocks, from the stem on, without those of networks behind it."""
        return [cast(Block, block) for block in self.blocks]

    def block(self, index: int) -> Block:
        """One of ``own_blocks``, by its number."""
        return cast(Block, self.blocks[index])

    def sizes(self) -> list[int]:
        """Height and width of every block's input, and at last of the head's, in pixels."""
        parts: list[Stem | Block] = [self.stem, *self.own_blocks]
        strides = (part.stride * (2 if isinstance(part.exit, ConvPool) else 1) for part in parts)
        return list(accumulate(strides, floordiv, initial=IMAGE_SIZE))[1:]

    def feature_channels(self) -> list[int]:
        """Channels of the features that the stem's convolution and every block make."""
        return [self.spec.width, *(block.out_channels for block in self.own_blocks)]

    def features(self, images: Tensor, keeps: Tensor | None = None) -> Tensor:
        """Pooled features (B, C) of this network's own stem and blocks, for ``forward``'s arguments."""
        x = self.stem(torch.cat((images, images.flip(3))) if self.spec.mirrored else images)
        for index, block in enumerate(self.blocks):
            x = block(x, None if keeps is None else keeps[index])
        pooled = pool(x)
        return (pooled[: len(images)] + pooled[len(images) :]) / 2 if self.spec.mirrored else pooled

    def forward(self, images: Tensor, keeps: Tensor | None = None) -> Tensor:
        """The network without gates: uint8 images (B, 3, 32, 32) to logits (B, classes).

        With ``keeps`` (blocks, B), 1 or 0, images do without the blocks for which they have 0, for LayerDrop in
        training: what an ``LCNet`` with scales of 1 makes of the same decisions.
        """
        behind = (network.features(images) for network in self.networks[1:])
        return self.head(torch.cat((self.features(images, keeps), *behind), 1))


def check_images(images: Tensor, least: int = 0) -> None:
    """Raise UserError unless ``images`` are a uint8 tensor (B, 3, 32, 32), at least ``least`` of them."""
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a torch.Tensor, got {type(images).__name__}: use torch.from_numpy")
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[0] < least or shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        count = f"B >= {least}" if least else "B"
        right = f"uint8 ({count}, 3, {IMAGE_SIZE}, {IMAGE_SIZE})"
        raise UserError(f"images must be {right}, got {images.dtype} {shape}")


def scale_channels(features: Tensor, scale: Tensor) -> Tensor:
    """Multiply (B, C, H, W) by (B, C), image by image and channel by channel; (B, 1) scales whole images."""
    return features * scale.to(features.dtype)[:, :, None, None]


def pool(features: Tensor) -> Tensor:
    """Global average pool, (B, C, H, W) to (B, C), in float32 whatever the features' type.

    Written over the channels-last rows, so that its gradient has that layout too, as BatchNorm's fast path wants it.
    """
    return features.permute(0, 2, 3, 1).flatten(1, 2).float().mean(1)


def create_backbone(
    name: str,
    classes: int = 10,
    width: int | None = None,
    filters: tuple[int, ...] | None = None,
    second: BackboneSpec | None = None,
) -> Backbone:
    """Build a backbone with fresh weights.

    Args:
        name: a name in ``families.BACKBONES``, or ``MODULE:FAMILY``.
        classes: number of classes of the head.
        width: filters of the stem; None is the family's usual width.
        filters: of each block's first convolution, for a pruned network.
        second: of the network that is one more layer behind this one.

    Raises:
        UserError: for an unknown name, or a width, class count or filters that no such network can have.
    """
    usual = family(name).width
    return build(BackboneSpec(name, classes, usual if width is None else width, filters, second))


def build(spec: BackboneSpec) -> Backbone:
    """The backbone of a ``spec``, with fresh weights.

    Raises:
        UserError: for a name, width, class count or filters that no such network can have, networks that tell
            different numbers of classes apart, or a first one that is to see mirror images.
    """
    for network in spec.networks:
        check(network)
        if network.classes != spec.classes:
            raise UserError(f"the networks tell {spec.classes} and {network.classes} classes apart")
    if spec.mirrored:
        raise UserError("only a network behind another one sees mirror images too")
    return Backbone(spec, family(spec.name))


def check(spec: BackboneSpec) -> None:
    """Raise UserError for what ``build`` refuses of a network, whatever is behind it."""
    shape = family(spec.name)
    if spec.width < 2 or spec.width % 2:
        raise UserError(f"width must be an even number >= 2, got {spec.width}")
    if spec.classes < 2:
        raise UserError(f"a classifier needs at least 2 classes, got {spec.classes}")
    blocks, filters = sum(shape.stages), spec.filters
    if filters is not None and (len(filters) != blocks or min(filters) < 1):
        raise UserError(f"{spec.name} has {blocks} blocks of at least one filter each, got {filters}")
