"""The service: one model, the requests and jobs that wait for it, and what is counted of them."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
import traceback
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from skystill.errors import SkystillError, shortened
from skystill.model.measure import cores
from skystill.predict.predictor import Predictor
from skystill.progress import Message, OnProgress
from skystill.raster.scratch import make_scratch
from skystill.serve.bodies import check_headers, check_room, save_body
from skystill.serve.execution import MOST_JSON, read_execution
from skystill.serve.jobs import Jobs
from skystill.serve.kinds import HEAD_BYTES, Kind, accepted_form, check_kind, joined, source_name, stated_kind
from skystill.serve.metrics import Metrics
from skystill.serve.orders import Order, Result, carry_out, look_at
from skystill.serve.parameters import Wanted, wanted_by_query
from skystill.serve.problems import Problem, problem_of
from skystill.settings import ServeSettings

_T = TypeVar("_T")


class Service:
    """One model that is open, and everything that waits for it.

    Images of a single tile are predicted several at a time, as by `skystill predict`: one is read or written while the
    network computes another. Of larger images one is predicted at a time, and one more for a job.

    Args:
        predictor: the model.
        settings: the limits.
        folder: where images and results are kept.
        on_progress: takes the lines of the log.
    """

    def __init__(self, predictor: Predictor, settings: ServeSettings, folder: Path, on_progress: OnProgress) -> None:
        self.predictor, self.settings = predictor, settings
        self.metrics = Metrics()
        self.jobs = Jobs(predictor, settings.jobs, settings.job_hours, self.log_error, self.metrics.count_pixels)
        self.waiting = 0
        self.is_closing = False
        self._folder, self._on_progress = folder, on_progress
        self._looking = ThreadPoolExecutor(2, "look")
        self._small = ThreadPoolExecutor(settings.threads or cores(), "small")
        self._large = ThreadPoolExecutor(1, "large")

    def log(self, line: str) -> None:
        """Write a line of the log."""
        self._on_progress(Message(line))

    def log_error(self, error: BaseException) -> None:
        """Write an error of the service to the log, with the place in the code that raised it."""
        while error.__cause__ is not None and not isinstance(error, SkystillError):
            error = error.__cause__
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        self.log(f"error: {type(error).__name__}: {shortened(error, 1000)}{where}")

    @contextlib.contextmanager
    def admitted(self) -> Iterator[contextlib.ExitStack]:
        """Hold a place in the queue, and yield it. Who closes it leaves the queue earlier.

        Raises:
            Problem: there is none.
        """
        if self.is_closing:
            raise Problem(503, "The service ends. Send the image again later.")
        if self.waiting >= self.settings.queue:
            raise Problem(503, f"{self.waiting} requests wait, the most that do. Send the image again later.")
        self.waiting += 1
        with contextlib.ExitStack() as place:
            place.callback(self._leave)
            yield place

    def _leave(self) -> None:
        self.waiting -= 1

    async def receive_image(self, request: Request) -> Order:
        """Receive the image in the body of a request, and look at it.

        Raises:
            Problem: it is refused.
        """
        wanted = wanted_by_query(request.query_params.multi_items(), accepted_form(joined(request.headers, "accept")))
        stated = stated_kind(request.headers.get("content-type"))
        check_headers(request.headers, self.settings.max_body)
        folder = self._new_folder()
        try:
            body = folder / "body"
            await save_body(request.stream(), body, self.settings.max_body)
            with open(body, "rb") as file:
                kind = check_kind(file.read(HEAD_BYTES), stated)
            body.rename(folder / source_name(kind))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return await self._looked_at(Order(folder, kind, wanted))

    async def receive_execution(self, request: Request) -> tuple[Order, bool]:
        """Receive a request of OGC API - Processes with an image inside, and look at the image.

        Returns:
            the order, and whether the result is wanted inside a document.

        Raises:
            Problem: it is refused.
        """
        most = min(MOST_JSON, self.settings.max_body)
        check_headers(request.headers, most)
        if request.url.query:
            raise Problem(400, "Parameters of a request in JSON stand in its inputs, and not in the address.")
        folder = self._new_folder()
        try:
            body = folder / "body"
            await save_body(request.stream(), body, most)
            kind, wanted, as_document = await asyncio.wrap_future(self._looking.submit(_unpacked, body))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return await self._looked_at(Order(folder, kind, wanted)), as_document

    async def result_of(self, order: Order, request: Request) -> Result:
        """Wait for the result of an order, for as long as the client does and `request_seconds` allow.

        Raises:
            Problem: the image cannot be predicted, or takes too long.
            ClientDisconnect: the client has gone.
        """
        lane = self._small if order.is_small else self._large
        order.work = work = lane.submit(carry_out, order, self.predictor)
        seconds = self.settings.request_seconds
        try:
            async with asyncio.timeout(seconds):
                result = await _unless_gone(request, asyncio.wrap_future(work))
        except TimeoutError as error:
            raise Problem(
                503, f"The result was not ready after {seconds:g} s, the most that a request waits. Send the image "
                "again later, a smaller one, or as a job (/processes/segment/execution with Prefer: respond-async).",
            ) from error  # fmt: skip
        except SkystillError as error:
            raise self.problem_of(error, order) from error
        self.metrics.count_pixels(result.pixels)
        return result

    def problem_of(self, error: SkystillError, order: Order) -> Problem:
        """Return the problem for an error, and log it if it is one of the service."""
        problem = problem_of(error, order.source, self.predictor.path)
        if problem.status == 500:
            self.log_error(error)
        return problem

    def close(self) -> None:
        """Take no more requests, and end all jobs. Requests in work go on."""
        self.is_closing = True
        self.jobs.close()

    def join(self, seconds: float) -> bool:
        """Wait for the threads. Call this when no request is left.

        Args:
            seconds: how long. Work that nobody waits for ends at its next step, which may take longer on a large image.

        Returns:
            whether all have ended.
        """
        ending = threading.Thread(target=self._end_lanes, daemon=True)
        ending.start()
        ending.join(seconds)
        return not ending.is_alive()

    def _end_lanes(self) -> None:
        self.jobs.join()
        for lane in (self._looking, self._small, self._large):
            lane.shutdown(cancel_futures=True)

    async def _looked_at(self, order: Order) -> Order:
        order.work = self._looking.submit(look_at, order, self.predictor, self.settings.max_megapixels)
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                await asyncio.wrap_future(order.work)
        except BaseException as error:
            order.release()
            if isinstance(error, TimeoutError):
                raise Problem(503, "The image could not be opened in time. Send it again later.") from error
            if isinstance(error, SkystillError):
                raise self.problem_of(error, order) from error
            raise
        return order

    def check_store(self) -> None:
        """Check that images can be stored. If something has deleted the folder for them, there is a new one afterwards.

        Raises:
            Problem: they cannot.
        """
        try:
            if not self._folder.is_dir():  # as a cleaner of /tmp does
                self._folder = make_scratch(self)
                self.log("The folder for images and results was deleted, with those of all jobs. There is a new one.")
            check_room(self._folder)
        except OSError as error:
            self.log_error(error)
            raise Problem(503, "The service cannot store images at the moment. Send the image again later.") from error

    def _new_folder(self) -> Path:
        self.check_store()
        return Path(tempfile.mkdtemp(dir=self._folder))


def _unpacked(body: Path) -> tuple[Kind, Wanted, bool]:
    """Read a request, and write its image to a file. The image does not stay in memory."""
    found = read_execution(body)
    (body.parent / source_name(found.kind)).write_bytes(found.image)
    return found.kind, found.wanted, found.as_document


async def _unless_gone(request: Request, result: Awaitable[_T]) -> _T:
    """Wait for a result, unless the client goes.

    Raises:
        ClientDisconnect: it has gone.
    """
    waiting: asyncio.Future[Any] = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()  # type: ignore[no-any-return]
        raise ClientDisconnect
    finally:
        gone.cancel()
        waiting.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
