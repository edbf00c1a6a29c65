"""A run of train that starts from another run's agent, or learns from another network than it starts with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import images as noise

from lcnet_rl.backbones import create_backbone
from lcnet_rl.commands import main, train
from lcnet_rl.commands.building import starting_agent, starting_backbone
from lcnet_rl.commands.train_settings import parse
from lcnet_rl.model import LCNet
from lcnet_rl.runs import CHECKPOINT, CONFIG, MODEL, START
from lcnet_rl.second import RAN, UNSURE
from lcnet_rl.tree import load_tree
from lcnet_rl.weights import load_backbone, load_model, save_backbone, save_model

NETWORK = ("--backbone", "resnet8", "--width", "4", "--groups", "2", "--batch-size", "8")


@pytest.fixture(scope="module")
def trained(images: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("starting") / "first"
    arguments = ["train", "--dataset", images, *NETWORK, "--init", "scratch", "--epochs", "2", "--gate-lr", "0.1"]
    assert main([*arguments, "--run", str(run)]) == 0
    return run


@pytest.mark.parametrize(
    ("algo", "length"),
    [("reinforce", "--epochs=1"), pytest.param("ppo", "--timesteps=100", marks=pytest.mark.slow)],
)
def test_gates_and_backbone_go_on_and_the_dense_network_stays(
    trained: Path, images: str, tmp_path: Path, algo: str, length: str
) -> None:
    run = tmp_path / "second"
    arguments = ["--algo", algo, "--dataset", images, *NETWORK, "--init", str(trained), length, "--run", str(run)]
    dense, agent = load_backbone(str(trained / START), classes=2), load_model(trained)
    starts_as = starting_agent(parse(arguments, "train"), dense).state_dict()
    assert all(torch.equal(value, starts_as[name]) for name, value in agent.state_dict().items())
    assert any(not torch.equal(value, agent.backbone.state_dict()[name]) for name, value in dense.state_dict().items())

    assert main(["train", *arguments]) == 0
    # What results are compared with, and the teacher, are the network that the first run began with.
    start, teacher = load_backbone(str(run / START), classes=2), load_tree(run / CHECKPOINT)["finetuner"]["teacher"]
    for state in (start.state_dict(), teacher):
        assert all(torch.equal(value, state[name]) for name, value in dense.state_dict().items())


def test_another_kind_of_agent_is_refused(
    trained: Path, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--dataset", images, *NETWORK, "--init", str(trained), "--run", str(tmp_path / "run")]
    assert main([*arguments, "--decides", "layers", "--price", "0.1..1"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "holds another kind of agent than was asked for: decides both, not layers; prices one, not 0.1..1" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--init", "--resume"])
def test_a_run_without_its_starting_network_is_told_so(
    trained: Path, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    run = tmp_path / "cut"
    shutil.copytree(trained, run)
    (run / START).unlink()
    new = ["--dataset", images, *NETWORK] if option == "--init" else []
    assert main(["train", *new, option, str(run)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"{run} lacks start.safetensors, with which its run began" in error


def test_agents_that_decide_about_layers_alone_may_have_other_groups(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("resnet8", 2, 4)
    model = LCNet(backbone, "layers", groups=4)
    run = tmp_path / "first"
    run.mkdir()
    save_model(model, run / MODEL)
    save_backbone(backbone, run / START)
    (run / CONFIG).write_text("dataset: shapes\nagent: {}\n")
    config = parse(["--init", str(run), "--decides", "layers", "--groups", "2"], "lcnet-rl train")
    gates = starting_agent(config, load_backbone(str(run / START), classes=2)).l_nets.state_dict()
    assert all(torch.equal(value, gates[name]) for name, value in model.l_nets.state_dict().items())


@pytest.mark.slow
def test_a_second_network_is_put_behind_the_starting_one(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    larger, run = create_backbone("resnet14", 2, 6), tmp_path / "two"
    save_backbone(larger, tmp_path / "larger.safetensors")
    arguments = ["train", "--dataset", images, *NETWORK, "--second", str(tmp_path / "larger.safetensors")]
    arguments += ["--second-weight", "2"]
    assert main([*arguments, "--init", "scratch", "--epochs", "2", "--run", str(run)]) == 0
    start, model = load_backbone(str(run / START), classes=2), load_model(run)
    assert start.spec == model.spec.backbone
    assert (start.spec.name, start.spec.second) == ("resnet8", larger.spec)
    kept = {name.removeprefix("second."): value for name, value in start.state_dict().items() if "second." in name}
    assert all(torch.equal(value, kept[name]) for name, value in larger.state_dict().items() if "head" not in name)
    assert torch.equal(start.head.weight[:, -larger.channels :], 2 * larger.head.weight)
    (tmp_path / "larger.safetensors").unlink()
    (run / "model.safetensors").unlink()
    assert main(["train", "--resume", str(run)]) == 0, "from the run's own copy"
    assert main(["train", "--dataset", images, *NETWORK, "--init", str(run), "--run", str(tmp_path / "on")]) == 0
    assert load_model(tmp_path / "on").spec == model.spec
    behind, other = "are of the network that --second names", str(tmp_path / "other.safetensors")
    save_backbone(larger, tmp_path / "other.safetensors")
    for said, *option in (
        (behind, "--second-weight", "2"),
        (behind, "--second-mirrored"),
        ("give a --second network", "--no-second-rule"),
        ("reads the confidence: give --no-second-rule too", "--no-confidence", "--second", other),
        ("has no pupil", "--teacher", other, "--no-train-backbone", "--no-train-scales"),
    ):
        assert main(["train", "--dataset", images, *NETWORK, "--init", "scratch", *option]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(train, "world_size", lambda: 2)
    for pair in (["--resume", str(run)], ["--dataset", images, *NETWORK, "--init", str(run), "--run", "never"]):
        assert main(["train", *pair]) == 2
        assert "start it without torchrun" in " ".join(capsys.readouterr().err.split())


def decided_alike(first: LCNet, second: LCNet) -> bool:
    """Whether the blocks that both have decide, scale and compute alike, on noise."""
    states = [model.eval().begin(noise(8)) for model in (first, second)]
    with torch.no_grad():
        for _ in range(first.depth):
            logits = [model.policy_logits(model.observe(s)) for model, s in zip((first, second), states, strict=True)]
            if not torch.allclose(*logits, atol=1e-3):
                return False
            action = (logits[0] > logits[0].median()).float()
            states = [model.advance(state, action) for model, state in zip((first, second), states, strict=True)]
    return torch.allclose(states[0].pooled, states[1].pooled, atol=1e-3)


def test_networks_are_put_behind_those_of_a_trained_agent(trained: Path, images: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    larger, largest = create_backbone("resnet14", 2, 6), create_backbone("resnet8", 2, 8)
    save_backbone(larger, tmp_path / "larger.safetensors")
    save_backbone(largest, tmp_path / "largest.safetensors")
    shutil.copytree(trained, tmp_path / "one")
    agent = load_model(tmp_path / "one")
    for gate in agent.gates():
        for layer in (gate.keep, gate.scale):  # of the MACs spent, too
            layer.weight.data += 0.3 * torch.randn(layer.weight.shape)
    save_model(agent, tmp_path / "one" / MODEL)

    arguments = ["train", "--dataset", images, *NETWORK, "--epochs", "1", "--bound", "1e-9"]
    two = [*arguments, "--init", str(tmp_path / "one"), "--second", str(tmp_path / "larger.safetensors")]
    config = parse(two[1:], "train")
    assert decided_alike(agent, starting_agent(config, starting_backbone(config, 2)))
    assert main([*two, "--run", str(tmp_path / "two")]) == 0

    three = [*arguments, "--init", str(tmp_path / "two"), "--second", str(tmp_path / "largest.safetensors")]
    three += ["--second-mirrored", "--second-weight", "3", "--run", str(tmp_path / "three")]
    config, agent = parse(three[1:], "train"), load_model(tmp_path / "two")
    model = starting_agent(config, starting_backbone(config, 2))
    assert decided_alike(agent, model)
    start = model.l_nets[-1].keep.weight[0, -4:]
    assert start.tolist() == [-UNSURE, UNSURE, RAN, 0], "where the second network ran and left doubts"
    assert model.l_nets[-2].keep.weight[0, -2].abs() < 1, "the second one's is not about that"
    blank = starting_agent(replace(config, second_rule=False), starting_backbone(config, 2))
    assert not blank.l_nets[-1].keep.weight.any()
    assert decided_alike(agent, blank), "whose own gates are as they were"
    assert main(three) == 0
    dense, kept = (load_backbone(str(folder / START), classes=2) for folder in (tmp_path / "three", trained))
    assert dense.spec == load_model(tmp_path / "three").spec.backbone == model.spec.backbone
    assert [network.mirrored for network in dense.spec.networks] == [False, False, True]
    for ours, theirs in zip(dense.networks, (kept, larger, largest), strict=True):
        state = ours.state_dict()
        assert all(torch.equal(v, state[name]) for name, v in theirs.state_dict().items() if "head" not in name)
    assert torch.equal(dense.head.weight, torch.cat((kept.head.weight, larger.head.weight, 3 * largest.head.weight), 1))
    (tmp_path / "three" / MODEL).unlink()
    assert main(["train", "--resume", str(tmp_path / "three")]) == 0


@pytest.mark.slow
def test_ppo_decides_about_a_second_network_too(images: str, tmp_path: Path) -> None:
    save_backbone(create_backbone("resnet8", 2, 4), tmp_path / "larger.safetensors")
    arguments = ["train", "--algo", "ppo", "--dataset", images, *NETWORK, "--init", "scratch", "--timesteps", "100"]
    assert main([*arguments, "--second", str(tmp_path / "larger.safetensors"), "--run", str(tmp_path / "run")]) == 0
    model = load_model(tmp_path / "run")
    assert model.depth == 4
    assert model.l_nets[3].keep.weight.any(), "it learned"


def test_a_teacher_may_be_another_network(images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    wider, run = create_backbone("resnet14", 2, 6), tmp_path / "pupil"
    save_backbone(wider, tmp_path / "wider.safetensors")
    teacher = str(tmp_path / "wider.safetensors")
    arguments = ["train", "--dataset", images, *NETWORK, "--init", "scratch", "--teacher", teacher]
    assert main([*arguments, "--distill", "0", "--run", str(run)]) == 2
    assert "--distill, which is 0" in " ".join(capsys.readouterr().err.split())
    assert main([*arguments, "--epochs", "2", "--run", str(run)]) == 0
    (tmp_path / "wider.safetensors").unlink()
    (run / "model.safetensors").unlink()
    assert main(["train", "--resume", str(run)]) == 0, "from the run's own copy"
    taught = load_tree(run / CHECKPOINT)["finetuner"]["teacher"]
    assert all(torch.equal(value, taught[name]) for name, value in wider.state_dict().items())
    assert load_model(run).spec.backbone.name == "resnet8"
