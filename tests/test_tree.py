"""Checkpoints as trees, and the atomic writing below them."""

from __future__ import annotations

import copy
import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from lcnet_rl import files as files_module
from lcnet_rl.errors import UserError
from lcnet_rl.files import replacing, write_tensors, write_text
from lcnet_rl.tree import load_tree, save_tree

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=4)
TENSORS = st.builds(
    lambda shape, kind: torch.arange(math.prod(shape)).view(shape).to(kind),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.int64, torch.bool]),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | TENSORS
NODES = st.recursive(
    LEAVES,
    lambda nodes: (
        st.lists(nodes, max_size=3)
        | st.dictionaries(KEYS, nodes, max_size=3)
        | st.dictionaries(st.integers(), nodes, max_size=3)
    ),
    max_leaves=8,
)


def assert_same(a: Any, b: Any) -> None:
    """Equal in value, type and shape, NaN included."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b or (a != a and b != b)


def round_trip(tree: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        save_tree(tree, Path(folder) / "tree.safetensors")
        return load_tree(Path(folder) / "tree.safetensors")


@settings(max_examples=60)
@given(st.dictionaries(KEYS, NODES, max_size=4))
def test_a_tree_comes_back_as_it_was(tree: dict[str, Any]) -> None:
    assert_same(round_trip(tree), tree)


def test_tensors_that_share_memory_or_are_no_block_of_it_come_back() -> None:
    whole = torch.randn(4, 6)
    tree = {
        "whole": whole,
        "again": whole,
        "view": whole[1:3],
        "transposed": whole.T,
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "parameter": nn.Parameter(torch.ones(2)).detach(),
        "number": torch.tensor(3.5),
    }
    assert_same(round_trip(tree), tree)


def test_tuples_come_back_as_lists() -> None:
    assert_same(round_trip({"betas": (0.9, 0.999)}), {"betas": [0.9, 0.999]})


def test_what_a_kill_left_of_a_file_goes_with_its_next_replacement(tmp_path: Path) -> None:
    def unfinished(path: Path) -> Path:
        with replacing(path) as temporary:
            copy = temporary.rename(temporary.with_suffix(".kept"))
            temporary.touch()
        return copy.rename(temporary)

    left, alike, fresh = (unfinished(tmp_path / name) for name in ("a.json", "a.json.more", "a.json"))
    for path in (left, alike):
        os.utime(path, (0, 0))
    write_text(tmp_path / "a.json", "whole")
    assert {path for path in tmp_path.iterdir() if path.suffix == ".part"} == {alike, fresh}
    assert (tmp_path / "a.json").read_text() == "whole"


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_files_have_the_rights_that_the_umask_gives_any_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.json", "text")
        write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(1)}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_tensors_whose_paths_read_alike_are_kept_apart() -> None:
    tree = {"a/b": torch.zeros(2), "a": {"b": torch.ones(2)}}
    assert_same(round_trip(tree), tree)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.1}, {"params": p[1:], "weight_decay": 0.0}]),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_an_optimizer_goes_on_exactly_after_a_round_trip(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.linspace(-1, 1, 12).view(3, 4)).square().sum().backward()
        optimizer.step()

    module = nn.Linear(4, 2)
    optimizer = make(list(module.parameters()))
    for _ in range(2):
        step(module, optimizer)
    other = copy.deepcopy(module)
    restored = make(list(other.parameters()))
    restored.load_state_dict(round_trip({"optimizer": optimizer.state_dict()})["optimizer"])
    for _ in range(2):
        step(module, optimizer)
        step(other, restored)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_tree_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "tree.safetensors"
    save_tree({"a": torch.randn(100), "b": {"c": 3}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="damaged"):
        load_tree(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file at"):
        load_tree(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="not written by this project"):
        load_tree(tmp_path / "foreign.safetensors")


def test_a_full_disk_leaves_the_old_tree_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tree.safetensors"
    save_tree({"step": 1, "w": torch.ones(3)}, path)

    def half(_: dict[str, Tensor], target: Path, **__: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files_module, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        save_tree({"step": 2, "w": torch.zeros(3)}, path)
    assert_same(load_tree(path), {"step": 1, "w": torch.ones(3)})
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_tree_is_refused_before_the_old_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "tree.safetensors"
    save_tree({"step": 1}, path)
    with pytest.raises(TypeError):
        save_tree({"step": object()}, path)
    assert load_tree(path) == {"step": 1}


def test_replacing_makes_folders_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    write_text(path, "nëw")
    assert path.read_text(encoding="utf-8") == "nëw"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match=r"[^.]taken") as caught:
        write_text(path, "new")
    assert caught.value.filename == str(path)
    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(PermissionError) as refused:
        write_text(tmp_path / "file", "new")
    assert refused.value.filename == str(tmp_path / "file")


def refusing(name: str, *_: object) -> int:
    raise PermissionError(errno.EACCES, "Permission denied", name)


def test_the_old_file_is_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename is atomic within one file system only
    assert path.read_text() == "new"


def test_content_reaches_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    flush, rename = os.fsync, Path.replace

    def noted_flush(descriptor: int) -> None:
        order.append("flush")
        flush(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_flush)
    monkeypatch.setattr(Path, "replace", noted_rename)
    write_text(tmp_path / "file", "new")
    assert order[:2] == ["flush", "rename"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    program = (
        "import os, signal, sys; from pathlib import Path; from lcnet_rl.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
