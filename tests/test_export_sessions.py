"""What is exported is checked, and runs in PyTorch's number of threads and for as many images as it says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from networks import images, lively
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lcnet_rl.export import OnnxNetwork, dense_model, dynamic_model, layouts_here, open_session
from lcnet_rl.export.builder import FLOAT, Graph
from lcnet_rl.export.layout import Layout
from lcnet_rl.export.network import finished


def test_a_session_has_as_many_threads_as_pytorch(threads: int, tmp_path: Path) -> None:
    model = dynamic_model(lively(width=16), Layout())
    onnx.save(model, tmp_path / "model.onnx")
    for count in (threads, threads + 1):
        torch.set_num_threads(count)
        for session in (open_session(model), OnnxNetwork(tmp_path / "model.onnx").session):
            assert session.get_session_options().intra_op_num_threads == count


@pytest.mark.parametrize("second", [None, "resnet8"])
def test_a_file_takes_one_image_at_a_time(second: str | None) -> None:
    model = lively(width=16, second=second)
    for layout in layouts_here(model.backbone):
        session = open_session(dynamic_model(model, layout))
        session.run(None, {"image": images(1).numpy()})
        for count in (0, 2):
            with pytest.raises(InvalidArgument, match="Got invalid dimensions for input: image"):
                session.run(None, {"image": torch.zeros(count, 3, 32, 32, dtype=torch.uint8).numpy()})


def test_a_dense_file_takes_as_many_images_as_it_was_made_for() -> None:
    session = open_session(dense_model(lively().backbone, 3))
    assert session.run(None, {"image": images(3).numpy()})[0].shape == (3, 10)
    for count in (1, 4):
        with pytest.raises(InvalidArgument, match="Got invalid dimensions for input: image"):
            session.run(None, {"image": images(count).numpy()})


def test_every_exported_model_was_checked_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    monkeypatch.setattr(onnx.checker, "check_model", lambda model, **_: checked.append(model.SerializeToString()))
    model = lively(width=16)
    made = [dynamic_model(model, layout) for layout in layouts_here(model.backbone)] + [dense_model(model.backbone)]
    assert checked == [one.SerializeToString() for one in made]


def test_a_graph_that_is_not_valid_is_not_finished() -> None:
    graph = Graph("of no such operator")
    built = graph.build([("x", (FLOAT, [1]))], [(graph.op("Nope", "x"), (FLOAT, [1]))])
    with pytest.raises(onnx.checker.ValidationError, match="Nope"):
        finished(built, {})
