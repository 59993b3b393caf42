"""Make the options of a command from a settings class, and read their values from a YAML file."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from skystill.errors import SettingsError, shortened
from skystill.parsing import read_yaml
from skystill.settings import FROM_DATA, TRUST, Settings, build_settings, run_settings
from skystill.settings.base import EMPTY_TEXT

ReportOption = Annotated[
    bool, typer.Option("--report/--no-report", help="Score on the test images and write the report at the end.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue a run or prediction that was stopped or killed.")
]

DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Count inputs and megapixels, measure one window, and say how long all of it takes. "
                 "Nothing is predicted."),
]  # fmt: skip


def use_config(context: typer.Context, config: Path | None) -> Path | None:
    """Use the values of a YAML file as defaults of the options.

    Args:
        context: the command.
        config: the YAML file, or None.

    Returns:
        The path of the file, or None.

    Raises:
        SettingsError: the file cannot be read, or contains settings that the command does not have.
    """
    if config is None:
        return None

    def refuse(reason: str) -> SettingsError:
        return SettingsError(f"--config {config}: {reason}. Give such a file as config.yaml of a run.")

    values = run_settings(read_yaml(config, refuse), refuse)
    values = {name: value for name, value in values.items() if name not in (*FROM_DATA, TRUST)}
    unknown = sorted(set(values) - {parameter.name for parameter in context.command.params})
    if unknown:
        raise SettingsError(
            f"--config {config}: {shortened(', '.join(unknown))}: no such setting of {context.info_name}."
        )
    many = {parameter.name for parameter in context.command.params if getattr(parameter, "multiple", False)}
    context.default_map = {
        name: value if name in many else _as_text(value) for name, value in values.items() if value is not None
    }
    return config


def _as_text(value: object) -> object:
    """Return a list of names or numbers as its option takes it, as in bands: [4, 3, 2]; other values stay."""
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return ",".join(map(str, value))
    return value


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings, such as config.yaml of a run. Options override its values.",
                 is_eager=True, callback=use_config),
]  # fmt: skip


def settings_options(kind: type[Settings], *arguments: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the fields of a settings class as options.

    The decorated command receives the settings object that is built from the options.

    Args:
        kind: the settings class. The docstrings of its fields are the help texts.
        arguments: fields that are positional arguments instead of options.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def with_options(**values: object) -> None:
            own = {name: values.pop(name) for name in list(values) if name not in kind.model_fields}
            command(build_settings(kind, values), **own)

        extra = list(inspect.signature(command).parameters.values())[1:]
        options = [_parameter(name, field, name in arguments) for name, field in kind.model_fields.items()]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*options, *extra)]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        return with_options

    return decorate


def path(text: str | Path) -> Path:
    """Return a path. pathlib takes an empty text for the current folder. Help shows the name of this function."""
    if text == "":
        raise typer.BadParameter(f"it is empty; {EMPTY_TEXT}.")
    return Path(text)


def _takes_paths(annotation: Any) -> bool:  # noqa: ANN401 - a type
    return annotation is Path or any(map(_takes_paths, get_args(annotation)))


def _parameter(name: str, field: FieldInfo, positional: bool) -> inspect.Parameter:
    help_text = field.description
    plain = name.rstrip("_").replace("_", "-")  # a name that is a word of Python ends in _
    flag = f"--{plain}"
    parser = path if _takes_paths(field.annotation) else None
    kind = (
        typer.Argument(help=help_text, parser=parser)
        if positional
        else typer.Option(flag, help=help_text, parser=parser)
    )
    if field.annotation in (bool, bool | None):
        kind = typer.Option(f"{flag}/--no-{plain}", help=help_text)
    annotation = str | None if ByteSize in get_args(field.annotation) else field.annotation  # pydantic parses 256MB
    default = inspect.Parameter.empty if field.is_required() else field.get_default()
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, kind]
    )
