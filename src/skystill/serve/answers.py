"""Answers that are files: a result as it is, or inside a JSON document."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skystill.errors import shortened
from skystill.serve.kinds import AS_GEOJSON
from skystill.serve.orders import Result
from skystill.serve.problems import Problem

_CHUNK = 3 * 2**16  # a multiple of 3: base64 of each chunk ends without padding
_ONE_RANGE = r"(?:\d{1,18}-\d{0,18}|-\d{1,18})"
_RANGES = re.compile(rf"bytes={_ONE_RANGE}(?:, *{_ONE_RANGE})*", re.ASCII | re.IGNORECASE)
_MOST_NOTES, _MOST_LETTERS = 8, 500


@dataclass
class Held:
    """What is held for a request until its answer ends, however it ends.

    Args:
        place: its place in the queue. It is free before the client has the last part of the answer, and so can send the
            next image.
        rest: what the answer is read from.
    """

    place: ExitStack = field(default_factory=ExitStack)
    rest: ExitStack = field(default_factory=ExitStack)

    async def until_sent(self, answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an answer, and release what is held for it."""

        async def leaving(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.place.close()
            await send(message)

        with self.rest, self.place:
            await answer(scope, receive, leaving)


class FileAnswer(FileResponse):
    """A result as it is."""

    def __init__(self, result: Result, notes: Sequence[str], held: Held) -> None:
        super().__init__(result.path, media_type=result.form.media_type, filename=result.path.name)
        for note in notes[:_MOST_NOTES]:
            self.headers.append("SkyStill-Note", _header_text(note))
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or the parts of it that the header Range asks for. A range that is none is not looked at."""
        found = Headers(scope=scope).get("range")
        if found is not None and not _is_range(found):
            scope = {**scope, "headers": [line for line in scope["headers"] if line[0] != b"range"]}

        async def refusing(message: Message) -> None:
            if message.get("status") == 416:
                place = {"Content-Range": Headers(raw=message["headers"])["content-range"]}
                raise Problem(
                    416, f"The result has no bytes {shortened(found or '', 60)}. Ask for less.", headers=place
                )
            await send(message)

        await self._held.until_sent(super().__call__, scope, receive, refusing)


class DocumentAnswer(StreamingResponse):
    """A result inside a JSON document of OGC API - Processes: GeoJSON as a value, other files in base64."""

    def __init__(self, result: Result, held: Held) -> None:
        super().__init__(_document(result), media_type="application/json")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await self._held.until_sent(super().__call__, scope, receive, send)


async def _document(result: Result) -> AsyncIterator[bytes]:
    is_json = result.form is AS_GEOJSON
    yield b'{"result": {"value": ' + (b"" if is_json else b'"')
    for chunk in _chunks(result.path):
        yield chunk if is_json else base64.b64encode(chunk)
    coded = b"" if is_json else b'", "encoding": "base64'
    ending = b', "mediaType": ' + json.dumps(result.form.media_type).encode() + b"}}"
    yield coded + (b"" if is_json else b'"') + ending


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _is_range(text: str) -> bool:
    """Return whether the header Range asks for ranges of bytes: RFC 9110 lets a server ignore all others."""
    pairs = re.findall(r"(\d+)-(\d+)", text)
    return _RANGES.fullmatch(text) is not None and all(int(first) <= int(last) for first, last in pairs)


def _header_text(text: str) -> str:
    """Return a text as the value of a header: printable ASCII on one line."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return "".join(one if one.isprintable() else " " for one in plain)[:_MOST_LETTERS].strip()
