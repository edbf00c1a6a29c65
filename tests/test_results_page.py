"""The committed results: how they are collected, and what the page says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import evaluated, summary, timed, write

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import reproduce
from lcnet_rl.comparison.kinds import origin
from lcnet_rl.comparison.records import Group, grouped
from lcnet_rl.errors import UserError
from lcnet_rl.files import plain
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.results.page import page
from lcnet_rl.results.rows import TIMES, Row, agent_records, agent_rows, dense_records, epochs, row_of, timings
from lcnet_rl.weights import BACKBONE, save_backbone


def dense(*runs: Path) -> list[Group]:
    return grouped(dense_records(runs, "cifar10"))


def pruned(folder: Path, backbone: str = "resnet20", macs: float = 50e6, accuracy: float = 0.91, **of: int) -> Group:
    run = write(folder, "lcnet-rl pretrain --prune 0.5", prune=0.5)
    (group,) = dense(evaluated(run, backbone=backbone, macs_mean=macs, accuracy=accuracy, train_seed=1, **of))
    return group


def test_rows_are_what_the_files_say(reference: Path) -> None:
    evaluated(reference / "second", accuracy=0.93, train_seed=1, command="lcnet-rl evaluate x")
    runs = sorted(evaluated(reference / "agent").parent.iterdir())
    typed = "lcnet-rl pretrain --preset p.yaml --run=x && lcnet-rl evaluate x"
    (second,) = map(row_of, dense(*runs))
    assert second == Row("second", "dense", "resnet20", 0.93, 50e6, [1], None, 16, 5, typed)
    assert dense_records(runs, "shapes") == agent_records(runs, "shapes") == []
    (group,) = grouped(agent_records(runs, "cifar10"))
    policy, *controls = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.macs, policy.seeds) == ("agent", 0.9, 50e6, [3])
    assert policy.kind == "policy"
    assert [row.name for row in controls] == [f"agent: {c}" for c in ("keep-all", "random", "shuffled", "static")]
    assert {(row.kind, row.macs) for row in controls} == {("control", 51e6)}


def test_pruned_backbones_are_static_rows_with_a_table_of_their_own(reference: Path) -> None:
    narrow = write(reference / "narrow", "lcnet-rl pretrain --prune 0.5", prune=0.5)
    groups = dense(evaluated(reference / "first"), evaluated(narrow, macs_mean=20e6))
    assert [(row.kind, row.macs) for row in map(row_of, groups)] == [("dense", 50e6), ("static", 20e6)]
    text = page(groups, [], [])
    assert text.index("| first |") < text.index("## Pruned") < text.index("| narrow |")
    assert "## Pruned" not in page(groups[:1], [], [])


def test_what_starts_from_a_pruned_network_counts_its_epochs_too(reference: Path) -> None:
    thin = write(reference / "thin", "lcnet-rl pretrain --prune 0.5", init="runs/reference/first", prune=0.5)
    again = write(reference / "again", "lcnet-rl pretrain --init", init="runs/reference/thin")
    for run in (thin, again):
        save_backbone(create_backbone("resnet8", filters=(4, 4, 4)), run / BACKBONE)
    agent = write(reference / "skips", "lcnet-rl train", init="runs/reference/again", agent={"epochs": 3})
    learnt_on = write(reference / "on", "lcnet-rl train --init", init="runs/reference/skips", agent={"epochs": 4})
    elsewhere = write(reference / "other", "lcnet-rl train", init="mine/thin", agent={"epochs": 3})
    counted = {run.name: epochs(run) for run in (reference / "first", thin, again, agent, learnt_on, elsewhere)}
    assert counted == {"first": 5, "thin": 5, "again": 10, "skips": 13, "on": 17, "other": 3}
    assert epochs(write(reference / "ppo", "lcnet-rl train", init=str(thin), agent={"timesteps": 9})) is None
    held_out = write(reference / "held", "lcnet-rl train", dataset="held-out:cifar10", agent={"epochs": 3})
    assert epochs(held_out) is None, "over a few images"
    assert [(row.kind, row.epochs) for row in map(row_of, dense(evaluated(again)))] == [("static", 10)]


def test_a_run_stands_for_what_it_ended_with_and_not_for_what_it_began_with(reference: Path) -> None:
    second = "runs/reference/second"
    inits = second, f"{second}/backbone.safetensors", f"{second}/start.safetensors"
    runs = [write(reference / f"of{i}", "lcnet-rl train", init=init) for i, init in enumerate(inits)]
    assert [origin(run) for run in runs] == [reference / "second", reference / "second", None]
    assert epochs(runs[-1]) is None, "of what another run began with, it is not told"


def test_seeds_are_taken_together(reference: Path) -> None:
    settings = yaml.safe_load((evaluated(reference / "agent") / "config.yaml").read_text())
    other = write(reference / "agent-4", "lcnet-rl train --seed 4", **{**settings, "seed": 4})
    controls = {name: {"accuracy": 0.87, "macs_mean": 53e6} for name in summary()["controls"]}
    evaluated(other, accuracy=0.94, train_seed=4, controls=controls, gain_over_shuffled=0.0)
    (group,) = grouped(agent_records([reference / "agent", other], "cifar10"))
    policy, *rows = agent_rows(group)
    assert (policy.name, policy.accuracy, policy.seeds) == ("agent", pytest.approx(0.92), [3, 4])
    assert policy.deviation == pytest.approx(0.02 * 2**0.5)
    assert (rows[2].accuracy, rows[2].macs) == (pytest.approx(0.86), pytest.approx(52e6))
    assert rows[2].deviation == pytest.approx(0.01 * 2**0.5)
    evaluation = "lcnet-rl evaluate runs/reference/agent"
    starts = "lcnet-rl train --init runs/reference/second/backbone.safetensors --seed 3", "lcnet-rl train --seed 4"
    assert policy.command == " && ".join(f"{start} && {evaluation}" for start in starts)
    text = page([], [group], [])
    assert "| 92.00 ± 2.83 |" in text
    assert "6.00 points above the same decisions shuffled: 1 of 2 runs depend on the image." in text
    assert "agent-4:\n\n    lcnet-rl train --seed 4\n" in text


def test_seeds_of_a_pruned_network_are_taken_together(reference: Path) -> None:
    for seed, accuracy in ((0, 0.90), (1, 0.91), (2, 0.92)):
        run = write(reference / f"thin-{seed}", f"lcnet-rl pretrain --seed {seed}", prune=0.5, seed=seed)
        evaluated(run, accuracy=accuracy, train_seed=seed)
    (group,) = dense(*sorted(reference.glob("thin-*")))
    text = page([group], grouped(agent_records([evaluated(reference / "agent")], "cifar10")), [])
    assert "| thin-0 | resnet20 | 91.00 ± 1.00 | 50.00 | 0, 1, 2 |" in text
    assert "| thin-0 | 91.00 ± 1.00 | 50.00 | 5 | 0, 1, 2 | -1.00 |" in text
    assert "thin-2:\n\n    lcnet-rl pretrain --seed 2\n" in text


def test_the_page_says_what_dominates_what(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    others = {"cheap": (0.9, 49e6), "dear": (0.9, 51e6), "same": (0.9, 50e6), "better": (0.95, 99e6)}
    text = page([], groups, [Row(name, "published", "", *point) for name, point in others.items()])
    assert "`agent` is 3.00 points below its dense backbone and 1.00 points above its best static" in text
    assert "5.00 points above the same decisions shuffled: it depends on the image." in text
    assert "it dominates: dear (90.00 % at 51 M); rows that dominate it: cheap (90.00 % at 49 M)." in text


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"pruned": True}, "below its pruned backbone and"),
        ({"backbone": "resnet20 + resnet20", "pruned": True}, "below both its networks together and"),
        ({"backbone": "resnet20 + resnet20 + resnet8"}, "below all its networks together and"),
    ],
)
def test_the_page_calls_what_a_policy_started_from_by_its_name(
    reference: Path, figures: dict[str, Any], words: str
) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent", **figures)], "cifar10"))
    assert words in page([], groups, [])


def test_policies_stand_beside_static_networks_of_their_backbone_and_cost_and_of_no_more_width(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    others = {
        "pruned": ("resnet20", 16, 51e6),
        "narrow": ("resnet20", 8, 49e6),
        "dear": ("resnet20", 16, 53e6),
        "other": ("resnet18", 16, 50e6),
        "wide": ("resnet20", 32, 50e6),
    }
    fixed = [pruned(reference / name, backbone, macs, width=width) for name, (backbone, width, macs) in others.items()]
    text = page(fixed, groups, [])
    assert "| agent | 90.00 | 50.00 |  | 3 | pruned | 91.00 | 51.00 | 5 | 1 | -1.00 |" in text
    assert "| agent | 90.00 | 50.00 |  | 3 | narrow | 91.00 | 49.00 | 5 | 1 | -1.00 |" in text
    for name in ("dear", "other", "wide"):
        assert f"| 3 | {name} |" not in text
    assert "## Against static" not in page(fixed[2:], groups, [])


def test_two_networks_stand_beside_the_best_that_costs_no_more(reference: Path) -> None:
    run = evaluated(reference / "agent", backbone="resnet20 + resnet11-pool")
    others = {"best": (30e6, 0.92), "worse": (20e6, 0.91), "dear": (53e6, 0.95), "alike": (51e6, 0.95)}
    *fixed, alike = (pruned(reference / name, "resnet18", *point) for name, point in others.items())
    text = page(fixed, grouped(agent_records([run], "cifar10")), [])
    assert "| agent | 90.00 | 50.00 |  | 3 | best | 92.00 | 30.00 | 5 | 1 | -2.00 |" in text
    for name in ("worse", "dear"):
        assert f"| 3 | {name} |" not in text
    text = page([*fixed, alike], grouped(agent_records([run], "cifar10")), [])
    for name in ("best", "alike"):
        assert f"| 3 | {name} |" in text


def test_a_policy_that_skips_next_to_nothing_does_not_stand_beside_its_own_backbone(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent", macs_mean=97e6)], "cifar10"))
    assert "## Against static" not in page([pruned(reference / "whole", macs=100e6)], groups, [])


def test_of_many_rows_the_most_accurate_are_named(reference: Path) -> None:
    groups = grouped(agent_records([evaluated(reference / "agent")], "cifar10"))
    rows = [Row(f"row{points}", "published", "", 0.9 + points / 1000, 40e6) for points in range(1, 6)]
    assert (
        "rows that dominate it: row5 (90.50 % at 40 M), row4 (90.40 % at 40 M), row3 (90.30 % at 40 M) and 2 more."
    ) in page([], groups, rows)


def test_policies_dominate_each_other_too(reference: Path) -> None:
    other = write(reference / "other", "lcnet-rl train", seed=3, agent={"price": 0.6})
    evaluated(other, accuracy=0.91, command="lcnet-rl evaluate runs/reference/other")
    groups = grouped(agent_records([evaluated(reference / "agent"), other], "cifar10"))
    assert "rows that dominate it: other (91.00 % at 50 M)." in page([], groups, [])


def test_the_page_says_so_if_a_policy_does_not_look_at_the_image(reference: Path) -> None:
    run = evaluated(reference / "agent", gain_over_shuffled=0.01, gain_over_shuffled_error=0.01)
    assert "it is not shown to depend on the image" in page([], grouped(agent_records([run], "cifar10")), [])


def test_times_are_shown_where_a_run_was_timed_but_not_of_what_computes_everything(reference: Path) -> None:
    shapes = write(reference / "shapes", "lcnet-rl train", dataset="shapes", agent={})
    held_out = write(reference / "held", "lcnet-rl train", dataset="held-out:cifar10", agent={})
    runs = [reference / "first", timed(reference / "agent"), timed(shapes), timed(held_out)]
    text = page([], [], [], timings(runs, "cifar10"))
    line = "| engine policy fp32, batch 128 | 50.0% | 0.62 (0.56 to 0.67) | 0.60 | 50.00 | dense eager fp32 | 80.00 |"
    assert f"| agent {line}" in text
    assert f"| held {line}" in text
    before = [replace(time, means=None) for time in timings(runs, "cifar10")]
    assert line.replace("0.60", "") in page([], [], [], before)
    assert "masked" not in text
    assert "| shapes" not in text
    assert "## Time" not in page([], [], [])


def test_times_of_another_version_are_refused(reference: Path) -> None:
    (reference / "agent" / TIMES).write_text(json.dumps({"cases": [{"this": "engine"}]}))
    with pytest.raises(UserError, match=r"times.json has no 'ratio_quartiles': measure again with lcnet-rl bench"):
        timings([reference / "agent"], "cifar10")


def test_the_committed_page_and_rows_are_those_of_the_committed_runs() -> None:
    runs = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))
    fixed, groups, published = reproduce.collect(runs)
    rows = [*map(row_of, fixed), *(row for group in groups for row in agent_rows(group)), *published]
    assert len(groups) >= 2
    assert json.loads((REFERENCE / "results.json").read_text())["rows"] == plain(rows)
    assert (REFERENCE.parent.parent / "RESULTS.md").read_text() == page(
        fixed, groups, published, timings(runs, "cifar10")
    )


def test_rivals_have_rows_and_a_table_of_their_own(reference: Path) -> None:
    rival = write(reference / "rival", "lcnet-rl train --algo skipnet", algo="skipnet", seed=3, agent={"price": 0.5})
    evaluated(rival, accuracy=0.8, command="lcnet-rl evaluate runs/reference/rival")
    ours, theirs = grouped(agent_records([evaluated(reference / "agent"), rival], "cifar10"))
    assert [agent_rows(group)[0].kind for group in (ours, theirs)] == ["policy", "rival"]
    text = page([], [ours, theirs], [])
    assert text.index("## Policies") < text.index("| agent |") < text.index("## Rivals") < text.index("| rival |")
    assert "## Rivals" not in page([], [ours], [])
