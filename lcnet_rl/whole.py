"""What a policy's network is called where nothing of it is skipped, the same on screens, in pictures and on pages."""

from __future__ import annotations

from lcnet_rl.backbones import BackboneSpec


def whole(networks: int, pruned: bool) -> str:
    """``networks`` in a row with nothing skipped, of which any may have been pruned before."""
    if networks > 1:
        return "both networks" if networks == 2 else "all networks"
    return "pruned backbone" if pruned else "dense backbone"


def was_pruned(spec: BackboneSpec) -> bool:
    """Whether a backbone, or a network behind it, has fewer filters than it was made with."""
    return any(network.filters is not None for network in spec.networks)
