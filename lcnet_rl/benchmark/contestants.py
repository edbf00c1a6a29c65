"""What takes part in a benchmark: ways to classify a batch of images, with a skipping network or its dense backbone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from lcnet_rl.backbones import Backbone
from lcnet_rl.device import check_compiler, synchronize
from lcnet_rl.engine import Engine
from lcnet_rl.engine.fold import folded, set_type
from lcnet_rl.errors import UserError
from lcnet_rl.export import dense_model, dynamic_model, layouts_here, open_session
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.progress import say

Run = Callable[[Tensor], object]
"""Classifies images, uint8 (B, 3, 32, 32)."""


@dataclass(frozen=True)
class Contestant:
    """One way to classify images."""

    name: str
    run: Run
    runtime: str
    """``PyTorch`` or ``ONNX Runtime``."""
    dense: bool
    """Whether it computes the whole backbone, and no gates."""
    warmup: float
    """Seconds until the first answer: building, tuning, compiling."""
    megabytes: float
    """Of its weights, or of its file; of an engine, with the copies that all decisions about its first batch took."""
    others: tuple[Run, ...] = ()
    """The same work with other decisions, where a single image's would be an accident of the draw."""
    masked: bool = False
    """Whether it computes everything, whatever it decides."""

    def in_trial(self, trial: int) -> Run:
        """Which to run: trials take all decisions in turn."""
        runs = self.run, *self.others
        return runs[trial % len(runs)]


def dense_contestants(
    backbone: Backbone, images: Tensor, dtype: torch.dtype, compiled: bool = True, name: str = "dense"
) -> list[Contestant]:
    """The dense backbone with BatchNorm folded.

    Args:
        backbone: the network.
        images: as many as it will get, on the device to use.
        dtype: of the convolutions.
        compiled: ``torch.compile`` too, which takes a while; where it does not work, that is said.
        name: of the network.

    Returns:
        Eager PyTorch; ``torch.compile`` with inductor's ``freezing``, which lays out weights for the machine and fuses
        what follows a convolution into it, as the engine does; and ONNX Runtime where it compares (float32, CPU).
    """
    network = folded(backbone).to(images.device)
    set_type(network, dtype)
    eager, megabytes = torch.no_grad()(network), _megabytes(network)
    seconds = _first_answer(eager, images, perf_counter())
    found = [Contestant(f"{name} eager {short(dtype)}", eager, "PyTorch", True, seconds, megabytes)]
    if compiled and _compiles(images.device):
        # Many compiled versions of one function make torch give up and run it eagerly.
        torch.compiler.reset()
        fast, began = torch.no_grad()(torch.compile(network, dynamic=False)), perf_counter()
        # As an option of torch.compile, it would not reach what decides whether weights are constants.
        with inductor.patch(freezing=True):
            seconds = _first_answer(fast, images, began)
        found.append(Contestant(f"{name} torch.compile {short(dtype)}", fast, "PyTorch", True, seconds, megabytes))
    if dtype == torch.float32 and images.device.type == "cpu":
        model, began = dense_model(backbone, len(images)), perf_counter()
        session, megabytes = _session(model)
        run = functools.partial(_classify, session)
        seconds = _first_answer(run, images, began)
        found.append(Contestant(f"{name} ONNX Runtime", run, "ONNX Runtime", True, seconds, megabytes))
    return found


def engine_contestants(
    model: LCNet, images: Tensor, dtype: torch.dtype, decisions: Mapping[str, Tensor | None]
) -> list[Contestant]:
    """One tuned engine under each of several ``decisions`` (depth, B, action_size); None is the model's own policy.

    Gates run in any case; forced decisions take the place of theirs. Building and tuning count as everyone's warm-up.
    """
    began = perf_counter()
    engine = Engine(model, dtype)
    engine.tune(len(images))
    built = perf_counter() - began
    greedy = engine.greedy()

    def deciding(actions: Tensor | None) -> Run:
        def decide(observation: Observation) -> Tensor:
            decided = greedy(observation)
            return decided if actions is None else actions[observation.block]

        return lambda batch: engine.run(batch, decide)

    runs = {name: deciding(None if of is None else of.to(images.device)) for name, of in decisions.items()}
    seconds = {name: built + _first_answer(run, images, perf_counter()) for name, run in runs.items()}
    # By now the weights of every set of groups that any of them keeps of these images are copied together.
    megabytes = engine.nbytes / 1e6
    return [
        Contestant(f"engine {name} {short(dtype)}", run, "PyTorch", False, seconds[name], megabytes)
        for name, run in runs.items()
    ]


def masked_contestant(model: LCNet, images: Tensor) -> Contestant:
    """The model as it trains: it computes everything, and multiplies what is dropped by 0."""

    @torch.no_grad()
    def run(batch: Tensor) -> object:
        return model.run(batch, model.greedy())

    seconds = _first_answer(run, images, perf_counter())
    return Contestant("masked fp32", run, "PyTorch", False, seconds, _megabytes(model), masked=True)


def onnx_contestants(
    model: LCNet, image: Tensor, decisions: Mapping[str, Sequence[float | None]]
) -> dict[str, list[Contestant]]:
    """The exported network in ONNX Runtime, for one image, in every layout that this machine and network allow.

    Args:
        model: the network.
        image: uint8 (1, 3, 32, 32).
        decisions: by the name of what is decided, the prices that the gates are then given, which trials take in turn;
            None is the model's own.

    Returns:
        By the same names, one for each layout.
    """
    found: dict[str, list[Contestant]] = {name: [] for name in decisions}
    for layout in layouts_here(model.backbone):
        began = perf_counter()
        session, megabytes = _session(dynamic_model(model, layout))
        built = perf_counter() - began
        for name, prices in decisions.items():
            first, *others = (functools.partial(_classify, session, price=price) for price in prices)
            title, seconds = f"ONNX Runtime {name} {layout.name}", built + _first_answer(first, image, perf_counter())
            found[name].append(
                Contestant(title, first, "ONNX Runtime", False, seconds, megabytes, others=tuple(others))
            )
    return found


def short(dtype: torch.dtype) -> str:
    """fp32 or bf16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def _first_answer(run: Run, images: Tensor, began: float) -> float:
    """Seconds since ``began`` when ``run`` has classified ``images`` once."""
    run(images)
    synchronize(images.device)
    return perf_counter() - began


@functools.cache
def _compiles(device: torch.device) -> bool:
    """Whether ``torch.compile`` works; says so, once, if not."""
    try:
        check_compiler(device)
    except UserError as error:
        say(f"without torch.compile, so dense networks may be faster than here: {error}")
        return False
    return True


def _session(model: onnx.ModelProto) -> tuple[ort.InferenceSession, float]:
    """A session, and the file's megabytes."""
    content = model.SerializeToString()
    return open_session(content), len(content) / 1e6


def _classify(session: ort.InferenceSession, images: Tensor, price: float | None = None) -> object:
    feeds = {"image": images.numpy()}
    if price is not None:
        feeds["price"] = np.full((1, 1), price, np.float32)
    return session.run(None, feeds)


def _megabytes(module: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in module.state_dict().values()) / 1e6
