"""Gates: they start open and neutral, stay in their range, and do not depend on the precision around them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lcnet_rl.gates import CNet, LNet, Probe, Standardize, relu1

FEATURES = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("gate", "decisions", "scales"), [(LNet(8, 2.0), 1, 1), (CNet(8, 2, 6, 2.0), 2, 6)])
def test_a_gate_starts_open_and_exactly_neutral(gate: LNet | CNet, decisions: int, scales: int) -> None:
    assert torch.equal(gate.logits(FEATURES), torch.full((5, decisions), 2.0))
    assert torch.equal(gate.scales(FEATURES), torch.ones(5, scales))


def test_scales_are_clamped_to_zero_and_one() -> None:
    gate = CNet(8, 2, 6, 2.0)
    with torch.no_grad():
        gate.scale.weight.normal_()
        raw = gate.scale(FEATURES)
    assert raw.min() < 0
    assert raw.max() > 1
    assert torch.equal(gate.scales(FEATURES), raw.clamp(0, 1))


def test_without_gradients_a_scale_is_the_same() -> None:
    x = torch.tensor([-2.0, 0.0, 0.25, 1.0, 3.0], requires_grad=True)
    with torch.no_grad():
        assert torch.equal(relu1(x), torch.tensor([0.0, 0.0, 0.25, 1.0, 1.0]))
    assert torch.equal(relu1(x).detach(), torch.tensor([0.0, 0.0, 0.25, 1.0, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardising_folds_into_the_layer_that_follows(dtype: torch.dtype) -> None:
    standardize, layer = Standardize(5).to(dtype), nn.Linear(6, 3, dtype=dtype)
    standardize.mean.normal_()
    standardize.var.uniform_(0.1, 4)
    x, before = torch.randn(7, 6, dtype=dtype), layer.weight.clone()
    weight, bias = standardize.folded(layer)
    expected = layer(torch.cat((standardize(x[:, :5]), x[:, 5:]), 1)).double()
    torch.testing.assert_close(x.double() @ weight.T + bias, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer.weight, before)


def test_statistics_are_plain_means_over_100_batches_and_then_forget_one_percent_a_batch() -> None:
    standardize = Standardize(5)
    batches = (
        torch.randn(160, 8, 5, generator=torch.Generator().manual_seed(0)) + torch.linspace(0, 3, 160)[:, None, None]
    )
    means, variances = batches.mean(1), batches.var(1, correction=0)
    for batch in batches[:100]:
        standardize.update(batch)
    torch.testing.assert_close(standardize.mean, means[:100].mean(0))
    torch.testing.assert_close(standardize.var, variances[:100].mean(0))
    for batch in batches[100:]:
        standardize.update(batch)
    fresh = 0.01 * 0.99 ** torch.arange(59, -1, -1)[:, None]
    for got, each in ((standardize.mean, means), (standardize.var, variances)):
        torch.testing.assert_close(got, 0.99**60 * each[:100].mean(0) + (fresh * each[100:]).sum(0))
    assert int(standardize.count) == 160


def test_a_scale_at_exactly_one_still_gets_a_gradient() -> None:
    gate = CNet(8, 2, 6, 2.0)
    gate.scales(FEATURES).sum().backward()
    assert torch.equal(gate.scale.bias.grad, torch.full((6,), 5.0))
    torch.testing.assert_close(gate.scale.weight.grad, FEATURES.sum(0).expand(6, 8))


def test_keep_layers_and_scale_layers_do_not_share_parameters() -> None:
    gate = LNet(8, 0.0)
    gate.scales(FEATURES).sum().backward()
    assert gate.keep.weight.grad is None


def test_gates_and_probes_compute_in_float32_under_autocast() -> None:
    gate, probe = CNet(8, 2, 6, 2.0), Probe(8, 4)
    for layer in (gate.keep, gate.scale):
        torch.nn.init.normal_(layer.weight, 0, 0.1)
    plain = gate.logits(FEATURES), gate.scales(FEATURES), probe(FEATURES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gate.logits(FEATURES), gate.scales(FEATURES), probe(FEATURES)
    for a, b in zip(plain, mixed, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)
    assert gate.logits(FEATURES.bfloat16()).dtype == torch.float32


@settings(max_examples=60)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=12))
def test_confidence_is_within_zero_and_one(logits: list[float]) -> None:
    measures = Probe.confidence(torch.tensor([logits]))
    assert measures.shape == (1, Probe.measures)
    assert ((measures >= 0) & (measures <= 1)).all()
    assert measures[0, 0] >= 1 / len(logits) - 1e-6


def test_confidence_of_certain_and_of_clueless_logits() -> None:
    certain, clueless = torch.tensor([[1000.0, 0, 0, 0]]), torch.full((1, 4), 3.0)
    assert Probe.confidence(certain).tolist() == [[1, 0]]
    torch.testing.assert_close(Probe.confidence(clueless), torch.tensor([[0.25, 1.0]]))


def test_confidence_is_probability_and_normalised_entropy() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]])
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)) / math.log(3)
    torch.testing.assert_close(Probe.confidence(p.log() + 5), torch.tensor([[0.7, entropy]]))
