"""The benchmark times what it says it times."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from networks import images, lively
from torch.profiler import profile

from lcnet_rl import timing
from lcnet_rl.benchmark import standard
from lcnet_rl.benchmark.contestants import Contestant, dense_contestants, masked_contestant
from lcnet_rl.benchmark.profile import KINDS, kind, profile_engine
from lcnet_rl.benchmark.record import case, machine
from lcnet_rl.benchmark.trained import SINGLES
from lcnet_rl.commands import bench, main
from lcnet_rl.data import load_dataset
from lcnet_rl.engine import Engine
from lcnet_rl.engine.convolution import onednn_computes
from lcnet_rl.engine.crossover import Crossover
from lcnet_rl.engine.packed import Chunk
from lcnet_rl.export import dynamic_model, layouts_here, open_session
from lcnet_rl.macs import dense_macs
from lcnet_rl.rewards import PriceRange
from lcnet_rl.timing import LEAST, Comparison, race
from lcnet_rl.weights import load_model, save_backbone, save_model


@pytest.mark.slow
@pytest.mark.skipif(not onednn_computes(torch.float32), reason="this build of PyTorch has no oneDNN")
def test_the_compiled_network_computes_as_the_engine_does_each_convolution_with_what_follows_it() -> None:
    pictures = images(2)
    (compiled,) = (
        one for one in dense_contestants(lively().backbone, pictures, torch.float32) if "compile" in one.name
    )
    with profile() as session:
        compiled.run(pictures)
    ran = Counter(
        event.name.rstrip("_") for event in session.events() if event.name.startswith(("mkldnn::", "aten::conv"))
    )
    assert ran == {"mkldnn::_convolution_pointwise": 7}, "resnet8: the stem, and two in each of three blocks"


@pytest.mark.parametrize(("keep", "blocks", "groups"), [("all", 3, 4), ("blocks50", 1, 4), ("groups50", 3, 2)])
def test_every_image_keeps_as_much_as_the_case_says(keep: str, blocks: int, groups: int) -> None:
    actions = standard.half_kept(lively(), 50, keep)
    assert (actions[:, :, 0].sum(0) == blocks).all()
    assert (actions[:, :, 1:].sum(2) == groups).all()
    assert len(actions.unique(dim=1)[0]) > 1 or keep == "all"


def test_a_single_image_keeps_the_blocks_that_come_nearest_to_half_of_the_macs() -> None:
    torch.manual_seed(0)
    model = lively("resnet18")
    actions = standard.half_kept(model, 1, "blocks50")
    assert actions[:, 0, 0].sum() == 4
    assert standard.share(model, actions) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("keep", "bits"), [("blocks50", slice(0, 1)), ("groups50", slice(1, 5))])
def test_single_images_keep_every_part_equally_often(keep: str, bits: slice) -> None:
    draws = torch.cat(standard.fair_halves(lively("resnet18"), keep), 1)
    assert draws.shape[1] == 2
    assert (draws[:, :, bits].mean(1) == 0.5).all()
    kept = [part for part in range(5) if part not in range(*bits.indices(5))]
    assert (draws[:, :, kept] == 1).all(), "what is not halved is kept"


def test_trials_take_several_decisions_in_turn() -> None:
    said: list[int] = []
    first, *others = (lambda _, number=number: said.append(number) for number in range(3))
    contestant = Contestant("c", first, "PyTorch", False, 0, 0, tuple(others))
    for trial in (-1, 0, 1, 2, 3):
        contestant.in_trial(trial)(images(1))
    assert said == [2, 0, 1, 2, 0]


def test_share_is_what_running_is_billed() -> None:
    model = lively()
    actions = standard.half_kept(model, 6, "groups50")
    actions[1, 3, 0] = 0
    with torch.no_grad():
        bill = model.run(images(6), lambda observation: actions[observation.block]).macs
    assert standard.share(model, actions) == pytest.approx(float(bill.mean()) / model.costs.dense)


def test_forced_gates_decide_what_they_are_told() -> None:
    half = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1.0]])
    other = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0.0]])
    model = standard.force(lively(), half, other)
    everything = torch.ones_like(half)
    for price, actions in ((standard.HALF, half), (standard.OTHER_HALF, other), (standard.ALL, everything)):
        with torch.no_grad():
            got = model.run(images(5), model.greedy(), torch.full((5,), price)).actions
        wanted = actions * actions[:, :1]  # a skipped block's filters are not asked about
        assert torch.equal(got * got[:, :, :1], wanted[:, None].expand(-1, 5, -1))


@pytest.mark.parametrize("keep", ["blocks50", "groups50"])
def test_a_file_of_forced_gates_decides_by_the_price(keep: str) -> None:
    model = lively()
    halves = standard.fair_halves(model, keep)
    forced = standard.force(model, *(half[:, 0] for half in halves))
    wanted = [*halves, torch.ones_like(halves[0])]
    for layout in layouts_here(model.backbone):
        session = open_session(dynamic_model(forced, layout))
        for price, actions in zip((standard.HALF, standard.OTHER_HALF, standard.ALL), wanted, strict=True):
            feeds = {"image": images(1).numpy(), "price": np.full((1, 1), price, np.float32)}
            decided = torch.from_numpy(session.run(["decisions"], feeds)[0]).float()
            assert torch.equal(decided, (actions * actions[:, :, :1])[:, 0]), "a skipped block keeps no filters"


def test_a_race_is_fair_in_order_and_count() -> None:
    calls: list[tuple[str, int]] = []
    times = race({name: lambda trial, name=name: calls.append((name, trial)) for name in "abc"}, 30, warmup=1)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 30, "b": 30, "c": 30}
    assert [trial for name, trial in calls if name == "a"] == list(range(-1, 30))
    before = Counter((one, other) for (one, _), (other, _) in itertools.pairwise(calls))
    assert all(before[pair] > 5 for pair in itertools.permutations("abc", 2)), "everyone comes after everyone"


@pytest.mark.parametrize(("seconds", "counted"), [(0.0, LEAST), (0.3, None), (60.0, 12)])
def test_a_race_ends_when_its_seconds_are_over_but_not_before_a_few_trials(seconds: float, counted: int | None) -> None:
    times = race({"a": lambda _: time.sleep(0.04), "b": lambda _: None}, 12, seconds=seconds)
    assert len(times["a"]) == len(times["b"])
    assert len(times["a"]) == counted if counted else LEAST <= len(times["a"]) < 12


def test_a_race_that_ends_early_has_taken_two_decisions_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 5)
    assert len(race({"a": lambda _: None}, 12, seconds=0.0)["a"]) == 6


def test_a_race_of_few_trials_has_no_more_for_lack_of_seconds() -> None:
    assert len(race({"a": lambda _: None}, 3, seconds=0.0)["a"]) == 3


def test_settling_calls_are_not_timed_and_repeated_ones_are_averaged() -> None:
    calls = itertools.count()

    def slow_at_first(_: int) -> None:
        time.sleep(0.6 if next(calls) % 4 == 0 else 0.001)

    times = race({"a": slow_at_first}, 4, warmup=1, settle=1, repeat=3)
    assert next(calls) == 5 * 4
    assert max(times["a"]) < 0.2


def test_what_is_done_between_trials_is_not_timed() -> None:
    done: list[float] = []
    times = race({"a": lambda _: None, "b": lambda _: None}, 3, warmup=2, each=lambda: done.append(time.sleep(0.2)))
    assert len(done) == 3, "counted trials only"
    assert max(times["a"] + times["b"]) < 0.2


def test_a_race_times_each_thing_by_itself() -> None:
    times = race({"slow": lambda _: time.sleep(0.2), "fast": lambda _: None}, 3)
    assert min(times["slow"]) >= 0.2
    assert max(times["fast"]) < 0.2


def test_quartiles_of_ratios_lie_within_them() -> None:
    assert Comparison([1.0, 3.0], [1.0, 1.0]).ratio_quartiles == (1.5, 2.5)


def test_the_interval_of_a_ratio_is_that_of_scipys_bootstrap_and_narrows_with_trials() -> None:
    draws = np.random.default_rng(1)
    this, other = draws.lognormal(0.2, 0.3, 400), draws.lognormal(0, 0.1, 400)
    low, high = Comparison(this.tolist(), other.tolist()).ratio_interval

    def ratio(this: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.median(this, axis) / np.median(other, axis)

    expected = scipy.stats.bootstrap((this, other), ratio, paired=True, method="percentile", rng=2).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert low < Comparison(this.tolist(), other.tolist()).ratio < high
    assert Comparison(this.tolist(), other.tolist()).ratio_interval == (low, high), "seeded"
    few = Comparison(this[:12].tolist(), other[:12].tolist()).ratio_interval
    assert few[1] - few[0] > 2 * (high - low)


def test_trials_that_hang_together_are_drawn_again_together() -> None:
    other = [1.0, 5.0, 2.0, 9.0, 4.0]
    assert Comparison([2 * seconds for seconds in other], other).ratio_interval == (2.0, 2.0)


def test_a_case_is_against_the_fastest_dense_network_in_the_same_runtime() -> None:
    def contestant(name: str, runtime: str, dense: bool = True) -> Contestant:
        return Contestant(name, lambda _: None, runtime, dense, 0.0, 0.0)

    engine = contestant("engine", "PyTorch", dense=False)
    others = [contestant("a", "PyTorch"), contestant("b", "PyTorch"), contestant("c", "ONNX Runtime")]
    times = {"engine": [1.0, 2.0, 6.0], "a": [8.0, 8.0, 8.0], "b": [4.0, 4.0, 5.0], "c": [1.0, 1.0, 1.0]}
    row = case("x", times, engine, [engine, *others], 0.5)
    assert (row["rival"], row["ratio"], row["rivals"]) == ("b", 0.5, ["a", "b"])
    assert (row["median_ms"], row["rival_median_ms"]) == (2000, 4000)
    assert row["mean_ratio"] == pytest.approx(3 / (13 / 3))
    assert row["ratio_interval"][0] <= 0.5 <= row["ratio_interval"][1]
    assert case("x", times, engine, others, 0.5, 0.125)["excess_ratio"] == 0.125


def test_what_computes_everything_is_billed_nothing_in_its_case() -> None:
    masked = masked_contestant(lively(), images(2))
    dense = Contestant("dense", lambda _: None, "PyTorch", True, 0.0, 0.0)
    row = case("x", {masked.name: [1.0, 2.0], "dense": [1.0, 2.0]}, masked, [masked, dense], 0.5)
    assert (row["macs_ratio"], row["excess_ratio"]) == (None, None)


def test_the_excess_of_a_forced_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively()
    eager = [Contestant("dense", lambda _: None, "PyTorch", True, 0.0, 0.0)]
    monkeypatch.setattr(standard, "dense_contestants", lambda *_: eager)
    monkeypatch.setattr(Crossover, "plan", lambda self, block, chunks, count: [Chunk(self.everything[block], count)])
    for ways, billed, beyond in standard.engine_cases("tiny", model, images(8))[1].values():
        assert len(ways) == 1
        assert beyond is not None
        assert billed + beyond == pytest.approx(standard.share(model, torch.ones(3, 8, 5)), abs=1e-3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run for a range of prices, of a network that nobody trained."""
    save_model(lively(width=16, prices=PriceRange(0.1, 2)), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text("dataset: shapes\ndata_root: null\n")
    return tmp_path


LATENCIES = {"dense": {"dense": True, "macs": [1e6], "milliseconds": [1.0]}}


def told(*_: object) -> dict[str, Any]:
    """What ``trained`` returns, without the minutes that it takes."""
    return {"cases": [], "contestants": [], "latencies": LATENCIES}


def test_a_folder_for_figures_is_made_before_and_they_are_written_before_the_picture(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = run / "new" / "folder" / "x.json"
    monkeypatch.setattr(bench, "trained", lambda *_: told() if figures.parent.is_dir() else pytest.fail("no folder"))
    drawn = []
    monkeypatch.setattr(bench, "plot_latencies", lambda *of: drawn.append((figures.is_file(), *of)))
    assert main(["bench", str(run), "--json", str(figures), "--device", "cpu", "--batches", "2"]) == 0
    assert json.loads(figures.read_text())["latencies"] == LATENCIES
    assert [(there, of, path) for there, of, _, path in drawn] == [(True, LATENCIES, figures.with_suffix(".png"))]
    assert drawn[0][2].startswith(f"{run.name}: single images of ")


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_timed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("trained", "standard"):
        monkeypatch.setattr(bench, name, lambda *_: pytest.fail("timed"))
    for what in ([str(run)], ["--preset", "standard"]):
        assert main(["bench", *what, "--json", str(run / "config.yaml" / "x.json")]) == 2
        assert "config.yaml" in capsys.readouterr().err


def test_figures_say_of_which_device_and_price_they_are_and_a_gpu_has_no_profile_of_the_cpu(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = torch.device("cuda", 1)
    monkeypatch.setattr(bench, "trained", told)
    monkeypatch.setattr(bench, "resolve_device", lambda _: second)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    assert main(["bench", str(run), "--device", "cuda:1", "--precisions", "fp32", "bf16"]) == 0
    figures = json.loads((run / "bench.json").read_text())
    assert (figures["machine"]["device"], figures["machine"]["cuda"]) == ("cuda:1", "the GPU cuda:1")
    assert figures["price"] == pytest.approx(float(load_model(run).price))
    assert figures["profile"] == {}
    shown = capsys.readouterr().out
    assert "no profile: it would be of the CPU's time, and this ran on cuda:1" in shown
    assert "bf16: without the masked network and ONNX Runtime" in shown
    assert machine(torch.device("cpu"))["cuda"] is None


def test_profiling_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    profile_engine(Engine(lively(width=16)), images(2))
    assert capfd.readouterr() == ("", "")


def test_the_profile_sorts_every_block_into_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is timed writes over the features, so that is what is to be profiled.
    monkeypatch.delattr(Engine, "advance")
    rows = profile_engine(Engine(lively(width=16)), images(8))
    assert len(rows) == 3
    assert all(row.keys() == {*KINDS, "rest"} for row in rows)
    assert all(min(row.values()) > 0 for row in rows)
    operators = ("aten::convolution", "mkldnn::_convolution_pointwise", "aten::index_put_", "aten::addmm", "aten::relu")
    assert [kind(name) for name in operators] == ["convolutions", "convolutions", "gathers", "gates", "rest"]


@pytest.mark.slow
def test_the_standard_benchmark_writes_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard, "NETWORKS", {"tiny": ("resnet8", 16)})
    path = tmp_path / "bench.json"
    assert main(["bench", "--preset", "standard", "--trials", "2", "--json", str(path)]) == 0
    rows = {row["name"]: row for row in json.loads(path.read_text())["cases"]}
    assert {f"{how}-tiny-{keep}" for how in ("onnx-b1", "engine-b128") for keep in standard.KEEPS} <= rows.keys()
    assert rows["onnx-b1-tiny-all"]["macs_ratio"] > 1 > rows["engine-b128-tiny-groups50"]["macs_ratio"]


@pytest.mark.slow
def test_a_runs_benchmark_writes_figures_and_a_picture(tmp_path: Path) -> None:
    model = lively(width=16)
    save_model(model, tmp_path / "model.safetensors")
    save_backbone(model.backbone, tmp_path / "start.safetensors")
    (tmp_path / "config.yaml").write_text("dataset: shapes\ndata_root: null\n")
    assert main(["bench", str(tmp_path), "--trials", "2", "--batches", "1", "8"]) == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    names = {row["name"] for row in figures["cases"]}
    assert {"engine policy fp32, batch 8", "ONNX Runtime policy standard, batch 1", "masked fp32, batch 1"} <= names
    latencies = figures["latencies"]
    assert len(latencies["dense ONNX Runtime"]["milliseconds"]) == 2 * SINGLES
    timed = load_dataset("shapes", "val").sample(1000).images[: 2 * SINGLES]
    with torch.no_grad():
        assert latencies["ONNX Runtime policy standard"]["macs"] == model.run(timed, model.greedy()).macs.tolist()
    rivals = {row["name"]: row["rival"] for row in figures["cases"]}
    assert rivals["ONNX Runtime policy standard, batch 1"] == "dense ONNX Runtime"
    rows = {row["name"]: row for row in figures["cases"]}
    assert rows["masked fp32, batch 8"]["macs_ratio"] is None
    assert rows["engine policy fp32, batch 8"]["excess_ratio"] >= 0
    assert rivals["engine policy fp32, batch 8"] in ("dense eager fp32", "dense torch.compile fp32")
    assert (tmp_path / "bench.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_with_two_networks_is_compared_with_what_a_user_names(tmp_path: Path) -> None:
    run, other = tmp_path / "run", lively("resnet14").backbone
    run.mkdir()
    save_model(lively(second="resnet8"), run / "model.safetensors")
    save_backbone(other, tmp_path / "other.safetensors")
    (run / "config.yaml").write_text("dataset: shapes\ndata_root: null\n")
    against = str(tmp_path / "other.safetensors")
    assert main(["bench", str(run), "--against", against, "--trials", "2", "--batches", "1"]) == 0
    figures = json.loads((run / "bench.json").read_text())
    rivals = {row["name"]: row["rival"] for row in figures["cases"]}
    assert rivals["ONNX Runtime policy standard, batch 1"] == "other.safetensors ONNX Runtime"
    dense = figures["latencies"]["other.safetensors ONNX Runtime"]
    assert (dense["dense"], dense["macs"]) == (True, [float(dense_macs(other))] * 2 * SINGLES)
    spent = statistics.mean(figures["latencies"]["ONNX Runtime policy standard"]["macs"])
    shares = {row["name"]: row["macs_ratio"] for row in figures["cases"]}
    assert shares["ONNX Runtime policy standard, batch 1"] == pytest.approx(spent / dense_macs(other))


@pytest.mark.parametrize(
    ("what", "sides"),
    [
        ("env", ["environment, 4 episodes", "bare masked forward pass, 4 images"]),
        ("train", ["joint step, 2 rollouts of 4 images, no distillation", "dense step, 4 images"]),
    ],
)
def test_an_overhead_is_told_as_two_times_and_their_ratio(
    what: str, sides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--backbone", "resnet8", "--width", "4", "--images", "4", "--device", "cpu"]
    assert main(["bench", what, *network, "--trials", "3"]) == 0
    shown = capsys.readouterr().out
    names, medians = zip(*re.findall(r"^(.*): median ([\d.]+) ms$", shown, re.M), strict=True)
    assert list(names) == sides
    assert "trials: 3/3" in shown
    spans = r"[\d.]+ to [\d.]+, quartiles of pairs [\d.]+ to [\d.]+"
    ends = rf"; 3 alternating trials, resnet8, {torch.get_num_threads()} threads, cpu\)$"
    [ratio] = re.findall(rf"^ratio of medians ([\d.]+) \(95 % interval {spans}{ends}", shown, re.M)
    this, other = map(float, medians)  # each rounded to a tenth
    assert (this - 0.05) / (other + 0.05) - 0.005 <= float(ratio) <= (this + 0.05) / (other - 0.05) + 0.005
