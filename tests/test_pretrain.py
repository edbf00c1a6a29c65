"""Dense training: schedule, exact resume, and a stop when the loss is no number."""

from __future__ import annotations

import copy
import csv
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backbones import noise, tiny_backbone
from torch import nn

from lcnet_rl import dense, pretrain
from lcnet_rl.backbones import Backbone, BackboneSpec, build, create_backbone
from lcnet_rl.commands import main
from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import Augmentation
from lcnet_rl.dense import dense_accuracy
from lcnet_rl.errors import UserError
from lcnet_rl.interrupt import Interrupted
from lcnet_rl.metrics_log import MetricsLog
from lcnet_rl.model import LCNet
from lcnet_rl.optim import decayed, triangle
from lcnet_rl.pretrain import DenseTraining, layer_drop_keeps
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import CHECKPOINT, PROGRESS, START
from lcnet_rl.starting import with_fresh_head
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.tree import load_tree, save_tree
from lcnet_rl.weights import load_backbone, save_backbone

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch_size=8, lr=0.1, precision="fp32")


class Stopped(Exception):  # noqa: N818 (a kill, not an error)
    """The machine went away."""


def coloured(count: int = 24, split: str = "train") -> Dataset:
    """Noise with a colour cast that is the label."""
    labels = torch.arange(count) % 3
    images = noise(count, seed=len(split)) // 2
    images[torch.arange(count), labels] += 100
    return Dataset("colours", split, images, labels, ("red", "green", "blue"))


def setup_in(run: Path, train: Dataset | None = None, teacher: Backbone | None = None) -> TrainingSetup:
    return TrainingSetup(train or coloured(), coloured(12, "val"), run, 0, CPU, teacher)


def train(backbone: Backbone, run: Path, recipe: Recipe = RECIPE, resume: bool = False) -> float:
    training = DenseTraining(backbone, recipe, setup_in(run))
    if resume:
        training.restore()
    training.train()
    return dense_accuracy(backbone, training.setup.val, CPU)


def fresh(seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_backbone("resnet8", classes=3, width=4)


def logged(run: Path) -> list[dict[str, str]]:
    """progress.csv without its clock."""
    with (run / PROGRESS).open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "time/fps"} for row in csv.DictReader(file)]


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_the_learning_rate_rises_to_one_and_falls_to_almost_zero() -> None:
    factors = [triangle(step, 1000, 0.2) for step in range(1000)]
    top = max(range(1000), key=factors.__getitem__)
    assert abs(top - 200) <= 1
    assert factors[top] == pytest.approx(1, abs=0.002)
    assert factors[0] == pytest.approx(1 / 200)
    assert 0 < factors[-1] <= 1 / 800 + 1e-9
    assert factors[100] == pytest.approx(0.5, abs=0.01)
    assert factors[600] == pytest.approx(0.5, abs=0.01)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


@settings(max_examples=100)
@given(st.integers(1, 300), st.floats(0, 1, exclude_max=True))
def test_the_learning_rate_never_exceeds_its_peak(total: int, warmup: float) -> None:
    assert all(0 < triangle(step, total, warmup) <= 1 + 1e-9 for step in range(total))


def test_batchnorm_and_biases_do_not_decay() -> None:
    backbone = fresh()
    matrices, vectors = decayed(backbone.parameters(), 5e-4)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (5e-4, 0)
    names = {id(p): name for name, p in backbone.named_parameters()}
    decaying = {names[id(p)] for p in matrices["params"]}  # type: ignore[attr-defined]
    assert decaying == {name for name in names.values() if "conv" in name or name == "head.weight"}
    assert len(names) == len(matrices["params"]) + len(vectors["params"])  # type: ignore[arg-type]


MUON = replace(RECIPE, optimizer="muon", augmentation=Augmentation(flips="alternating", cutout=8))


@pytest.mark.parametrize("recipe", [RECIPE, MUON, replace(RECIPE, layer_drop=0.5)], ids=["sgd", "muon", "layer-drop"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int, recipe: Recipe
) -> None:
    whole = fresh()
    accuracy = train(whole, tmp_path / "whole", recipe)

    saves = 0

    def save_then_stop(tree: dict[str, Any], path: Path) -> None:
        nonlocal saves
        save_tree(tree, path)
        saves += 1
        if saves == stop_after:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "save_tree", save_then_stop)
        with pytest.raises(Stopped):
            train(fresh(), tmp_path / "parts", recipe)
    resumed = fresh(seed=1)  # its weights must come from the checkpoint
    assert train(resumed, tmp_path / "parts", recipe, resume=True) == accuracy

    assert_same_state(resumed.state_dict(), whole.state_dict())
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    ours, theirs = (load_tree(tmp_path / run / CHECKPOINT) for run in ("parts", "whole"))
    assert ours["step"] == theirs["step"] == 12
    for name in theirs.keys() - {"backbone", "step", "loss_sum", "correct"}:
        assert ours[name]["param_groups"] == theirs[name]["param_groups"]
        for index, state in theirs[name]["state"].items():
            assert_same_state(ours[name]["state"][index], state)


