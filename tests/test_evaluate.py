"""Evaluation: equal to a loop by hand, and honest statistics."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_backbones import noise
from test_model import coins, replayed, undecided_lcnet
from torch import Tensor, nn
from torch.nn import functional as F

from lcnet_rl import batchnorm, dense, plots
from lcnet_rl import evaluate as module
from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import evaluate, recalibrate, replay, spread_prices
from lcnet_rl.model import LCNet
from lcnet_rl.plots import picture_paths
from lcnet_rl.rewards import PriceRange
from lcnet_rl.rewards.shapes import Quadratic
from lcnet_rl.spec import Decides

CPU = torch.device("cpu")


def tiny_set(count: int = 13) -> Dataset:
    return Dataset("noise", "val", noise(count), torch.arange(count) % 4, ("a", "b", "c", "d"))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches, the last one shorter, for thirteen images."""
    monkeypatch.setattr(module, "BATCH", 5)
    monkeypatch.setattr(batchnorm, "CALIBRATION_BATCH", 5)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_every_batch_is_told_to_who_asks_and_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dense, "BATCH", 5)
    model, data = undecided_lcnet(), tiny_set()
    told: list[int] = []
    evaluate(model, data, model.greedy(), CPU, each=told.append)
    assert told == [5, 5, 3]
    dense.dense_predictions(model.backbone, data, CPU, each=told.append)
    assert told[3:] == [5, 5, 3]
    assert capsys.readouterr().out == ""


def test_results_equal_a_loop_by_hand() -> None:
    model, data = undecided_lcnet(), tiny_set()
    results = evaluate(model, data, model.greedy(), CPU)
    correct, log_probs, macs = [], [], []
    with torch.no_grad():
        for image, label in zip(data.images, data.labels, strict=True):
            outcome = model.run(image[None], model.greedy())
            correct.append(float(outcome.logits.argmax() == label))
            log_probs.append(-F.cross_entropy(outcome.logits, label[None]))
            macs.append(float(outcome.macs))
    shares = [bill / model.costs.dense for bill in macs]
    mean = sum(shares) / 13
    assert results.correct.tolist() == correct
    assert results.macs.tolist() == macs
    torch.testing.assert_close(results.log_prob, torch.stack(log_probs), rtol=1e-4, atol=1e-5)
    assert results.accuracy == pytest.approx(sum(correct) / 13)
    assert results.macs_ratio == pytest.approx(mean)
    assert results.spread == pytest.approx(math.sqrt(sum((share - mean) ** 2 for share in shares) / 13))
    assert results.spread > 0
    by_hand = [c * (1 - 0.5 * s**2) - (1 - c) * 0.7 for c, s in zip(correct, shares, strict=True)]
    assert results.reward(Quadratic(0.7), 0.5) == pytest.approx(sum(by_hand) / 13, rel=1e-5)


def test_the_greedy_policy_is_deterministic() -> None:
    model = undecided_lcnet()
    first, second = (evaluate(model, tiny_set(), model.greedy(), CPU) for _ in range(2))
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(first.log_prob, second.log_prob)


@pytest.mark.parametrize(("decides", "groups"), [("layers", 2), ("channels", 2), ("both", 0)])
def test_replaying_a_policys_actions_gives_its_results(decides: Decides, groups: int) -> None:
    model = undecided_lcnet(decides, groups)
    policy = evaluate(model, tiny_set(), model.greedy(), CPU)
    replayed = evaluate(model, tiny_set(), policy.actions, CPU)
    assert torch.equal(replayed.actions, policy.actions)
    assert torch.equal(replayed.log_prob, policy.log_prob)
    assert torch.equal(replayed.predictions, policy.predictions)
    assert torch.equal(replayed.macs, policy.macs)
    with torch.no_grad():
        by_hand = model.run(tiny_set().images, replay(policy.actions))
    torch.testing.assert_close(by_hand.macs, policy.macs, rtol=0, atol=0)


