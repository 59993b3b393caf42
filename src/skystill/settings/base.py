"""The base class of all settings, and the functions that build settings from values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, TypeAdapter, ValidationError, model_validator

from skystill.errors import SettingsError, shortened
from skystill.parsing import Refuse

_S = TypeVar("_S", bound="Settings")
EMPTY_TEXT = "give it a value, or leave it out"
"""How to mend an empty text in the place of a value."""


def _check_page(value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{value} does not end in .html, so that it could be another file that is needed")
    return value


Page = Annotated[Path | None, AfterValidator(_check_page)]
"""Type of a setting that names a page to write, which should not replace an image or a result."""


class Settings(BaseModel):
    """Base class of all settings. Unknown fields are refused, and instances are immutable."""

    # defer_build: a command needs only one of these classes. Building all of them would take a tenth of a second.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _check_texts(cls, values: object) -> object:
        """Refuse an empty text, such as that of a variable that is not set: as a path it is the current folder."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if "" in (value if isinstance(value, list | tuple) else [value]):
                raise ValueError(f"--{name.replace('_', '-')} is empty; {EMPTY_TEXT}")
        return values

    def to_config(self) -> dict[str, Any]:
        """Return the fields as plain values for YAML."""
        return self.model_dump(mode="json")


RENAMED = {"teacher_share": "teacher_weight", "unlabeled_share": "unlabeled_fraction"}
"""Settings that were renamed: the name in run folders of earlier versions, and the current name."""


FROM_DATA = ("input_spec", "sampled_images")
"""What `config.yaml` of a run holds besides settings: it follows from the data, and is found again from it."""

TRUST = "trust_teacher"
"""The setting that lets a teacher's file run code. It is never taken from a file: a file cannot vouch for a file."""

_SIZES = ("max_memory", "max_size")


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings that were read from a file under their current names and in their current form.

    Earlier versions wrote sizes as text, such as 256MB, and one source of images without labels, or null.
    """
    current = {RENAMED.get(name, name): value for name, value in values.items()}
    if "unlabeled" in current and not isinstance(current["unlabeled"], list):
        current["unlabeled"] = [] if current["unlabeled"] is None else [current["unlabeled"]]
    return current | {name: size_in_bytes(current[name]) for name in _SIZES if name in current}


def run_settings(content: object, refuse: Refuse) -> dict[str, Any]:
    """Return the settings that a YAML file holds, under their current names. Their values are not checked here.

    Args:
        content: what the parser returned.
        refuse: makes the error from a reason.
    """
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise refuse(f"it holds {type(content).__name__} instead of settings with names")
    try:
        return with_current_names(content)
    except (ValueError, OverflowError) as error:
        raise refuse("max_memory or max_size is no size such as 256MB") from error


def size_in_bytes(value: str | int | None) -> int | None:
    """Convert a size such as 256MB or 1GiB to bytes. None stays None.

    Raises:
        ValueError: the value is not a size.
    """
    return None if value is None else int(TypeAdapter(ByteSize).validate_python(value))


def build_settings(kind: type[_S], values: Mapping[str, object]) -> _S:
    """Build settings from the values of a command.

    Args:
        kind: the settings class.
        values: field names and values.

    Raises:
        SettingsError: values are invalid. The message lists all of them.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_complaint(e["loc"], e["input"], e["type"], e["msg"]) for e in error.errors())
        ) from error


def list_of_texts(value: object) -> object:
    """Take one path or text as a list of one, and paths as text. Validation says what is wrong with anything else."""
    if isinstance(value, str | Path):
        return [str(value)]
    return [str(one) if isinstance(one, Path) else one for one in value] if isinstance(value, list | tuple) else value


def settings_from(kind: type[_S], given: _S | None, keywords: Mapping[str, object]) -> _S:
    """Return the settings of a function that accepts a settings object, or its fields as keyword arguments.

    Args:
        kind: the settings class.
        given: the settings object, or None.
        keywords: field names and values; empty if `given` is not None.

    Raises:
        SettingsError: both are given, or values are invalid.
    """
    if given is None:
        return build_settings(kind, keywords)
    if not isinstance(given, kind):
        raise SettingsError(
            f"the settings are {type(given).__name__}; this takes {kind.__name__}, or its fields as keywords."
        )
    if keywords:
        raise SettingsError(f"give {kind.__name__}, or its fields as keywords ({', '.join(keywords)}), not both.")
    return given


def _complaint(where: tuple[int | str, ...], value: object, kind: str, message: str) -> str:
    """Return the text for one validation error, with option and value unless it is about the settings as a whole."""
    message = "write a size as 256MB or 1GiB" if kind.startswith("byte_size") else message.removeprefix("Value error, ")
    if not where:
        return message
    option = f"--{'.'.join(map(str, where)).replace('_', '-')}"
    return f"{option}: {message}" if kind == "missing" else f"{option} {shortened(value)}: {message}"
