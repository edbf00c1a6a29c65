"""The dense network that training or an environment starts from: fresh, the project's own, or that of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lcnet_rl.backbones import Backbone, BackboneSpec, build, create_backbone
from lcnet_rl.pretrained import own_weights
from lcnet_rl.runs import CONFIG, START, has_agent, read_config
from lcnet_rl.weights import load_backbone


def starting_networks(init: str, dataset: str, name: str, width: int | None, classes: int | None) -> Backbone:
    """The networks that ``init`` names.

    Args:
        init: ``scratch`` (random weights), ``auto`` (what comes with the project), a file, a run folder of pretrain,
            ``akamaster``, or a run folder of train, whose networks are those that it began with.
        dataset: name of the data set, for ``auto``.
        name: the backbone.
        width: its width; None is the usual one, or what a file holds.
        classes: of the data; None takes what a file holds.

    Raises:
        UserError: when there is nothing of that name, or it is another network than the one asked for.
    """
    if init == "scratch":
        return create_backbone(name, classes or 10, width)
    if is_agent(init):
        init = str(Path(init) / START)
    return load_backbone(own_weights(dataset, name, width) if init == "auto" else init, name, classes, width)


def with_fresh_head(backbone: Backbone, classes: int) -> Backbone:
    """A network with all of the weights of ``backbone`` but those of the head, which is for so many classes."""
    other = build(_of_classes(backbone.spec, classes))
    head = {f"head.{key}": fresh for key, fresh in other.head.state_dict().items()}
    other.load_state_dict(backbone.state_dict() | head)
    return other


def _of_classes(spec: BackboneSpec, classes: int) -> BackboneSpec:
    second = None if spec.second is None else _of_classes(spec.second, classes)
    return replace(spec, classes=classes, second=second)


def is_agent(init: str) -> bool:
    """Whether ``init`` names a run of train."""
    return (Path(init) / CONFIG).is_file() and has_agent(read_config(Path(init)))
