"""What takes part in a benchmark: ways to classify a batch of images, with a skipping network or its dense backbone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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

    def eager() -> tuple[Run, float]:
        return torch.no_grad()(network), _megabytes(network)

    def faster() -> tuple[Run, float]:
        # Many compiled versions of one function make torch give up and run it eagerly.
        torch.compiler.reset()
        run = torch.no_grad()(torch.compile(network, dynamic=False))
        # As an option of torch.compile, it would not reach what decides whether weights are constants.
        with inductor.patch(freezing=True):
            run(images)
        return run, _megabytes(network)

    found = [_prepare(f"{name} eager {short(dtype)}", "PyTorch", True, images, eager)]
    if compiled and _compiles(images.device):
        found.append(_prepare(f"{name} torch.compile {short(dtype)}", "PyTorch", True, images, faster))
    if dtype == torch.float32 and images.device.type == "cpu":
        model = dense_model(backbone, len(images))

        def in_onnx_runtime() -> tuple[Run, float]:
            session, megabytes = _session(model)
            return functools.partial(_classify, session), megabytes

        found.append(_prepare(f"{name} ONNX Runtime", "ONNX Runtime", True, images, in_onnx_runtime))
    return found


def engine_contestants(
    model: LCNet, images: Tensor, dtype: torch.dtype, decisions: Mapping[str, Tensor | None]
) -> list[Contestant]:
    """One tuned engine under each of several ``decisions`` (depth, B, action_size); None is the model's own policy.

    Gates run in any case; forced decisions take the place of theirs. Building and tuning count as everyone's warm-up.
    """
    began = time.perf_counter()
    engine = Engine(model, dtype)
    engine.tune(len(images))
    built = time.perf_counter() - began

    def decide(actions: Tensor | None) -> tuple[Run, float]:
        greedy = engine.greedy()

        def forced(observation: Observation) -> Tensor:
            decided = greedy(observation)
            return decided if actions is None else actions[observation.block]

        return lambda batch: engine.run(batch, forced), 0.0  # its megabytes are known once all have run

    found = []
    for name, actions in decisions.items():
        here = None if actions is None else actions.to(images.device)
        build = functools.partial(decide, here)
        found.append(_prepare(f"engine {name} {short(dtype)}", "PyTorch", False, images, build, built))
    # By now the weights of every set of groups that any of them keeps of these images are copied together.
    return [replace(contestant, megabytes=engine.nbytes / 1e6) for contestant in found]


def masked_contestant(model: LCNet, images: Tensor) -> Contestant:
    """The model as it trains: it computes everything, and multiplies what is dropped by 0."""

    @torch.no_grad()
    def run(batch: Tensor) -> object:
        return model.run(batch, model.greedy())

    contestant = _prepare("masked fp32", "PyTorch", False, images, lambda: (run, _megabytes(model)))
    return replace(contestant, masked=True)


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
        began = time.perf_counter()
        session, megabytes = _session(dynamic_model(model, layout))
        built = time.perf_counter() - began
        for name, prices in decisions.items():
            first, *others = (functools.partial(_classify, session, price=price) for price in prices)
            build = functools.partial(_as_built, first, megabytes)
            contestant = _prepare(f"ONNX Runtime {name} {layout.name}", "ONNX Runtime", False, image, build, built)
            found[name].append(replace(contestant, others=tuple(others)))
    return found


def short(dtype: torch.dtype) -> str:
    """fp32 or bf16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def _prepare(
    name: str, runtime: str, dense: bool, images: Tensor, build: Callable[[], tuple[Run, float]], before: float = 0.0
) -> Contestant:
    """Build a contestant (how to run it, and its megabytes), and let it classify ``images`` once.

    ``before`` is what building took that is done already.
    """
    began = time.perf_counter()
    run, megabytes = build()
    run(images)
    synchronize(images.device)
    return Contestant(name, run, runtime, dense, before + time.perf_counter() - began, megabytes)


@functools.cache
def _compiles(device: torch.device) -> bool:
    """Whether ``torch.compile`` works; says so, once, if not."""
    try:
        check_compiler(device)
    except UserError as error:
        say(f"without torch.compile, so dense networks may be faster than here: {error}")
        return False
    return True


def _as_built(run: Run, megabytes: float) -> tuple[Run, float]:
    """For ``_prepare``, where nothing is left to build."""
    return run, megabytes


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
