"""The dense networks that come with the project."""

from __future__ import annotations

from pathlib import Path

from lcnet_rl.data import base_name
from lcnet_rl.errors import UserError
from lcnet_rl.families import BACKBONES
from lcnet_rl.provenance import ROOT
from lcnet_rl.weights import BACKBONE

REFERENCE = ROOT / "runs" / "reference"
"""Where committed runs are."""
PRETRAINED = {
    ("cifar10", "resnet20", 16): "resnet20",
    ("cifar10", "resnet56", 16): "resnet56",
    ("cifar10", "resnet18", 32): "resnet18-32",
    ("cifar10", "resnet18", 64): "resnet18",
    ("cifar10", "resnet16-late", 16): "resnet16-late-16",
    ("cifar10", "resnet16-late", 24): "resnet16-late",
    ("cifar10", "resnet14-wide", 64): "resnet14-wide",
    ("cifar10", "resnet11-pool", 16): "resnet11-pool-16",
    ("cifar10", "resnet11-pool", 24): "resnet11-pool-24",
    ("cifar10", "resnet11-pool", 32): "resnet11-pool",
    ("cifar10", "resnet11-pool", 48): "resnet11-pool-48",
    ("cifar10", "resnet11-pool", 64): "resnet11-pool-64-42",
    ("shapes", "resnet14", 8): "shapes-resnet14",
}
"""Dense backbones that come with the project, in ``REFERENCE``, by data set, backbone and width."""


def pretrained(dataset: str, name: str, width: int | None) -> Path | None:
    """The weights of a dense backbone that come with the project, or None where there are none.

    Args:
        dataset: what it was trained on.
        name: the backbone.
        width: its width; None is the usual one.
    """
    if name not in BACKBONES:
        return None
    folder = PRETRAINED.get((base_name(dataset), name, BACKBONES[name].width if width is None else width))
    path = REFERENCE / folder / BACKBONE if folder else None
    return path if path is not None and path.is_file() else None


def own_weights(dataset: str, name: str, width: int | None) -> str:
    """The file of a dense network that comes with the project.

    Raises:
        UserError: when none of that name and width does, for ``dataset``.
    """
    dataset = base_name(dataset)
    weights = pretrained(dataset, name, width)
    if weights is None:
        if not REFERENCE.is_dir():
            raise UserError(
                f"no pretrained networks in {REFERENCE}: they come with a clone of the repository, installed with "
                "pip -e; give one as init (--init), or start untrained with scratch"
            )
        widths = [known for data, of, known in PRETRAINED if (data, of) == (dataset, name)]
        there_is = f" (there is --width {', '.join(map(str, widths))})" if widths else ""
        option = "" if width is None else f" --width {width}"
        raise UserError(
            f"no pretrained {name} of that width for {dataset} comes with the project{there_is}; train one with "
            f"'lcnet-rl pretrain --dataset {dataset} --backbone {name}{option}' and give its folder as init (--init), "
            "or start untrained with scratch"
        )
    return str(weights)
