"""Image folders: what is read, and what is refused with which words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcnet_rl.commands import data as command
from lcnet_rl.data import class_names, load_dataset
from lcnet_rl.errors import UserError

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten training and two test images of each colour, of odd sizes and kinds."""
    for part, count in (("train", 10), ("test", 2)):
        for name, colour in COLOURS.items():
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20 + 7 * index, 64), colour).save(folder / f"{index}.png")
    return tmp_path


def test_images_of_any_size_become_32x32_with_sorted_classes(root: Path) -> None:
    train, val, test = (load_dataset(f"folder:{root}", split) for split in ("train", "val", "test"))
    assert train.classes == ("blue", "green")
    assert [len(part) for part in (train, val, test)] == [18, 2, 4]
    for part in (train, val, test):
        expected = torch.tensor([COLOURS["blue"], COLOURS["green"]], dtype=torch.uint8)[part.labels]
        assert part.images.equal(expected[:, :, None, None].expand(-1, -1, 32, 32))


def test_shrinking_is_antialiased(root: Path) -> None:
    """A fine black and white grid becomes grey; picking single pixels would leave it black and white."""
    grid = np.zeros((256, 256), dtype=np.uint8)
    grid[::2] = 255
    Image.fromarray(grid).save(root / "test/blue/0.png")
    image = load_dataset(f"folder:{root}", "test").images[0]
    assert ((image > 110) & (image < 145)).all()


def test_grey_palette_and_transparent_images_are_read_as_rgb(root: Path) -> None:
    folder = root / "test/blue"
    Image.new("L", (40, 40), 77).save(folder / "0.png")
    Image.new("RGB", (40, 40), (10, 20, 30)).quantize(4).save(folder / "1.png")
    Image.new("RGBA", (40, 40), (255, 255, 255, 0)).save(folder / "2.png")
    images = load_dataset(f"folder:{root}", "test").images
    assert images[:3, :, 16, 16].tolist() == [[77, 77, 77], [10, 20, 30], [0, 0, 0]]


def test_photographs_are_turned_upright(root: Path) -> None:
    image = Image.new("RGB", (40, 40), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 40, 20))  # the upper half
    exif = image.getexif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise
    image.save(root / "test/blue/0.png", exif=exif)
    seen = load_dataset(f"folder:{root}", "test").images[0]
    assert seen[:, :, 20:].float().mean() > 250
    assert seen[:, :, :12].float().mean() < 5


def test_more_than_8_bits_are_refused_rather_than_cut_off(root: Path) -> None:
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(root / "test/blue/0.png")
    with pytest.raises(UserError, match=r"0\.png \(more than 8 bits a pixel: convert it\)"):
        load_dataset(f"folder:{root}", "test")


def test_hidden_files_are_passed_over(root: Path) -> None:
    (root / "train/.cache").mkdir()
    (root / "train/blue/.DS_Store").write_bytes(b"junk")
    assert len(load_dataset(f"folder:{root}", "train")) == 18


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "Desktop.ini"])
def test_what_windows_leaves_in_a_folder_is_passed_over(root: Path, name: str) -> None:
    for folder in ("train/blue", "test/green", "train"):
        (root / folder / name).write_bytes(b"no image")
    assert [len(load_dataset(f"folder:{root}", split)) for split in ("train", "test")] == [18, 4]


def test_unreadable_images_are_named_up_to_five_and_counted(root: Path) -> None:
    for index in range(7):
        (root / f"train/green/bad{index}.jpg").write_bytes(b"no image at all")
    with pytest.raises(UserError) as caught:
        load_dataset(f"folder:{root}", "train")
    message = str(caught.value)
    assert "7 of 27 files" in message
    assert [f"bad{index}.jpg" in message for index in range(7)] == [True] * 5 + [False] * 2
    assert "and 2 more" in message


