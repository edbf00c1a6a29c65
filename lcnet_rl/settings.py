"""Settings from YAML: presets that come with the package, and the config.yaml of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import dacite
import yaml

from lcnet_rl.errors import UserError, unknown_name

T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any], source: str) -> T:
    """A (nested) settings dataclass from plain values; what is absent keeps its default.

    Args:
        kind: the dataclass.
        values: setting names to values.
        source: where the values come from, for the error message.

    Raises:
        UserError: for a setting that does not exist, or a value of the wrong type.
    """
    _refuse_wrong(kind, values, source)
    try:
        return dacite.from_dict(kind, values, dacite.Config(strict=True, cast=[Path, float]))
    except (dacite.DaciteError, ValueError, TypeError) as error:
        raise UserError(f"{source}: {error}") from error


def _refuse_wrong(kind: Any, values: dict[Any, Any], source: str) -> None:
    """Complain about the first setting that ``kind`` or a dataclass in it does not have, and about wrong choices."""
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in types:
            raise UserError(f"{source}: {unknown_name('setting', str(name), types)}")
        wanted = types[name]
        if dataclasses.is_dataclass(wanted) and isinstance(value, dict):
            _refuse_wrong(wanted, value, source)
        elif wrong := wrong_choice(name, value, wanted):
            raise UserError(f"{source}: {wrong}")
        elif _no_number(value, wanted):
            raise UserError(f"{source}: {name} is a number, got {value!r}")
        elif isinstance(value, bool) and bool not in (wanted, *get_args(wanted)):  # for which Python has 1 and 0
            raise UserError(f"{source}: {name} cannot be {value} (as YAML reads yes, no, on and off without quotes)")


def wrong_choice(name: str, value: Any, kind: Any) -> UserError | None:
    """What is wrong with a setting whose type names its choices, or None."""
    wrong = get_origin(kind) is Literal and value not in get_args(kind)
    return unknown_name(name, str(value), get_args(kind)) if wrong else None


def check_choices(settings: Any) -> None:
    """Refuse a settings dataclass that was made in Python, which takes any text, with something that is no choice.

    Raises:
        UserError: with the choices of the first such field.
    """
    for name, kind in get_type_hints(type(settings)).items():
        if wrong := wrong_choice(name, getattr(settings, name), kind):
            raise wrong


def check_finite(settings: Any) -> None:
    """Refuse a settings dataclass with a number that is infinite or none.

    Raises:
        UserError: with the first such field.
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, got {value}")


def check_values(settings: Any, right: Callable[[Any], bool], rule: str, *names: str) -> None:
    """Refuse a settings dataclass where a field of ``names`` is not ``right``, which is what ``rule`` says in words.

    Raises:
        UserError: with the first such field.
    """
    for name in names:
        if not right(getattr(settings, name)):
            raise UserError(f"{name} must {rule}, got {getattr(settings, name)}")


def _no_number(value: Any, kind: Any) -> bool:
    """Whether a value cannot be read as the number that a setting of type ``kind`` (or nothing, or no text) is."""
    kinds = get_args(kind) or (kind,)
    if float not in kinds or any(isinstance(value, other) for other in kinds if other is not float):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return True
    return False


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"agent": {"price": 1}}`` as ``{"agent.price": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def preset_names(kind: str = "") -> list[str]:
    """Names of the presets that come with the package: for ``train``, or of another kind in a folder of its name."""
    files = (_folder() / kind).iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def read_preset(name: str, kind: str = "") -> dict[str, Any]:
    """The values of a preset.

    Args:
        name: one of ``preset_names(kind)``, or a path to a YAML file.
        kind: ``""`` for train, or ``"sweep"``.

    Raises:
        UserError: when there is no such preset or file, or it is not a table of settings.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no preset file at {path}")
    elif name in preset_names(kind):
        path = _folder() / kind / f"{name}.yaml"
    else:
        raise unknown_name("preset", name, preset_names(kind))
    return read_yaml(path, f"preset {name}")


def read_yaml(path: Path, source: str) -> dict[str, Any]:
    """A file that holds a table of settings, as ``parse_yaml`` has it.

    Raises:
        UserError: when it is no UTF-8, not valid YAML, or holds something else.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), source)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is no UTF-8 text: {error}") from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """YAML text that holds a table of settings.

    Raises:
        UserError: when it is not valid YAML, names a setting twice, or holds something else.
    """
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no settings")
    return values


class _Loader(yaml.SafeLoader):
    """YAML whose tables hold no name twice: of two, the last would silently be taken."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
            names.add(str(key.value))
        return node


def _folder() -> Any:
    return resources.files("lcnet_rl") / "presets"
