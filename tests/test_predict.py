"""``lcnet-rl predict``: what it says of image files is what evaluation says of the same pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from networks import balance, images, lively
from PIL import Image
from run_folders import pretrained

from lcnet_rl.backbones import BackboneSpec, create_backbone
from lcnet_rl.commands import main, predict
from lcnet_rl.commands.predict import told_apart
from lcnet_rl.data import cifar10, load_dataset
from lcnet_rl.drawing import draw_trace
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet
from lcnet_rl.weights import save_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on the built-in images, of a network that nobody trained."""
    save_model(balance(lively("resnet14"), images(64)), tmp_path / "model.safetensors")
    settings = {"dataset": "shapes", "data_root": None, "agent": {"price": 0.3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def written(pixels: torch.Tensor, folder: Path) -> list[Path]:
    """The images (N, 3, 32, 32) as PNG files."""
    files = [folder / f"{number}.png" for number in range(len(pixels))]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return files


def test_files_get_the_class_and_the_bill_that_the_model_gives_their_pixels(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    pixels = images(5)
    files = written(pixels, Path())
    out, picture = run / "figures.json", run / "picture.png"
    arguments = ["predict", str(run), *map(str, files), "--threshold", "0.4"]
    assert main([*arguments, "--json", str(out), "--picture", str(picture)]) == 0
    model = balance(lively("resnet14"), images(64))
    with torch.no_grad():
        expected = model.run(pixels, model.greedy(0.4))
    classes = load_dataset("shapes", "val").classes
    figures = json.loads(out.read_text())
    assert (figures["threshold"], figures["price"], figures["which"]) == (0.4, float(model.price), "final")
    rows = figures["images"]
    assert [row["class"] for row in rows] == [classes[guess] for guess in expected.logits.argmax(1)]
    assert [row["macs"] for row in rows] == expected.macs.tolist()
    assert [row["probability"] for row in rows] == pytest.approx(expected.logits.softmax(1).amax(1).tolist(), abs=1e-4)
    assert all(tuple(row["probabilities"]) == classes for row in rows)
    probabilities = torch.tensor([list(row["probabilities"].values()) for row in rows])
    torch.testing.assert_close(probabilities, expected.logits.softmax(1), atol=1e-4, rtol=0)
    assert all(row["probabilities"][row["class"]] == row["probability"] for row in rows)
    filters = model.decisions.kept(expected.actions)[1]
    assert torch.allclose(torch.tensor([row["blocks"] for row in rows]), filters.T.float())
    assert len({tuple(row["blocks"]) for row in rows}) > 1
    shown = capsys.readouterr().out
    assert all(file.name in shown for file in files)
    assert np.asarray(Image.open(picture)).ndim == 3


def test_the_classes_names_need_no_images(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dataset": "cifar10", "data_root": str(run / "nothing here"), "agent": {"price": 0.3}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(cifar10, "load", None)
    pixels = images(8)
    monkeypatch.chdir(run)
    files = written(pixels, Path())
    assert main(["predict", str(run), *map(str, files)]) == 0
    shown = [line.strip("│ ").split() for line in capsys.readouterr().out.splitlines()]
    model = balance(lively("resnet14"), images(64))
    with torch.no_grad():
        guesses = model.run(pixels, model.greedy()).logits.argmax(1)
    assert len(guesses.unique()) > 2
    told = [row[2] for row in shown if row and row[0].endswith(".png")]
    assert told == [cifar10.CLASSES[guess] for guess in guesses]


def test_files_of_one_name_are_told_apart_on_a_narrow_screen(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    monkeypatch.setenv("COLUMNS", "80")
    folders = [Path("photos"), Path("photos") / "a-folder-with-a-name-that-is-longer-than-a-column-can-be"]
    folders[1].mkdir(parents=True)
    files = [file for folder in folders for file in written(images(1), folder)]
    assert main(["predict", str(run), *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in lines if line.startswith("│")]
    assert "".join(row[0] for row in cells) == "".join(map(str, files))
    assert not any("…" in cell for row in cells for cell in row)


def test_long_names_of_classes_take_no_figure_and_no_file_from_a_narrow_screen(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    monkeypatch.setenv("COLUMNS", "80")
    classes = [f"greater_spotted_woodpecker_of_the_northern_forests_subspecies_{number}" for number in range(10)]
    (run / "run.json").write_text(json.dumps({"classes": classes}))
    [file] = written(images(1), Path())
    assert main(["predict", str(run), str(file), "--json", "figures.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in lines if line.startswith("│")]
    [row] = json.loads(Path("figures.json").read_text())["images"]
    assert "".join(cell[1] for cell in cells) == row["class"]
    figures = [f"{row['probability']:.1%}", f"{row['macs'] / 1e6:.2f}", f"{row['macs_ratio']:.1%}"]
    assert (cells[0][0], cells[0][2:5]) == (file.name, figures)


def test_the_classes_names_are_known_where_the_folder_of_images_is_not(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"dataset": "folder:gone", "data_root": None, "agent": {"price": 0.3}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    [file] = written(images(1), run)
    assert main(["predict", str(run), str(file)]) == 2
    assert "gone" in capsys.readouterr().err
    (run / "run.json").write_text(json.dumps({"classes": [f"kind {number}" for number in range(10)]}))
    assert main(["predict", str(run), str(file)]) == 0
    assert "kind " in capsys.readouterr().out


def test_it_says_of_what_a_share_is_and_which_bar_is_a_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [file] = written(images(1), run)
    assert main(["predict", str(run), str(file)]) == 0
    alone = capsys.readouterr().out
    assert "of dense" in alone
    assert "second network" not in alone
    save_model(lively(filters=(4, 8, 16)), run / "model.safetensors")
    assert main(["predict", str(run), str(file)]) == 0
    assert "of pruned" in capsys.readouterr().out
    save_model(lively(second="resnet8"), run / "model.safetensors")
    assert main(["predict", str(run), str(file)]) == 0
    pair = " ".join(capsys.readouterr().out.split())
    assert "of both" in pair
    assert "the last is the second network" in pair
    eight = BackboneSpec("resnet8", 10, 8)
    save_model(lively(second=replace(eight, second=eight)), run / "model.safetensors")
    assert main(["predict", str(run), str(file)]) == 0
    row = " ".join(capsys.readouterr().out.split())
    assert "of all" in row
    assert "the last 2 are whole networks" in row


def test_files_that_are_no_images_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "notes.txt").write_text("no image")
    assert main(["predict", str(run), str(run / "notes.txt"), str(run / "none.png")]) == 2
    error = capsys.readouterr().err
    assert "2 of 2 files cannot be read as images" in error
    assert "notes.txt (not an image)" in error
    assert "none.png (No such file or directory)" in error


def test_a_folder_stands_for_the_files_in_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    Path("photos/within").mkdir(parents=True)
    files = written(images(3), Path("photos"))
    written(images(1), Path("photos/within"))
    Path("photos/.hidden").write_text("no image")
    [other] = written(images(1), Path())
    assert main(["predict", str(run), "photos", str(other), "--json", "figures.json"]) == 0
    told = json.loads(Path("figures.json").read_text())
    assert [row["image"] for row in told["images"]] == [*map(str, files), str(other)]
    assert told["unreadable"] == []
    assert "not looked at: 1 folder in photos\n" in capsys.readouterr().out


def test_a_folder_without_files_is_told_of_after_the_others_have_their_rows(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    for folder in ("empty", "albums/summer"):
        Path(folder).mkdir(parents=True)
    written(images(1), Path("albums/summer"))
    [file] = written(images(1), Path())
    assert main(["predict", str(run), "albums", str(file), "empty", "--json", "figures.json"]) == 2
    shown = capsys.readouterr()
    reasons = {"albums": "only folders in it, which are not looked at: name those", "empty": "no files in it"}
    assert ", ".join(f"{folder} ({reason})" for folder, reason in reasons.items()) in shown.err
    assert "not looked at: " not in shown.out, "once is enough"
    told = json.loads(Path("figures.json").read_text())
    assert [row["image"] for row in told["images"]] == [str(file)]
    assert told["unreadable"] == [{"image": folder, "reason": reason} for folder, reason in reasons.items()]
    assert main(["predict", str(run), "albums"]) == 2
    assert f"albums ({reasons['albums']})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which images?"),
        (["0.png", "--threshold", "1.5"], "--threshold is between 0 and 1, got 1.5"),
        (["0.png", "--price", "0.5"], "the run was trained at one price"),
        (["0.png", "--picture", "out.foo"], "--picture is a PNG"),
        (["0.png", "--json", "/"], "--json / is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_its_help_says_how_to_meet_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "lcnet-rl export RUN --budget R" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_classes_that_the_network_does_not_know_are_noticed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(LCNet(create_backbone("resnet8", 4, 4), "both"), run / "model.safetensors")
    file = written(images(1), run)[0]
    assert main(["predict", str(run), str(file)]) == 2
    assert "tells 4 classes apart, but shapes now has 10" in capsys.readouterr().err


def test_files_that_are_no_images_are_named_after_the_others_have_their_rows(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    files = written(images(3), Path())
    Path("broken.png").write_text("no image")
    given = ["0.png", "broken.png", "2.png"]
    assert main(["predict", str(run), *given, "--json", "figures.json"]) == 2
    assert "1 of 3 files cannot be read as images: broken.png (not an image)" in capsys.readouterr().err
    told = json.loads(Path("figures.json").read_text())
    assert [row["image"] for row in told["images"]] == ["0.png", "2.png"]
    assert told["unreadable"] == [{"image": "broken.png", "reason": "not an image"}]
    assert main(["predict", str(run), *map(str, files), "--json", "all.json"]) == 0
    known = {row["image"]: row for row in json.loads(Path("all.json").read_text())["images"]}
    for row in json.loads(Path("figures.json").read_text())["images"]:
        assert row["class"] == known[row["image"]]["class"]
        assert row["macs"] == known[row["image"]]["macs"]


@pytest.mark.parametrize("filters", [None, (3, 2, 7)], ids=["dense", "pruned"])
def test_of_a_pretrain_run_files_get_the_class_that_its_network_gives_them_and_nothing_about_blocks(
    filters: tuple[int, ...] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    backbone, pixels = lively(decides="layers", filters=filters).backbone, images(5)
    pretrained(Path("run"), backbone, "shapes")
    files = written(pixels, Path())
    Path("broken.png").write_text("no image")
    assert main(["predict", "run", *map(str, files), "--json", "figures.json"]) == 0
    with torch.no_grad():
        probabilities = backbone(pixels).softmax(1)
    classes = load_dataset("shapes", "val").classes
    rows = json.loads(Path("figures.json").read_text())["images"]
    assert [row["class"] for row in rows] == [classes[guess] for guess in probabilities.argmax(1)]
    for row, expected in zip(rows, probabilities, strict=True):
        assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-4)
        assert list(row["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-4)
        assert row.keys() == {"image", "class", "probability", "probabilities", "macs"}
    assert {row["macs"] for row in rows} == {dense_macs(backbone)}
    shown = capsys.readouterr().out
    assert all(file.name in shown for file in files)
    assert f"{dense_macs(backbone) / 1e6:.2f}" in shown
    assert "block" not in shown
    assert main(["predict", "run", "0.png", "broken.png"]) == 2


@pytest.mark.parametrize(
    "option", [("--price", "0.5"), ("--picture", "out.png"), ("--threshold", "0.4"), ("--which", "best")]
)
def test_of_a_pretrain_run_what_only_a_policy_has_is_refused(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, [file] = pretrained(tmp_path, lively().backbone, "shapes"), written(images(1), tmp_path)
    assert main(["predict", str(run), str(file), *option]) == 2
    assert f"nothing is decided: leave {option[0]} out" in capsys.readouterr().err


def test_files_of_one_name_are_told_apart_in_the_picture(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    folders = [Path(name) for name in ("a/x", "b/x", "b/y")]
    for folder in folders:
        folder.mkdir(parents=True)
    files = [written(images(count), folder)[-1] for folder, count in zip(folders, (1, 1, 2), strict=True)]
    captions = []

    def draw(*arguments: Any, **options: Any) -> Any:
        captions.append(arguments[3])
        return draw_trace(*arguments, **options)

    monkeypatch.setattr(predict, "draw_trace", draw)
    assert main(["predict", str(run), *map(str, files), "--picture", "out.png"]) == 0
    assert [caption.partition("\n")[0] for caption in captions] == ["a/x/0.png", "b/x/0.png", "1.png"]


def test_a_file_that_is_named_twice_or_is_in_no_folder_has_its_own_name() -> None:
    files = [Path(name) for name in ("c/1.png", "c/1.png", "0.png", "a/0.png", "/b/2.png", "/2.png")]
    assert told_apart(files) == ["1.png", "1.png", "0.png", "a/0.png", "b/2.png", "/2.png"]
