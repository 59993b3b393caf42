"""Bodies of requests, written to disk as they come: bounded in size, and never waited for without end."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.datastructures import Headers

from skystill.errors import DiskFull
from skystill.serve.kinds import joined
from skystill.serve.problems import Problem

PATIENCE_SECONDS = 10.0
"""Seconds that a client may take to begin, or to go on."""
LEAST_RATE = 32 * 2**10
"""Bytes per second that a body must come with, on average, after the first `PATIENCE_SECONDS`."""

SPARE_BYTES = 512 * 2**20
"""Room that is left on the disk. A body that would take it is refused."""
_LOOK_EVERY = 16 * 2**20
CLOSE = {"Connection": "close"}


def check_headers(headers: Headers, most: int) -> None:
    """Check what the headers say of a body, before any of it is read.

    Args:
        headers: those of the request.
        most: most bytes of the body.

    Raises:
        Problem: it is packed, or larger.
    """
    encoding = (joined(headers, "content-encoding") or "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(415, f"Content-Encoding is {encoding}; a body is taken as it is. Send it without.")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most, int(length))


def check_room(folder: Path) -> None:
    """Check that the disk of a folder has room.

    Raises:
        Problem: it has not.
    """
    if shutil.disk_usage(folder).free < SPARE_BYTES:
        raise Problem(503, "The disk of the service is full. Send the image again later.")


async def save_body(
    chunks: AsyncIterator[bytes], path: Path, most: int, clock: Callable[[], float] = time.monotonic
) -> int:
    """Write a body to a file.

    Args:
        chunks: what comes.
        path: the file.
        most: most bytes.
        clock: returns the time in seconds.

    Returns:
        its number of bytes.

    Raises:
        Problem: it is empty, larger, comes too slowly, or the disk has no room for it.
        DiskFull: it cannot be written.
    """
    began, size = clock(), 0
    try:
        with open(path, "wb") as file:
            while True:
                left = began + PATIENCE_SECONDS + size / LEAST_RATE - clock()
                if left <= 0:
                    raise TimeoutError
                async with asyncio.timeout(min(left, PATIENCE_SECONDS)):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                if size // _LOOK_EVERY != (size - len(chunk)) // _LOOK_EVERY:
                    check_room(path.parent)
                file.write(chunk)
    except TimeoutError as error:
        raise Problem(
            408, f"{size:,} bytes of the body came within {clock() - began:.0f} s, and then no more, or too slowly: "
            f"{LEAST_RATE // 2**10} kB per second are expected.", headers=CLOSE,
        ) from error  # fmt: skip
    except OSError as error:
        raise DiskFull(path, error, scratch=True) from error
    if not size:
        raise Problem(400, "The request has no body. Send the bytes of an image as its body.")
    return size


def _too_large(most: int, size: int | None = None) -> Problem:
    has = "more" if size is None else f"{size:,}"
    return Problem(
        413, f"The body has {has} bytes; at most {most:,} are taken. Cut the image, or write it with a compression."
    )
