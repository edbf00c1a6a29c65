"""``lcnet-rl export``: a trained run as one file, which skips what a policy drops, for deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import onnx
import torch
import tyro
from torch import Tensor

from lcnet_rl.backbones import Backbone
from lcnet_rl.budget import Measurement, meet_budget
from lcnet_rl.commands.trained import load_dense, variant
from lcnet_rl.data import load_dataset
from lcnet_rl.errors import UserError
from lcnet_rl.export import OnnxNetwork, blocked_size, compare, dense_model, dynamic_model
from lcnet_rl.export.layout import Blocked, Layout
from lcnet_rl.files import check_target, replacing
from lcnet_rl.model import LCNet
from lcnet_rl.progress import Progress, console, say
from lcnet_rl.runs import WEIGHTS, classes_of, data_root, has_agent, read_config
from lcnet_rl.unchanged import check_classes, warn_if_changed, warn_if_edited
from lcnet_rl.weights import load_model


@dataclass(frozen=True)
class Export:
    """Write a run's network as an ONNX file for one image at a time, and check it.

    The file skips what the policy drops; a network of pretrain, which decides nothing, runs whole.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    format: Literal["onnx"] = "onnx"
    """The kind of file."""
    layout: Literal["standard", "blocked"] = "standard"
    """standard runs wherever ONNX does; blocked is faster, and only for ONNX Runtime on CPUs like this one."""
    out: Path | None = None
    """The file; by default model.onnx in the run folder, or model-best.onnx, model-budget0.7.onnx and so on."""
    which: Literal["final", "best"] = "final"
    """The final model, or the best by validation reward."""
    budget: float | None = None
    """Mean share of dense MACs that the file's defaults are to meet, on validation images."""
    check: int = 200
    """Validation images on which the file is compared with the engine; with 0 of them no data set is needed, but for a
    budget."""
    data_root: Path | None = None
    """Where data sets are kept (of folder:PATH, the folder that holds it); by default where the run had them."""


def run(config: Export) -> None:
    """Write the file, then load it and compare."""
    least = 0 if config.budget is None else 1
    if config.check < least:
        raise UserError(f"--check is {least} or more{' with --budget' if least else ''}, got {config.check}")
    settings = read_config(config.run)
    if has_agent(settings):
        model: LCNet | Backbone = load_model(config.run / WEIGHTS[config.which])
    else:
        model = load_dense(config, "out", "check", "data_root")
    warn_if_edited(config.run, settings)
    layout, path = choose(config.layout), config.out or config.run / called(config)
    check_target("--out", path)
    root = data_root(config.data_root, settings)
    val = load_dataset(settings["dataset"], "val", root) if config.check else None
    classes = classes_of(config.run, settings, config.data_root) if val is None else val.classes
    count = model.classes if isinstance(model, LCNet) else model.spec.classes
    check_classes(config.run, count, settings["dataset"], classes)
    origin = {"run": config.run.resolve().name}
    if isinstance(model, LCNet):
        origin |= {"which": config.which}
        if val is not None and config.budget is not None:
            dynamic_model(model, layout)  # what cannot be exported is refused before the search for a budget
            train = load_dataset(settings["dataset"], "train", root)
            warn_if_changed(config.run, train)
            with Progress(f"tries for budget {config.budget:g}", None) as bar:
                measurement = Measurement(train, val, torch.device("cpu"), prices=model.spec.prices, each=bar.advance)
                said, shift = meet_budget(model, measurement, config.budget)
            if model.spec.prices is None:
                said += "; both are built into the file: leave its input threshold at 0.5, the default"
            say(said)
            origin |= {"budget": f"{config.budget:g}", "shift": f"{shift:.6g}"}
    with replacing(path) as temporary:
        onnx.save(written(model, layout, classes, origin), temporary)
        check_file(OnnxNetwork(temporary), model, None if val is None else val.sample(config.check).images)
    say(f"file: {path} ({path.stat().st_size / 1e6:.1f} MB, {config.layout} layout)")


def check_file(network: OnnxNetwork, model: LCNet | Backbone, images: Tensor | None) -> None:
    """Compare a file with ``model`` on validation images, uint8 (N, 3, 32, 32), if there are any, and tell the result.

    Raises:
        UserError: when it does something else.
    """
    expected = "engine" if isinstance(model, LCNet) else "network"
    if images is None:
        console.print(f"not compared with the {expected}")
        return
    agreement = compare(model, network, images)
    told = f"against the {expected}, {len(images)} validation images: {agreement}"
    say(told)
    agreement.check()


def written(
    model: LCNet | Backbone, layout: Layout, classes: tuple[str, ...], origin: dict[str, str]
) -> onnx.ModelProto:
    """The file's content."""
    if isinstance(model, LCNet):
        return dynamic_model(model, layout, classes, origin)
    return dense_model(model, classes=classes, origin=origin)


def called(config: Export) -> str:
    """The file's name, where none is given: what is not as usual is in it."""
    layout = "" if config.layout == "standard" else f"-{config.layout}"
    return f"model{variant(config.which, budget=config.budget)}{layout}.onnx"


def choose(name: str) -> Layout:
    """The layout of that name, for this machine."""
    if name == "standard":
        return Layout()
    size = blocked_size()
    if size == 1:
        raise UserError("ONNX Runtime has no blocked kernels for this processor; use --layout standard")
    return Blocked(size)
