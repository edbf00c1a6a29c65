"""Exported networks: the model's logits, bill and decisions, without the arithmetic of what is dropped."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import BEHIND, balance, force, images, lively

from lcnet_rl.backbones import BackboneSpec
from lcnet_rl.errors import UserError
from lcnet_rl.export import OnnxNetwork, blocked_size, dense_model, dynamic_model, filters, layouts_here, open_session
from lcnet_rl.export.agreement import Agreement
from lcnet_rl.export.builder import FLOAT, Graph
from lcnet_rl.export.layout import BLOCKED_DOMAIN, Blocked, Layout
from lcnet_rl.export.network import FORMAT, finished
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange
from lcnet_rl.spec import Decides
from lcnet_rl.state import Outcome


def saved(model: LCNet, layout: Layout, folder: Path) -> Path:
    path = folder / f"{layout.name}.onnx"
    onnx.save(dynamic_model(model, layout), path)
    return path


def assert_same(model: LCNet, expected: Outcome, got: Outcome) -> None:
    largest = float(expected.logits.abs().max())
    # In float32 both are up to 1.5e-4 of the largest logit off what float64 gives.
    torch.testing.assert_close(got.logits, expected.logits, atol=3e-4 * max(1, largest), rtol=0)
    assert torch.equal(got.macs, expected.macs)
    assert torch.equal(got.actions, model.decisions.executed(expected.actions))


@settings(max_examples=12)
@given(
    name=st.sampled_from(["resnet8", "resnet18", "resnet14-wide", "resnet11-pool"]),
    decides=st.sampled_from(["layers", "channels", "both"]),
    groups=st.sampled_from([0, 1, 2, 4, 8]),
    confidence=st.booleans(),
    copies=st.booleans(),
    keep=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_any_decisions_give_the_models_logits(
    name: str, decides: Decides, groups: int, confidence: bool, copies: bool, keep: float, seed: int
) -> None:
    model = lively(name, decides, groups, 16, confidence)
    draws = torch.rand(model.depth, model.action_size, generator=torch.Generator().manual_seed(seed))
    forced = force(model, (draws < keep).float())
    with torch.no_grad():
        expected = forced.run(images(1), forced.greedy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "SETS_BYTES", filters.SETS_BYTES if copies else 0)
        for layout in layouts_here(model.backbone):
            session = open_session(dynamic_model(forced, layout))
            logits, macs, decisions = map(torch.from_numpy, session.run(None, {"image": images(1).numpy()}))
            assert_same(model, expected, Outcome(logits, decisions.float()[:, None], macs[0]))


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("decides", ["layers", "channels", "both"])
def test_the_gates_inside_decide_as_the_model_does(decides: Decides, confidence: bool, tmp_path: Path) -> None:
    model = balance(lively("resnet14", decides, width=16, confidence=confidence), images(24))
    with torch.no_grad():
        expected = model.run(images(24), model.greedy())
    assert len(expected.macs.unique()) > 3
    for layout in layouts_here(model.backbone):
        assert_same(model, expected, OnnxNetwork(saved(model, layout, tmp_path)).run(images(24)))


@pytest.mark.parametrize("decides", ["channels", "both"])
def test_filters_of_a_pruned_network_that_fill_no_block_of_the_layout_decide_too(
    decides: Decides, tmp_path: Path
) -> None:
    model = balance(lively("resnet8", decides, groups=0, width=16, filters=(7, 20, 33)), images(12))
    with torch.no_grad():
        expected = model.run(images(12), model.greedy())
    for layout in layouts_here(model.backbone):
        assert_same(model, expected, OnnxNetwork(saved(model, layout, tmp_path)).run(images(12)))


def test_the_metadata_name_the_classes() -> None:
    model = dynamic_model(lively(width=16), Layout(), tuple("abcdefghij"))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["classes"]) == list("abcdefghij")


@pytest.mark.parametrize("confidence", [True, False])
def test_a_file_holds_a_probe_for_each_block_only_if_its_gates_read_the_confidence(confidence: bool) -> None:
    model = lively(confidence=confidence)
    operators = [node.op_type for node in dynamic_model(model, Layout()).graph.node]
    assert operators.count("LogSoftmax") == model.depth * confidence
    # Outside the branches: a layer of each L-Net, the share spent, head, bill, and for a probe its layer and entropy.
    assert operators.count("Gemm") == model.depth * (2 + 2 * confidence) + 2


def test_one_file_serves_other_thresholds_and_prices(tmp_path: Path) -> None:
    model = lively(width=16)
    for gate in model.gates():
        gate.keep.weight.data[:, -1] = 1.5
    network = OnnxNetwork(saved(model, Layout(), tmp_path))
    bills = set()
    for threshold, price in ((0.3, None), (0.8, None), (0.5, 2.0), (0.5, 5.0)):
        with torch.no_grad():
            expected = model.run(images(8), model.greedy(threshold), price)
        assert_same(model, expected, network.run(images(8), threshold, price))
        bills.add(float(expected.macs.mean()))
    assert len(bills) == 4


@pytest.mark.parametrize("prices", [None, PriceRange(0.4, 1.6)])
def test_without_a_price_a_file_decides_at_the_models_own(prices: PriceRange | None, tmp_path: Path) -> None:
    model = lively(width=16, prices=prices)
    for gate in model.gates():
        gate.keep.weight.data[:, -1] = -1.5
    with torch.no_grad():
        usual = model.run(images(8), model.greedy())
        model.price.fill_(1.5)
        expected = model.run(images(8), model.greedy())
    assert expected.macs.sum() < usual.macs.sum()
    assert_same(model, expected, OnnxNetwork(saved(model, Layout(), tmp_path)).run(images(8)))


def test_a_file_for_a_range_of_prices_reads_them_as_the_model_does(tmp_path: Path) -> None:
    model = lively(width=16, prices=PriceRange(0.4, 1.6))
    for gate in model.gates():
        gate.keep.weight.data[:, -1] = -1.5
    network = OnnxNetwork(saved(model, Layout(), tmp_path))
    bills = []
    for price in (0.0, 0.4, 0.7, 1.6, 3.0):
        with torch.no_grad():
            expected = model.run(images(8), model.greedy(), price)
        assert_same(model, expected, network.run(images(8), price=price))
        bills.append(float(expected.macs.mean()))
    # Beyond the range, its ends.
    assert bills[0] == bills[1] > bills[2] > bills[3] == bills[4]


@pytest.mark.parametrize("name", ["resnet18", "resnet14-wide", "resnet11-pool"])
@pytest.mark.parametrize("second", [None, BEHIND])
def test_the_dense_file_gives_the_backbones_logits(name: str, second: BackboneSpec | None) -> None:
    model = lively(name, width=8, second=second)
    got = open_session(dense_model(model.backbone, 3)).run(None, {"image": images(3).numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), model.backbone(images(3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("images", "same", "enough"), [(1, 0, False), (1, 1, True), (2, 1, True), (9, 7, False)])
def test_a_file_agrees_that_decides_alike_but_for_one_image(images: int, same: int, enough: bool) -> None:
    agreement = Agreement(images, same_decisions=same, same_predictions=same, same_bills=same, error=0.0)
    with nullcontext() if enough else pytest.raises(UserError, match="does not do what the engine does"):
        agreement.check()


@pytest.mark.parametrize(
    ("same_bills", "error", "enough"), [(9, 1e-3, True), (8, 0.0, False), (9, 2e-3, False), (9, math.nan, False)]
)
def test_a_file_agrees_that_bills_alike_and_is_close_where_it_decides_alike(
    same_bills: int, error: float, enough: bool
) -> None:
    agreement = Agreement(9, same_decisions=9, same_predictions=9, same_bills=same_bills, error=error)
    with nullcontext() if enough else pytest.raises(UserError, match="does not do what the engine does"):
        agreement.check()


def executed_convolutions(model: onnx.ModelProto, folder: Path) -> list[int]:
    """The MACs of every convolution that ran for one image, from the shapes in ONNX Runtime's profile."""
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    # Fusing and folding would change what counts as a convolution from one version to the next.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": images(1).numpy()})
    macs = []
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["name"].endswith("_kernel_time") and event["args"]["op_name"] == "Conv":
            weight, y = event["args"]["input_type_shape"][1]["float"], event["args"]["output_type_shape"][0]["float"]
            macs.append(math.prod(weight) * math.prod(y[2:]))
    return macs


