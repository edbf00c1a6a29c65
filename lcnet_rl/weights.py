"""Weights files: the project's own (safetensors, architecture in the header) and the public akamaster checkpoints.

akamaster: github.com/akamaster/pytorch_resnet_cifar10, ResNet-20 to 110 trained on CIFAR-10, a pickle with
``module.`` keys. It is the one pickle that the project reads, only when asked to, and with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcnet_rl.backbones import Backbone, BackboneSpec, build
from lcnet_rl.data import base_name
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.families import BACKBONES
from lcnet_rl.files import read_tensors, write_tensors
from lcnet_rl.model import LCNet
from lcnet_rl.progress import console
from lcnet_rl.rewards import PriceRange
from lcnet_rl.runs import MODEL, START, TEACHER
from lcnet_rl.spec import ModelSpec

BACKBONE = "backbone.safetensors"
"""Of a run folder of ``pretrain``."""
REFERENCE = Path(__file__).resolve().parent.parent / "runs" / "reference"
PRETRAINED = {
    ("cifar10", "resnet20", 16): "resnet20",
    ("cifar10", "resnet56", 16): "resnet56",
    ("cifar10", "resnet18", 32): "resnet18-32",
    ("cifar10", "resnet16-late", 16): "resnet16-late-16",
    ("cifar10", "resnet16-late", 24): "resnet16-late",
    ("cifar10", "resnet14-wide", 64): "resnet14-wide",
    ("cifar10", "resnet11-pool", 16): "resnet11-pool-16",
    ("cifar10", "resnet11-pool", 24): "resnet11-pool-24",
    ("cifar10", "resnet11-pool", 32): "resnet11-pool",
    ("cifar10", "resnet11-pool", 64): "resnet11-pool-64-42",
    ("shapes", "resnet14", 8): "shapes-resnet14",
}
"""Dense backbones that come with the project, in ``REFERENCE``, by data set, backbone and width."""
AKAMASTER_SHA256 = "12fca82f"
"""The first digits."""
AKAMASTER_URL = (
    f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet20-{AKAMASTER_SHA256}.th"
)


def create_model(spec: ModelSpec) -> LCNet:
    """An LCNet of ``spec`` with fresh weights, to load a file into."""
    backbone = build(spec.backbone)
    return LCNet(
        backbone, spec.decides, spec.groups, confidence=spec.confidence, prices=spec.prices, policy=spec.policy
    )


def save_model(model: LCNet, path: Path) -> None:
    """Write an LCNet as safetensors, its architecture in the header; ``load_model`` reads it.

    Raises:
        UserError: for an engine, whose weights are folded.
    """
    if isinstance(model, Engine):
        raise UserError("an engine cannot be saved: save the model that it was built with")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    write_tensors(path, tensors, {"model": json.dumps(asdict(model.spec))})


def load_model(path: Path) -> LCNet:
    """The LCNet that ``save_model`` wrote, in eval mode.

    Args:
        path: the file, or a run folder, whose final model is read.

    Raises:
        UserError: when there is no file, or it is damaged, holds something else, or weights that are not finite.
    """
    path = path / MODEL if path.is_dir() else path
    if not path.is_file() and (path.parent / BACKBONE).is_file():
        raise UserError(f"{path.parent} trained a dense backbone, no agent; give a run of lcnet-rl train")
    if not path.is_file():
        final = path.name != MODEL and (path.parent / MODEL).is_file()
        hint = "this folder has the final model only (--which final)" if final else "has the run finished?"
        raise UserError(f"no model at {path}; {hint}")
    state, metadata = read_tensors(path)
    if "model" not in metadata:
        raise UserError(f"{path} is no model of this project (its header names no architecture)")
    try:
        # What older files do not name: every network had confidence, and read the price as it is.
        values = {"confidence": True, "prices": None, **json.loads(metadata["model"])}
        backbone, prices = _spec(values.pop("backbone")), values.pop("prices")
        spec = ModelSpec(backbone, **values, prices=None if prices is None else PriceRange(**prices))
        model = create_model(spec)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} names no architecture that this version knows ({error})") from error
    _load_state(model, state, str(path))
    if not are_finite(model):
        raise UserError(f"{path} holds weights that are no numbers: what trained it diverged, or the file is damaged")
    return model.eval()


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a backbone as safetensors, its architecture in the header, atomically.

    Raises:
        UserError: for an engine's, whose BatchNorms are folded.
    """
    if isinstance(backbone.stem.bn, nn.Identity):
        raise UserError("this backbone's BatchNorms are folded, as an engine's are: save the one that it was made of")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in backbone.state_dict().items()}
    write_tensors(path, tensors, {"backbone": json.dumps(asdict(backbone.spec))})


