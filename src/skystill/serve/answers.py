"""Answers that are files: a result as it is, or inside a JSON document."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from starlette.responses import FileResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skystill.serve.kinds import AS_GEOJSON
from skystill.serve.orders import Result

_CHUNK = 3 * 2**16  # a multiple of 3: base64 of each chunk ends without padding
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
        """Send it."""
        await self._held.until_sent(super().__call__, scope, receive, send)


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


def _header_text(text: str) -> str:
    """Return a text as the value of a header: printable ASCII on one line."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return "".join(one if one.isprintable() else " " for one in plain)[:_MOST_LETTERS].strip()
