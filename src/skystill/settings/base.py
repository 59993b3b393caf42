"""What all settings share, and how a command's values become settings."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from skystill.errors import SettingsError

_S = TypeVar("_S", bound="Settings")


def parse_bytes(text: str) -> int:
    """Turn "256MB" into 256,000,000; kB, MB, GB, KiB, MiB and GiB are known, and a plain number is bytes.

    Raises:
        ValueError: not such a text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("write a size as 256MB or 1GiB")
    unit = found[2].upper().removesuffix("B")
    base = 1024 if unit.endswith("I") else 1000
    return int(float(found[1]) * base ** ("", "K", "M", "G").index(unit.removesuffix("I")))


def _readable(text: str | None) -> str | None:
    if text is not None:
        parse_bytes(text)
    return text


ByteSize = Annotated[str | None, AfterValidator(_readable)]
"""A size that `parse_bytes` reads, as it was written."""


class Settings(BaseModel):
    """What all commands share: nothing unknown is taken, nothing changes afterwards."""

    # defer_build: a command needs one class of these, and the others would be built for a tenth of a second.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)

    def to_config(self) -> dict[str, Any]:
        """Plain values for YAML."""
        return self.model_dump(mode="json")


RENAMED = {"teacher_share": "teacher_weight", "unlabeled_share": "unlabeled_fraction"}
"""Settings that run folders of earlier commits call by another name."""


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file, with the names that they have today."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def build_settings(kind: type[_S], values: dict[str, Any]) -> _S:
    """Settings from a command's values.

    Raises:
        SettingsError: values that do not fit, all of them named.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError("; ".join(_said(e["loc"], e["input"], e["msg"]) for e in error.errors())) from error


def _said(where: tuple[int | str, ...], value: object, message: str) -> str:
    """One complaint: of a field with its flag and value, of all together as it is."""
    return f"--{'.'.join(map(str, where)).replace('_', '-')} {value}: {message}" if where else message