@pytest.mark.parametrize(("kept", "groups", "convolutions"), [(0, 4, 1), (1, 4, 3), (3, 4, 7), (3, 2, 7), (3, 0, 1)])
def test_what_is_dropped_runs_no_convolution(tmp_path: Path, kept: int, groups: int, convolutions: int) -> None:
    model = lively(width=16)
    actions = torch.zeros(model.depth, model.action_size)
    actions[:kept, : 1 + groups] = 1
    assert len(executed_convolutions(dynamic_model(force(model, actions), Layout()), tmp_path)) == convolutions


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "resnet14-wide", "resnet11-pool"])
@pytest.mark.parametrize("copies", [True, False])
def test_the_convolutions_executed_are_the_convolutions_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, copies: bool
) -> None:
    monkeypatch.setattr(filters, "SETS_BYTES", filters.SETS_BYTES if copies else 0)
    model = lively(name, width=16)
    actions = (torch.rand(model.depth, model.action_size, generator=torch.Generator().manual_seed(3)) < 0.6).float()
    forced = force(model, actions)
    with torch.no_grad():
        bill = float(forced.run(images(1), forced.greedy()).macs)
    costs = zip(model.costs.blocks, actions[:, 0].tolist(), strict=True)
    gates = sum(cost.always + keep * cost.if_kept for cost, keep in costs)
    assert sum(executed_convolutions(dynamic_model(forced, Layout()), tmp_path)) == bill - gates - model.costs.head


