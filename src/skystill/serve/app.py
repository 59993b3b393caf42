"""The addresses of the service, and what is done at each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skystill.errors import DiskFull, shortened, visible
from skystill.serve import descriptions
from skystill.serve.answers import DocumentAnswer, FileAnswer, Held
from skystill.serve.jobs import notes_of, result_of
from skystill.serve.kinds import accepts_html, joined
from skystill.serve.metrics import MEDIA_TYPE as METRICS_TYPE
from skystill.serve.openapi import openapi
from skystill.serve.orders import Order, Result
from skystill.serve.origins import check_origin
from skystill.serve.page import CONTENT_POLICY, page
from skystill.serve.problems import NO_SUCH_PROCESS, Problem, internal_problem
from skystill.serve.service import Service

_CLEAR_SECONDS = 60
_QUIET = ("/health", "/health/live", "/metrics")
"""Addresses that are asked every few seconds. They have no line in the log while all is well."""
_GONE = 499
"""Status in the log and in the metrics of a request whose client went. It is never sent."""


def make_app(service: Service) -> ASGIApp:
    """Return the application."""
    there = Routes(service)
    execution = f"/processes/{descriptions.PROCESS}/execution"
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", there.root),
        ("GET", "/conformance", there.conformance),
        ("GET", "/openapi.json", there.openapi),
        ("GET", "/health", there.health),
        ("GET", "/health/live", there.live),
        ("GET", "/metrics", there.metrics),
        ("POST", "/predict", there.predict),
        ("GET", "/processes", there.processes),
        ("GET", "/processes/{process}", there.process),
        ("POST", execution, there.execute),
        ("POST", "/processes/{process}/execution", there.no_process),
        ("GET", "/jobs/{job}", there.job),
        ("DELETE", "/jobs/{job}", there.dismiss),
        ("GET", "/jobs/{job}/results", there.results),
    ]
    app = Starlette(
        routes=_routes(table),
        exception_handlers={
            Problem: _problem,
            DiskFull: _disk_full,
            HTTPException: _http_problem,
            Exception: _internal,
        },
        lifespan=lambda _: _clearing(service),
    )
    app.router.redirect_slashes = False
    return Watched(app, service, frozenset(path for _, path, _ in table))


class Routes:
    """What is done at each address."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._openapi = openapi()
        self._process = descriptions.process_description(service.predictor)
        self._page = page(service.predictor.classes)

    async def root(self, request: Request) -> Response:
        """A page for browsers, links for programs."""
        if accepts_html(joined(request.headers, "accept")):
            headers = {"Content-Security-Policy": CONTENT_POLICY, "Vary": "Accept"}
            return Response(self._page, media_type="text/html", headers=headers)
        return JSONResponse(descriptions.landing_page(), headers={"Vary": "Accept"})

    async def conformance(self, request: Request) -> Response:
        """Classes of the standard that hold."""
        return JSONResponse({"conformsTo": descriptions.CONFORMS_TO})

    async def openapi(self, request: Request) -> Response:
        """The description of the service."""
        return JSONResponse(self._openapi)

    async def health(self, request: Request) -> Response:
        """Whether images are taken."""
        service = self._service
        status = "ready"
        try:
            service.check_store()
        except Problem:
            status = "full"
        if service.waiting >= service.settings.queue:
            status = "busy"
        if service.is_closing:
            status = "closing"
        return JSONResponse({"status": status, "queue": service.waiting}, 200 if status == "ready" else 503)

    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "live"})

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        service = self._service
        text = service.metrics.text(service.waiting, [job.status for job in service.jobs.all()])
        return Response(text, headers={"Content-Type": METRICS_TYPE})

    async def predict(self, request: Request) -> Response:
        """The result for an image."""
        with self._service.admitted() as place:
            order = await self._service.receive_image(request)
            return await self._finished(order, request, place, as_document=False)

    async def processes(self, request: Request) -> Response:
        """The list of processes."""
        return JSONResponse(descriptions.process_list())

    async def process(self, request: Request) -> Response:
        """The description of the process."""
        if request.path_params["process"] != descriptions.PROCESS:
            return await self.no_process(request)
        return JSONResponse(self._process)

    async def no_process(self, request: Request) -> Response:
        """Refuse a process that does not exist."""
        raise Problem(404, f"There is one process, {descriptions.PROCESS}.", NO_SUCH_PROCESS)

    async def execute(self, request: Request) -> Response:
        """Execute the process, at once or as a job."""
        service = self._service
        as_job = "respond-async" in (joined(request.headers, "prefer") or "").lower()
        with service.admitted() as place:
            if as_job:
                service.jobs.check_room()
            media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
            as_document = False
            if media_type == "application/json":
                order, as_document = await service.receive_execution(request)
            else:
                order = await service.receive_image(request)
            if not as_job:
                return await self._finished(order, request, place, as_document)
            try:
                job = service.jobs.add(order, as_document)
            except Problem:
                order.release()
                raise
        headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
        return JSONResponse(job.info(), 201, headers)

    async def job(self, request: Request) -> Response:
        """The status of a job."""
        return JSONResponse(self._service.jobs.find(request.path_params["job"]).info())

    async def dismiss(self, request: Request) -> Response:
        """End a job."""
        return JSONResponse(self._service.jobs.dismiss(request.path_params["job"]).info())

    async def results(self, request: Request) -> Response:
        """The result of a job."""
        job = self._service.jobs.find(request.path_params["job"])
        return self._answer(result_of(job), job.order, Held(), job.as_document)

    async def _finished(
        self, order: Order, request: Request, place: contextlib.ExitStack, as_document: bool
    ) -> Response:
        """Wait for the result of an order. The place in the queue and the files of the order go with the answer."""
        with contextlib.ExitStack() as files:
            files.callback(order.release)
            result = await self._service.result_of(order, request)
            return self._answer(result, order, Held(place.pop_all(), files.pop_all()), as_document)

    def _answer(self, result: Result, order: Order, held: Held, as_document: bool) -> Response:
        if as_document:
            return DocumentAnswer(result, held)
        return FileAnswer(result, notes_of(result, order.source, self._service.predictor.path), held)


