"""Named shapes of residual networks, and users' own.

He's CIFAR networks (He et al., 2016, "Deep Residual Learning for Image Recognition", section 4.2: 6n + 2 layers,
16-32-64 filters, parameter-free shortcut, "option A") and ResNet-18 in the CIFAR form that the LC-Net paper plots
(3x3 stem, no max-pooling, 64-128-256-512 filters, 1x1 projection where the shape changes). ResNet-16-late is
this project's own, meant for skipping: three blocks lead quickly to 8x8 features, and most of the compute comes after
that, in four more blocks of that shape, where decisions about it can be informed. ResNet-14-wide is this project's
own too: its stem halves the features by max-pooling, and few, wide blocks of about equal cost follow. ResNet-11-pool
is made for short trainings, after cifar10-airbench (Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU",
arXiv 2404.00498, section 3.1): a stage begins with a convolution at the size of the stage before it, then max-pooling;
here one residual block follows.

A user's own is ``MODULE:FAMILY``, with the module in the working folder or installed, for example ``my_networks.py``
with

    from lcnet_rl.families import Family

    short = Family(stages=(1, 2), projection=True, width=16, growth=(1, 4))

as ``--backbone my_networks:short``. Whoever loads its weights needs the module too.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.imports import imported

MOST_HALVINGS = 5
"""From 32x32 pixels to one."""


def _is_whole(number: object) -> bool:
    """Whether it is a whole number; to Python True and False are some."""
    return isinstance(number, int) and not isinstance(number, bool)


@dataclass(frozen=True)
class Family:
    """What tells one residual network from another, whatever its width.

    Raises:
        UserError: for a network that cannot be.
    """

    stages: tuple[int, ...]
    """Blocks in each; the features are halved before every stage but the first, or before that too (``pooled``)."""
    projection: bool
    """Whether shortcuts that change the shape are convolutions; else they subsample and pad with zeros."""
    width: int
    """Filters of the stem, where no other is asked for."""
    growth: tuple[int, ...] = (1, 2, 4, 8)
    """Filters of each stage, as multiples of the stem's."""
    stem_stride: int = 1
    """2 where the stem halves the features by max-pooling."""
    pooled: bool = False
    """Whether every stage, the first too, begins with a convolution and max-pooling instead of a block that changes the
    shape."""

    def __post_init__(self) -> None:
        for name in ("stages", "growth"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple) or not all(map(_is_whole, numbers)):
                raise UserError(f"{name} must be a tuple of whole numbers, like (1, 2), got {numbers!r}")
        for name in ("projection", "pooled"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not _is_whole(self.width) or self.width < 2 or self.width % 2:
            raise UserError(f"width must be an even number >= 2, got {self.width!r}")
        growth = self.growth[: len(self.stages)]
        if not self.stages or len(growth) < len(self.stages) or min(*self.stages, *growth) < 1:
            raise UserError(f"a family needs stages of 1 block or more, and a growth of 1 or more for each; got {self}")
        if not self.projection and not self.pooled and list(growth) != sorted(growth):
            raise UserError(
                f"without projections or pooled stages a network cannot get narrower from stage to stage, got {growth}"
            )
        if self.stem_stride not in (1, 2):
            raise UserError(f"stem_stride must be 1 or 2, got {self.stem_stride}")
        if self.halvings > MOST_HALVINGS:
            raise UserError(f"images of 32 pixels can be halved {MOST_HALVINGS} times, not {self.halvings}: {self}")

    @property
    def halvings(self) -> int:
        """How often the features are halved on the way to the head."""
        return len(self.stages) - (not self.pooled) + (self.stem_stride == 2)


BACKBONES = {f"resnet{depth}": Family(((depth - 2) // 6,) * 3, False, 16) for depth in (8, 14, 20, 32, 44, 56, 110)}
BACKBONES["resnet18"] = Family((2, 2, 2, 2), True, 64)
BACKBONES["resnet16-late"] = Family((1, 1, 5), True, 24, (1, 2, 6))
BACKBONES["resnet14-wide"] = Family((2, 4), True, 64, (1, 2), stem_stride=2)
BACKBONES["resnet11-pool"] = Family((1, 1, 1), True, 32, (2, 4, 8), pooled=True)


def family(name: str) -> Family:
    """The family that is registered as ``name``, or a user's own, ``MODULE:FAMILY``.

    Raises:
        UserError: for an unknown name, a module that cannot be imported, or something in it that is no ``Family``.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier():
        raise unknown_name("backbone", name, BACKBONES)
    found = imported("backbone", module, attribute, BACKBONES)
    if not isinstance(found, Family):
        raise UserError(f"backbone {name} must be a lcnet_rl.families.Family, got {type(found).__name__}")
    return found
