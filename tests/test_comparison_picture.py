"""Pictures of accuracy over compute: what is drawn, and what it is called."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluated import make_run, summary, three_settings
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from lcnet_rl.commands import main
from lcnet_rl.comparison.picture import LABELLED, MARGIN, plot_frontier
from lcnet_rl.comparison.published import Published
from lcnet_rl.comparison.records import Record, grouped
from lcnet_rl.plots import plot_tradeoff


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, instead of their files."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two settings with three seeds each, and a third, dominated, with one."""
    return three_settings(tmp_path)


def test_a_run_far_below_all_else_is_told_at_the_pictures_foot(drawn: list[Figure], tmp_path: Path) -> None:
    for far in (0.5, 0.895):
        groups = grouped([Record(str(x), {"x": x}, summary(x, 0.5)) for x in (0.9, far)])
        plot_frontier(groups, {"dense": (1e6, 0.95)}, {}, [], "title", tmp_path / "frontier.png")
    low, near = (figure.axes[0] for figure in drawn)
    assert low.get_ylim()[0] == pytest.approx(90 - MARGIN)
    assert {text.get_text() for text in low.texts} == {"0.9", "50.0 %"}
    assert near.get_ylim()[0] < 89.5
    assert [text.get_text() for text in near.texts] == ["0.9", "0.895"]


