"""What a run folder is of: a dense network, a pruned one, an agent or a rival; and the run that it started from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lcnet_rl.comparison.records import Group
from lcnet_rl.policies import LAYER_POLICIES
from lcnet_rl.pretrained import pretrained
from lcnet_rl.runs import CONFIG, MODEL, has_agent, read_config
from lcnet_rl.weights import BACKBONE, read_spec
from lcnet_rl.whole import was_pruned


def is_dense(run: Path) -> bool:
    """Whether a run folder is of ``pretrain``, not of ``train``."""
    return not has_agent(read_config(run))


def is_rival(run: Path) -> bool:
    """Whether a run folder is of another paper's policy."""
    return read_config(run).get("algo") in LAYER_POLICIES


def is_pruned(run: Path) -> bool:
    """Whether a run folder is of ``pretrain``, with a network that was pruned, then or before.

    Its weights tell; where they are gone, the run's settings.
    """
    if not is_dense(run):
        return False
    if (run / BACKBONE).is_file():
        return was_pruned(read_spec(run / BACKBONE))
    return read_config(run).get("prune") is not None


def origin(run: Path, option: str = "init") -> Path | None:
    """The run folder beside this one that its ``option``, one of ``ORIGINS``, names, or what that ended with.

    None where there is no such: another file of a run folder, such as ``start.safetensors``, does not stand for it.
    """
    settings = read_config(run)
    named = settings.get(option)
    if named == "auto":
        named = pretrained(settings["dataset"], settings["backbone"], settings["width"])
    path = Path(named or "")
    path = path.parent if path.name in (MODEL, BACKBONE) else path
    source = run.parent / path.name
    beside = path.parent.name == run.resolve().parent.name and path.name != run.name
    return source if beside and (source / CONFIG).is_file() else None


def is_rival_group(group: Group) -> bool:
    """Whether a group's policy is another paper's."""
    return group.first.settings.get("algo") in LAYER_POLICIES


def parted(groups: Iterable[Group]) -> tuple[list[Group], list[Group]]:
    """Our policies, and those of other papers."""
    ours: list[Group] = []
    theirs: list[Group] = []
    for group in groups:
        (theirs if is_rival_group(group) else ours).append(group)
    return ours, theirs
