"""The picture of a benchmark: what was measured, of everyone who took part; and how pictures are written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import summary
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from networks import images, lively
from numpy.typing import NDArray
from PIL import Image

from lcnet_rl import plots
from lcnet_rl.comparison.picture import plot_frontier
from lcnet_rl.comparison.records import Record, grouped
from lcnet_rl.data import Dataset
from lcnet_rl.drawing import draw_trace, fitted, labelled, tile
from lcnet_rl.evaluate import evaluate
from lcnet_rl.plots import picture_paths, plot_latencies, plot_tradeoff

LATENCIES = {
    "engine": {"dense": False, "macs": [1e6, 3e6, 2e6], "milliseconds": [0.5, 0.7, 0.6]},
    "ONNX Runtime": {"dense": False, "macs": [1e6, 3e6, 2e6], "milliseconds": [0.1, 0.3, 0.2]},
    "dense": {"dense": True, "macs": [4e6, 4e6, 4e6], "milliseconds": [0.8, 0.9, 1.0]},
}


def test_importing_what_draws_leaves_matplotlib_s_backend_as_it_was() -> None:
    program = (
        "import matplotlib\n"
        "matplotlib.use('svg')\n"
        "import lcnet_rl.plots, lcnet_rl.comparison.picture\n"
        "print(matplotlib.get_backend().lower())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["svg"]


def test_the_milliseconds_of_every_contestant_are_drawn_over_its_mmacs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_latencies(LATENCIES, "title", tmp_path / "bench.png")
    [figure] = drawn
    [axes] = figure.axes
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


def draw_paths(path: Path) -> None:
    model, data = lively(classes=2), Dataset("noise", "val", images(4), torch.arange(4) % 2, ("a", "b"))
    results = evaluate(model, data, model.greedy(), torch.device("cpu"))
    picture_paths(model, data, results, results, "mine", path, count=2)


def test_of_few_images_the_easy_row_and_the_hard_row_have_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    captions: list[str] = []
    columns: list[int] = []

    def draw(*arguments: Any) -> NDArray[np.uint8]:
        captions.append(arguments[3])
        return np.zeros((4, 6, 3), np.uint8)

    def tiled(pictures: list[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
        columns.append(count)
        return tile(pictures, count)

    monkeypatch.setattr(plots, "draw_trace", draw)
    monkeypatch.setattr(plots, "tile", tiled)
    model, difficulty = lively(classes=2), torch.tensor([0.3, 0.1, 0.2])
    data = Dataset("noise", "val", images(3), torch.tensor([0, 1, 0]), ("a", "b"), difficulty)
    results = evaluate(model, data, model.greedy(), torch.device("cpu"))
    picture_paths(model, data, results, results, "mine", tmp_path / "paths.png", count=8)
    assert columns == [3]
    assert [caption.rpartition(" ")[2] for caption in captions] == ["0.10", "0.20", "0.30"] * 2


def draw_latencies(path: Path) -> None:
    plot_latencies(LATENCIES, "title", path)


def draw_frontier(path: Path) -> None:
    plot_frontier(grouped([Record("x", {}, summary(0.9, 0.5))]), {"dense": (1e6, 0.95)}, {}, [], "title", path)


def draw_tradeoff(path: Path) -> None:
    plot_tradeoff(summary(0.9, 0.5) | {"networks": 1, "pruned": False, "split": "test"}, [], "line", "mine", path)


def tradeoff(accuracy: float, curve: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch, path: Path) -> Axes:
    """What is drawn of a policy whose controls, but for the first, are as accurate as itself."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    figures = summary(accuracy, 0.5) | {"networks": 1, "pruned": False, "split": "test"}
    figures["controls"]["static"] = {key: figures[key] for key in ("accuracy", "macs_ratio", "macs_mean")}
    plot_tradeoff(figures, curve, "line", "mine", path)
    return drawn[0].axes[0]


