"""What the settings of an environment name: its images, its network, its reward and its prices.

What is not named is a run's own. A price and a reward go together: 2.0 is much for a prediction that is worth 0 or 1,
and little for one that is worth its log-probability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from envs.settings import PRICE, REWARD, Settings
from lcnet_rl import ENV_IDS
from lcnet_rl.data import Dataset, Split, base_name, load_dataset
from lcnet_rl.data.root import resolve_root
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange, Reward, create_reward, price_range
from lcnet_rl.runs import CONFIG, MODEL, data_root, read_config
from lcnet_rl.second import start_unsure
from lcnet_rl.spec import DEFAULT_GROUPS, Decides
from lcnet_rl.starting import is_agent, starting_networks
from lcnet_rl.unchanged import check_classes, check_knows
from lcnet_rl.weights import BACKBONE, load_backbone, load_model

FRESH_WEIGHTS_SEED = 0
_IN_USE: WeakValueDictionary[tuple[str, Split, Path], Dataset] = WeakValueDictionary()
"""Data sets that environments of this process have, by name, split and root."""


def dataset_of(settings: Settings) -> Dataset:
    """The images of ``settings``, or else the run's."""
    if isinstance(settings.dataset, Dataset):
        return settings.dataset
    name, root = settings.dataset, settings.data_root
    if name is None and settings.model is not None and settings.run is None:
        raise UserError("give dataset, too: a model does not say of which images it is")
    if name is None and settings.run is not None:
        config = read_config(Path(settings.run))
        name, root = config["dataset"], data_root(root, config)
    return _loaded(name or "shapes", settings.split, root)


def reward_of(settings: Settings) -> Reward:
    """The reward of ``settings``, or else the one that the run was trained for.

    Raises:
        UserError: for a name that is not known.
    """
    if settings.reward is not None:
        return create_reward(settings.reward)
    trained_for = _config(settings).get("agent", {}).get("reward", REWARD)
    try:
        return create_reward(trained_for)
    except UserError as error:
        raise UserError(
            f"{settings.run} was trained for the reward {trained_for!r}, but {error}; give reward"
        ) from error


def prices_of(settings: Settings, model: LCNet) -> PriceRange:
    """The prices of ``settings``, or the model's own: its gates read the price, and decide otherwise at another one."""
    if settings.price is not None:
        return price_range(settings.price)
    trained_at = float(model.price)
    untrained = settings.run is None and trained_at == 0
    return model.spec.prices or price_range(PRICE if untrained else trained_at)


def model_of(decides: Decides, settings: Settings, dataset: Dataset) -> LCNet:
    """The model of ``settings``, and a check that it fits the environment and the data."""
    if settings.model is None and settings.run is None:
        return _with_fresh_gates(decides, settings, dataset)
    model = settings.model if settings.run is None else _trained(Path(settings.run))
    assert model is not None
    spec, source = model.spec, "the model" if settings.run is None else str(settings.run)
    if spec.decides != decides:
        raise UserError(f"{source} decides {spec.decides!r}: it needs {ENV_IDS[spec.decides]}, not {ENV_IDS[decides]}")
    if model.classes != len(dataset.classes):
        raise UserError(f"{source} tells {model.classes} classes apart, but the data set has {len(dataset.classes)}")
    if settings.run is not None:
        check_classes(Path(settings.run), model.classes, dataset.name, dataset.classes)
    for name, asked, found in (
        ("backbone", settings.backbone, spec.backbone.name),
        ("width", settings.width, spec.backbone.width),
        # Where layers alone are decided there are no groups, and any number of them is as good.
        ("groups", None if decides == "layers" else settings.groups, spec.groups),
        ("confidence", settings.confidence, spec.confidence),
    ):
        if asked is not None and asked != found:
            raise UserError(f"{source} has {name} {found}, but {asked} was asked for; leave {name} out")
    return model


def _loaded(name: str, split: Split, root: Path | str | None) -> Dataset:
    """A data set, the same one for all environments that have it; but a folder's images may have changed."""
    if base_name(name).startswith("folder:"):
        return load_dataset(name, split, root)
    key = name, split, resolve_root(root).resolve()
    dataset = _IN_USE.get(key)
    if dataset is None:
        dataset = _IN_USE[key] = load_dataset(name, split, root)
    return dataset


def _config(settings: Settings) -> dict[str, Any]:
    """The settings of the run, where there is a run that has kept them."""
    if settings.run is None:
        return {}
    run = Path(settings.run)
    return read_config(run) if (run / CONFIG).is_file() else {}


def _trained(run: Path) -> LCNet:
    if (run / BACKBONE).is_file() and not (run / MODEL).is_file():
        raise UserError(f"{run} trained a dense backbone, no agent: give it as init, and fresh gates are put on it")
    return load_model(run)


def _with_fresh_gates(decides: Decides, settings: Settings, dataset: Dataset) -> LCNet:
    groups = DEFAULT_GROUPS if settings.groups is None else settings.groups
    confidence = True if settings.confidence is None else settings.confidence
    init, name, classes = str(settings.init or "scratch"), settings.backbone, len(dataset.classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(FRESH_WEIGHTS_SEED)
        if init in ("auto", "scratch"):
            backbone = starting_networks(init, dataset.name, name or "resnet8", settings.width, classes)
        elif is_agent(init):
            raise UserError(f"{init} trained an agent: give it as run, or its start.safetensors as init")
        else:
            check_knows(Path(init), dataset)
            backbone = load_backbone(init, name, classes, settings.width)
        prices = price_range(PRICE if settings.price is None else settings.price)
        model = LCNet(backbone, decides, groups, confidence=confidence, prices=prices)
    start_unsure(model)
    return model
