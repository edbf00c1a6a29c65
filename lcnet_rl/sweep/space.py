"""A search space over settings: read from YAML or flags, and checked before any trial starts.

An entry is ``NAME=SPEC``. NAME is a setting as config.yaml nests it (``agent.price``), or its last part where only one
setting has it. SPEC is a range, ``0.1..2``, ``0.1..2:log`` or ``2..8:step=2``; or choices, ``linear,confidence``; or
YAML for either, ``{low: 0.1, high: 2, log: true}`` or ``[linear, "confidence:floor=3"]``.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import random
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from lcnet_rl.comparison.records import WHERE_AND_HOW
from lcnet_rl.errors import UserError, unknown_name

SELECTOR = "algo"
"""The setting that decides which others there are."""
COMBINATIONS = 500
"""Combinations of a space's ends that are tried, at most, to find one in which a value will do."""
_RANGE = re.compile(r"(?P<low>[^:,]+?)\.\.(?P<high>[^:,]+?)(:(?P<log>log)|:step=(?P<step>[^:,]+))?")


@dataclass(frozen=True)
class Space:
    """What is searched over."""

    dimensions: dict[str, BaseDistribution]
    """By dotted setting name."""
    names: dict[str, set[str]]
    """By algorithm, the dotted names of its settings."""
    algo: str
    """The algorithm, where it is not searched over."""

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The trial's values; settings that its algorithm does not have are left out."""
        first = [SELECTOR] if SELECTOR in self.dimensions else []
        values: dict[str, Any] = {}
        for name in [*first, *(name for name in self.dimensions if name != SELECTOR)]:
            if not self._applies(name, values):
                continue
            of = self.dimensions[name]
            if isinstance(of, FloatDistribution):
                values[name] = trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)
            elif isinstance(of, IntDistribution):
                values[name] = trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
            elif isinstance(of, CategoricalDistribution):
                values[name] = trial.suggest_categorical(name, of.choices)
        return values

    def check(self, build: Callable[[dict[str, Any]], object]) -> None:
        """Refuse values that no trial could have.

        Every end of a range and every choice has to be accepted together with some ends and choices of the others.

        Args:
            build: makes settings of dotted names and values.

        Raises:
            UserError: naming the setting, the value, and what ``build`` says.
        """
        ends = {name: ends_of(distribution) for name, distribution in self.dimensions.items()}
        for name, values in ends.items():
            for value in values:
                refusal: UserError | None = None
                for others in _combinations({**ends, name: [value]}):
                    if not self._applies(name, others):
                        continue
                    try:
                        build({key: other for key, other in others.items() if self._applies(key, others)})
                    except UserError as error:
                        refusal = refusal or error
                    else:
                        break
                else:
                    raise UserError(f"space {name}: {value!r} will not do: {refusal}")

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every dimension, for a grid search.

        Raises:
            UserError: for a range without steps, which has no grid, and for a setting that some of the algorithms
                searched over lack: their points would be the same trial again and again.
        """
        algos = ends_of(self.dimensions[SELECTOR]) if SELECTOR in self.dimensions else [self.algo]
        for name in self.dimensions:
            if lacking := [algo for algo in algos if not self._applies(name, {SELECTOR: algo})]:
                repeats = f"{lacking[0]} has no such setting, so a grid would repeat its trials"
                raise UserError(f"space {name}: {repeats}; search over one algorithm, or use --sampler random")
        return {name: _grid_of(name, distribution) for name, distribution in self.dimensions.items()}

    @property
    def points(self) -> int | None:
        """How many there are to try; None where there is no grid of them."""
        try:
            return math.prod(len(values) for values in self.grid().values())
        except UserError:
            return None

    def describe(self) -> dict[str, str]:
        """The space as text, to tell two of them apart."""
        return {name: repr(self.dimensions[name]) for name in sorted(self.dimensions)}

    def _applies(self, name: str, values: Mapping[str, Any]) -> bool:
        return name == SELECTOR or name in self.names[values.get(SELECTOR, self.algo)]


def read_space(entries: Iterable[str], kinds: Mapping[str, type], algo: str) -> Space:
    """The space that ``entries`` say.

    Args:
        entries: ``NAME=SPEC`` each.
        kinds: by algorithm, the dataclass of its settings.
        algo: the algorithm of trials, unless it is searched over.

    Raises:
        UserError: for a setting that does not exist, one that cannot be searched over, or a faulty range.
    """
    specs: dict[str, str] = {}
    for entry in entries:
        name, equals, spec = entry.partition("=")
        if not equals or not spec:
            raise UserError(f"space {entry!r}: give NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=CHOICE,CHOICE")
        specs[name.strip()] = spec.strip()
    if not specs:
        raise UserError(
            "no search space; give --space NAME=LOW..HIGH or NAME=CHOICE,CHOICE, or a --preset that has one"
        )
    algos = [algo]
    if SELECTOR in specs:
        algos = list(ends_of(_distribution(SELECTOR, specs[SELECTOR], str)))
        for other in algos:
            if other not in kinds:
                raise unknown_name("algo", str(other), kinds)
    types: dict[str, Any] = {}
    for other in reversed(algos):
        types |= setting_types(kinds[other])
    dimensions: dict[str, BaseDistribution] = {}
    for given, spec in specs.items():
        name = full_name(given, types)
        if name in WHERE_AND_HOW:
            raise UserError(f"space {given}: where and how a trial runs cannot be searched over")
        if name in dimensions:
            raise UserError(f"space {name} is given twice")
        dimensions[name] = _distribution(name, spec, types[name])
    return Space(dimensions, {other: set(setting_types(kinds[other])) for other in algos}, algo)


def full_name(name: str, known: Iterable[str]) -> str:
    """The dotted name of a setting, given that or, where it is the only one, its last part.

    Raises:
        UserError: with the nearest names, when there is no such setting.
    """
    known = list(known)
    if name in known:
        return name
    ending = [other for other in known if other.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    raise unknown_name("setting", name, ending or known)


def setting_types(kind: type, prefix: str = "") -> dict[str, Any]:
    """The types of a settings dataclass's fields, by dotted name; dataclasses in it are entered."""
    types: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            types |= setting_types(hint, f"{prefix}{name}.")
        else:
            types[f"{prefix}{name}"] = hint
    return types


