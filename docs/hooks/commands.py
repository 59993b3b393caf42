"""MkDocs hook: the command reference, made from the command line's own settings.

The page `reference/commands.md` holds the line `<!-- commands -->`; it becomes one section for each command. Nothing is
written twice: names, descriptions, flags, defaults and help come from the Typer application, types and choices from
the annotations of the settings classes.
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from html import escape
from typing import Any, Literal

import typer

from skystill.cli import app

PAGE = "reference/commands.md"
MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 - MkDocs' own types
    """Called by MkDocs with the source of each page."""
    if page.file.src_uri != PAGE:
        return markdown
    if MARK not in markdown:
        raise ValueError(f"{PAGE} has no line {MARK}; the command reference goes there.")
    return markdown.replace(MARK, "\n\n".join(section(*found) for found in find_commands(app, "skystill")))


def find_commands(group: typer.Typer, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Name, parsed command and Python function of each command, groups of commands opened."""
    parsed = typer.main.get_group(group)
    functions = {name_of(info): info.callback for info in group.registered_commands}
    for info in group.registered_groups:  # `data check` is what one begins with
        yield from find_commands(info.typer_instance, f"{prefix} {info.name}")
    for name, function in functions.items():
        yield f"{prefix} {name}", parsed.commands[name], function


def name_of(info: Any) -> str:  # noqa: ANN401
    """The name of a registered command; by default that of its function."""
    return str(info.name or info.callback.__name__.replace("_", "-"))


def section(name: str, command: Any, function: Any) -> str:  # noqa: ANN401
    """Heading, description, usage, and a table of the options."""
    annotations = {key: value.annotation for key, value in inspect.signature(function).parameters.items()}
    known = [one for one in command.params if one.name in annotations]
    positional = [one for one in known if not is_option(one)]
    options = [one for one in known if is_option(one)]
    words = [name, *(usage(one) for one in positional)]
    words += [f"{flags(one)[0]} {one_word(annotations[one.name])}" for one in options if one.required]
    lines = [f"## {name}", text(inspect.cleandoc(command.help or "")), "", "    " + " ".join([*words, "[OPTIONS]"]), ""]
    if known:
        lines += ["| Option | Type | Default | Meaning |", "|---|---|---|---|"]
        lines += [row(one, annotations[one.name]) for one in (*positional, *options)]
    else:
        lines[-2] = f"    {name}"
    return "\n".join(lines)


def is_option(parameter: Any) -> bool:  # noqa: ANN401
    """Whether it is given by a flag, and not by its place."""
    return str(parameter.param_type_name) == "option"


def usage(parameter: Any) -> str:  # noqa: ANN401
    """A positional argument as a usage line shows it."""
    return f"{parameter.name.upper()}{'...' if parameter.nargs != 1 else ''}"


def one_word(annotation: object) -> str:
    """What stands for a value in a usage line."""
    return kind(annotation).partition(",")[0].upper()


def flags(parameter: Any) -> list[str]:  # noqa: ANN401
    """All spellings of an option."""
    return [*parameter.opts, *parameter.secondary_opts]


def row(parameter: Any, annotation: object) -> str:  # noqa: ANN401
    """One line of the table."""
    shown = " ".join(f"`{flag}`" for flag in flags(parameter)) if is_option(parameter) else f"`{usage(parameter)}`"
    cells = [shown, text(kind(annotation)), default(parameter), text(parameter.help or "")]
    return f"| {' | '.join(cells)} |"


def default(parameter: Any) -> str:  # noqa: ANN401
    """The default value as it would be written on the command line."""
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value == [] or value == () or callable(value):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


def kind(annotation: object) -> str:
    """A type in words; the choices of a `Literal`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(one) for one in arguments if one is not type(None))
    if origin is Literal:
        return ", ".join(str(one) for one in arguments)
    if origin in (list, tuple):
        return f"{kind(arguments[0])}, repeatable"
    names = {str: "text", int: "integer", float: "number", bool: "switch"}
    return names.get(annotation, str(getattr(annotation, "__name__", annotation)).lower())  # type: ignore[call-overload]


def text(prose: str) -> str:
    """Help as Markdown in a table: flags become code, everything else stays as it is written."""
    parts = re.split(r"(?<!\S)(--[a-z][a-z0-9-]*|`[^`]+`)", " ".join(prose.split()))
    return "".join(f"`{part.strip('`')}`" if at % 2 else plain(part) for at, part in enumerate(parts))


def plain(prose: str) -> str:
    """Text without a meaning in Markdown."""
    return re.sub(r"([\\|*_\[\]`])", r"\\\1", escape(prose, quote=False))
