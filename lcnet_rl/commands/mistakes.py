"""What is wrong with a command line that tyro refuses, in one line: tyro says it in a box of several.

Names and choices are compared with the settings themselves. All else is the box's first paragraph, as tyro has no
public way to raise what it prints.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import is_dataclass
from itertools import dropwhile, takewhile, zip_longest
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from rich.text import Text

from lcnet_rl.errors import UserError, unknown_name
from lcnet_rl.settings import wrong_choice


def mistake(settings: type[Any], arguments: Sequence[str], prog: str, box: str) -> UserError:
    """An error for a command line that tyro has refused.

    Args:
        settings: the dataclass that was to be read.
        arguments: the command line.
        prog: the command, for where to look.
        box: what tyro printed.
    """
    types, given = {"-h": None, "--help": None, **option_types(settings)}, options_in(arguments)
    for name, _ in given:
        if name not in types:
            return unknown_name("option", name, types, listed=f"those of {prog} --help")
    for name, value in given:
        if value in (None, "None"):
            continue
        kinds = (types[name], *get_args(types[name]))
        for wrong in (*(wrong_choice(name, value, kind) for kind in kinds), wrong_number(name, value, kinds)):
            if wrong:
                return wrong

    said = first_paragraph(box).removeprefix("Error parsing ").removesuffix(".")
    return UserError(f"{said[:1].lower()}{said[1:]}; see {prog} --help")


def wrong_number(name: str, value: str, kinds: Collection[Any]) -> UserError | None:
    """What is wrong with a word for a setting that is a number, by the types that it may have, or None."""
    if not {int, float} & set(kinds) or str in kinds:
        return None
    read, called = (float, "a number") if float in kinds else (int, "a whole number")
    try:
        read(value)
    except ValueError:
        return UserError(f"{name} is {called}, got {value!r}")
    return None


def options_in(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """The options of a command line, as the help writes them, and the word that follows each, if it is no option.

    One dash before a letter is for one of two.
    """

    def is_option(word: str) -> bool:
        return word.startswith("--") or (word.startswith("-") and word[1:2].isalpha())

    found: list[tuple[str, str | None]] = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument == "--":
            break
        if is_option(argument):
            name, equals, value = argument.partition("=")
            word = None if following is None or is_option(following) else following

            found.append((name.replace("_", "-"), value if equals else word))
    return found


def option_types(settings: type[Any], prefix: str = "--") -> dict[str, Any]:
    """The type of every option by its name, such as ``--recipe.epochs``, also by that which switches it off."""
    types: dict[str, Any] = {}
    for field, hint in get_type_hints(settings, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        name = field.replace("_", "-")
        if is_dataclass(kind) and isinstance(kind, type):
            types |= option_types(kind, prefix if tyro.conf.arg(name="") in marks else f"{prefix}{name}.")
        elif tyro.conf.Positional not in marks:
            types |= {f"{prefix}{name}": kind, **({f"{prefix}no-{name}": kind} if kind is bool else {})}
    return types


def first_paragraph(box: str) -> str:
    """The text of a box after the line of its title, up to the next rule or empty line, as one line."""

    def has_text(line: str) -> bool:
        return any(map(str.isalnum, line))

    lines = Text.from_ansi(box).plain.splitlines()
    inside = dropwhile(lambda line: not has_text(line), lines[1:])
    return " ".join(line.strip("│ ") for line in takewhile(has_text, inside))
