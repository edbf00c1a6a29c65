"""``lcnet-rl predict``: image files through a trained run, and what ran for each where that was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from PIL import Image
from rich.table import Table
from torch import Tensor

from lcnet_rl.backbones import Backbone, BackboneSpec
from lcnet_rl.commands.trained import load_dense
from lcnet_rl.data.folder import cannot_be_read, files_in, folders_in, readable_images, say_left_out
from lcnet_rl.device import resolve_device
from lcnet_rl.drawing import Trace, draw_trace, labelled, legend, tile, trace
from lcnet_rl.engine import Engine
from lcnet_rl.errors import UserError
from lcnet_rl.files import check_target, replacing, write_json
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.progress import console, say
from lcnet_rl.rewards import price_range
from lcnet_rl.runs import WEIGHTS, classes_of, has_agent, of_agent, read_config
from lcnet_rl.unchanged import check_classes, warn_if_edited
from lcnet_rl.weights import load_model
from lcnet_rl.whole import was_pruned, whole

BARS = "▁▂▃▄▅▆▇█"
BATCH, COLUMNS = 256, 4
CLASS_WIDTH = 24
"""Of the table's column at most, in characters: a longer name would leave no room for the file's."""


@dataclass(frozen=True)
class Predict:
    """Classify image files with the engine, which runs only what each image keeps; or with a pretrain run's network.

    Images of other sizes are scaled to 32x32 pixels, both sides by themselves; transparent pixels become black.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder. Of a run of pretrain, whose network decides nothing, the options are --device and --json."""
    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)"),
    ]
    """PNG, JPEG or other image files, or folders, of which all files are meant, but not those in folders within."""
    threshold: float = 0.5
    """What a keep probability must exceed; a lower one keeps more. Of several networks, it is for the last one only.
    BatchNorm's statistics stay those of the policy's own threshold: for a budget, which predict does not take, lcnet-rl
    export RUN --budget R makes a file with its own."""
    price: float | None = None
    """The price to decide at, of a run that was trained for a range of them; the middle one if not given."""
    which: Literal["final", "best"] = "final"
    """The final model, or the best by validation reward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    picture: Path | None = None
    """A PNG (by its name's end) to draw every image and what ran for it into."""
    data_root: Path | None = None
    """Where data sets are kept (of folder:PATH, the folder that holds it), for the classes' names of runs that have not
    recorded them."""
    json: Path | None = None
    """A file to write the figures to: of every image its class, the probabilities of all classes by their names, its
    MACs, and, where a policy decides, the share of each block's filters that ran; and which files cannot be read."""


def run(config: Predict) -> None:
    """Print a row an image, and write the picture and the figures where they are asked for.

    Raises:
        UserError: in the end, for files that cannot be read; the others have their rows by then.
    """
    given = image_files(config.images)
    if not 0 < config.threshold < 1:
        raise UserError(f"--threshold is between 0 and 1, got {config.threshold}")
    if config.picture is not None and config.picture.suffix.lower() != ".png":
        raise UserError(f"--picture is a PNG: give it a name that ends in .png, not {config.picture.name}")
    for option, path in (("--picture", config.picture), ("--json", config.json)):
        if path is not None:
            check_target(option, path)
    settings = read_config(config.run)
    if has_agent(settings):
        network: LCNet | Backbone = load_policy(config, settings)
    else:
        network = load_dense(config, "images", "device", "data_root", "json")
    warn_if_edited(config.run, settings)
    backbone = network.backbone if isinstance(network, LCNet) else network
    classes = classes_of(config.run, settings, config.data_root)
    check_classes(config.run, backbone.spec.classes, settings["dataset"], classes)
    pixels, unreadable = readable_images(given)
    files = [file for file in given if file not in unreadable]
    network.to(resolve_device(config.device))
    runner = Engine(network) if isinstance(network, LCNet) else network
    rows: list[dict[str, Any]] = []
    traces: list[Trace] = []
    for start in range(0, len(pixels), BATCH):
        for row, kept in predict(runner, pixels[start : start + BATCH], config.threshold, classes):
            rows.append({"image": str(files[len(rows)]), **row})
            traces.append(kept)
    print_rows(rows, traces, backbone.spec)
    if config.picture is not None:
        draw(pixels, rows, traces, backbone, config.picture)
        say(f"picture: {config.picture}")
    if config.json is not None:
        decided: dict[str, Any] = {}
        if isinstance(runner, Engine):
            decided = {"threshold": config.threshold, "price": float(runner.price), "which": config.which}
        others = [{"image": str(file), "reason": reason} for file, reason in unreadable.items()]
        write_json(config.json, {"run": str(config.run), **decided, "images": rows, "unreadable": others})
        say(f"figures: {config.json}")
    looked_at = [image for image in config.images if image.is_dir() and image not in unreadable]
    say_left_out(deeper for folder in looked_at for deeper in folders_in(folder))
    if unreadable:
        raise cannot_be_read(unreadable, len(given))


