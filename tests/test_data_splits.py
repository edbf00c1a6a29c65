"""Properties of the validation split and of data sets as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lcnet_rl.data import Dataset, Split, class_names, load_dataset
from lcnet_rl.data.root import resolve_root
from lcnet_rl.data.splits import held_out_half, train_val_indices, training_part
from lcnet_rl.errors import UserError

HALVES: list[tuple[str, Split]] = [("shapes", "val"), ("held-out:shapes", "train"), ("held-out:shapes", "val")]


def cifar_like_labels() -> torch.Tensor:
    return torch.arange(10).repeat(5000)[torch.randperm(50_000, generator=torch.Generator().manual_seed(1))]


def numbered(labels: torch.Tensor) -> Dataset:
    """Images that carry their own index in their first two bytes, so that a split can be traced."""
    images = torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(len(labels)) // 256, torch.arange(len(labels)) % 256
    return Dataset("numbered", "train", images, labels, ("even", "odd"), torch.rand(len(labels)))


def test_cifar_sized_labels_give_500_validation_images_of_each_class() -> None:
    labels = cifar_like_labels()
    train, val = train_val_indices(labels, 10)
    assert labels[val].bincount().tolist() == [500] * 10
    assert labels[train].bincount().tolist() == [4500] * 10


def test_train_and_val_are_disjoint_and_together_everything() -> None:
    train, val = train_val_indices(cifar_like_labels(), 10)
    assert torch.cat([train, val]).sort().values.equal(torch.arange(50_000))


def test_the_split_ignores_and_leaves_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = train_val_indices(cifar_like_labels(), 10)[1]
    assert torch.random.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert train_val_indices(cifar_like_labels(), 10)[1].equal(first)


def test_the_split_of_known_labels_is_this_one_for_ever() -> None:
    _, val = train_val_indices(torch.arange(40) % 2, 2)
    assert val.tolist() == [2, 12, 17, 37]


def test_smaller_sets_hold_out_a_tenth_balanced_even_where_the_classes_are_not() -> None:
    labels = torch.tensor([0] * 300 + [1] * 100)
    _, val = train_val_indices(labels, 2)
    assert labels[val].bincount().tolist() == [20, 20]


def test_a_rare_class_keeps_half_of_its_images_for_training_and_others_are_held_out_as_ever() -> None:
    labels = torch.tensor([0] * 997 + [1] * 3)
    train, val = train_val_indices(labels, 2)
    assert labels[val].bincount().tolist() == [50, 1]
    assert labels[train].bincount().tolist() == [947, 2]


def test_a_class_with_fewer_than_two_images_is_refused_by_name() -> None:
    for labels, rare in (([0, 0, 1], r"odd \(1\)"), ([1, 1], r"even \(0\)"), ([1], r"even \(0\), odd \(1\)")):
        few = numbered(torch.tensor(labels))
        with pytest.raises(UserError, match=rf"numbered needs at least 2 training images.*too few: {rare}$"):
            training_part(few, "train")
        with pytest.raises(UserError, match=rf"numbered needs at least 2 validation images.*too few: {rare}$"):
            held_out_half(few, "train")


def test_parts_of_a_set_carry_their_own_images_labels_and_difficulty() -> None:
    everything = numbered(torch.arange(400) % 2)
    for split, size in (("train", 360), ("val", 40)):
        part = training_part(everything, split)  # type: ignore[arg-type]
        index = part.images[:, 0, 0, 0].long() * 256 + part.images[:, 0, 0, 1]
        assert (part.split, len(part)) == (split, size)
        assert part.labels.equal(everything.labels[index])
        assert part.difficulty is not None
        assert everything.difficulty is not None
        assert part.difficulty.equal(everything.difficulty[index])


def test_the_same_images_and_labels_have_one_fingerprint_under_any_name() -> None:
    whole = load_dataset("shapes", "val")
    renamed = replace(whole, name="folder:elsewhere", split="test", files=("x",) * len(whole))
    assert whole.fingerprint == renamed.fingerprint
    pixels, labels = whole.images.clone(), whole.labels.clone()
    pixels[3, 1, 5, 5] ^= 1
    labels[7] = (labels[7] + 1) % len(whole.classes)
    half = whole.subset(range(0, len(whole), 2))
    others = [replace(whole, images=pixels), replace(whole, labels=labels), half, load_dataset("shapes", "test")]
    assert len({one.fingerprint for one in [whole, *others]}) == 5


def test_validation_images_are_halved_class_by_class() -> None:
    val = numbered(torch.tensor([0, 0, 1, 0, 1, 1, 1, 0, 0]))
    train, rest = (held_out_half(val, split).images[:, 0, 0, 1].tolist() for split in ("train", "val"))
    assert (train, rest) == ([0, 2, 3, 5, 8], [1, 4, 6, 7])


def test_held_out_images_are_the_validation_images_and_test_images_stay() -> None:
    val, train, rest = (load_dataset(name, split) for name, split in HALVES)
    assert sorted(map(bytes, val.images.numpy())) == sorted(map(bytes, torch.cat([train.images, rest.images]).numpy()))
    assert (train.name, train.split, rest.split) == ("held-out:shapes", "train", "val")
    assert train.labels.bincount().equal(rest.labels.bincount())
    assert load_dataset("held-out:shapes", "test").name == "shapes"
    assert class_names("held-out:shapes") == val.classes


def test_an_unknown_data_set_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match="'cifar11'; did you mean cifar10"):
        load_dataset("held-out:cifar11", "train")


def test_tensors_that_do_not_fit_together_are_refused() -> None:
    images, labels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="2 labels need images"):
        Dataset("x", "train", images[:1], labels, ("a",))
    with pytest.raises(ValueError, match="uint8"):
        Dataset("x", "train", images.float(), labels, ("a",))
    with pytest.raises(ValueError, match="difficulty"):
        Dataset("x", "train", images, labels, ("a",), torch.zeros(3))
    for wrong in ([0, 2], [-1, 1]):
        with pytest.raises(ValueError, match="labels of 2 classes count from 0, got"):
            Dataset("x", "train", images, torch.tensor(wrong), ("a", "b"))


def test_wrong_names_are_answered_with_the_nearest_right_one() -> None:
    with pytest.raises(UserError, match="unknown data set 'cifar'; did you mean cifar10"):
        load_dataset("cifar", "train")
    with pytest.raises(UserError, match="unknown split 'tets'; did you mean test"):
        load_dataset("shapes", "tets")  # type: ignore[arg-type]


def test_data_root_is_argument_else_variable_else_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LCNET_RL_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert resolve_root() == Path.home() / ".cache" / "lcnet_rl" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert resolve_root() == Path("/cache/lcnet_rl/data")
    monkeypatch.setenv("LCNET_RL_DATA", "/elsewhere")
    assert resolve_root() == Path("/elsewhere")
    assert resolve_root(Path("/given")) == Path("/given")
