"""The rooms of the house: who may import whom, and what a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import lcnet_rl

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("lcnet_rl", "envs", "agents") for path in (ROOT / package).rglob("*.py"))
LONGEST = 350
# Verified before they are opened: the akamaster checkpoints (weights_only), and CIFAR-10's python version (md5).
PICKLE_READERS = {"lcnet_rl/akamaster.py", "lcnet_rl/data/cifar10_formats.py"}
# From the bottom: a room imports itself and what is listed before it.
ROOMS = ("lcnet_rl", "envs", "agents", "lcnet_rl.commands")
# Which of lcnet_rl's folders a room or a folder imports, beside itself; commands may import all.
FOLDERS: dict[str, set[str]] = {
    "lcnet_rl": {"data", "rewards"},  # its modules that are in no folder
    "lcnet_rl.data": set(),
    "lcnet_rl.rewards": set(),
    "lcnet_rl.engine": set(),
    "lcnet_rl.export": {"engine", "rewards"},
    "lcnet_rl.benchmark": {"engine", "export"},
    "lcnet_rl.comparison": {"rewards"},
    "lcnet_rl.results": {"comparison", "data"},
    "lcnet_rl.sweep": {"comparison"},
    "envs": {"data", "rewards"},
    "agents": {"data", "rewards"},
}
COMMANDS = "lcnet_rl.commands"
# What folders that know no model are made of, beside themselves; none of it knows one.
BELOW_MODELS = {
    "lcnet_rl.data": ("device", "distributed", "errors", "files", "job", "progress", "seeds", "settings"),
    "lcnet_rl.rewards": ("errors", "imports", "settings"),
}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] in ("__init__", "__main__") and len(parts) > 1 else parts)


def within(module: str, names: Collection[str]) -> str | None:
    """The longest of ``names`` that a module is, or is in, or None."""
    for name in sorted(names, key=len, reverse=True):
        if module == name or module.startswith(f"{name}."):
            return name
    return None


def room(module: str) -> str | None:
    """The room that a module is in, or None where it is none of ours."""
    return within(module, ROOMS)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; ``from a import b`` yields both a and a.b."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(filter(None, [*parents[: len(parents) - node.level + 1], base]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_there_is_something_to_check() -> None:
    names = {module_name(path) for path in FILES}
    assert {"lcnet_rl.model", "envs.single", "agents.reinforce", "lcnet_rl.commands.train"} <= names
    assert "lcnet_rl.model" in set(imports(ROOT / "lcnet_rl" / "evaluate.py"))
    assert "agents.reinforce" in set(imports(ROOT / "lcnet_rl" / "commands" / "training.py"))


@every_file
def test_rooms_import_downwards_only(path: Path) -> None:
    own = room(module_name(path))
    assert own is not None
    allowed = ROOMS[: ROOMS.index(own) + 1]
    if path == ROOT / "lcnet_rl" / "__main__.py":  # ``python -m lcnet_rl`` is the command line's other door
        allowed = ROOMS
    above = sorted({name for name in imports(path) if room(name) not in (None, *allowed)})
    assert not above, f"{own} must not import {above}"


@pytest.mark.parametrize("folder", BELOW_MODELS)
def test_data_and_rewards_import_nothing_of_models(folder: str) -> None:
    allowed = {folder, *(f"lcnet_rl.{name}" for name in BELOW_MODELS[folder])}
    paths = [path for path in FILES if within(module_name(path), allowed)]
    assert {module_name(path) for path in paths} >= allowed
    for path in paths:
        above = sorted(name for name in imports(path) if name.startswith("lcnet_rl.") and not within(name, allowed))
        assert not above, f"{module_name(path)} must not import {above}"


def test_every_folder_says_which_others_it_imports() -> None:
    folders = {path.parent.name for path in (ROOT / "lcnet_rl").glob("*/__init__.py")}
    assert folders == {name.partition(".")[2] for name in (*FOLDERS, COMMANDS)} - {""}


@every_file
def test_a_folder_imports_those_that_it_says_only(path: Path) -> None:
    own = within(module_name(path), {*FOLDERS, COMMANDS})
    assert own is not None
    if own == COMMANDS or path == ROOT / "lcnet_rl" / "__main__.py":
        return
    allowed = {own, "lcnet_rl", "envs", "agents", None} | {f"lcnet_rl.{folder}" for folder in FOLDERS[own]}
    above = sorted(name for name in imports(path) if within(name, {*FOLDERS, COMMANDS}) not in allowed)
    assert not above, f"{module_name(path)} must not import {above}"


@every_file
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_environments_room_lists_its_modules_and_the_classes_in_them() -> None:
    modules = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "envs").glob("*.py")}
    docstring = ast.get_docstring(modules.pop("__init__")) or ""
    listed = dict(re.findall(r"^(\w+) {2,}(\S.*)$", docstring, re.MULTILINE))
    assert listed.keys() == modules.keys()
    for name, what in listed.items():
        classes = {node.name for node in modules[name].body if isinstance(node, ast.ClassDef)}
        assert set(re.findall(r"``(\w+)``", what)) <= classes


@every_file
def test_a_file_reads_in_a_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@every_file
def test_no_pickle_is_opened_but_verified_ones(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in PICKLE_READERS:
        return
    roots = {name.partition(".")[0] for name in imports(path)}
    assert not roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"torch.load", "torch.save", "torch.hub.load_state_dict_from_url"}
    assert not {name for name in imports(path) if name in ("torch.load", "torch.save")}
    assert "allow_pickle" not in {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}


def test_the_akamaster_reader_runs_no_code_of_a_checkpoint() -> None:
    tree = ast.parse((ROOT / "lcnet_rl" / "akamaster.py").read_text(encoding="utf-8"))
    loads = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in ("torch.load", "torch.hub.load_state_dict_from_url", "pickle.load", "pickle.loads")
    ]
    assert loads
    for call in loads:
        assert {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}.get("weights_only") == "True"


def test_importing_the_package_registers_the_environments_without_torch() -> None:
    program = (
        "import sys, gymnasium, lcnet_rl\n"
        "assert 'torch' not in sys.modules and 'envs' not in sys.modules\n"
        "print(sorted(id for id in gymnasium.registry if id.startswith('LCNet/')))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([f"LCNet/{kind}Skip-v0" for kind in ("Channel", "LayerChannel", "Layer")])


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("compare", "optuna"),
        ("frontier", "optuna"),
        ("reproduce", "optuna"),
        ("predict", "matplotlib"),
        ("predict", "scipy"),
    ],
)
def test_commands_start_without_what_they_do_not_use(command: str, module: str) -> None:
    program = f"import sys, lcnet_rl.commands.{command}; print('{module}' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"


def test_a_clone_that_is_called_as_the_package_does_not_hide_it_from_a_script_beside_it(tmp_path: Path) -> None:
    (tmp_path / "lcnet_rl" / "runs").mkdir(parents=True)
    program = "import lcnet_rl.runs; print(lcnet_rl.runs.CONFIG, lcnet_rl.__version__)"
    beside = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert beside.returncode == 0, beside.stderr
    assert beside.stdout.split() == ["config.yaml", lcnet_rl.__version__]
