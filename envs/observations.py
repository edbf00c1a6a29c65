"""What an observation holds, and how a policy gets a gate's input back from it.

A one-level Dict of float32 arrays (B images; C the widest block input of the network):

pooled       (B, C)       pooled features of the block's input, padded with zeros on the right
confidence   (B, 2)       the probe's largest probability and normalised entropy; absent where the model has none
block        (B, depth)   one-hot: which block is to be decided
spent        (B, 1)       MACs so far as a share of the dense model's
price        (B, 1)       reward lost by spending the dense MACs once

Nothing is rounded or scaled, so ``gate_features`` returns what ``Observation.gate_input`` was, bit for bit.
After the last block nothing is left to decide: ``pooled`` and ``block`` are zero, ``confidence`` is the head's, and
``spent`` is the whole bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from lcnet_rl.gates import Probe
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation, gate_input
from lcnet_rl.state import State

Arrays = dict[str, NDArray[np.float32]]

LARGEST = float(np.finfo(np.float32).max)
"""Upper bound of what has none of its own: checkers want finite bounds."""


def observation_space(model: LCNet) -> spaces.Dict:
    """The observations of one image."""
    most = np.nextafter(np.float32(model.costs.ceiling / model.costs.dense), np.float32(np.inf))
    highest = {"pooled": LARGEST, "confidence": 1, "block": 1, "spent": float(most), "price": LARGEST}
    return spaces.Dict({key: spaces.Box(0, highest[key], (size,), np.float32) for key, size in _sizes(model).items()})


def widest_input(model: LCNet) -> int:
    """Channels of the widest block input, which ``pooled`` is padded to."""
    return max(model.input_channels)


def encode(model: LCNet, observation: Observation) -> Arrays:
    """An observation as new arrays, shapes as at the top of this file."""
    count, channels = observation.pooled.shape
    arrays = _blank(model, count)
    arrays["pooled"][:, :channels] = to_numpy(observation.pooled)
    if model.has_confidence:
        arrays["confidence"][:] = to_numpy(observation.confidence)
    arrays["block"][:, observation.block] = 1
    arrays["spent"][:, 0] = to_numpy(observation.spent)
    arrays["price"][:, 0] = to_numpy(observation.price)
    return arrays


def encode_end(model: LCNet, state: State, logits: Tensor) -> Arrays:
    """The observation after the last block, as new arrays.

    Args:
        model: the network.
        state: a finished state of B images.
        logits: its classification, (B, classes).
    """
    arrays = _blank(model, len(logits))
    if model.has_confidence:
        arrays["confidence"][:] = to_numpy(Probe.confidence(logits))
    arrays["spent"][:, 0] = to_numpy((model.total_macs(state) / model.costs.dense).float())
    arrays["price"][:, 0] = to_numpy(state.price)
    return arrays


def block_numbers(observation: Mapping[str, Tensor]) -> Tensor:
    """Which block each row is about to decide, (B,), int64; rows of different blocks may be mixed."""
    return observation["block"].argmax(1)


def gate_features(model: LCNet, observation: Mapping[str, Tensor], block: int) -> Tensor:
    """The input of the gates of ``block``, (B, I), from rows that all are about to decide that block."""
    pooled = observation["pooled"][:, : model.input_channels[block]]
    confidence = observation["confidence"] if model.has_confidence else pooled[:, :0]
    return gate_input(pooled, confidence, observation["spent"][:, 0], observation["price"][:, 0])


def _sizes(model: LCNet) -> dict[str, int]:
    """What an observation holds, and how many numbers of each."""
    confidence = {"confidence": Probe.measures} if model.has_confidence else {}
    return {"pooled": widest_input(model), **confidence, "block": model.depth, "spent": 1, "price": 1}


def _blank(model: LCNet, count: int) -> Arrays:
    return {key: np.zeros((count, size), dtype=np.float32) for key, size in _sizes(model).items()}


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A tensor's numbers, without gradients; on the CPU the tensor's own memory."""
    return tensor.detach().cpu().numpy()
