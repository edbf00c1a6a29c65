"""Nested state (dicts, lists, tensors, numbers) in one safetensors file: no pickle, written atomically.

PyTorch's state dicts are such trees. The tensors become the file's tensors, under their path in the tree; the rest is
JSON in the header, where each tensor leaves a placeholder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.files import read_tensors, write_tensors

_TENSOR = "__tensor__"
_INT_KEYS = "__int_keys__"


def save_tree(tree: dict[str, Any], path: Path) -> None:
    """Write a tree of dicts (keys all str or all int), lists, tensors, numbers, strings, bools and None.

    Raises:
        OSError: when the disk refuses; the previous file is then still there, whole.
    """
    tensors: dict[str, Tensor] = {}

    def strip(node: Any, name: str) -> Any:
        if isinstance(node, Tensor):
            # A copy of its own: safetensors refuses tensors that share memory.
            unique = f"{len(tensors)}:{name}"
            tensors[unique] = node.detach().cpu().contiguous().clone()
            return {_TENSOR: unique}
        if isinstance(node, dict):
            stripped = {str(key): strip(value, f"{name}/{key}") for key, value in node.items()}
            if node and all(type(key) is int for key in node):
                return {_INT_KEYS: stripped}
            return stripped
        if isinstance(node, list | tuple):
            return [strip(value, f"{name}/{index}") for index, value in enumerate(node)]
        return node

    header = json.dumps(strip(tree, ""))
    write_tensors(path, tensors, {"tree": header})


def load_tree(path: Path) -> dict[str, Any]:
    """Read what ``save_tree`` wrote; tuples come back as lists.

    Raises:
        UserError: when the file is missing, cut short, or was not written by ``save_tree``.
    """
    tensors, metadata = read_tensors(path)
    if "tree" not in metadata:
        raise UserError(f"{path} was not written by this project")

    def restore(node: Any) -> Any:
        if isinstance(node, dict):
            if _TENSOR in node:
                return tensors[node[_TENSOR]]
            if _INT_KEYS in node:
                return {int(key): restore(value) for key, value in node[_INT_KEYS].items()}
            return {key: restore(value) for key, value in node.items()}
        if isinstance(node, list):
            return [restore(value) for value in node]
        return node

    try:
        return restore(json.loads(metadata["tree"]))
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: its header does not fit its tensors ({error})") from error
