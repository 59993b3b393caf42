"""The request of OGC API - Processes to execute a process, as far as it is supported: one image inline, one result."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skystill.errors import UserError, shortened
from skystill.parsing import read_json
from skystill.serve.kinds import HEAD_BYTES, Form, Kind, check_kind, form_of_media_type, stated_kind
from skystill.serve.parameters import NAMES, Wanted, checked
from skystill.serve.problems import Problem

MOST_JSON = 32 * 2**20
"""Most bytes of such a request: it is held in memory. Larger images are sent as the body itself."""
MOST_VALUES = 1_000
"""Most values of such a request. It has about ten."""
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class InlineImage(BaseModel):
    """An image in base64."""

    model_config = _STRICT
    value: str = Field(min_length=1)
    """The bytes of a TIFF, PNG, JPEG or WebP in base64."""
    encoding: Literal["base64"] = "base64"
    """How they are written."""
    mediaType: str | None = None
    """Kind of the image, such as image/tiff. By default its first bytes decide."""


class Inputs(BaseModel):
    """The image, and parameters of skystill predict."""

    model_config = _STRICT
    image: InlineImage | str
    """The image, in base64."""
    bands: str | None = None
    scale: str | None = None
    resolution: float | None = None
    views: Literal["1", "2", "4", "8"] | None = None
    smooth: int | None = None
    min_area: str | None = None
    simplify: str | None = None
    square: str | None = None
    confidence: bool | None = None


class Format(BaseModel):
    """The form of a result."""

    model_config = _STRICT
    mediaType: str | None = None
    """image/tiff; application=geotiff, image/png, or application/geo+json."""


class Output(BaseModel):
    """How the result is given."""

    model_config = _STRICT
    format: Format = Format()
    transmissionMode: Literal["value"] = "value"
    """Results are given as values, and not by reference."""


class Outputs(BaseModel):
    """The results that are wanted. There is one."""

    model_config = _STRICT
    result: Output = Output()


class Execute(BaseModel):
    """A request to execute the process."""

    model_config = _STRICT
    inputs: Inputs
    outputs: Outputs = Outputs()
    response: Literal["raw", "document"] = "raw"
    """raw: the file itself. document: JSON with the file in it."""


@dataclass(frozen=True)
class Execution:
    """What a request asks for.

    Args:
        kind: the kind of its image.
        image: its bytes.
        wanted: what is made of it.
        as_document: whether the result is given inside a JSON document.
    """

    kind: Kind
    image: bytes
    wanted: Wanted
    as_document: bool


def read_execution(path: Path) -> Execution:
    """Read a request from a file.

    Raises:
        Problem: it is not such a request, or asks for what is not supported.
    """
    _check_values(path)
    content = read_json(path, _refuse("the body"))
    _refuse_references(content)
    try:
        request = Execute.model_validate(content)
    except ValidationError as error:
        found = "; ".join(_complaint(one["loc"], one["msg"]) for one in error.errors()[:5])
        raise Problem(
            400, f"The body is no request to execute the process: {found}. /processes/segment describes it."
        ) from error
    given = request.inputs.image
    text, media_type = (given, None) if isinstance(given, str) else (given.value, given.mediaType)
    image = _decoded(text)
    kind = check_kind(image[:HEAD_BYTES], stated_kind(media_type))
    values: dict[str, Any] = {
        name: getattr(request.inputs, name) for name in NAMES if getattr(request.inputs, name) is not None
    }
    result_type = request.outputs.result.format.mediaType
    form: Form | None = None if result_type is None else form_of_media_type(result_type)
    return Execution(kind, image, checked(values, form), request.response == "document")


def _check_values(path: Path) -> None:
    """Refuse JSON of many values, each of which takes a hundred bytes of memory. Base64 has none of their marks."""
    raw = path.read_bytes()
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise Problem(400, f"The body has more than {MOST_VALUES:,} values. /processes/segment describes a request.")


def _refuse(what: str) -> Callable[[str], UserError]:
    return lambda reason: Problem(400, f"{what}: {reason}.")


def _refuse_references(content: object) -> None:
    """Refuse what would make the service open an address."""
    if not isinstance(content, dict):
        raise Problem(400, "The body is no JSON object with the key inputs. /processes/segment describes it.")
    if "subscriber" in content:
        raise Problem(400, "subscriber is not supported: the service calls no address. Ask /jobs/ID for the status.")
    inputs = content.get("inputs")
    for value in inputs.values() if isinstance(inputs, dict) else ():
        if isinstance(value, dict) and "href" in value:
            raise Problem(
                400, "An input is given by reference (href), and the service opens no address. Give it inline in "
                "base64, or send the image itself as the body of this request, with its own Content-Type.",
            )  # fmt: skip


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"The image is no base64 ({error}).") from error


def _complaint(where: tuple[int | str, ...], message: str) -> str:
    return f"{shortened('.'.join(map(str, where)), 60) or 'body'}: {shortened(message, 120)}"