def nested(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``{"agent.price": 1}`` as ``{"agent": {"price": 1}}``, over the nested settings ``base``."""
    result = copy.deepcopy(dict(base or {}))
    for name, value in values.items():
        *tables, last = name.split(".")
        table = result
        for key in tables:
            table = table.setdefault(key, {})
        table[last] = value
    return result


def entries_of(table: Mapping[str, Any]) -> list[str]:
    """A YAML table of names and specs as entries, the way flags give them."""
    return [f"{name}={spec if isinstance(spec, str) else json.dumps(spec)}" for name, spec in table.items()]


def scalar(text: str, kind: Any = None) -> int | float | bool | str | None:
    """What a word on the command line means: a number, true, false, none, or itself.

    ``kind`` is the type of the setting that it is for; a word that is one of its choices means itself.
    """
    if text in choices_of(kind):
        return text
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("+-").isdigit() else number


def choices_of(kind: Any) -> tuple[Any, ...]:
    """What a type allows by name: the members of ``Literal``, also within a union."""
    members = typing.get_args(kind)
    return members if typing.get_origin(kind) is Literal else tuple(itertools.chain(*map(choices_of, members)))


def ends_of(distribution: BaseDistribution) -> list[Any]:
    """Lowest and highest value, or every choice."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _distribution(name: str, spec: str, kind: Any) -> BaseDistribution:
    """Optuna's distribution for a spec of a setting of type ``kind``."""
    content: Any = None
    if spec[0] in "[{":
        try:
            content = yaml.safe_load(spec)
        except yaml.YAMLError as error:
            raise UserError(f"space {name}: {' '.join(str(error).split())}") from error
    elif match := _RANGE.fullmatch(spec):
        content = {key: value for key, value in match.groupdict().items() if value}
    else:
        content = [scalar(word.strip(), kind) for word in spec.split(",")]
    if isinstance(content, dict):
        return _range(name, content, kind)
    if not content or not all(value is None or isinstance(value, str | int | float) for value in content):
        raise UserError(f"space {name}: choices are plain values, at least one, got {spec}")
    return CategoricalDistribution(content)


def _range(name: str, content: dict[str, Any], kind: Any) -> BaseDistribution:
    for key in content:
        if key not in ("low", "high", "log", "step"):
            raise UserError(f"space {name}: {unknown_name('key', str(key), ('low', 'high', 'log', 'step'))}")
    try:
        low, high = float(content["low"]), float(content["high"])
        step = float(content["step"]) if "step" in content else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"space {name}: a range is two numbers, low and high, got {content}") from error
    log = bool(content.get("log", False))
    if step is not None and not log:
        _check_steps(name, low, high, step)
    members = typing.get_args(kind) or (kind,)
    try:
        if int in members and float not in members:
            for value in (low, high, step or 1):
                if value != int(value):
                    raise UserError(f"space {name} is a whole number, got {value}")
            return IntDistribution(int(low), int(high), log, int(step or 1))
        return FloatDistribution(low, high, log, step)
    except (ValueError, OverflowError) as error:
        # Optuna's own sentence (low above high, a log range from 0, a log range with steps), or Python's of infinity.
        raise UserError(f"space {name}: {' '.join(str(error).split())}") from error


def _check_steps(name: str, low: float, high: float, step: float) -> None:
    """Refuse steps that do not meet the range's end, which Optuna would move."""
    if not all(map(math.isfinite, (low, high, step))) or step <= 0 or low > high:
        return  # refused by whoever makes the distribution
    # As decimals, as they were typed: in floats 0.7 is not 0.1 and three steps of 0.2.
    start, end, by = (Decimal(repr(value)) for value in (low, high, step))
    if over := (end - start) % by:
        last = float(end - over)
        raise UserError(
            f"space {name}: steps of {step:g} from {low:g} end at {last:g}, not {high:g}; give {low:g}..{last:g}"
        )


def _grid_of(name: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        # Rounded, as Optuna takes nothing above the end: 0.1 + 3 * 0.2 is more than 0.7.
        return [round(distribution.low + index * distribution.step, 12) for index in range(count)]
    raise UserError(f"space {name}: a grid needs choices or steps, e.g. {name}=0.1,0.3,1 or {name}=0.1..1:step=0.1")


def _combinations(ends: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    """All combinations of one value each, or that many at random where there are more than ``COMBINATIONS``."""
    if math.prod(map(len, ends.values())) <= COMBINATIONS:
        for values in itertools.product(*ends.values()):
            yield dict(zip(ends, values, strict=True))
        return
    draws = random.Random(0)
    for _ in range(COMBINATIONS):
        yield {name: draws.choice(values) for name, values in ends.items()}