def within_an_epoch(happens: Callable[[], None]) -> Callable[[int, int, float], float]:
    """The learning rate's factor, at whose step 7 (an epoch has three) something happens."""

    def factor(step: int, total: int, warmup: float) -> float:
        if step == 7:
            happens()
        return triangle(step, total, warmup)

    return factor


def test_a_run_stopped_between_checkpoints_repeats_the_lost_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh()
    train(whole, tmp_path / "whole")

    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "triangle", within_an_epoch(stop))
        with pytest.raises(Stopped):
            train(fresh(), tmp_path / "parts")
    assert load_tree(tmp_path / "parts" / CHECKPOINT)["step"] == 6
    resumed = fresh(seed=1)
    train(resumed, tmp_path / "parts", resume=True)
    assert_same_state(resumed.state_dict(), whole.state_dict())
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def test_a_run_interrupted_within_an_epoch_logs_what_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(fresh(), tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "triangle", within_an_epoch(lambda: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(Interrupted):
            train(fresh(), tmp_path / "parts")
    assert load_tree(tmp_path / "parts" / CHECKPOINT)["step"] == 8
    train(fresh(seed=1), tmp_path / "parts", resume=True)
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


@pytest.mark.parametrize(
    "stop", [None, Interrupted("again", 1, 2), UserError("no number"), Stopped()], ids=lambda stop: type(stop).__name__
)
def test_the_log_is_closed_however_a_training_ends(
    stop: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[MetricsLog] = []
    close = MetricsLog.close
    monkeypatch.setattr(MetricsLog, "close", lambda log: closed.append(log) or close(log))

    def ending() -> None:
        if stop is not None:
            raise stop

    monkeypatch.setattr(pretrain, "triangle", within_an_epoch(ending))
    with nullcontext() if stop is None else pytest.raises(type(stop)):
        train(fresh(), tmp_path)
    assert len(closed) == 1


def test_with_all_weight_on_the_teacher_labels_do_not_matter(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, distill=1.0)
    true, teacher = coloured(), fresh(seed=2)
    false = replace(true, labels=true.labels.roll(1))
    students = []
    for index, (data, guide) in enumerate([(true, teacher), (false, teacher), (true, fresh(seed=3))]):
        student = fresh()
        run = tmp_path / str(index)
        DenseTraining(student, recipe, setup_in(run, data, guide)).train()
        students.append(student.state_dict())
    assert_same_state(students[0], students[1])
    assert not torch.equal(students[0]["head.weight"], students[2]["head.weight"])


def test_dropped_layers_are_each_images_own() -> None:
    keeps = layer_drop_keeps(5, 4000, 0.6, torch.Generator().manual_seed(0))
    assert keeps.shape == (5, 4000)
    assert set(keeps.unique().tolist()) == {0, 1}
    torch.testing.assert_close(keeps.mean(1), torch.full((5,), 0.7), atol=0.03, rtol=0)
    # Rates differ among images, so an image's numbers of blocks vary more than those of one common rate.
    assert keeps.sum(0).var() > 1.3 * 5 * 0.7 * 0.3


def test_dropping_layers_is_what_a_skipping_model_does() -> None:
    model, images = LCNet(fresh(), "layers").eval(), noise(6)
    keeps = layer_drop_keeps(model.depth, 6, 0.9, torch.Generator().manual_seed(1))
    assert len(keeps.T.unique(dim=0)) > 2
    with torch.no_grad():
        outcome = model.run(images, lambda observation: keeps[observation.block][:, None])
        torch.testing.assert_close(model.backbone(images, keeps), outcome.logits)
        torch.testing.assert_close(model.backbone(images, torch.ones_like(keeps)), model.backbone(images))


def test_after_dropping_layers_statistics_are_those_of_the_whole_network(tmp_path: Path) -> None:
    backbone = fresh()
    train(backbone, tmp_path, replace(RECIPE, epochs=2, layer_drop=0.9))
    whole = copy.deepcopy(backbone).train()
    norms = {name: norm for name, norm in whole.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.momentum = 1.0  # all of the training images are one batch
    with torch.no_grad():
        whole(coloured().images)
    for name, norm in norms.items():
        measured = backbone.get_submodule(name)
        torch.testing.assert_close(measured.running_mean, norm.running_mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(measured.running_var, norm.running_var, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    train(fresh(), tmp_path, replace(MUON, epochs=1))
    with pytest.raises(UserError, match="of another network or optimizer"):
        train(fresh(), tmp_path, replace(RECIPE, epochs=1), resume=True)


@pytest.mark.parametrize("rate", [50.0, 1e6])
def test_a_checkpoint_never_holds_what_is_no_number(tmp_path: Path, rate: float) -> None:
    recipe = replace(RECIPE, epochs=12, batch_size=24, lr=rate)  # one step an epoch
    with pytest.raises(UserError, match=r"train anew with a lower --recipe\.lr"):
        train(fresh(), tmp_path, recipe)
    kept = load_tree(tmp_path / CHECKPOINT)
    assert all(bool(value.isfinite().all()) for value in kept["backbone"].values())
    assert bool(kept["loss_sum"].isfinite())


def test_two_runs_with_one_seed_are_equal(tmp_path: Path) -> None:
    backbones = [fresh(), fresh()]
    for index, backbone in enumerate(backbones):
        train(backbone, tmp_path / str(index), Recipe(epochs=1, batch_size=8, precision="fp32"))
    assert_same_state(backbones[0].state_dict(), backbones[1].state_dict())


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "triangle", lambda step, *_: 1e30 if step >= 3 else 0.1)
    with pytest.raises(UserError, match="is not a number") as caught:
        train(fresh(), tmp_path)
    assert "\n" not in str(caught.value)
    checkpoint = load_tree(tmp_path / CHECKPOINT)
    assert checkpoint["step"] == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint["backbone"].values())


def test_training_learns_an_easy_set_and_logs_every_epoch(tmp_path: Path) -> None:
    recipe = Recipe(epochs=12, batch_size=8, lr=0.1, label_smoothing=0.1, precision="fp32")
    backbone = fresh()
    accuracy = train(backbone, tmp_path, recipe)
    assert accuracy > 0.9
    assert accuracy == dense_accuracy(backbone, coloured(12, "val"), CPU)
    assert not backbone.training
    rows = logged(tmp_path)
    assert [row["time/total_timesteps"] for row in rows] == [str(24 * (epoch + 1)) for epoch in range(12)]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])


def test_dense_accuracy_counts_right_images_whatever_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone(classes=3).train()
    data = coloured(20)
    with torch.no_grad():
        predictions = [int(backbone.eval()(image[None]).argmax()) for image in data.images]
    right = sum(p == label for p, label in zip(predictions, data.labels.tolist(), strict=True))
    for batch_size in (1, 7, 500):
        monkeypatch.setattr(dense, "BATCH", batch_size)
        assert dense_accuracy(backbone.train(), data, CPU) == right / 20
    assert not backbone.training


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"batch_size": 1}, "batch_size must be >= 2"),
        ({"lr": 0.0}, "lr must be > 0"),
        ({"muon_lr": 0.2}, "go with --recipe.optimizer muon"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"warmup": 1.0}, "warmup"),
        ({"weight_decay": -1.0}, "^weight_decay must be >= 0, got -1.0"),
        ({"label_smoothing": 1.0}, "^label_smoothing must be in .* got 1.0"),
        ({"distill": 1.5}, "^distill must be in .* got 1.5"),
        ({"optimizer": "muon", "muon_lr": 0.0}, "^muon_lr must be > 0, got 0.0"),
        ({"optimizer": "muon", "muon_momentum": 1.0}, "^muon_momentum must be in .* got 1.0"),
        ({"optimizer": "muon", "muon_weight_decay": -1.0}, "^muon_weight_decay must be >= 0, got -1.0"),
        ({"layer_drop": 1.0}, "layer_drop"),
        ({"optimizer": "adamw"}, "^unknown optimizer 'adamw'; known: muon, sgd"),
        ({"precision": "fp16"}, "^unknown precision 'fp16'; did you mean .*known: auto, bf16, fp32"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**wrong)


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch size 25 exceeds the 24 images"):
        train(fresh(), tmp_path, Recipe(epochs=1, batch_size=25))


