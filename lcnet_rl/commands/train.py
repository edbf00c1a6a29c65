"""``lcnet-rl train``: train a skipping agent, from the command line, a preset, or a run to go on with."""

from __future__ import annotations

from shlex import quote

import torch

from lcnet_rl.commands.building import starting_backbone
from lcnet_rl.commands.train_settings import AnyTrain, TrainReinforce, parse
from lcnet_rl.commands.training import start_run, train_agent
from lcnet_rl.data import load_training
from lcnet_rl.errors import UserError
from lcnet_rl.job import by_main, joined, main_first, world_size
from lcnet_rl.progress import say
from lcnet_rl.runs import START, TEACHER, check_free
from lcnet_rl.seeds import check_seed
from lcnet_rl.training_setup import TrainingSetup
from lcnet_rl.unchanged import check_same_data, warn_if_edited
from lcnet_rl.weights import load_backbone

__all__ = ["parse", "run"]


def run(config: AnyTrain) -> None:
    """Train, or go on training, to the end; under torchrun, as one of its processes."""
    check_seed(config.seed)
    with joined(config.device) as device:
        run_on(config, device)


def run_on(config: AnyTrain, device: torch.device) -> None:
    """``run``, once it is clear where."""
    if world_size() > 1 and not isinstance(config, TrainReinforce):
        raise UserError(f"--algo {config.algo} trains in one process: start it without torchrun, or use reinforce")
    if config.resume is None and config.run is not None:
        by_main(check_free)(config.run)
    with main_first():
        train, val = load_training(config.dataset, config.data_root)
    torch.manual_seed(config.seed)
    folder, classes = config.resume, len(train.classes)
    if folder is not None:
        check_same_data(folder, train)
    backbone = load_backbone(str(folder / START), classes=classes) if folder else starting_backbone(config, classes)
    if world_size() > 1 and backbone.second:
        raise UserError("a network behind another one trains in one process: start it without torchrun")
    if folder is not None:
        by_main(warn_if_edited)(folder, config, "from here on the run is trained by other code")
        teacher = load_backbone(str(folder / TEACHER), classes=classes) if config.teacher else backbone
        train_agent(config, backbone, TrainingSetup(train, val, folder, config.seed, device, teacher))
    else:
        folder = start_run(config, backbone, train, val, device)
    evaluation = f"lcnet-rl evaluate {quote(str(folder))}"
    say(f"done; now: {evaluation} --split val (without --split on test images, once chosen)")
