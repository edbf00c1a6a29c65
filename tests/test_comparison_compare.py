"""``lcnet-rl compare``, and Welch's test against the textbook and a sample."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluated import dense_run, make_run, three_settings

from lcnet_rl.commands import main
from lcnet_rl.comparison.significance import welch


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two settings with three seeds each, and a third, dominated, with one."""
    return three_settings(tmp_path)


def test_welch_is_the_textbook_formula() -> None:
    one, other = [27.5, 21.0, 19.0, 23.6, 17.0], [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8]
    se = [np.var(x, ddof=1) / len(x) for x in (one, other)]
    t = (np.mean(one) - np.mean(other)) / math.sqrt(sum(se))
    freedom = sum(se) ** 2 / sum(s**2 / (len(x) - 1) for s, x in zip(se, (one, other), strict=True))
    draws = np.random.default_rng(0).standard_t(freedom, 400_000)
    assert welch(one, other) == pytest.approx(np.mean(np.abs(draws) > abs(t)), abs=0.005)


@pytest.mark.parametrize("equal", [2, 3])
def test_a_side_without_spread_is_tested_without_a_warning(equal: int) -> None:
    # The standard error is 0.005, the difference three times that; with one degree of freedom t is Cauchy's.
    assert welch([0.9] * equal, [0.91, 0.92]) == pytest.approx(1 - 2 / math.pi * math.atan(3))


@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_nothing_is_said_where_nothing_can_be(one: list[float], other: list[float]) -> None:
    assert welch(one, other) is None


def test_names_of_settings_are_whole_on_a_narrow_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [Path(make_run(tmp_path / str(index), index, 0, 0.9, 0.5)) for index in range(4)]
    for index, run in enumerate(runs):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        settings["agent"] |= {"lagrangian_warmup_steps": index, "reward": f"asymmetric:penalty={index}.123456"}
        settings |= {"evaluate": {"price": index}}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["compare", *map(str, runs)]) == 0
    output = capsys.readouterr().out
    rows = [[cell.strip() for cell in line[1:-1].split("│")] for line in output.splitlines() if "│" in line]
    assert ["lagrangian_warmup_steps", "0", "1", "2", "3"] in rows
    assert {"agent.price", "evaluate.price"} <= {row[0] for row in rows}, "two are called price"
    start = next(index for index, row in enumerate(rows) if row[0] == "reward")
    parts = [row[1] for row in rows[start : start + 3]]
    assert "".join(parts).startswith("asymmetric:penalty=0.123456"), "folded, not cut"
    assert "\N{HORIZONTAL ELLIPSIS}" not in output


def test_a_run_that_is_given_twice_is_said_to_be_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: list[str]
) -> None:
    monkeypatch.chdir(Path(runs[0]).parent)
    assert main(["compare", runs[0], "0"]) == 0
    assert f"0 is the same run as {runs[0]}: counted once\n" in capsys.readouterr().out


def test_compare_shows_what_differs_and_tests_over_seeds(capsys: pytest.CaptureFixture[str], runs: list[str]) -> None:
    assert main(["compare", *runs]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert " price │ 0.1 │ 1 │ 3" in output
    assert "+4.00 points" in output
    p = welch([0.92, 0.91, 0.93], [0.88, 0.87, 0.89])
    assert f"{p:.3g}" in output
    assert "p-values are not corrected for 2 comparisons." in output, "of accuracy, and of MACs"
    assert "C: one seed, so nothing can be said about significance" in output


def test_rewards_are_shown_where_all_runs_have_the_same(
    capsys: pytest.CaptureFixture[str], runs: list[str], tmp_path: Path
) -> None:
    def score(run: str, price: float, earned: float) -> None:
        path = Path(run) / "evaluation-test.json"
        told = json.loads(path.read_text()) | {"reward": "linear", "reward_price": price, "mean_reward": earned}
        told["controls"]["shuffled"]["mean_reward"] = earned - 0.5
        path.write_text(json.dumps(told))

    for index, run in enumerate(runs):
        score(run, 0.5, 0.1 * index)
    assert main(["compare", *runs]) == 0
    output = capsys.readouterr().out
    assert "Rewards are means of linear at price 0.5." in output
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in output.splitlines() if "│" in line}
    assert (rows["reward"], rows["reward: shuffled"]) == ("0.1000 ± 0.1000", "-0.4000 ± 0.1000")
    score(runs[0], 1.0, 0.1)
    assert main(["compare", *runs]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Rewards are" not in output
    assert (
        "rewards do not compare: linear at price 0.5, linear at price 1; lcnet-rl evaluate RUN --split test" in output
    )


def test_compare_of_single_seeds_claims_no_significance(capsys: pytest.CaptureFixture[str], runs: list[str]) -> None:
    assert main(["compare", runs[0], runs[3]]) == 0
    output = capsys.readouterr().out
    assert "Welch" not in output
    assert "A, B: one seed" in output


def test_compare_sets_settings_that_agents_and_dense_networks_call_otherwise_side_by_side(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    agent, pruned = tmp_path / "agent", dense_run(tmp_path / "pruned", 0.88, 0.5, prune=0.65)
    make_run(agent, 0.1, 0, 0.92, 0.8)
    config = yaml.safe_load((agent / "config.yaml").read_text())
    (agent / "config.yaml").write_text(yaml.safe_dump({**config, "agent": {"price": 0.1, "epochs": 20}}))
    assert main(["compare", str(agent), str(pruned)]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "│ epochs │ 20 │ 5 │" in table
    assert "│ prune │ - │ 0.65 │" in table
    assert table.count("epochs") == 1
    assert "│ price │ 0.1 │ - │" in table, "which is not its default"
    assert "polish" not in table
    longer = dense_run(tmp_path / "longer", 0.89, 0.5, prune=0.65)
    (longer / "config.yaml").write_text((pruned / "config.yaml").read_text().replace("epochs: 5", "epochs: 8"))
    assert main(["compare", str(agent), str(pruned), str(longer)]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "│ epochs │ 20 │ 5 │ 8 │" in table
    assert table.count("epochs") == 1


def test_compare_leaves_out_what_agents_and_dense_networks_have_alike(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    agent, dense = tmp_path / "agent", dense_run(tmp_path / "dense", 0.93, 1.0)
    make_run(agent, 0.1, 0, 0.92, 0.8)
    config = yaml.safe_load((agent / "config.yaml").read_text())
    (agent / "config.yaml").write_text(yaml.safe_dump({**config, "agent": {"price": 0.1, "epochs": 5}}))
    assert main(["compare", str(agent), str(dense)]) == 0
    assert "epochs" not in capsys.readouterr().out