def of_other_classes(images: str, tmp_path: Path) -> tuple[Backbone, str, list[str]]:
    """A pruned network of three classes, its file, and a command that trains one like it on two."""
    backbone, path = create_backbone("resnet8", 3, 4, (4, 4, 12)), str(tmp_path / "three.safetensors")
    save_backbone(backbone, Path(path))
    command = ["pretrain", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--recipe.epochs", "1"]
    return backbone, path, [*command, "--recipe.batch-size", "8", "--run", str(tmp_path / "run")]


def test_from_a_network_of_other_classes_all_is_taken_but_the_head(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, path, command = of_other_classes(images, tmp_path)
    assert main([*command, "--init", path]) == 0
    said = f"{path} tells 3 classes apart, {images} has 2 (bright, dark): its head starts fresh"
    assert said in capsys.readouterr().out
    start = load_backbone(str(tmp_path / "run" / START), classes=2)
    assert start.spec == replace(backbone.spec, classes=2)
    given, taken = ({k: v for k, v in one.state_dict().items() if "head" not in k} for one in (backbone, start))
    assert_same_state(taken, given)


def test_a_head_for_as_many_other_classes_starts_fresh_too(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, others = trained_on_other_pictures(images, tmp_path)
    small = ["--backbone", "resnet8", "--width", "4", "--recipe.epochs", "1", "--recipe.batch-size", "8"]
    start = ["pretrain", "--init", str(trained), *small]
    assert main([*start, "--dataset", others, "--run", str(tmp_path / "tuned")]) == 0
    said = f"{trained} tells 2 classes apart (bright, dark), {others} has 2 (black, white): its head starts fresh"
    assert said in capsys.readouterr().out
    before, after = (load_backbone(str(path), classes=2) for path in (trained, tmp_path / "tuned" / START))
    assert torch.equal(before.stem.conv.weight, after.stem.conv.weight)
    assert not torch.equal(before.head.weight, after.head.weight)
    assert main([*start, "--dataset", images, "--run", str(tmp_path / "again")]) == 0
    assert torch.equal(before.head.weight, load_backbone(str(tmp_path / "again" / START), classes=2).head.weight)


@pytest.mark.parametrize("option", ["--init", "--second", "--teacher", "pretrain --teacher"])
def test_a_network_of_as_many_other_classes_is_refused_where_its_head_would_be_used(
    images: str, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, others = trained_on_other_pictures(images, tmp_path)
    command = ["train", "--init", "scratch", "--batch-size", "8"]
    if option.startswith("pretrain"):
        command = ["pretrain", "--recipe.distill", "0.5"]
    command += ["--dataset", others, "--backbone", "resnet8", "--width", "4", option.split()[-1], str(trained)]
    assert main([*command, "--run", str(tmp_path / "next")]) == 2
    told = f"{trained} knows the classes bright, dark, but {others} has black, white"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def trained_on_other_pictures(images: str, tmp_path: Path) -> tuple[Path, str]:
    """A network trained on two classes, and the same pictures as classes of other names."""
    run, others = tmp_path / "run", tmp_path / "others"
    command = ["pretrain", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--recipe.epochs", "1"]
    assert main([*command, "--recipe.batch-size", "8", "--run", str(run)]) == 0
    shutil.copytree(images.removeprefix("folder:"), others)
    for dark in sorted(others.glob("*/dark")):
        dark.rename(dark.with_name("black"))
        (dark.parent / "bright").rename(dark.parent / "white")
    return run, f"folder:{others}"


@pytest.mark.parametrize("command", ["train", "teacher"])
def test_elsewhere_a_network_of_other_classes_is_to_be_fine_tuned_first(
    images: str, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path, pretraining = of_other_classes(images, tmp_path)
    arguments = [*pretraining, "--teacher", path, "--recipe.distill", "0.5"]
    if command == "train":
        arguments = ["train", "--dataset", images, "--backbone", "resnet8", "--width", "4", "--init", path]
    assert main(arguments) == 2
    told = f"fine-tune it first: lcnet-rl pretrain --dataset ... --init {path} --backbone resnet8 --width 4"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_network_behind_is_for_the_other_classes_too() -> None:
    pair = build(BackboneSpec("resnet8", 3, 4, second=BackboneSpec("resnet8", 3, 8)))
    other = with_fresh_head(pair, 5)
    assert [network.classes for network in other.spec.networks] == [5, 5]
    assert other(noise(2)).shape == (2, 5)
    assert torch.equal(other.networks[1].stem.conv.weight, pair.networks[1].stem.conv.weight)