def test_evaluation_leaves_weights_and_statistics_alone() -> None:
    model = undecided_lcnet().train()
    before = copy.deepcopy(model.state_dict())
    evaluate(model, tiny_set(), model.greedy(), CPU)
    assert not model.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_recalibration_gives_the_stem_the_mean_statistics_of_its_batches() -> None:
    model, data = undecided_lcnet(), tiny_set()
    shuffled = data.sample(len(data)).images
    with torch.no_grad():
        x = (shuffled.float() / 255 - model.backbone.stem.mean) / model.backbone.stem.std
        convolved = F.conv2d(x, model.backbone.stem.conv.weight, padding=1)
    batches = convolved.tensor_split(3)  # of 12, at most 5 each: the last one is no smaller
    recalibrate(model, data, torch.ones(model.depth, 1, model.action_size), CPU)
    norm = model.backbone.stem.bn
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variance = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_recalibration_follows_the_given_decisions() -> None:
    model, data = undecided_lcnet(), tiny_set()
    static = coins(model, 1)
    static[:, :, 0] = 1
    recalibrate(model, data, static, CPU, images=5)
    recalibrated = copy.deepcopy(model)
    for norm in norms(model):
        norm.reset_running_stats()
        norm.momentum = 1.0  # the statistics of the one batch
    with torch.no_grad():
        model.train().run(data.sample(5).images, replayed(static.expand(-1, 5, -1)))
    for ours, theirs in zip(norms(model), norms(recalibrated), strict=True):
        torch.testing.assert_close(theirs.running_mean, ours.running_mean)
        torch.testing.assert_close(theirs.running_var, ours.running_var)


def test_recalibration_uses_no_more_images_than_asked_for() -> None:
    data = tiny_set()
    models = [undecided_lcnet() for _ in range(2)]
    recalibrate(models[0], data, models[0].greedy(), CPU, images=5)
    recalibrate(models[1], data.sample(5), models[1].greedy(), CPU)
    for a, b in zip(norms(models[0]), norms(models[1]), strict=True):
        torch.testing.assert_close(a.running_mean, b.running_mean)


def test_recalibration_restores_momentum_and_changes_statistics_only() -> None:
    model = undecided_lcnet()
    for index, norm in enumerate(norms(model)):
        norm.momentum = 0.1 + 0.01 * index
    before = [norm.momentum for norm in norms(model)]
    weights = copy.deepcopy(dict(model.named_parameters()))
    recalibrate(model, tiny_set(), model.greedy(), CPU)
    assert [norm.momentum for norm in norms(model)] == before
    assert not model.training
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_recalibration_leaves_the_statistics_of_the_gates_inputs_alone() -> None:
    model = undecided_lcnet()
    before = copy.deepcopy(model.standardizers.state_dict())
    recalibrate(model, tiny_set(), model.greedy(), CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.standardizers.state_dict().items())


@pytest.mark.parametrize("batch", [250, 500])
def test_prices_cover_their_range_evenly_in_every_batch(batch: int) -> None:
    prices = PriceRange(0.05, 1.6)
    spread = spread_prices(prices, 4000)
    assert spread.shape == (4000,)
    even = (torch.arange(batch) + 0.5) / batch
    for part in spread.split(batch):
        places = (part / 0.05).log() / math.log(1.6 / 0.05)  # in [0, 1], even in the price's logarithm
        assert float((places.sort().values - even).abs().max()) < 2.5 / batch


def test_bf16_changes_logits_but_no_bill_of_fixed_decisions() -> None:
    model: LCNet = undecided_lcnet()
    actions: Tensor = coins(model, 13)
    exact, rough = (evaluate(model, tiny_set(), actions, CPU, precision=precision) for precision in ("fp32", "bf16"))
    assert torch.equal(exact.macs, rough.macs)
    assert not torch.equal(exact.log_prob, rough.log_prob)
    torch.testing.assert_close(exact.log_prob, rough.log_prob, rtol=0.1, atol=0.1)


def test_a_pictures_easiest_images_are_those_of_the_whole_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, data = undecided_lcnet(), tiny_set()
    whole, policy = (evaluate(model, data, decide, CPU) for decide in (model.keep_everything, model.greedy()))
    policy = replace(policy, log_prob=-torch.arange(13.0))
    captions: list[str] = []

    def drawn(*arguments: Any) -> Any:
        captions.append(arguments[3])
        return plain(*arguments)

    plain = plots.draw_trace
    monkeypatch.setattr(plots, "draw_trace", drawn)
    rows: list[Any] = []
    monkeypatch.setattr(plots, "labelled", lambda grid, title, labels: rows.extend([title, labels]) or grid)
    picture_paths(model, data, policy, whole, "mine", tmp_path / "paths.png", count=2)
    assert rows[0].startswith(f"mine: {model.spec.backbone.title} on {data.name}/{data.split}: what ran")
    assert rows[1] == ("easy", "hard")
    order = whole.log_prob.abs().argsort(stable=True)
    expected = [float(whole.log_prob[index].abs()) for index in (*order[:2], *order[-2:])]
    assert [float(caption.rsplit(maxsplit=1)[-1]) for caption in captions] == pytest.approx(expected, abs=0.006)
    for caption, index in zip(captions, (*order[:2], *order[-2:]), strict=True):
        label, seen = (data.classes[int(of[index])] for of in (data.labels, policy.predictions))
        assert caption.startswith(f"{label}\n" if label == seen else f"{label}, seen as {seen}\n")