@pytest.mark.parametrize("accuracy", [0.96, 0.9961, 1.0])
@pytest.mark.parametrize("lowest", [None, 0.1, 0.9, 0.99])
def test_no_accuracy_above_a_hundred_percent_is_on_the_axis(
    accuracy: float, lowest: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curve = [] if lowest is None else [(1e6, lowest), (8e6, 1.0)]
    axes = tradeoff(accuracy, curve, monkeypatch, tmp_path / "tradeoff.png")
    bottom, top = axes.get_ylim()
    assert top > 100 * max(accuracy, 0.93, *(share for _, share in curve)), "the best mark is drawn whole"
    shown = [tick for tick in axes.get_yticks() if bottom <= tick <= top]
    assert len(shown) > 1
    assert max(shown) <= 100


def test_points_fill_the_width_though_the_line_goes_on_to_where_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing_kept = [(macs * 1e5, 0.1) for macs in range(1, 50)]
    axes = tradeoff(0.9, nothing_kept, monkeypatch, tmp_path / "x.png")
    left, right = axes.get_xlim()
    places = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    room = plots.MARGIN * (max(places) - min(places))
    assert (min(places) - left, right - max(places)) == pytest.approx((room, room))


def test_a_policys_point_is_drawn_before_those_of_its_controls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = {line.get_label(): line for line in tradeoff(0.9, [], monkeypatch, tmp_path / "tradeoff.png").lines}
    assert {"policy", "control: shuffled", "control: static"} <= lines.keys()
    assert all(lines["policy"].get_zorder() > line.get_zorder() for name, line in lines.items() if name != "policy")


def stopped(_: Any, path: Path, *__: Any, **___: Any) -> None:
    """A picture that is not written to its end."""
    Path(path).write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("draw", [draw_frontier, draw_latencies, draw_paths, draw_tradeoff])
def test_a_picture_is_the_old_one_until_the_new_one_is_whole(
    draw: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    draw(path)
    whole = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    monkeypatch.setattr(Figure, "savefig", stopped)
    monkeypatch.setattr(Image.Image, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        draw(path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_contestants_are_told_apart_by_colour_and_dense_ones_by_their_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_latencies(LATENCIES, "title", tmp_path / "bench.png")
    lines = drawn[0].axes[0].lines
    assert len({to_hex(line.get_color()) for line in lines}) == 3
    assert [line.get_marker() for line in lines] == ["o", "o", "x"]
    assert {line.get_linestyle() for line in lines} == {"None"}, "the images are in no order"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("short, seen as long", "short, seen as long"),
        ("lines with a long name, seen as blue with a long name", "lines ...ame, seen as blue w...ame"),
        ("a class with quite a long name, 93%, 45% MACs", "a class wit... name, 93%, 45% MACs"),
        ("one with a long name (seen: two) · 9% MACs", "one wi...ame (seen: two) · 9% MACs"),
        ("photos-of-the-summer/IMG_2021_08_15_14_1.png", "photos-o...mer/IMG_2021...4_1.png"),
    ],
)
def test_of_a_line_that_is_too_long_its_longest_parts_are_shortened_and_its_end_is_told(line: str, shown: str) -> None:
    assert fitted(line, lambda text: len(text) <= 34) == shown


@pytest.mark.parametrize("line", ["a, " * 40, "a name " * 20, "x" * 80, ", a long name" * 9])
def test_a_line_of_any_length_is_made_to_fit(line: str) -> None:
    assert len(fitted(line, lambda text: len(text) <= 30)) <= 30


def test_letters_outside_ascii_are_told_apart_in_captions_and_titles() -> None:
    nothing, letters = np.zeros((3, 32, 32), np.uint8), "äñßłжяδω"
    captions = {draw_trace(nothing, [], 3, letter).tobytes() for letter in letters}
    titles = {labelled(np.zeros((9, 9, 3), np.uint8), letter).tobytes() for letter in letters}
    assert len(captions) == len(titles) == len(letters)
