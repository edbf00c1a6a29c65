"""Settings of ``lcnet-rl pretrain``: what its command line and ``config.yaml`` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from lcnet_rl.commands.parsing import option, parse_over
from lcnet_rl.errors import UserError
from lcnet_rl.recipe import Recipe
from lcnet_rl.runs import CONFIG, has_agent, read_config
from lcnet_rl.settings import from_dict


@dataclass(frozen=True)
class Pretrain:
    """Train a dense backbone; the run folder's backbone.safetensors is what train --init starts from."""

    dataset: str = "cifar10"
    """cifar10, shapes, or folder:PATH."""
    backbone: str = "resnet20"
    """resnet8/14/20/32/44/56/110, resnet18, resnet16-late, resnet14-wide, resnet11-pool, or your own, MODULE:FAMILY."""
    width: int | None = None
    """Filters of the stem; by default those of the network that --init names, else the usual width."""
    init: str | None = None
    """Start from these weights: a file, a pretrain run, or 'akamaster'. Of a network that tells other classes apart,
    the head starts fresh."""
    prune: float | None = None
    """First drop filters of --init, for all images, until this share of its MACs is left (Torch-Pruning)."""
    prune_multiple: int = 1
    """Filters that --prune leaves in a block are a multiple of this, so that as many groups of C-Net can share them."""
    teacher: str | None = None
    """Learn this network's soft labels too, with weight --recipe.distill: weights as for --init, of these classes."""
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    """Decides initial weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    data_root: Path | None = None
    """Where data sets are kept (of folder:PATH, the folder that holds it); by default LCNET_RL_DATA or the user's cache
    folder."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    run: Path | None = None
    """The run folder itself, instead of a new one under --runs."""
    resume: Path | None = None
    """Go on with this run, with its own settings."""

    def __post_init__(self) -> None:
        if self.prune is not None and self.init is None:
            raise UserError("--prune drops filters of trained weights: name them with --init")
        if self.prune is None and self.prune_multiple != 1:
            raise UserError("--prune-multiple goes with --prune")
        if (self.teacher is None) != (self.recipe.distill == 0):
            raise UserError("--teacher and --recipe.distill (above 0) go together")
        if self.recipe.whiten and self.init is not None:
            raise UserError("--recipe.whiten sets the stem's filters anew: leave it out with --init")


def parse(arguments: Sequence[str], prog: str) -> Pretrain:
    """Settings from the command line, over those of the run to --resume."""
    resume = option(arguments, "--resume")
    values = {} if resume is None else read_config(Path(resume))
    if has_agent(values):
        raise UserError(f"{resume} trains an agent; to go on: lcnet-rl train --resume {quote(str(resume))}")
    config: Pretrain = parse_over(from_dict(Pretrain, values, f"{resume}/{CONFIG}"), arguments, prog)
    return config
