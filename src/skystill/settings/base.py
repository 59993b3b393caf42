"""What all settings share, and how a command's values become settings."""

from typing import Any, TypeVar

from pydantic import BaseModel, ByteSize, ConfigDict, TypeAdapter, ValidationError

from skystill.errors import SettingsError

_S = TypeVar("_S", bound="Settings")


class Settings(BaseModel):
    """What all commands share: nothing unknown is taken, nothing changes afterwards."""

    # defer_build: a command needs one class of these, and the others would be built for a tenth of a second.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)

    def to_config(self) -> dict[str, Any]:
        """Plain values for YAML."""
        return self.model_dump(mode="json")


RENAMED = {"teacher_share": "teacher_weight", "unlabeled_share": "unlabeled_fraction"}
"""Settings that run folders of earlier commits call by another name."""


_SIZES = ("max_memory", "max_size")


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file, with today's names. Earlier commits wrote sizes as text, such as 256MB."""
    current = {RENAMED.get(name, name): value for name, value in values.items()}
    return current | {name: size_in_bytes(current[name]) for name in _SIZES if name in current}


def size_in_bytes(value: str | int | None) -> int | None:
    """256MB or 1GiB as a number; None stays None. Raises ValueError for anything else."""
    return None if value is None else int(TypeAdapter(ByteSize).validate_python(value))


def build_settings(kind: type[_S], values: dict[str, Any]) -> _S:
    """Settings from a command's values.

    Raises:
        SettingsError: values that do not fit, all of them named.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_complaint(e["loc"], e["input"], e["type"], e["msg"]) for e in error.errors())
        ) from error


def settings_from(kind: type[_S], given: _S | None, keywords: dict[str, Any]) -> _S:
    """The settings of a function that takes them whole, or their fields as keywords.

    Raises:
        SettingsError: both are given, or values that do not fit.
    """
    if given is None:
        return build_settings(kind, keywords)
    if keywords:
        raise SettingsError(f"give {kind.__name__}, or its fields as keywords ({', '.join(keywords)}), not both.")
    return given


def _complaint(where: tuple[int | str, ...], value: object, kind: str, message: str) -> str:
    """One complaint: of a field with its flag and value, of all together as it is."""
    message = "write a size as 256MB or 1GiB" if kind.startswith("byte_size") else message
    return f"--{'.'.join(map(str, where)).replace('_', '-')} {value}: {message}" if where else message