def test_a_truncated_image_is_unreadable(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    victim = root / "train/blue/3.png"
    Image.fromarray(noise).save(victim)
    victim.write_bytes(victim.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"1 of 20 files.*3\.png"):
        load_dataset(f"folder:{root}", "train")


def test_an_image_whose_metadata_are_cut_short_is_unreadable(root: Path) -> None:
    Image.new("RGB", (40, 40)).save(root / "train/blue/3.png", exif=b"Exif\x00\x00II*\x00")
    with pytest.raises(UserError, match=r"1 of 20 files.*3\.png"):
        load_dataset(f"folder:{root}", "train")


def test_a_decoder_that_fails_in_its_own_way_names_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise RuntimeError("Failed to decode frame 0")  # Pillow's AVIF reader

    monkeypatch.setattr(Image, "open", decode)
    with pytest.raises(UserError, match=r"20 of 20 files.*0\.png \(Failed to decode frame 0\)"):
        load_dataset(f"folder:{root}", "train")


def test_pillows_remarks_on_an_image_stay_unsaid(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 64 - 1)  # it warns of more, and refuses twice as many
    for path in root.glob("*/*/*.png"):
        Image.new("RGB", (20, 64)).save(path)
    assert len(load_dataset(f"folder:{root}", "train")) == 18


def test_a_root_says_where_a_folder_is_now(root: Path, tmp_path: Path) -> None:
    now = tmp_path / "now"
    (now / "mine").mkdir(parents=True)
    for part in ("train", "test"):
        (root / part).rename(now / "mine" / part)
    for asked in ("folder:mine", "folder:/before/mine"):
        train = load_dataset(asked, "train", now)
        assert (len(train), train.name) == (18, asked)
    with pytest.raises(UserError, match="nowhere/mine/train is no folder"):
        load_dataset(f"folder:{now}/mine", "train", tmp_path / "nowhere")


def test_a_digest_tells_other_files_whatever_part_of_them_is_asked_for(root: Path) -> None:
    before = {load_dataset(f"folder:{root}", split).digest for split in ("train", "val")}
    assert len(before) == 1
    (root / "train/blue/0.png").rename(root / "train/blue/x.png")
    assert load_dataset(f"folder:{root}", "train").digest not in before


def test_of_a_moved_folder_it_is_said_how_to_find_it(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"moved, --data-root \(data_root\) is the folder that holds mine now"):
        load_dataset("folder:/before/mine", "train")
    (root / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        load_dataset(f"folder:{root}", "train")
    assert "--data-root" not in str(caught.value)


def test_a_folder_that_is_named_without_its_kind_is_told_the_right_name(root: Path) -> None:
    names = {
        f"{root}": f"folder:{root}",
        f"held-out:{root}": f"held-out:folder:{root}",
        "Folder:nowhere": "folder:nowhere",
    }
    for name, right in names.items():
        for ask in (lambda name: load_dataset(name, "train"), class_names):
            with pytest.raises(UserError, match=re.escape(f"did you mean {right}? known: cifar10, ")):
                ask(name)
    with pytest.raises(UserError, match=re.escape(f"did you mean folder:{root.name}?")):
        load_dataset(root.name, "train", root.parent)
    with pytest.raises(UserError) as caught:
        load_dataset(f"{root}/nowhere", "train")
    assert f"folder:{root}" not in str(caught.value)


@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_folders_are_named(root: Path, part: str) -> None:
    (root / part).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{part} is no folder"):
        load_dataset(f"folder:{root}", "train")


def test_classes_in_one_part_only_are_named(root: Path) -> None:
    (root / "test/green").rename(root / "test/grene")
    with pytest.raises(UserError, match="not in both: green, grene"):
        load_dataset(f"folder:{root}", "train")


def test_an_empty_class_is_named(root: Path) -> None:
    (root / "train/amber").mkdir()
    with pytest.raises(UserError, match="no images of class amber"):
        load_dataset(f"folder:{root}", "train")


def test_a_class_with_images_in_a_folder_within_its_own_only_is_told_that_these_are_not_looked_at(root: Path) -> None:
    (root / "train/amber").mkdir()
    (root / "train/cyan").mkdir()
    (root / "train/blue").rename(root / "train/cyan/all")
    with pytest.raises(UserError, match="no images of class amber, cyan; folders within cyan are not looked at"):
        load_dataset(f"folder:{root}", "train")


@pytest.mark.parametrize("kind", ["folder:", "held-out:folder:"])
def test_what_is_not_looked_at_is_counted_once_in_one_line(
    root: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("blue", "green"):
        for index in range(10, 30):  # enough for two validation images a class
            Image.new("RGB", (8, 8), COLOURS[name]).save(root / f"train/{name}/{index}.png")
    command.run(command.Data(f"{kind}{root}"))
    assert "not looked at" not in capsys.readouterr().out
    for folder in ("train/blue/more", "test/blue/1", "test/blue/2", "train/.cache", "train/blue/.cache"):
        (root / folder).mkdir()
    for file in ("train/labels.csv", "train/.DS_Store", "train/blue/more/0.png", "README.md"):
        (root / file).touch()
    command.run(command.Data(f"{kind}{root}"))
    [line] = [line for line in capsys.readouterr().out.splitlines() if "not looked at" in line]
    places = f"1 file in {root}/train, 1 folder in {root}/train/blue, 2 folders in {root}/test/blue"
    assert line == f"not looked at: {places}"
    for split in ("val", "test", "train"):
        load_dataset(f"{kind}{root}", split)
    assert not capsys.readouterr().out


def test_of_what_is_not_looked_at_five_places_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(7):
        for part in ("train", "test"):
            (root / part / f"class{index}").mkdir()
            for image in range(2):
                Image.new("RGB", (8, 8)).save(root / part / f"class{index}" / f"{image}.png")
        (root / f"train/class{index}/more").mkdir()
    load_dataset(f"folder:{root}", "train")
    told = capsys.readouterr().out
    assert [f"train/class{index}" in told for index in range(7)] == [True] * 5 + [False] * 2
    assert told.endswith("and 2 more\n")


def test_one_class_is_too_few(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "only").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / "only/0.png")
    with pytest.raises(UserError, match="at least 2 class folders"):
        load_dataset(f"folder:{tmp_path}", "test")


def test_the_command_prints_a_row_for_each_split(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(command.Data(f"folder:{root}"))
    printed = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in printed.splitlines() if "│" in line]
    assert rows == [
        ["train", "18", "2", "9", "9"],
        ["val", "2", "2", "1", "1"],
        ["test", "4", "2", "2", "2"],
    ]
    assert str(root) in printed
