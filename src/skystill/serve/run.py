"""`skystill serve` from beginning to end."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from skystill.allocator import return_large_arrays, use_one_heap
from skystill.errors import DiskFull, SettingsError
from skystill.model.bundled import bundled_model
from skystill.predict.batch import open_predictor
from skystill.progress import Message, Note, OnProgress, ignore_progress, report_notes
from skystill.raster.scratch import clear_scratch, scratch_folder
from skystill.serve.app import make_app
from skystill.serve.connections import Impatient, Server
from skystill.serve.service import Service
from skystill.settings import PredictSettings, ServeSettings

_BACKLOG = 1024
_LAST_SECONDS = 5.0
"""Seconds that a step of a prediction has after the grace time. `docker stop -t 30` allows ten."""


def run_service(settings: ServeSettings, on_progress: OnProgress = ignore_progress) -> bool:
    """Serve until SIGTERM or Ctrl-C. If a step of a prediction does not end then, the process is ended with it.

    Args:
        settings: settings of the command.
        on_progress: receives a `Message` for each line of the log, and a `Note` about the model.

    Returns:
        whether it was ended by Ctrl-C.

    Raises:
        SettingsError: the address cannot be listened on, or the model cannot be used with the settings.
        ModelFileError, ClassesError: the model or its classes cannot be opened.
        DiskFull: the folder for temporary files cannot be written.
    """
    use_one_heap()
    return_large_arrays()
    with _listening(settings) as listener:
        predict = PredictSettings(
            inputs=["-"], model=settings.model, classes=settings.classes, input=settings.input, bands=settings.bands,
            threads=settings.threads, runtime=settings.runtime,
        )  # fmt: skip
        if settings.model is None:
            on_progress(Note("the bundled student (classes of Dubai) is served. Your own: skystill serve MODEL."))
        predictor = open_predictor(predict)
        predictor.single_threaded()  # opened now, and not by the first large image
        report_notes(predictor.notes, on_progress)
        clear_scratch()
        with _scratch() as folder:
            service = Service(predictor, settings, folder, on_progress)
            server = Server(_config(settings, service), service.close)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            on_progress(Message(f"serving {settings.model or bundled_model().name} on http://{shown}:{port}"))
            asyncio.run(server.serve([listener]))
            has_ended = service.join(_LAST_SECONDS)
    on_progress(Message("stopped" if has_ended else "stopped, in the middle of a step of a prediction"))
    if not has_ended:
        _end_process(130 if server.was_interrupted else 0)
    return server.was_interrupted


def _end_process(code: int) -> None:
    """End the process at once. Python itself would wait for the threads that are still at work."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _config(settings: ServeSettings, service: Service) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)  # the service has a log of its own
    return uvicorn.Config(
        make_app(service), http=Impatient, ws="none", lifespan="on", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
    )  # fmt: skip


@contextlib.contextmanager
def _listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """Yield a socket that listens on the address. Who connects waits until the server runs.

    A bound socket alone does not have the address: another service may bind the same one until one of them listens.

    Raises:
        SettingsError: it cannot have the address.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"--host {settings.host} is no address of this computer ({error}). Leave it out."
        ) from error
    with contextlib.closing(listener):
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise SettingsError(
                f"--host {settings.host} --port {settings.port} cannot be listened on: {error.strerror}. End the "
                "program that uses the port, or choose another --port."
            ) from error
        yield listener


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a folder for images and results.

    Raises:
        DiskFull: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder())
        except OSError as error:
            raise DiskFull(Path("temporary files"), error, scratch=True) from error
        yield folder
