"""Weights files: the project's own (safetensors, architecture in the header), and others that it reads."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor, nn

from lcnet_rl import akamaster
from lcnet_rl.backbones import Backbone, BackboneSpec, build
from lcnet_rl.errors import UserError
from lcnet_rl.files import read_tensors, write_tensors
from lcnet_rl.model import LCNet
from lcnet_rl.progress import warn
from lcnet_rl.rewards import PriceRange
from lcnet_rl.runs import BEST, CHECKPOINT, CONFIG, MODEL, START, TEACHER, has_agent, read_config
from lcnet_rl.spec import ModelSpec

BACKBONE = "backbone.safetensors"
"""Of a run folder of ``pretrain``."""


def create_model(spec: ModelSpec) -> LCNet:
    """An LCNet of ``spec`` with fresh weights, to load a file into."""
    return LCNet(build(spec.backbone), **spec.options)


def save_model(model: LCNet, path: Path) -> None:
    """Write an LCNet as safetensors, its architecture in the header; ``load_model`` reads it.

    Raises:
        UserError: for an engine, or another network whose BatchNorms are folded.
    """
    _refuse_folded(model.backbone)
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
        raise _missing(path, f"no model at {path}; {hint}")
    state, metadata = read_tensors(path)
    if "model" not in metadata:
        if "backbone" in metadata:
            raise UserError(f"{path} holds a dense network, and an agent is wanted: the run folder of lcnet-rl train")
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
    return model.eval()


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a backbone as safetensors, its architecture in the header, atomically.

    Raises:
        UserError: for an engine's, or another one whose BatchNorms are folded.
    """
    _refuse_folded(backbone)
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
        UserError: when the file is missing or damaged, or holds another network than expected, or weights that are no
            numbers.
    """
    path = akamaster.download() if init == "akamaster" else Path(init)
    if path.is_dir():
        path = path / BACKBONE
    if not path.is_file() and path.name in (START, TEACHER):
        raise UserError(f"{path.parent} lacks {path.name}, with which its run began")
    if not path.is_file():
        raise _missing(path, f"no weights file at {path}; give a file, a run folder of pretrain, or 'akamaster'")
    public = path.suffix != ".safetensors"
    state, spec = akamaster.read(path) if public else _read(path)
    expected = replace(
        spec,
        name=spec.name if name is None else name,
        classes=spec.classes if classes is None else classes,
        width=spec.width if width is None else width,
    )
    if expected != spec:
        options = f"--backbone {spec.name} --width {spec.width}"
        hint = f"; for that give {options}"
        if spec.classes != expected.classes:
            hint = f"; fine-tune it first: lcnet-rl pretrain --dataset ... --init {quote(init)} {options}"
        raise UserError(f"{init} holds {_describe(spec)}, but {_describe(expected)} was asked for{hint}")
    backbone = build(spec)
    _load_state(backbone, state, init)
    if public:
        warn(
            "akamaster's networks were trained on all 50,000 training images, so on this project's validation "
            "images accuracy is too high, and what is chosen by it is biased; test images are not affected",
        )
    return backbone


def read_spec(path: Path) -> BackboneSpec:
    """What network the weights of a dense one, a safetensors file, are of.

    Raises:
        UserError: when the file is missing or damaged, or names no network.
    """
    return _read(path)[1]


def are_finite(module: nn.Module) -> bool:
    """Whether all parameters and buffers of ``module`` are finite numbers."""
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def _refuse_folded(backbone: Backbone) -> None:
    """Refuse weights that no file can be loaded from again, as a fresh network has BatchNorms."""
    if isinstance(backbone.stem.bn, nn.Identity):
        raise UserError("the BatchNorms are folded, as an engine's are: save the network that this one was made of")


def _missing(path: Path, message: str) -> UserError:
    """An error for weights that are not there: that their run was stopped before its end, or else ``message``."""
    run = path.parent
    if not all((run / name).is_file() for name in (CONFIG, CHECKPOINT)):
        return UserError(message)
    command, written = ("train", MODEL) if has_agent(read_config(run)) else ("pretrain", BACKBONE)
    if (run / written).is_file() or path.name not in (written, BEST):
        return UserError(message)
    go_on = f"lcnet-rl {command} --resume {quote(str(run))}"
    return UserError(f"{run} was stopped before its end, or still runs, and has no {path.name} yet; to go on: {go_on}")


def _load_state(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{source} does not fit the architecture that it names: {reason}") from error
    if not are_finite(module):
        raise UserError(f"{source} holds weights that are no numbers: what trained it diverged, or the file is damaged")


def _describe(spec: BackboneSpec) -> str:
    return f"{spec.title} (width {spec.width}, {spec.classes} classes)"


def _read(path: Path) -> tuple[dict[str, Tensor], BackboneSpec]:
    state, metadata = read_tensors(path)
    if "model" in metadata:
        raise UserError(
            f"{path} holds an agent; give its run folder where it is to go on, or the dense network that it began with "
            f"({path.parent / START})"
        )
    if "backbone" not in metadata:
        raise UserError(f"{path} is no backbone of this project (its header names no architecture)")
    spec = _architecture(metadata["backbone"], path)
    return {key: t.float() if t.is_floating_point() else t for key, t in state.items()}, spec


def _architecture(header: str, path: Path) -> BackboneSpec:
    try:
        return _spec(json.loads(header))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} names no architecture that this version knows ({error})") from error


def _spec(values: dict[str, Any]) -> BackboneSpec:
    spec, second = BackboneSpec(**values), values.get("second")
    filters = None if spec.filters is None else tuple(spec.filters)
    return replace(spec, filters=filters, second=None if second is None else _spec(second))