def image_files(images: tuple[Path, ...]) -> list[Path]:
    """The files that are meant: of a folder, all that are in it, or itself where there are none, to be told of.

    Raises:
        UserError: when nothing is meant.
    """
    if not images:
        raise UserError("which images? lcnet-rl predict RUN IMAGE [IMAGE ...]")
    return [file for image in images for file in (files_in(image) if image.is_dir() else []) or [image]]


def load_policy(config: Predict, settings: dict[str, Any]) -> LCNet:
    """The network of a run of ``train`` with its gates, which read the price that is asked for."""
    model = load_model(config.run / WEIGHTS[config.which])
    if config.price is not None:
        model.price.fill_(price_range(of_agent(config.run, settings, "price")).checked(config.price))
    return model


@torch.no_grad()
def predict(
    network: Engine | Backbone, images: Tensor, threshold: float, classes: tuple[str, ...]
) -> list[tuple[dict[str, Any], Trace]]:
    """Class, its probability and all classes', MACs and what ran, for uint8 images (B, 3, 32, 32).

    Of a network that decides nothing, it is not told what ran, nor MACs as a share.
    """
    if isinstance(network, Backbone):
        logits = network(images.to(network.head.weight.device))
        return [({**row, "macs": dense_macs(network)}, ()) for row in most_probable(logits, classes)]
    outcome = network.run(images.to(network.price.device), network.greedy(threshold))
    found: list[tuple[dict[str, Any], Trace]] = []
    for index, row in enumerate(most_probable(outcome.logits, classes)):
        macs, kept = int(outcome.macs[index]), trace(network.decisions, outcome.actions[:, index])
        row |= {"macs": macs, "macs_ratio": macs / network.costs.dense, "blocks": filter_shares(kept)}
        found.append((row, kept))
    return found


def most_probable(logits: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The most probable class of every image, its probability and all classes', from logits (B, classes)."""
    probabilities = logits.float().softmax(1)
    guesses = probabilities.argmax(1).tolist()
    return [
        {"class": classes[guess], "probability": seen[guess], "probabilities": dict(zip(classes, seen, strict=True))}
        for seen, guess in zip(probabilities.tolist(), guesses, strict=True)
    ]


def print_rows(rows: list[dict[str, Any]], traces: list[Trace], spec: BackboneSpec) -> None:
    """The table for the screen, for networks of which each but the first is the last of the blocks.

    Traces are empty where nothing was decided; then there is nothing about blocks.
    """
    table, decided, networks = Table(), any(traces), len(spec.networks)
    share = [f"of {whole(networks, was_pruned(spec)).split()[0]}"] if decided else []
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold", max_width=CLASS_WIDTH)
    for name in ("probability", "MMACs", *share):
        table.add_column(name, justify="right", no_wrap=True)
    if decided:
        table.add_column("blocks", overflow="fold")
    for row, kept in zip(rows, traces, strict=True):
        ran = (f"{row['macs_ratio']:.1%}", bars(kept)) if decided else ()
        table.add_row(row["image"], row["class"], f"{row['probability']:.1%}", f"{row['macs'] / 1e6:.2f}", *ran)
    console.print(table)
    if not decided:
        return
    last = {1: "", 2: "; the last is the second network"}.get(networks, f"; the last {networks - 1} are whole networks")
    console.print(
        f"A bar is a block, as high as the share of its filters that ran; a dot is a block that was skipped{last}."
    )


def bars(kept: Trace) -> str:
    """One character a block."""
    return "".join(BARS[max(0, round(share * len(BARS)) - 1)] if share else "·" for share in filter_shares(kept))


def filter_shares(kept: Trace) -> list[float]:
    """The share of its filters that ran, of every block."""
    return [sum(groups) / len(groups) for _, groups in kept]


def draw(images: Tensor, rows: list[dict[str, Any]], traces: list[Trace], backbone: Backbone, path: Path) -> None:
    """The uint8 images (N, 3, 32, 32), by their files' names, over what ran for them, as one PNG."""
    pictures, networks = [], len(backbone.networks)
    names = told_apart([Path(row["image"]) for row in rows])
    for image, name, row, kept in zip(images, names, rows, traces, strict=True):
        caption = f"{name}\n{row['class']}, {row['probability']:.0%}, {row['macs_ratio']:.0%} MACs"
        pictures.append(draw_trace(image.numpy(), kept, len(kept), caption, networks=networks))
    title = f"{backbone.spec.title}: what ran ({legend(networks)})"
    with replacing(path) as temporary:
        Image.fromarray(labelled(tile(pictures, min(COLUMNS, len(pictures))), title)).save(temporary, "png")


def told_apart(files: Sequence[Path]) -> list[str]:
    """Every file's name, behind as many of its folders as tell it from other files of that name."""
    ends = Counter(file.parts[start:] for file in set(files) for start in range(len(file.parts)))

    def name(file: Path) -> str:
        own = (file.parts[start:] for start in range(len(file.parts) - 1, -1, -1))
        return str(Path(*next((end for end in own if ends[end] == 1), file.parts)))

    return [name(file) for file in files]