@pytest.mark.parametrize(("kept", "convolutions"), [(0, 1), (1, 3), (3, 7), (4, 3)])
def test_without_sets_every_group_runs_by_itself_unless_all_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, convolutions: int
) -> None:
    monkeypatch.setattr(filters, "SETS_BYTES", 0)
    model = lively(width=16)
    actions = torch.zeros(model.depth, model.action_size)
    actions[0, : 1 + kept] = 1
    assert len(executed_convolutions(dynamic_model(force(model, actions), Layout()), tmp_path)) == convolutions


def test_weights_are_as_often_in_the_file_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(width=16)
    copied = dynamic_model(model, Layout()).ByteSize()
    monkeypatch.setattr(filters, "SETS_BYTES", 0)
    weights = sum(p.nbytes for p in model.backbone.blocks.parameters() if p.ndim == 4)
    assert copied - dynamic_model(model, Layout()).ByteSize() == pytest.approx((8 - 2) * weights, rel=0.1)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    model = onnx.load(saved(lively(width=16), Layout(), tmp_path))
    onnx.checker.check_model(model, full_check=True)
    assert all(
        name in model.graph.doc_string for name in ("image", "threshold", "price", "logits", "macs", "decisions")
    )
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["model"])["backbone"]["name"] == "resnet8"
    assert properties["dense_macs"] == str(lively(width=16).costs.dense)
    assert (properties["opset"], properties["format"]) == ("18", FORMAT)
    assert [entry.name for entry in model.graph.output] == ["logits", "macs", "decisions"]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_dense_file_says_how_many_images_it_takes(batch: int) -> None:
    model = dense_model(lively(width=16).backbone, batch)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [batch, 3, 32, 32]
    assert f"uint8 ({batch}, 3, 32, 32)" in model.doc_string
    assert f"float32 ({batch}, classes)" in model.doc_string


