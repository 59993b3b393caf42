"""Errors of the service, as problem details (RFC 9457): what happened, what was expected, and how to mend it."""

import re
import tempfile
from pathlib import Path

from starlette.responses import JSONResponse

from skystill.errors import (
    AnswersNotFinite,
    DiskFull,
    ModelFileError,
    NotEnoughMemory,
    SkystillError,
    UserError,
    shortened,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
_OGC = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"
NO_SUCH_PROCESS, NO_SUCH_JOB = f"{_OGC}no-such-process", f"{_OGC}no-such-job"
RESULT_NOT_READY = f"{_OGC}result-not-ready"
TITLES = {
    400: "The request cannot be understood",
    403: "Not for pages of other sites",
    404: "Not found",
    405: "Method not allowed",
    406: "No such result",
    408: "The request came too slowly",
    413: "The image is too large",
    415: "Not an image that is taken",
    416: "No such part of the result",
    422: "The image cannot be predicted",
    500: "Internal error",
    503: "The service is busy",
}
"""Title of the problems of each status."""
_MOST_LETTERS = 2_000


class Problem(UserError):
    """A request that is refused.

    Args:
        status: status of the answer.
        detail: what happened, what was expected, and how to mend it.
        kind: URI of the kind of problem.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, detail: str, kind: str = "about:blank", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.kind = status, shortened(detail, _MOST_LETTERS), kind
        self.headers = dict(headers or {})
        if status == 503:
            self.headers.setdefault("Retry-After", str(RETRY_SECONDS))

    def content(self) -> dict[str, object]:
        """Return the problem as JSON."""
        title = TITLES.get(self.status, "The request failed")
        return {"type": self.kind, "title": title, "status": self.status, "detail": self.detail}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.content(), self.status, self.headers, MEDIA_TYPE)


def internal_problem() -> Problem:
    """Return the problem for an error that nobody expected. What it was stands in the log, and only there."""
    return Problem(500, "An error of the service, not of the request. Its log says what happened.")


def problem_of(error: SkystillError, source: Path, model: Path) -> Problem:
    """Return the problem for an error of a prediction, without names of files of the service.

    Args:
        error: the error.
        source: the image of the request.
        model: the model file.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, ModelFileError | AnswersNotFinite):
        return Problem(500, "The model of this service failed on the image. The log of the service says why.")
    if isinstance(error, NotEnoughMemory | DiskFull):
        what = "memory" if isinstance(error, NotEnoughMemory) else "room on its disk"
        return Problem(
            503, f"The service has not enough {what} at the moment. Send the image again later, or a smaller one."
        )
    if isinstance(error, UserError):
        return Problem(422, plain(str(error), source, model))
    return internal_problem()


def plain(text: str, source: Path, model: Path) -> str:
    """Return a message of the command line for a client: parameters for options, and no names of files.

    Args:
        text: the message.
        source: the image of the request.
        model: the model file.
    """
    text = text.replace(str(source), "the image").replace(source.name, "the image")
    text = re.sub(rf"{re.escape(str(source.parent))}/out/[^\s:;,()]+", "the result", text)
    text = text.replace("--vector gpkg", "f=tif")  # where GeoJSON cannot be written
    text = text.replace(str(model), "the model")
    folders = {str(source.parent), tempfile.gettempdir()}
    for folder in sorted(folders, key=len, reverse=True):
        text = re.sub(rf"{re.escape(folder)}[^\s:;,()]*", "a file of the service", text)
    return re.sub(r"--([a-z][a-z-]*[a-z])", lambda found: found[1].replace("-", "_"), text)
