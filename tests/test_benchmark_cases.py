"""Who takes part in a benchmark's cases, on what, in how many threads and in which type of number."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Convolutions, images, lively

from lcnet_rl.backbones import Backbone
from lcnet_rl.benchmark import contestants, standard, trained
from lcnet_rl.benchmark.contestants import Contestant, dense_contestants, engine_contestants
from lcnet_rl.commands import bench, main
from lcnet_rl.errors import UserError
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.state import Outcome
from lcnet_rl.weights import save_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("what", ["RUN", "--preset=standard", "env", "train"])
def test_what_is_timed_has_the_threads_that_were_asked_for(
    what: str, threads: int, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed, before = [], torch.get_num_threads()

    def time_it(*_: object) -> dict[str, Any]:
        timed.append(torch.get_num_threads())
        return {"cases": [], "contestants": [], "latencies": {}}

    monkeypatch.setattr(bench, "OVERHEADS", dict.fromkeys(bench.OVERHEADS, time_it))
    for name, instead in (("trained", time_it), ("standard", time_it), ("report", lambda *_: None)):
        monkeypatch.setattr(bench, name, instead)
    save_model(lively(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(f"dataset: {images}\ndata_root: null\n")
    for more in ([], ["--threads", str(threads)]):
        assert main(["bench", *{"RUN": [str(tmp_path), "--batches", "2"]}.get(what, [what]), *more]) == 0
    assert timed == [before, threads]


@pytest.mark.parametrize(
    ("asked", "fast", "timed"),
    [
        ([], False, [torch.float32]),
        ([], True, [torch.float32, torch.bfloat16]),
        (["--precisions", "bf16"], False, [torch.bfloat16]),
        (["--precisions", "fp32"], True, [torch.float32]),
    ],
)
def test_bfloat16_is_timed_where_the_device_computes_in_it_or_it_is_asked_for(
    asked: list[str],
    fast: bool,
    timed: list[torch.dtype],
    images: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[torch.dtype] = []
    nothing: dict[str, Any] = {"cases": [], "contestants": [], "latencies": {}}
    monkeypatch.setattr(bench, "trained", lambda *of: given.extend(of[3]) or nothing)
    monkeypatch.setattr(bench, "has_fast_bf16", lambda _: fast)
    monkeypatch.setattr(bench, "profile_engine", lambda *_: [])
    monkeypatch.setattr(bench, "print_profile", lambda *_: None)
    save_model(lively(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(f"dataset: {images}\ndata_root: null\n")
    assert main(["bench", str(tmp_path), "--batches", "2", *asked]) == 0
    assert given == timed
    assert list(json.loads((tmp_path / "bench.json").read_text())["profile"]) == [
        {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype] for dtype in timed
    ]


def test_figures_say_in_how_many_threads(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "standard", lambda _: {"cases": [], "contestants": []})
    path = tmp_path / "x.json"
    assert main(["bench", "--preset", "standard", "--threads", str(threads), "--json", str(path)]) == 0
    assert json.loads(path.read_text())["machine"]["threads"] == threads


def test_trials_that_are_asked_for_are_all_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(bench, "standard", lambda *given: asked.append(given) or {"cases": [], "contestants": []})
    assert main(["bench", "--preset", "standard", "--trials", "7"]) == 0
    assert main(["bench", "--preset", "standard"]) == 0
    assert asked == [({1: 7, 128: 7}, math.inf), (bench.STANDARD_TRIALS,)]


@pytest.mark.parametrize(("dtype", "short"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")])
def test_the_engine_and_its_rivals_in_pytorch_compute_in_the_type_that_they_are_named_after(
    dtype: torch.dtype, short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling takes long; in which type to compute is up to the network that is compiled.
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(contestants, "check_compiler", lambda _: None)
    model, pictures = lively(), images(2)
    found = engine_contestants(model, pictures, dtype, {"all": torch.ones(model.depth, 2, model.action_size)})
    found += [one for one in dense_contestants(model.backbone, pictures, dtype) if one.runtime == "PyTorch"]
    names = [one.name for one in found]
    assert names == [f"engine all {short}", f"dense eager {short}", f"dense torch.compile {short}"]
    for one in found:
        with torch.no_grad(), Convolutions() as convolutions:
            one.run(pictures)
        assert convolutions.types == [dtype] * 7, "resnet8: the stem, and two in each of three blocks"


def test_where_nothing_compiles_the_others_take_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: torch.device) -> None:
        raise UserError("no compiler")

    monkeypatch.setattr(contestants, "check_compiler", refuse)
    monkeypatch.setattr(contestants, "_compiles", functools.cache(contestants._compiles.__wrapped__))
    found = dense_contestants(lively().backbone, images(2), torch.float32)
    assert [one.name for one in found] == ["dense eager fp32", "dense ONNX Runtime"]
    assert "without torch.compile, so dense networks may be faster than here: no compiler" in capsys.readouterr().out


def idle(name: str, network: Backbone, images: torch.Tensor, runtime: str, dense: bool = False) -> Contestant:
    """One that computes nothing, and whose name tells what it was given."""
    outcome = Outcome(torch.zeros(len(images), 10), torch.zeros(0), torch.zeros(len(images)))
    title = f"{name}, {network.spec.name} {network.spec.width}, {len(images)} at a time"
    return Contestant(title, lambda _: outcome, runtime, dense, 0.0, 0.0)


def test_the_standard_cases_are_of_the_network_the_batch_and_the_share_in_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dense(network: Backbone, images: torch.Tensor, _: torch.dtype, compiled: bool = True) -> list[Contestant]:
        return [idle(f"dense {runtime}", network, images, runtime, True) for runtime in ("PyTorch", "ONNX Runtime")]

    def engines(
        model: LCNet, images: torch.Tensor, _: torch.dtype, decisions: Mapping[str, torch.Tensor]
    ) -> list[Contestant]:
        return [idle(f"engine {keep}", model.backbone, images, "PyTorch") for keep in decisions]

    def sessions(model: LCNet, image: torch.Tensor, decisions: Mapping[str, Sequence[float]]) -> Any:
        return {keep: [idle(f"onnx {keep}", model.backbone, image, "ONNX Runtime")] for keep in decisions}

    for name, instead in (("dense", dense), ("engine", engines), ("onnx", sessions)):
        monkeypatch.setattr(standard, f"{name}_contestants", instead)
    monkeypatch.setattr(standard, "force", lambda model, *_: model)
    rows = {row["name"]: row for row in standard.standard({1: 2, 128: 2})["cases"]}
    networks = {"w64": "resnet18 64", "w32": "resnet18 32", "resnet20": "resnet20 16", "resnet56": "resnet56 16"}
    assert {name: row["this"] for name, row in rows.items()} == {
        f"{how}-b{batch}-{label}-{keep}": f"{how} {keep}, {network}, {batch} at a time"
        for label, network in networks.items()
        for how, batch in (("onnx", 1), ("engine", 128))
        for keep in ("all", "blocks50", "groups50")
    }
    for name, row in rows.items():
        assert row["macs_ratio"] == pytest.approx(1.0 if name.endswith("-all") else 0.5, abs=0.1)


def noting(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[int]]]:
    """Two contestants take part that note which images they get, and whose bill for an image is its number."""
    seen: dict[str, list[list[int]]] = {"engine": [], "dense": []}

    def contestant(name: str) -> Contestant:
        def run(batch: torch.Tensor) -> Outcome:
            numbers = batch[:, 0, 0, 0]
            seen[name].append(numbers.tolist())
            return Outcome(numbers, numbers, numbers.double())

        return Contestant(name, run, "PyTorch", name == "dense", 0.0, 0.0)

    monkeypatch.setattr(trained, "_contestants", lambda *_: [contestant(name) for name in seen])
    return seen


def numbered(count: int) -> torch.Tensor:
    """Images whose pixels are their number."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