def load_backbone(init: str, name: str | None = None, classes: int | None = 10, width: int | None = None) -> Backbone:
    """A backbone with weights from a file.

    Args:
        init: a path to the project's own safetensors or to an akamaster checkpoint; a run folder of ``pretrain``; or
            ``"akamaster"``, the public ResNet-20, which is downloaded and its hash checked.
        name: the backbone that is expected; None takes what the file holds.
        classes: the number of classes that is expected; None takes what the file holds.
        width: the width that is expected; None takes what the file holds.

    Raises:
        UserError: when the file is missing, damaged, or holds another network than expected.
    """
    path = _download_akamaster() if init == "akamaster" else Path(init)
    if path.is_dir():
        path = path / BACKBONE
    if not path.is_file() and path.name in (START, TEACHER):
        raise UserError(f"{path.parent} lacks {path.name}, with which its run began")
    if not path.is_file():
        raise UserError(f"no weights file at {path}; give a file, a run folder of pretrain, or 'akamaster'")
    public = path.suffix != ".safetensors"
    state, spec = _read_akamaster(path) if public else _read(path)
    expected = replace(
        spec,
        name=spec.name if name is None else name,
        classes=spec.classes if classes is None else classes,
        width=spec.width if width is None else width,
    )
    if expected != spec:
        same = spec.classes == expected.classes
        hint = f"; for that give --backbone {spec.name} --width {spec.width}" if same else ""
        raise UserError(f"{init} holds {_describe(spec)}, but {_describe(expected)} was asked for{hint}")
    backbone = build(spec)
    _load_state(backbone, state, init)
    if public:
        console.print(
            "akamaster's networks were trained on all 50,000 training images, so on this project's validation "
            "images accuracy is too high, and what is chosen by it is biased; test images are not affected",
            style="yellow",
            soft_wrap=True,
        )
    return backbone


def are_finite(module: nn.Module) -> bool:
    """Whether all parameters and buffers of ``module`` are finite numbers."""
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


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


def _load_state(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{source} does not fit the architecture that it names: {reason}") from error


def _describe(spec: BackboneSpec) -> str:
    return f"{spec.title} (width {spec.width}, {spec.classes} classes)"


def _read(path: Path) -> tuple[dict[str, Tensor], BackboneSpec]:
    state, metadata = read_tensors(path)
    if "backbone" not in metadata:
        raise UserError(f"{path} is no backbone of this project (its header names no architecture)")
    spec = _architecture(metadata["backbone"], path)
    return {key: t.float() if t.is_floating_point() else t for key, t in state.items()}, spec


def _read_akamaster(path: Path) -> tuple[dict[str, Tensor], BackboneSpec]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way in which a file can be broken
        raise UserError(f"{path} is damaged, or neither safetensors nor a checkpoint of plain tensors") from error
    return _from_akamaster(content, str(path))


def _architecture(header: str, path: Path) -> BackboneSpec:
    try:
        return _spec(json.loads(header))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} names no architecture that this version knows ({error})") from error


def _spec(values: dict[str, Any]) -> BackboneSpec:
    spec, second = BackboneSpec(**values), values.get("second")
    filters = None if spec.filters is None else tuple(spec.filters)
    return replace(spec, filters=filters, second=None if second is None else _spec(second))


def _from_akamaster(content: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], BackboneSpec]:
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


def _download_akamaster() -> Path:
    """The file, in PyTorch's cache; its name ends in the first digits of its SHA-256."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / AKAMASTER_URL.rpartition("/")[2]
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(AKAMASTER_URL, str(path), AKAMASTER_SHA256)
    except (OSError, RuntimeError) as error:
        raise UserError(f"could not get the akamaster ResNet-20 ({error}); give its file instead") from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(AKAMASTER_SHA256):
        raise UserError(f"{path} is not akamaster's ResNet-20 (another SHA-256): delete it")
    return path