class Watched:
    """Answers what nobody else answers, counts every request, and writes a line of the log for it.

    Args:
        app: the application.
        service: counts and logs.
        known: the addresses of the service.
    """

    def __init__(self, app: ASGIApp, service: Service, known: frozenset[str]) -> None:
        self._app, self._service, self._known = app, service, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 0, 0

        async def counting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except ClientDisconnect:
            status = _GONE
        except asyncio.CancelledError:
            if status == 0:  # the grace time is over
                await Problem(503, "The service ends. Send the image again later.").response()(scope, receive, counting)
        except Exception as error:  # noqa: BLE001 - one request must not end the service
            self._service.log_error(error)
            if status == 0:
                await internal_problem().response()(scope, receive, counting)
        finally:
            self._note(scope, status or _GONE, sent, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"]
        self._service.metrics.count_request(method, route if route in self._known else "other", status, seconds)
        if scope["path"] in _QUIET and status == 200:
            return
        client = scope["client"][0] if scope.get("client") else "-"
        path = shortened(visible(scope["path"]), 200)
        self._service.log(
            f"{client} {shortened(method, 20)} {path}: {status}, {1e3 * seconds:,.0f} ms, {sent / 1e3:,.1f} kB"
        )


def _routes(table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]) -> list[Route]:
    """Return one route for each address, so that a wrong method is told all that are right."""
    methods: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for method, path, endpoint in table:
        methods.setdefault(path, {})[method] = endpoint

    def choose(found: dict[str, Callable[[Request], Awaitable[Response]]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if request.method in ("POST", "DELETE"):
                check_origin(request.headers)
            return await found["GET" if request.method == "HEAD" else request.method](request)

        return answer

    return [Route(path, choose(found), methods=list(found)) for path, found in methods.items()]


@contextlib.asynccontextmanager
async def _clearing(service: Service) -> AsyncIterator[None]:
    """Delete old jobs once a minute, for as long as the service runs."""

    async def clear() -> None:
        while True:
            await asyncio.sleep(_CLEAR_SECONDS)
            service.jobs.clear_old()

    clearing = asyncio.create_task(clear())
    try:
        yield
    finally:
        clearing.cancel()


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response()


async def _internal(request: Request, error: Exception) -> Response:
    """Answer what nobody expected. `Watched` writes it to the log."""
    return internal_problem().response()


async def _disk_full(request: Request, error: Exception) -> Response:
    return Problem(503, "The disk of the service is full. Send the image again later.").response()


async def _http_problem(request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return Problem(404, "There is no such address. / lists all of them.").response()
    allowed = (error.headers or {}).get("Allow", "")
    return Problem(
        error.status_code, f"This address takes {allowed or 'another method'}.", headers=dict(error.headers or {})
    ).response()
