"""The picture of a benchmark: what was measured, of everyone who took part."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lcnet_rl.plots import plot_latencies

LATENCIES = {
    "engine": {"dense": False, "macs": [1e6, 3e6, 2e6], "milliseconds": [0.5, 0.7, 0.6]},
    "ONNX Runtime": {"dense": False, "macs": [1e6, 3e6, 2e6], "milliseconds": [0.1, 0.3, 0.2]},
    "dense": {"dense": True, "macs": [4e6, 4e6, 4e6], "milliseconds": [0.8, 0.9, 1.0]},
}


def test_the_milliseconds_of_every_contestant_are_drawn_over_its_mmacs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[tuple[Figure, Path]] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append((figure, path)))
    plot_latencies(LATENCIES, tmp_path / "bench.png")
    [(figure, path)] = drawn
    [axes] = figure.axes
    assert path == tmp_path / "bench.png"
    points = {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert points == {
        "engine": ([1, 3, 2], [0.5, 0.7, 0.6]),
        "ONNX Runtime": ([1, 3, 2], [0.1, 0.3, 0.2]),
        "dense": ([4, 4, 4], [0.8, 0.9, 1.0]),
    }
    assert "MMACs" in axes.get_xlabel()
    assert axes.get_ylabel().startswith("ms ")
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert [text.get_text() for text in axes.get_legend().texts] == list(LATENCIES)


def test_contestants_are_told_apart_by_colour_and_dense_ones_by_their_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_latencies(LATENCIES, tmp_path / "bench.png")
    lines = drawn[0].axes[0].lines
    assert len({to_hex(line.get_color()) for line in lines}) == 3
    assert [line.get_marker() for line in lines] == ["o", "o", "x"]
    assert {line.get_linestyle() for line in lines} == {"None"}, "the images are in no order"