def test_blocks_are_as_long_as_those_that_onnx_runtime_makes(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    graph, weight = Graph("24 filters"), torch.ones(24, 32, 3, 3)
    y = Layout().conv(graph, "x", weight, torch.ones(24), 1, relu=True)
    built = graph.build([("x", (FLOAT, [1, 32, 8, 8]))], [(y, (FLOAT, [1, 24, 8, 8]))])
    ort.InferenceSession(finished(built, {}).SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    filters = next(tuple(entry.dims) for entry in optimized.initializer if len(entry.dims) == 4)[0]
    blocked = any(node.domain == BLOCKED_DOMAIN for node in optimized.node)
    # 24 filters fill three blocks of 8, and are filled up to two blocks of 16.
    assert blocked_size() == ({24: 8, 32: 16}[filters] if blocked else 1)


def test_the_blocked_layout_refuses_channels_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="--layout standard"):
        dynamic_model(lively(width=8), Blocked(16))
    assert [layout.name for layout in layouts_here(lively(width=4).backbone)] == ["standard"]


def altered(path: Path, **properties: str) -> Path:
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = properties.get(entry.key, entry.value)
    other = path.with_name("altered.onnx")
    onnx.save(model, other)
    return other


def test_what_cannot_be_run_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = saved(lively(width=16), Layout(), tmp_path)
    with pytest.raises(UserError, match="has format 0"):
        OnnxNetwork(altered(path, format="0"))
    with pytest.raises(UserError, match="another processor"):
        OnnxNetwork(altered(path, layout="blocked5"))
    with pytest.raises(UserError, match="no file at"):
        OnnxNetwork(tmp_path / "none.onnx")
    foreign = onnx.load(path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="not written by lcnet-rl export"):
        OnnxNetwork(tmp_path / "foreign.onnx")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        OnnxNetwork(path)


@pytest.mark.parametrize("given", [{"threshold": 0.5}, {"price": 0.3}])
def test_a_dense_file_takes_neither_threshold_nor_price(tmp_path: Path, given: dict[str, float]) -> None:
    onnx.save(dense_model(lively().backbone), tmp_path / "dense.onnx")
    with pytest.raises(UserError, match="decides nothing: leave threshold and price out"):
        OnnxNetwork(tmp_path / "dense.onnx").run(images(1), **given)


def spoil(model: onnx.ModelProto, how: str) -> None:
    if how == "IR version":
        model.ir_version = 99
    elif how == "opset":
        model.opset_import[0].version = 99
    elif how == "input":
        model.graph.node[5].input[0] = "nowhere"
    else:
        model.graph.node[5].op_type = "Nope"


@pytest.mark.parametrize("how", ["IR version", "opset", "input", "operator"])
def test_a_file_that_onnx_runtime_does_not_take_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = saved(lively(width=16), Layout(), tmp_path)
    model = onnx.load(path)
    spoil(model, how)
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"standard.onnx does not run in ONNX Runtime [\d.]+ \(is it damaged.*$"):
        OnnxNetwork(path)


@pytest.mark.parametrize("name", ["x.json", "x.textproto", "x"])
def test_a_file_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    path = saved(lively(width=16), Layout(), tmp_path).rename(tmp_path / name)
    assert len(OnnxNetwork(path).run(images(2)).logits) == 2


def test_thresholds_that_float32_does_not_tell_from_one_are_the_largest_below_it(tmp_path: Path) -> None:
    model = lively(width=16)
    sure = force(model, torch.ones(model.depth, model.action_size))  # by keep logits of 20
    network = OnnxNetwork(saved(sure, Layout(), tmp_path))
    assert network.run(images(1), 1 - 1e-8).actions.all()
    assert network.run(images(1), 1e-60).actions.all()


@pytest.mark.parametrize(
    "wrong",
    [
        torch.full((1, 3, 32, 32), float("nan")),
        torch.zeros(1, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(0, 3, 32, 32, dtype=torch.uint8),
    ],
    ids=["float", "channels last", "no batch", "none"],
)
def test_images_of_another_type_or_shape_are_refused(tmp_path: Path, wrong: torch.Tensor) -> None:
    with pytest.raises(UserError, match="images must be uint8"):
        OnnxNetwork(saved(lively(width=16), Layout(), tmp_path)).run(wrong)


def test_images_that_are_no_tensor_are_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images must be a torch.Tensor, got ndarray: use torch.from_numpy"):
        OnnxNetwork(saved(lively(width=16), Layout(), tmp_path)).run(images(1).numpy())


def test_a_threshold_outside_0_to_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a threshold is in"):
        OnnxNetwork(saved(lively(width=16), Layout(), tmp_path)).run(images(1), threshold=1.0)
