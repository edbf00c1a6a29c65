"""Tables on a narrow screen."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import images, lively
from PIL import Image
from rich.console import Console

from lcnet_rl import progress, report
from lcnet_rl.backbones import BackboneSpec
from lcnet_rl.benchmark import profile, record
from lcnet_rl.commands import COMMANDS, main
from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import evaluate
from lcnet_rl.model import LCNet
from lcnet_rl.provenance import ROOT
from lcnet_rl.settings import preset_names


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    """80 columns, as where output is piped."""
    console = Console(width=80, record=True)
    for module in (report, record, profile, progress):
        monkeypatch.setattr(module, "console", console)
    return console


def summary_of(model: LCNet) -> dict[str, Any]:
    data = Dataset("noise", "val", images(6), torch.zeros(6, dtype=torch.int64), tuple("abcdefghij"))
    results = evaluate(model, data, model.greedy(), torch.device("cpu"))
    return report.summarize(model, data, results, 0.1, dict.fromkeys(report.GAINS, results))


def test_what_was_pruned_before_is_not_called_dense(screen: Console) -> None:
    report.print_summary(summary_of(lively(filters=(4, 8, 16))))
    text = screen.export_text()
    assert "pruned backbone, no gates" in text
    assert "dense" not in text
    report.print_summary(summary_of(lively()))
    assert "dense backbone, no gates" in screen.export_text()


def test_every_block_of_a_deep_network_is_shown(screen: Console) -> None:
    summary = summary_of(lively("resnet56", width=4))
    report.print_summary(summary)
    lines = [line.strip("│ ").split() for line in screen.export_text().splitlines()]
    for block, shares in enumerate(zip(summary["kept_blocks"], summary["kept_filters"], strict=True)):
        assert [str(block), "│", f"{shares[0]:.2f}", "│", f"{shares[1]:.2f}"] in lines


def test_a_second_network_is_not_called_a_block(screen: Console) -> None:
    report.print_summary(summary_of(lively(second="resnet8")))
    lines = [line.strip("│ ").split(" │")[0].strip() for line in screen.export_text().splitlines()]
    blocks = lines[lines.index("0") :]
    assert blocks[:4] == ["0", "1", "2", "network 2"]


def test_three_networks_are_called_all(screen: Console) -> None:
    third = BackboneSpec("resnet8", 10, 8, second=BackboneSpec("resnet8", 10, 8, mirrored=True))
    report.print_summary(summary_of(lively(second=third)))
    text = screen.export_text()
    lines = [line.strip("│ ").split(" │")[0].strip() for line in text.splitlines()]
    assert lines[lines.index("0") :][:5] == ["0", "1", "2", "network 2", "network 3"]
    assert "all networks, no gates" in text
    assert "share of all" in text


def test_whether_looking_at_the_image_pays_is_said(screen: Console) -> None:
    summary = summary_of(lively())
    summary |= {"split": "test", "gain_over_static": -0.0123, "gain_over_static_error": 0.0045}
    summary["controls"]["static"]["macs_mean"] = 1.234e6
    for policy, said in ((1.26e6, "1.23 MMACs"), (2.5e6, "1.23 MMACs, of the policy's 2.50")):
        report.print_summary(summary | {"macs_mean": policy})
        text = screen.export_text()
        assert f"Beside the best static path found, at {said}: -1.23 +- 0.45 points (standard error)." in text
    report.print_summary(summary | {"split": "val"})
    assert "path found, which was chosen on some of these images and so looks a little better than it is, at" in (
        screen.export_text()
    )


def test_what_skipping_loses_and_what_rewards_are_is_said(screen: Console) -> None:
    summary = summary_of(lively())
    report.print_summary(summary)
    assert "reward" not in screen.export_text().lower()
    summary |= {"gain_over_keep_all": -0.02, "gain_over_keep_all_error": 0.004}
    summary |= {"reward": "cubic:penalty=1", "reward_price": 0.25, "mean_reward": 0.6543}
    summary["controls"]["keep-all"] = {"accuracy": 0.5, "macs_mean": 2.345e6, "mean_reward": 0.4321}
    report.print_summary(summary)
    text = screen.export_text()
    assert "Beside all of its own network, at 2.35 MMACs: -2.00 +- 0.40 points (standard error)." in text
    assert "Rewards are means of cubic:penalty=1 at price 0.25." in text
    rows = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in text.splitlines() if "│" in line}
    assert rows["policy (greedy)"] == "0.6543"
    assert rows["control: keep-all"] == "0.4321"
    assert rows["dense backbone, no gates"] == ""


def test_a_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    summary = summary_of(lively())
    summary["dataset"], summary["classes"] = "folder:my[bold]images", {"[red]fox": summary["classes"]["a"]}
    report.print_summary(summary)
    shown = capsys.readouterr().out
    assert "folder:my[bold]images/val" in shown
    assert "[red]fox" in shown
    assert "[yellow]" not in shown


def test_the_numbers_of_a_benchmark_are_whole(screen: Console) -> None:
    case = {"name": "engine-b128-resnet56-groups50", "rival": "dense torch.compile fp32", "macs_ratio": 1.0}
    case |= {"ratio": 11.25, "ratio_interval": [10.11, 12.13], "median_ms": 1234.56, "rival_median_ms": 1111.22}
    case |= {"mean_ratio": 13.57, "excess_ratio": 0.077}
    record.print_cases([case])
    text = screen.export_text()
    for number in ("100%", "11.25", "10.11-12.13", "13.57", "1234.56", "1111.22", "resnet56-groups50: 7.7%"):
        assert number in text


def test_what_ran_of_several_networks_is_told_apart(screen: Console) -> None:
    row = {"name": "dense", "batch": 1, "median_ms": 1.0, "p95_ms": 1.0, "images_per_second": 1.0}
    row |= {"warmup_s": 1.0, "megabytes": 1.0}
    record.print_contestants([{"network": "w64", **row}, {"network": "w64", **row}, {"network": "w32", **row}])
    record.print_contestants([row])
    titles = [line.strip() for line in screen.export_text().splitlines() if line.startswith("everything")]
    assert titles == ["everything that ran, w64", "everything that ran, w32", "everything that ran"]


def test_names_of_a_benchmarks_cases_are_whole_in_a_narrow_terminal(screen: Console) -> None:
    case = {"macs_ratio": None, "ratio": 1.25, "ratio_interval": [1.11, 1.13], "median_ms": 1.56, "mean_ratio": 1.57}
    case["excess_ratio"] = None
    names = ["onnx-b1-w64-groups50, standard", "onnx-b1-w64-all", "engine-b128-resnet56-groups50"]
    rivals = [("dense ONNX Runtime", 6.25), ("dense ONNX Runtime", 6.25), ("dense torch.compile fp32", 631.5)]
    cases = [
        case | {"name": name, "rival": rival, "rival_median_ms": ms}
        for name, (rival, ms) in zip(names, rivals, strict=True)
    ]
    record.print_cases(cases)
    text = screen.export_text()
    assert all(name in text for name in names)
    assert "beyond" not in text
    assert text.count("dense ONNX Runtime (6.25 ms)") == text.count("torch.compile fp32 (631.50 ms)") == 1


def test_where_the_screen_is_narrow_figures_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, columns in ((report, 50), (record, 66)):
        console = Console(width=columns, record=True)
        monkeypatch.setattr(module, "console", console)
        monkeypatch.setattr(progress, "console", console)
        if module is report:
            report.print_summary(summary_of(lively()))
            figures = ["10.00%", "33.4%", "100.0%"]
        else:
            row = {"name": "ONNX Runtime blocks50 blocked16", "batch": 128, "median_ms": 1234.56, "p95_ms": 2345.67}
            row |= {"images_per_second": 1111.0, "warmup_s": 22.2, "megabytes": 333.3}
            record.print_contestants([row])
            figures = ["1234.56", "2345.67", "1111", "22.2", "333.3"]
        text = console.export_text()
        assert "…" not in text
        assert all(figure in text for figure in figures)


def test_what_an_encoding_lacks_is_spelled_out_and_no_traceback(tmp_path: Path) -> None:
    network = str(ROOT / "runs" / "reference" / "resnet20")
    picture = tmp_path / "ж.png"
    Image.new("RGB", (32, 32)).save(picture)
    command = [sys.executable, "-m", "lcnet_rl", "predict", network, str(picture)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u0436.png" in done.stdout


def test_a_profile_names_networks_as_an_evaluation_does(screen: Console) -> None:
    profile.print_profile([{"convolutions": 3.0, "rest": 1.0}] * 3, "fp32", 8, 2)
    lines = [line.strip("│ ").split(" │")[0].strip() for line in screen.export_text().splitlines()]
    assert lines[lines.index("0") :][:3] == ["0", "1", "network 2"]


def test_progress_that_has_not_moved_yet_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Console(width=80, record=True)
    monkeypatch.setattr(progress, "console", told)
    with progress.Progress("training", 10, every=0.0) as bar:
        bar.note("warm-up 3/300")
        bar.advance(0)
        bar.advance()
    lines = told.export_text().splitlines()
    assert lines[0] == "training: 0/10, 0.0/s, ? s left  warm-up 3/300"
    assert lines[1].startswith("training: 1/10")


def test_progress_of_nobody_knows_how_many_steps_tells_those_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Console(width=80, record=True)
    monkeypatch.setattr(progress, "console", told)
    with progress.Progress("tries", None, every=0.0) as bar:
        bar.advance()
    assert re.fullmatch(r"tries: 1, [\d.]+/s *", told.export_text().splitlines()[0])
    with progress.Progress("tries", None) as bar:
        bar.advance()
    assert told.export_text() == "", "what is over soon is not told"


def test_between_timed_steps_a_bar_is_drawn_by_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Console(width=100, record=True, force_terminal=True, file=io.StringIO(), _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "console", told)
    threads = threading.active_count()
    with progress.Progress("trials", 3, between=True) as bar:
        assert threading.active_count() == threads
        told.export_text()
        bar.advance()
        assert told.export_text() == "", "at most once a second"
        monkeypatch.setattr(bar, "_drawn", 0.0)
        bar.advance()
        assert " 2/3 " in told.export_text()
        bar.advance()
    assert " 3/3 " in told.export_text()


def test_on_a_terminal_a_bar_tells_steps_rate_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Console(width=100, record=True, force_terminal=True, file=io.StringIO(), _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "console", told)
    with progress.Progress("training", 10, done=2) as bar:
        bar.note("warm-up 3/300")
        bar.advance(3)
        time.sleep(0.01)
        bar.advance(4)
    last = told.export_text().splitlines()[-1]
    assert re.fullmatch(r"training ━+.* 9/10 [\d.]+/s \d:\d\d:\d\d warm-up 3/300 *", last), last


@pytest.mark.parametrize(("command", "kind"), [("train", ""), ("sweep", "sweep")])
def test_help_names_the_presets(command: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    _, _, preset = said.partition("Start from these settings")
    assert all(name in preset.partition("further options")[0] for name in preset_names(kind))


def test_help_shows_no_empty_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "''" not in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_paragraphs(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the screen is wide, an option's help is one line (beside or below its name), wherever its source breaks."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = [line.lstrip("\N{BOX DRAWINGS LIGHT VERTICAL}") for line in capsys.readouterr().out.splitlines()]
    more = [line.startswith(8 * " ") for line in lines if line.strip()]
    assert len(more) > 5
    assert not any(map(bool.__and__, more, more[1:]))
