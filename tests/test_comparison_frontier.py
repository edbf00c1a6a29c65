"""Frontiers, their hypervolume and their mistakes, against counts by hand and independent computations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from evaluated import dense_run, make_run, summary, three_settings
from hypothesis import given
from hypothesis import strategies as st

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main
from lcnet_rl.comparison.frontier import hypervolume, pareto
from lcnet_rl.comparison.published import CIFAR10
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.progress import console
from lcnet_rl.weights import BACKBONE, save_backbone

SOME_POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(lambda n: n / 6)), max_size=12)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two settings with three seeds each, and a third, dominated, with one."""
    return three_settings(tmp_path)


@given(SOME_POINTS)
def test_the_frontier_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    expected = {i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)}
    front = pareto(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@given(SOME_POINTS)
def test_hypervolume_is_the_share_of_a_fine_grid_that_is_dominated(points: list[tuple[float, float]]) -> None:
    cells = (np.arange(6) + 0.5) / 6
    dominated = [any(c <= 6 * x and a >= y for c, a in points) for x in cells for y in cells]
    assert hypervolume(points, (6.0, 0.0)) == pytest.approx(np.mean(dominated))


def test_hypervolume_by_hand() -> None:
    assert hypervolume([(4.0, 0.9), (2.0, 0.5), (3.0, 0.4)], (10.0, 0.0)) == pytest.approx((6 * 0.9 + 2 * 0.5) / 10)
    assert hypervolume([(10.0, 0.9)], (10.0, 0.0)) == 0


def test_published_results_are_in_order_and_in_the_right_units() -> None:
    for result in CIFAR10:
        assert all(10 < macs < 3000 and 90 < accuracy < 97 for macs, accuracy in result.points)
        assert "arXiv" in result.source


def test_frontier_of_runs_with_seeds(capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path) -> None:
    assert main(["frontier", *runs, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "2 of 3 settings" in output
    assert "92.00% ± 1.00" in output
    figures = json.loads((tmp_path / "out" / "frontier-test.json").read_text())
    assert [row["frontier"] for row in figures["settings"]] == [True, True, False]
    assert figures["settings"][0]["seeds"] == [0, 1, 2]
    assert [row["gain_over_shuffled"] for row in figures["settings"]] == pytest.approx([0.03] * 3)
    assert output.count("+3.00") == 2, "beside each setting on the frontier"
    assert figures["hypervolume"] == pytest.approx(0.5 * 0.88 + 0.2 * 0.04)
    assert figures["published"] == [], "published results are CIFAR-10's"
    assert (tmp_path / "out" / "frontier-test.png").stat().st_size > 10_000


def test_a_hypervolume_counts_from_the_macs_asked_for(
    capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path
) -> None:
    def frontier(*options: str) -> int:
        return main(["frontier", *runs, "--out", str(tmp_path), *options])

    assert frontier("--hypervolume-mmacs", "20") == 0
    assert "at 20.00 MMACs, as asked for" in capsys.readouterr().out
    figures = json.loads((tmp_path / "frontier-test.json").read_text())
    assert figures["hypervolume_reference"]["macs"] == 20e6
    assert figures["hypervolume"] == pytest.approx(0.75 * 0.88 + 0.6 * 0.04)
    for wrong in ("0", "-1", "nan", "inf"):
        assert frontier("--hypervolume-mmacs", wrong) == 2
        assert "--hypervolume-mmacs must be a positive number" in capsys.readouterr().err


def test_shares_of_different_networks_are_not_set_side_by_side(
    capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path
) -> None:
    def columns(*given: str) -> str:
        assert main(["frontier", *given, "--out", str(tmp_path / "out")]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if "MMACs" in line)

    assert "share" in columns(*runs)
    evaluation = Path(runs[-1]) / "evaluation-test.json"
    evaluation.write_text(json.dumps({**json.loads(evaluation.read_text()), "dense_macs": 20_000_000}))
    assert "share" not in columns(*runs)


def test_networks_that_treat_all_images_alike_are_shown_beside_and_on_no_frontier(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: list[str], tmp_path: Path
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr("lcnet_rl.comparison.show.plot_frontier", lambda *arguments: drawn.append(arguments))
    pruned, dense = dense_run(tmp_path / "pruned", 0.88, 0.5, prune=0.5), dense_run(tmp_path / "dense", 0.93, 1.0)
    assert main(["frontier", *runs, str(pruned), str(dense), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "2 of 3 settings" in output
    assert f"{pruned}: 88.00% at 5.00 MMACs, for all images alike: beats or equals 2 of 3 settings" in output
    assert f"{dense}: 93.00% at 10.00 MMACs, for all images alike: beats or equals 0 of 3 settings" in output
    (groups, beside, static, *_), point = drawn[0], (10_000_000.0, 0.93)
    assert len(groups) == 3
    assert beside == {str(dense): point}, "the agents' own start, and not drawn twice"
    assert static == {str(pruned): (5_000_000.0, 0.88)}
    figures = json.loads((tmp_path / "out" / "frontier-test.json").read_text())
    assert figures["static"] == {str(pruned): {"macs": 5_000_000, "accuracy": 0.88}}
    assert figures["dense"] == {str(dense): {"macs": 10_000_000, "accuracy": 0.93}}
    assert len(figures["settings"]) == 3


def test_a_network_with_fewer_filters_is_a_pruned_one_wherever_that_was_done(runs: list[str], tmp_path: Path) -> None:
    tuned = dense_run(tmp_path / "tuned", 0.88, 0.5)
    save_backbone(create_backbone("resnet8", filters=(4, 4, 4)), tuned / BACKBONE)
    assert main(["frontier", *runs, str(tuned), "--out", str(tmp_path / "out")]) == 0
    assert list(json.loads((tmp_path / "out" / "frontier-test.json").read_text())["static"]) == [str(tuned)]


def test_a_network_that_policies_started_from_is_no_second_dense_one_beside_its_seeds(
    runs: list[str], tmp_path: Path
) -> None:
    dense = [dense_run(tmp_path / f"dense-{seed}", 0.93 - seed / 100, 1.0, seed=seed) for seed in range(2)]
    assert main(["frontier", *runs, *map(str, dense), "--out", str(tmp_path / "out")]) == 0
    figures = json.loads((tmp_path / "out" / "frontier-test.json").read_text())
    assert list(figures["dense"]) == [str(dense[0])]


def test_seeds_of_a_pruned_network_are_one_point(
    capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path
) -> None:
    found = [dense_run(tmp_path / f"pruned-{seed}", 0.87 + seed / 100, 0.5, 0.5, seed) for seed in range(3)]
    assert main(["frontier", *runs, *map(str, found), "--out", str(tmp_path / "out")]) == 0
    assert f"{found[0]}: 88.00% ± 1.00 over 3 seeds at 5.00 MMACs" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "frontier-test.json").read_text())
    assert figures["static"] == {str(found[0]): {"macs": 5_000_000, "accuracy": pytest.approx(0.88)}}


@pytest.mark.parametrize(
    ("backbone", "pruned", "words"),
    [
        ("resnet20", False, "dense backbone"),
        ("resnet20", True, "pruned backbone"),
        ("resnet20 + resnet11-pool", True, "both networks"),
        ("resnet20 + resnet11-pool + resnet8", False, "all networks"),
    ],
)
def test_what_skips_nothing_is_called_as_an_evaluation_calls_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: str, pruned: bool, words: str
) -> None:
    runs = [Path(make_run(tmp_path / str(index), index, 0, 0.9, 0.5)) for index in range(2)]
    for run in runs:
        content = summary(0.9, 0.5) | {"backbone": backbone, "pruned": pruned}
        (run / "evaluation-test.json").write_text(json.dumps(content))
    assert main(["frontier", *map(str, runs), "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert f"accuracy 0 at 10.00 MMACs, {words})" in output
    assert f"{words}: {backbone}, width 8 (93.00%) at 10.00 MMACs" in output
    assert main(["compare", *map(str, runs)]) == 0
    rows = [line.strip("│ ").split(" │")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert words in rows
    assert f"share of {words.split()[0]}" in rows


def test_one_run_for_a_range_of_prices_traces_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Path(make_run(tmp_path / "run", "0.1..1", 0, 0.9, 0.6, split="val"))  # type: ignore[arg-type]
    assert main(["frontier", str(run), "--out", str(tmp_path)]) == 2
    assert f"first: lcnet-rl evaluate {run} --split test --price P" in capsys.readouterr().err
    for price, accuracy, share in ((0.1, 0.92, 0.8), (0.3, 0.91, 0.65), (1.0, 0.88, 0.5)):
        content = {**summary(accuracy, share), "price": price}
        (run / f"evaluation-test-price{price:g}.json").write_text(json.dumps(content))
    assert main(["frontier", str(run), "--out", str(tmp_path)]) == 0
    assert "3 of 3 settings" in capsys.readouterr().out
    figures = json.loads((tmp_path / "frontier-test.json").read_text())
    assert {row["settings"]["evaluate.price"] for row in figures["settings"]} == {0.1, 0.3, 1.0}


@pytest.mark.parametrize("missing", sorted(summary(0.9, 0.5).keys() - {"gain_over_shuffled"}))
def test_an_evaluation_of_another_version_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, missing: str
) -> None:
    run = Path(make_run(tmp_path / "run", 1.0, 0, 0.92, 0.8))
    content = json.loads((run / "evaluation-test.json").read_text())
    (run / "evaluation-test.json").write_text(json.dumps({name: content[name] for name in content if name != missing}))
    assert main(["frontier", str(run), "--out", str(tmp_path)]) == 2
    assert f"has no {missing}: lcnet-rl evaluate {run} writes it anew" in capsys.readouterr().err


def test_budgets_of_a_run_at_one_price_are_settings_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(console, "width", 400)  # room for a path of whatever length
    run = Path(make_run(tmp_path / "run", 1.0, 0, 0.92, 0.8))
    content = {**summary(0.9, 0.5), "price": 1.0, "budget": 0.5}
    (run / "evaluation-test-budget0.5.json").write_text(json.dumps(content))
    assert main(["frontier", str(run), "--out", str(tmp_path)]) == 0
    assert "budget 0.5" in " ".join(capsys.readouterr().out.split())
    figures = json.loads((tmp_path / "frontier-test.json").read_text())
    assert [row["settings"].get("evaluate.budget") for row in figures["settings"]] == [0.5, None]


def test_where_many_settings_differ_the_command_that_shows_them_stays_on_the_same_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [Path(make_run(tmp_path / str(index), 1.0, 0, 0.9, 0.5, split="val")) for index in range(2)]
    for index, run in enumerate(runs):
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {f"setting_{n}": index for n in range(7)}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["frontier", *map(str, runs), "--split", "val", "--out", str(tmp_path)]) == 0
    assert "7 settings differ; to see them: lcnet-rl compare RUN RUN ... --split val\n" in capsys.readouterr().out


def test_published_results_stand_beside_runs_on_cifar10(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1.0, 0, 0.9, 0.5, "cifar10")
    assert main(["frontier", run, "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "frontier-test.json").read_text())
    assert "SkipNet, ResNet-38/74/110" in [row["method"] for row in figures["published"]]


def test_that_nothing_is_published_on_other_images_is_said_before_any_table(
    capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path
) -> None:
    assert main(["frontier", *runs, "--reference", "published", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "there are published results for cifar10 only, not for shapes" in told.err
    assert told.out == ""


@pytest.mark.parametrize("command", ["compare", "frontier"])
def test_it_is_said_which_runs_another_one_replaces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    first, again = (make_run(tmp_path / name, 0.1, 0, accuracy, 0.8) for name, accuracy in (("a", 0.9), ("b", 0.8)))
    assert main([command, first, again]) == 0
    said = capsys.readouterr().out
    assert f"left out, as a later one has the same settings and seed: {first}\n" in said
    assert "differ in their seed only" not in said
    budget = json.dumps(summary(0.7, 0.5) | {"budget": 0.5})
    (Path(first) / "evaluation-test-budget0.5.json").write_text(budget)
    assert main([command, first, again]) == 0
    assert f"same settings and seed: {first}\n" in capsys.readouterr().out, "though it has another row"


@pytest.mark.parametrize("command", ["compare", "frontier"])
def test_what_is_missing_is_said_with_the_command_that_makes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: list[str], command: str
) -> None:
    run = make_run(tmp_path / "val", 1.0, 0, 0.9, 0.5, split="val")
    assert main([command, runs[0], run]) == 2
    error = capsys.readouterr().err
    assert f"first: lcnet-rl evaluate {run} --split test" in error
    assert error.index("give --split val") < error.index("--split test"), "test images are for the end"
    other = make_run(tmp_path / "other", 1.0, 0, 0.9, 0.5, dataset="cifar10")
    assert main([command, runs[0], other]) == 2
    assert re.search(r"accuracies on shapes \(.+\) and cifar10 \(.+\) cannot be compared", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["frontier", "compare", "evaluate"])
def test_a_run_folder_of_nearly_that_name_is_told(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_run(tmp_path / "resnet20-65-layers", 0.1, 0, 0.9, 0.5)
    wrong = [str(tmp_path / "resnet20-65-layer")] * (2 if command == "compare" else 1)
    assert main([command, *wrong]) == 2
    told = capsys.readouterr().err
    assert "resnet20-65-layer is no run folder: it holds no config.yaml; did you mean " in told
    assert f"{tmp_path / 'resnet20-65-layers'}?" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frontier"], "give a study's name or run folders"),
        (["frontier", "nothing"], "no run folder, and no study either"),
        (["frontier", "x", "--split", "test"], "have no figures on test images"),
        (["frontier", "x", "--storage", "sqlite:studies.db"], "'sqlite:studies.db' is no database URL"),
        (["compare", "one"], "at least two"),
        (["frontier", str(REFERENCE / "resnet20")], "these are dense networks"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "reading makes no database"
