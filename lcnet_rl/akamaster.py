"""The public checkpoints of github.com/akamaster/pytorch_resnet_cifar10: ResNet-20 to 110, trained on CIFAR-10.

Each is a pickle with ``module.`` keys, the one kind of pickle that the project reads: only when asked to, and with
``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from lcnet_rl.backbones import BackboneSpec
from lcnet_rl.errors import UserError

SHA256 = "12fca82f"
"""The first digits."""
URL = f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet20-{SHA256}.th"


def read(path: Path) -> tuple[dict[str, Tensor], BackboneSpec]:
    """A checkpoint's tensors, under the names that this project gives them, and whose they are.

    Raises:
        UserError: when the file is damaged, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way in which a file can be broken
        raise UserError(f"{path} is damaged, or neither safetensors nor a checkpoint of plain tensors") from error
    return _renamed(content, str(path))


def _renamed(content: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], BackboneSpec]:
    """Rename an akamaster checkpoint's tensors: ``layer2.0.conv1`` is block ``n + 0``, with n blocks in a stage."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    items = state.items() if isinstance(state, dict) else ()
    named = ((key, value) for key, value in items if isinstance(key, str) and isinstance(value, Tensor))
    state = {key.removeprefix("module."): tensor for key, tensor in named}
    stage_blocks = len({key.split(".")[1] for key in state if key.startswith("layer1.")})
    if not stage_blocks or not {"conv1.weight", "linear.weight"} <= state.keys():
        raise UserError(f"{source} is no akamaster CIFAR checkpoint (it lacks conv1.weight, layer1.* or linear.weight)")

    def renamed(key: str) -> str:
        key = re.sub(r"^conv1\.", "stem.conv.", key)
        key = re.sub(r"^bn1\.", "stem.bn.", key)
        key = re.sub(r"^linear\.", "head.", key)
        return re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"blocks.{(int(m[1]) - 1) * stage_blocks + int(m[2])}.", key)

    classes, width = state["linear.weight"].shape[0], state["conv1.weight"].shape[0]
    spec = BackboneSpec(f"resnet{6 * stage_blocks + 2}", classes, width)
    return {renamed(key): tensor for key, tensor in state.items()}, spec


def download() -> Path:
    """The public ResNet-20, in PyTorch's cache; the file's name ends in the first digits of its SHA-256.

    Raises:
        UserError: when it cannot be had, or is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL, str(path), SHA256)
    except (OSError, RuntimeError) as error:
        raise UserError(f"could not get the akamaster ResNet-20 ({error}); give its file instead") from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(SHA256):
        raise UserError(f"{path} is not akamaster's ResNet-20 (another SHA-256): delete it")
    return path
