"""The command line: what a user's mistake looks like, and the whole path on a tiny image folder."""

from __future__ import annotations

import json
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import lcnet_rl
from agents.reinforce import Reinforce
from lcnet_rl.commands import COMMANDS, main
from lcnet_rl.commands.train_settings import ALGOS, parse
from lcnet_rl.data import load_dataset
from lcnet_rl.data.dataset import Part
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.errors import UserError
from lcnet_rl.interrupt import deferred_interrupt
from lcnet_rl.macs import dense_macs
from lcnet_rl.pretrained import REFERENCE
from lcnet_rl.runs import CHECKPOINT, CONFIG, MODEL, PROGRESS, RUN, load_checkpoint
from lcnet_rl.settings import from_dict, preset_names, read_preset
from lcnet_rl.tree import load_tree
from lcnet_rl.weights import load_backbone


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints as it ends with exit code 2."""
    assert main(arguments) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert output.count("\n") == 1, "one line"
    return output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tran",), "did you mean train"),
        (("train", "--algo", "pp"), "did you mean ppo"),
        (("train", "--preset", "dem"), "did you mean demo"),
        (("evaluate", "run", "--bugdet", "0.5"), "unknown option '--bugdet'; did you mean --budget"),
        (("train", "--bacbone=resnet20"), "unknown option '--bacbone'; did you mean --backbone"),
        (("train", "--algo", "ppo", "--rolouts", "2"), "known: those of lcnet-rl train --algo ppo --help"),
        (("pretrain", "--recipe.epocs", "many"), "did you mean --recipe.epochs"),
        (("train", "--baseline", "leave-one"), "unknown --baseline 'leave-one'; did you mean leave-one-out?"),
        (("export", "run", "--layout=block"), "unknown --layout 'block'; did you mean blocked?"),
        (("evaluate", "run", "--split", "foo"), "unknown --split 'foo'; known: test, val"),
        (("bench", "--preset", "standart"), "did you mean standard?"),
        (("bench", "run", "--precisions", "fp16"), "invalid choice"),
        (("train", "--lr", "abc"), "error: --lr is a number, got 'abc'"),
        (("evaluate", "RUN", "--budget", "abc"), "error: --budget is a number, got 'abc'"),
        (("train", "--batch-size", "2.5"), "error: --batch-size is a whole number, got '2.5'"),
        (("evaluate", "RUN", "-budget", "0.5"), "error: unknown option '-budget'; did you mean --budget or"),
        (("evaluate", "run", "--split", "--budget", "1"), "--split"),
        (("evaluate", "run", "again"), "again; see lcnet-rl evaluate --help"),
        (("evaluate",), "RUN"),
        (("train", "--price", "-1"), "price must be >= 0"),
        (("train", "--price", "1..0.5"), "a range of prices rises from above 0"),
        (("train", "--price", "0.1..1", "--target", "0.6"), "give --target None too"),
        (("train", "--preset", "cifar10-resnet20", "--price", "0.1..1"), "a target (here 0.648, given or the preset"),
        (("train", "--epochs", "inf"), "epochs must be a finite number"),
        (("train", "--algo", "ppo", "--target-kl", "-1"), "target_kl must be > 0"),
        (("pretrain", "--recipe.weight-decay", "nan"), "weight_decay must be a finite number"),
        (("bench", "env", "--json", "x.json"), "--json is for bench RUN or standard, not for env"),
        (("bench", str(REFERENCE / "resnet20"), "--precision", "bf16"), "--precision is for bench train, not for RUN"),
        (("bench", "--preset", "standard", "--batches", "7"), "--batches is for bench RUN, not for standard"),
        (("bench", str(REFERENCE / "resnet20"), "--json", "."), "a file for figures is needed"),
        (("sweep", "--space", "groups=3,4"), "groups must divide 16 filters"),
        (("sweep", "--space", "price=1,2", "--price", "nan"), "price must be >= 0"),
        (("evaluate", str(REFERENCE / "resnet20"), "--budget", "0.5"), "nothing is decided: leave --budget out"),
        (
            ("evaluate", str(REFERENCE / "resnet20-45"), "--score", "linear"),
            "a reward and its price, such as linear@0.5",
        ),
        (("evaluate", str(REFERENCE / "resnet20-45"), "--score", "linaer@1"), "did you mean linear"),
        (("train", "--resume", str(REFERENCE / "resnet20")), "to go on: lcnet-rl pretrain --resume"),
        (("pretrain", "--resume", str(REFERENCE / "resnet20-ppo")), "to go on: lcnet-rl train --resume"),
        (("train", "--init", str(REFERENCE / "resnet18-32")), "give --backbone resnet18 --width 32"),
        (("train", "--seed", "-1"), "a seed is in 0.."),
        (("pretrain", "--seed", "-1"), "a seed is in 0.."),
        (("evaluate", str(REFERENCE / "resnet20"), "--seed", "-1"), "a seed is in 0.."),
        (("train", "--algo", "skipnet", "--batch-size", "1"), "baseline batch-mean compares images"),
        (("demo", "--run", str(REFERENCE / "resnet20")), "already holds a run"),
        (("train", "--reward", "lagrange"), "did you mean lagrangian"),
        (("train", "--reward", "budget"), "is not task - price * share: use --cost-gradient sampled"),
        (("train", "--rollouts", "1"), "--rollouts 2"),
        (("train", "--reward", "quadratic"), "--cost-gradient sampled"),
        (("train", "--dataset", "shapes", "--backbone", "resnet21", "--init", "scratch"), "or resnet20?"),
        (("train", "--dataset", "shapes"), "lcnet-rl pretrain --dataset shapes"),
        (("train", "--dataset", "shapes", "--backbone", "resnet14"), "of that width for shapes"),
        (("train", "--dataset", "shapes", "--backbone", "resnet14"), "there is --width 8"),
        (("train", "--dataset", "shapes", "--backbone", "resnet14", "--width", "4"), "--backbone resnet14 --width 4'"),
        (("pretrain", "--prune-multiple", "4"), "goes with --prune"),
        (("train", "--dataset", "cifar11"), "did you mean cifar10"),
        (("train", "--dataset", "shapes", "--init", "/nowhere.safetensors"), "no weights file"),
        (("train", "--resume", "/nowhere"), "no run folder"),
        (("train", "--device", "tpu"), "use auto, cpu, cuda"),
        (("evaluate", "/nowhere"), "no run folder"),
        (("pretrain", "--recipe.epochs", "0"), "epochs must be >= 1"),
        (("pretrain", "--resume", "/nowhere"), "no run folder"),
        (("bench", "env", "--trials", "1"), "at least 2"),
        (("bench",), "give one of"),
        (("bench", "env", "--preset", "standard"), "give one of"),
        (("bench", "env", "--against", "x.safetensors"), "--against is for bench RUN, not for env"),
        (("bench", "/nowhere"), "known: env, train, --preset standard"),
        (("bench", "tran"), "did you mean train"),
        (("bench", "env", "--threads", "0"), "at least 1"),
        (("bench", "env", "--width", "6"), "width 6: give a --width that 4 divides"),
        (("bench", "train", "--width", "2"), "width 2: give a --width that 4 divides"),
        (("bench", "/", "--batches", "1", "8", "1"), "take each entry once"),
        (("bench", "/", "--precisions", "bf16", "bf16"), "take each entry once"),
        (("export", "/nowhere"), "no run folder"),
        (
            ("train", "--dataset", "shapes", "--backbone", "resnet8", "--init", "scratch", "--groups", "5"),
            "must divide",
        ),
    ],
)
def test_a_mistake_gets_one_clear_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in failing(capsys, *arguments)


@pytest.mark.parametrize("algo", ["", "[ppo]"])
def test_a_preset_without_an_algorithms_name_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, algo: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"algo: {algo}\n")
    assert "unknown algo" in failing(capsys, "train", "--preset", str(tmp_path / "mine.yaml"))


def test_minibatches_that_ppo_cannot_have_are_refused_before_there_is_a_folder(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path
) -> None:
    arguments = ["train", "--algo", "ppo", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--init"]
    arguments += ["scratch", "--batch-size", "8", "--num-envs", "251", "--minibatch", "200"]
    assert "choose another --num-envs or --minibatch" in failing(capsys, *arguments, "--run", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("run", ["resnet20", "resnet20-45"])
def test_a_file_where_a_folder_is_to_be_is_refused_before_anything_is_evaluated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: str
) -> None:
    monkeypatch.setattr("lcnet_rl.commands.evaluate.load_training", None)
    (tmp_path / "file").touch()
    said = failing(capsys, "evaluate", str(REFERENCE / run), "--out", str(tmp_path / "file"))
    assert said == f"error: {tmp_path / 'file'} cannot be written to (File exists); name another place with --out\n"


@pytest.mark.parametrize("command", ["pretrain", "train"])
def test_a_folder_that_holds_a_run_is_refused_before_the_data_are_read_and_a_network_is_pruned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(f"lcnet_rl.commands.{command}.load_training", None)
    assert "already holds a run" in failing(capsys, command, "--run", str(REFERENCE / "resnet20"))


@pytest.mark.parametrize(
    "options",
    [
        ["pretrain", "--recipe.lr", "1e12", "--recipe.epochs", "3", "--recipe.batch-size", "8"],
        ["train", "--lr", "1e12", "--epochs", "9", "--batch-size", "8", "--save-every", "1", "--evals", "3"],
        ["train", "--algo", "ppo", "--lr", "1e12", "--timesteps", "300", "--num-envs", "10", "--batch-size", "8"],
    ],
    ids=["pretrain", "reinforce", "ppo"],
)
def test_where_a_training_diverges_its_last_good_checkpoint_is_named(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path, options: list[str]
) -> None:
    run, network = tmp_path / "run", ["--dataset", images, "--backbone", "resnet8", "--width", "4"]
    start = ["--init", "scratch"] if "train" in options else []
    said = failing(capsys, *options, *network, *start, "--run", str(run))
    assert said.endswith(f"; the last good checkpoint is {run / CHECKPOINT}\n")
    load_checkpoint(run)


@pytest.mark.parametrize("command", ["pretrain", "train"])
def test_a_run_can_go_on_elsewhere_but_not_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path, command: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run, agents = tmp_path / "run", command == "train"
    options = ["--batch-size", "8", "--epochs", "1", "--init", "scratch"]
    if not agents:
        options = ["--recipe.batch-size", "8", "--recipe.epochs", "1"]
    network = ["--dataset", images, "--backbone", "resnet8", "--width", "4"]
    assert main([command, *network, *options, "--run", str(run)]) == 0
    assert json.loads((run / RUN).read_text())["classes"] == ["bright", "dark"]
    config = run / CONFIG
    config.write_text(config.read_text().replace("device: auto", "device: cuda:1"))
    resume = [command, "--resume", str(run)]
    assert "torch finds no CUDA here" in failing(capsys, *resume)
    assert "leave options other than --device" in failing(capsys, *resume, "--device", "cpu", "--seed", "5")
    assert main([*resume, "--device", "cpu"]) == 0


def test_a_full_disk_is_one_line_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--init", "scratch"]
    arguments += ["--batch-size", "8", "--epochs", "2", "--save-every", "5", "--run", str(run)]
    save, saves = Reinforce.save, []

    def save_until_full(agent: Reinforce) -> None:
        saves.append(agent.step)
        if len(saves) > 1:  # a limit on the size of files is a full disk that a test can have
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, unlimited))
        try:
            save(agent)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    monkeypatch.setattr(Reinforce, "save", save_until_full)
    assert "cannot write" in failing(capsys, *arguments)
    assert len(saves) == 2
    assert load_tree(run / CHECKPOINT)["step"] == 0, "the earlier checkpoint is whole"
    assert not list(run.glob("*.part"))
    monkeypatch.setattr(Reinforce, "save", save)
    assert main(["train", "--resume", str(run)]) == 0


def test_too_little_memory_is_one_line_and_another_error_of_torch_is_no_mistake_of_the_users(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcnet_rl.commands.data.load_training", lambda *_: torch.empty(1 << 45))
    assert f"not enough memory for {4 << 45} bytes more" in failing(capsys, "data", "shapes")
    monkeypatch.setattr("lcnet_rl.commands.data.load_training", lambda *_: np.empty(1 << 45))
    assert "not enough memory for 256. TiB more" in failing(capsys, "data", "shapes")
    monkeypatch.setattr("lcnet_rl.commands.data.load_training", lambda *_: torch.empty(2) @ torch.empty(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["data", "shapes"])


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lcnet-rl {lcnet_rl.__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert re.findall(r"^  (\S+) ", capsys.readouterr().out, re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_setting_of_its_algorithm(name: str) -> None:
    values = read_preset(name)
    config = from_dict(ALGOS[values["algo"]], values, name)
    assert config.agent is not None


def test_of_an_option_that_is_given_twice_the_later_one_counts() -> None:
    config = parse(["--algo", "ppo", "--preset", "demo", "--preset=smoke", "--algo", "reinforce"], "train")
    assert (config.algo, config.preset) == ("reinforce", "smoke")
    assert config == parse(["--preset", "smoke"], "train")


def test_the_help_that_is_named_is_the_algorithms() -> None:
    for algo, named in (("ppo", "lcnet-rl train --algo ppo --help"), ("reinforce", "lcnet-rl train --help")):
        with pytest.raises(UserError, match=f"known: those of {named}$"):
            parse(["--algo", algo, "--horizon", "3"], "lcnet-rl train")


def test_command_line_overrides_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"algo": "reinforce", "agent": {"price": 0.7, "entropy": 0.5}}))
    config = parse(["--preset", str(path), "--price", "0.1"], "train")
    assert (config.agent.price, config.agent.entropy) == (0.1, 0.5)


def test_a_presets_width_is_that_of_its_own_backbone() -> None:
    assert parse(["--preset", "smoke"], "train").width == 8
    assert parse(["--preset", "smoke", "--backbone", "resnet14"], "train").width == 8
    assert parse(["--preset", "smoke", "--backbone=resnet20"], "train").width is None
    assert parse(["--preset", "smoke", "--backbone", "resnet20", "--width", "4"], "train").width == 4


def test_the_width_of_a_preset_without_a_backbone_is_that_of_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("width: 24\n")
    assert parse(["--preset", str(path), "--backbone", "resnet20"], "train").width == 24
    assert parse(["--preset", str(path), "--backbone", "resnet32"], "train").width is None


def test_a_price_is_refused_where_the_reward_finds_its_own() -> None:
    assert parse(["--preset", "smoke", "--reward", "lagrangian:target=0.7"], "train").agent.price == 1.0
    with pytest.raises(UserError, match="lagrangian finds its price by itself, from 0 on: leave --price out"):
        parse(["--preset", "smoke", "--reward", "lagrangian:target=0.7", "--price", "3"], "train")


def test_confidence_is_an_option_of_command_line_presets_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"confidence": False}))
    assert parse([], "train").confidence
    assert not parse(["--no-confidence"], "train").confidence
    assert not parse(["--preset", str(path)], "train").confidence
    assert parse(["--preset", str(path), "--confidence"], "train").confidence


@pytest.mark.parametrize("algo", ["reinforce", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_run_without_confidence_says_so(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path, algo: str
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--algo", algo, "--no-confidence", "--dataset", images, "--backbone", "resnet8"]
    arguments += ["--width", "4", "--init", "scratch", "--decides", "layers", "--batch-size", "32", "--run", str(run)]
    arguments += ["--epochs", "2"] if algo == "reinforce" else ["--timesteps", "60", "--num-envs", "5"]
    assert main(arguments) == 0
    assert yaml.safe_load((run / CONFIG).read_text())["confidence"] is False
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert "does not read the confidence" in capsys.readouterr().out
    summary = json.loads((run / "evaluation-val.json").read_text())
    assert summary["confidence"] is False
    assert summary["gate_macs"] == 2 * (4 + 2 + 4 + 2 + 8 + 2), "a keep and a scale layer of three L-Nets, no probe"


def test_a_dense_run_is_measured_on_test_images_by_evaluate_alone(
    capsys: pytest.CaptureFixture[str], parts_read: list[Part], images: str, tmp_path: Path
) -> None:
    run = tmp_path / "dense"
    network = ["--backbone", "resnet8", "--width", "4", "--recipe.epochs", "1", "--recipe.batch-size", "8"]
    assert main(["pretrain", "--dataset", images, *network, "--seed", "2", "--run", str(run)]) == 0
    assert parts_read == ["train"]
    assert main(["evaluate", str(run)]) == 0
    assert "test" in parts_read
    figures = json.loads((run / "evaluation-test.json").read_text())
    backbone, test = load_backbone(str(run), classes=2), load_dataset(images, "test")
    assert figures["accuracy"] == dense_accuracy(backbone, test, torch.device("cpu"))
    assert figures["macs_mean"] == dense_macs(backbone)
    assert (figures["split"], figures["images"], figures["train_seed"]) == ("test", 20, 2)
    assert f"20 images: {figures['accuracy']:.2%} at 0.85 MMACs an image" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["reinforce", "ppo", "a2c"])
def test_train_resume_and_evaluate_from_the_command_line(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path, algo: str
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--algo", algo, "--dataset", images, "--backbone", "resnet8", "--width", "4"]
    arguments += ["--init", "scratch", "--groups", "2", "--batch-size", "8", "--run", str(run)]
    if algo == "reinforce":
        arguments += ["--epochs", "4"]
    else:
        arguments += ["--timesteps", "300", "--num-envs", "10", "--warmup-steps", "2"]
    assert main(arguments) == 0
    assert {CONFIG, CHECKPOINT, MODEL, PROGRESS, "run.json", "start.safetensors"} <= {p.name for p in run.iterdir()}
    assert list(run.glob("events.out.tfevents.*"))
    header = (run / PROGRESS).read_text().splitlines()[0].split(",")
    assert {"rollout/macs_ratio", "rollout/ep_rew_mean", "rollout/success_rate", "eval/accuracy"} <= set(header)
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    summary = json.loads((run / "evaluation-test.json").read_text())
    assert {"accuracy", "dense_accuracy", "macs_mean", "macs_ratio", "backbone", "controls"} <= summary.keys()
    assert set(summary["controls"]) == {"keep-all", "random", "shuffled", "static"}
    assert all((run / f"{name}-test.png").stat().st_size > 5000 for name in ("tradeoff", "paths"))
    assert main(["evaluate", str(run), "--split", "val", "--budget", "0.5"]) == 0
    assert json.loads((run / "evaluation-val-budget0.5.json").read_text())["macs_ratio"] <= 0.5
    capsys.readouterr()
    assert "already holds a run" in failing(capsys, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["reinforce", "ppo"])
def test_one_run_serves_every_price_and_budget_of_its_range(
    capsys: pytest.CaptureFixture[str], images: str, tmp_path: Path, algo: str
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--algo", algo, "--dataset", images, "--backbone", "resnet8", "--width", "4", "--batch-size"]
    arguments += ["8", "--init", "scratch", "--price", "0.1..4", "--price-schedule", "cosine", "--run", str(run)]
    if algo == "reinforce":
        arguments += ["--epochs", "6", "--gate-lr", "0.1"]
    else:
        arguments += ["--timesteps", "300", "--num-envs", "10", "--warmup-steps", "2"]
    assert main(arguments) == 0
    assert main(["train", "--resume", str(run)]) == 0
    for price in ("0.1", "4"):
        assert main(["evaluate", str(run), "--split", "val", "--price", price]) == 0
    low, high = (json.loads((run / f"evaluation-val-price{p}.json").read_text()) for p in ("0.1", "4"))
    assert (low["price"], high["price"]) == pytest.approx((0.1, 4))
    if algo == "reinforce":
        assert high["macs_ratio"] < low["macs_ratio"], "it has learned what a price is"
        budget = (high["macs_ratio"] + low["macs_ratio"]) / 2
        assert main(["evaluate", str(run), "--split", "val", "--budget", str(budget)]) == 0
        met = json.loads((run / f"evaluation-val-budget{budget:g}.json").read_text())
        assert met["macs_ratio"] <= budget
        assert 0.1 < met["price"] < 4
    assert "was trained for prices 0.1..4, got 5" in failing(capsys, "evaluate", str(run), "--price", "5")
    both = failing(capsys, "evaluate", str(run), "--price", "1", "--budget", "0.5")
    assert "give --budget or --price, not both" in both


def test_sigterm_is_left_alone_where_the_work_is_another_processs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred_interrupt(terminate=False):
        assert signal.getsignal(signal.SIGTERM) == before
    with deferred_interrupt():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    tmp_path: Path,
) -> None:
    one_step = Reinforce.joint_step

    def step(agent: Reinforce) -> dict[str, float]:
        if agent.step == 3:
            signal.raise_signal(number)
        return one_step(agent)

    monkeypatch.setattr(Reinforce, "joint_step", step)
    run = tmp_path / "my [first] run"
    arguments = ["train", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--init", "scratch"]
    assert main([*arguments, "--batch-size", "8", "--run", str(run)]) == 130
    output = capsys.readouterr().out
    assert f"continue with: lcnet-rl train --resume '{run}'" in output
    assert load_tree(run / CHECKPOINT)["step"] == 4