def test_many_runs_far_below_all_else_are_counted_at_the_pictures_foot(drawn: list[Figure], tmp_path: Path) -> None:
    groups = grouped([Record("x", {"x": x}, summary(x, 1 - x / 2)) for x in (0.9, *np.linspace(0.1, 0.5, 20).tolist())])
    plot_frontier(groups, {"dense": (1e6, 0.95)}, {}, [], "title", tmp_path / "frontier.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == [f"20 runs below {90 - MARGIN:.1f} %"]
    assert any(list(line.get_ydata()) == [axes.get_ylim()[0]] * 20 for line in axes.lines), "and marked where they are"


def test_names_of_runs_that_lie_close_together_do_not_overlap(drawn: list[Figure], tmp_path: Path) -> None:
    groups = grouped([Record(f"a-rather-long-name-{i}", {"x": i}, summary(0.9, 0.5)) for i in range(4)])
    plot_frontier(groups, {"dense": (1e6, 0.95)}, {}, [], "title", tmp_path / "frontier.png")
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].texts]
    assert len(boxes) == 4
    assert not any(box.overlaps(other) for box, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("count", [LABELLED, LABELLED + 1])
def test_few_runs_are_labelled_by_name(drawn: list[Figure], count: int, tmp_path: Path) -> None:
    groups = grouped([Record(f"study/{i}", {"x": i}, summary(0.9 + i / 10000, 0.5)) for i in range(count)])
    plot_frontier(groups, {}, {}, [], "title", tmp_path / "frontier.png")
    labels = [str(i) for i in range(count)] if count == LABELLED else []
    assert [text.get_text() for text in drawn[0].axes[0].texts] == labels


@pytest.mark.parametrize("seeds", [1, 2])
def test_bars_are_drawn_where_there_are_several_seeds(drawn: list[Figure], seeds: int, tmp_path: Path) -> None:
    records = [Record(f"{x}", {"x": x, "seed": seed}, summary(x, 0.5)) for x in (0.9, 0.8) for seed in range(seeds)]
    plot_frontier(grouped(records), {"dense": (1e6, 0.95)}, {}, [], "title", tmp_path / "frontier.png")
    bars = [container.has_yerr for container in drawn[0].axes[0].containers if isinstance(container, ErrorbarContainer)]
    assert bars == [seeds > 1] * 2


def test_rivals_are_not_drawn_as_ours(drawn: list[Figure], runs: list[str], tmp_path: Path) -> None:
    rival = Path(make_run(tmp_path / "rival", 1.0, 0, 0.9, 0.6))
    settings = yaml.safe_load((rival / "config.yaml").read_text())
    (rival / "config.yaml").write_text(yaml.safe_dump(settings | {"algo": "skipnet"}))
    for of in ([*runs, str(rival)], [str(rival)]):
        assert main(["frontier", *of, "--reference", "none", "--out", str(tmp_path)]) == 0
    both, alone = ([text.get_text() for text in figure.legends[0].texts] for figure in drawn)
    assert both == ["ours: frontier of policies", "ours: others", "rival: rival"]
    assert alone == ["rival: rival"]


def test_the_line_is_that_of_policies_though_a_rival_beats_them(drawn: list[Figure], tmp_path: Path) -> None:
    rows = (("reinforce", 0.88, 0.5), ("reinforce", 0.90, 0.7), ("skipnet", 0.89, 0.4))
    records = [Record(algo, {"algo": algo, "x": share}, summary(x, share)) for algo, x, share in rows]
    plot_frontier(grouped(records), {}, {}, [], "title", tmp_path / "frontier.png")
    [line] = [line for line in drawn[0].axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([5, 7], [88, 90])


def test_published_results_are_hollow_where_images_cost_the_same_and_left_out_where_they_cost_far_more(
    drawn: list[Figure], tmp_path: Path
) -> None:
    costs = {"dynamic": 6.0, "static: alike": 6.5, "pruned: alike": 7.0, "huge": 60.0}
    published = [Published(method, "", ((cost, 91.0),)) for method, cost in costs.items()]
    plot_frontier(grouped([Record("x", {}, summary(0.9, 0.5))]), {}, {}, published, "title", tmp_path / "frontier.png")
    faces = {str(line.get_label()): line.get_markerfacecolor() for line in drawn[0].axes[0].lines}
    hollow = {label for label, face in faces.items() if label.startswith("published") and face == "white"}
    assert hollow == {"published, static: alike", "published, pruned: alike"}
    assert "published, dynamic: dynamic" in faces
    assert not any("huge" in label for label in faces)
    plot_frontier([], {}, {}, published, "nothing of ours", tmp_path / "frontier.png")
    assert len(drawn[1].axes[0].lines) == len(published)


@pytest.mark.parametrize(("accuracy", "beaten"), [(0.89, False), (0.91, True)])
def test_a_policy_that_a_static_network_beats_is_hollow(
    drawn: list[Figure], accuracy: float, beaten: bool, tmp_path: Path
) -> None:
    groups = grouped([Record("x", {}, summary(0.9, 0.5))])
    for dense, static in (({"d": (4e6, accuracy)}, {}), ({}, {"s": (5e6, accuracy)})):
        plot_frontier(groups, dense, static, [], "title", tmp_path / "frontier.png")
    for figure in drawn:
        point = figure.axes[0].lines[0]
        assert (point.get_markerfacecolor() == "white") == beaten
        assert ("beaten by" in str(figure.axes[0].containers[0].get_label())) == beaten


def test_a_trade_off_has_the_runs_name_and_no_control_the_policys_colour(drawn: list[Figure], tmp_path: Path) -> None:
    of = summary(0.9, 0.5) | {"networks": 1, "pruned": False, "split": "test"}
    control = of["controls"]["shuffled"]
    of["controls"] = dict.fromkeys(("keep-all", "random", "shuffled", "static"), control)
    plot_tradeoff(of, [], "line", "mine", tmp_path / "tradeoff.png")
    assert drawn[0].axes[0].get_title().startswith("mine: ")
    policy, *others = (to_hex(line.get_color()) for line in drawn[0].axes[0].lines)
    assert len({policy, *others}) == 6


def test_the_line_of_other_settings_goes_through_the_policys_own_point(drawn: list[Figure], tmp_path: Path) -> None:
    of = summary(0.9, 0.5) | {"networks": 1, "pruned": False, "split": "test"}
    plot_tradeoff(of, [(8e6, 0.92), (2e6, 0.8)], "line", "mine", tmp_path / "tradeoff.png")
    line = drawn[0].axes[0].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2, 5, 8], pytest.approx([80, 90, 92]))