@pytest.mark.parametrize(
    ("batch", "calls", "trials"),
    [(1, 5, [[0], [1], [2], [3], [4]] * 4), (2, 1, [[0, 1], [2, 3]])],
    ids=["single images", "batches"],
)
def test_every_trial_times_everyone_with_the_next_images(
    batch: int, calls: int, trials: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = noting(monkeypatch)
    trained.trained(lively(), numbered(5), (batch,), [torch.float32], 2, CPU)
    expected = [images for images in trials for _ in range(calls)]
    for of_one in seen.values():
        assert of_one[-len(expected) :] == expected


def test_latencies_are_the_seconds_and_the_macs_of_each_trials_image(monkeypatch: pytest.MonkeyPatch) -> None:
    noting(monkeypatch)
    seconds = {name: [start + trial for trial in range(20)] for name, start in (("engine", 1.0), ("dense", 30.0))}
    monkeypatch.setattr(trained, "race", lambda *_, **__: seconds)
    model = lively()
    latencies = trained.trained(model, numbered(5), (1,), [torch.float32], 2, CPU)["latencies"]
    assert latencies == {
        "engine": {"dense": False, "macs": [0, 1, 2, 3, 4] * 4, "milliseconds": [1000.0 * s for s in range(1, 21)]},
        "dense": {
            "dense": True,
            "macs": [dense_macs(model.backbone)] * 20,
            "milliseconds": [1000.0 * s for s in range(30, 50)],
        },
    }
