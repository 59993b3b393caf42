"""Jobs: predictions that are asked for now and fetched later. They are kept in memory, their files in a folder; both
end with the service.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from skystill.errors import SkystillError
from skystill.predict.predictor import Predictor
from skystill.serve.orders import Cancelled, Order, Result, carry_out
from skystill.serve.problems import NO_SUCH_JOB, RESULT_NOT_READY, Problem, internal_problem, plain, problem_of

Status = Literal["accepted", "running", "successful", "failed", "dismissed"]
STATUSES: tuple[Status, ...] = ("accepted", "running", "successful", "failed")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass
class Job:
    """One job.

    Args:
        order: its image.
        as_document: whether its result is asked for inside a JSON document.
    """

    order: Order
    as_document: bool
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    status: Status = "accepted"
    message: str = "The job waits for those before it."
    created: datetime = field(default_factory=_now)
    started: datetime | None = None
    finished: datetime | None = None
    result: Result | None = None
    problem: Problem | None = None

    @property
    def is_open(self) -> bool:
        """Whether the job waits or runs."""
        return self.status in ("accepted", "running")

    def info(self) -> dict[str, object]:
        """Return the status of the job, as OGC API - Processes writes it."""
        place = f"/jobs/{self.id}"
        links = [{"href": place, "rel": "self", "type": "application/json", "title": "this status"}]
        if self.status == "successful":
            rel = "http://www.opengis.net/def/rel/ogc/1.0/results"
            links.append({"href": f"{place}/results", "rel": rel, "title": "the result"})
        times = {"created": self.created, "started": self.started, "finished": self.finished}
        return {
            "processID": "segment",
            "type": "process",
            "jobID": self.id,
            "status": self.status,
            "message": self.message,
            **{name: _text(time) for name, time in times.items() if time is not None},
            "updated": _text(self.finished or self.started or self.created),
            "progress": 100 if self.status == "successful" else self.order.percent,
            "links": links,
        }


class Jobs:
    """All jobs of a service. One is in work at a time, and the others wait.

    Args:
        predictor: the model.
        most: most jobs that are kept.
        hours: how long a finished job is kept.
        on_error: takes an error of the service, for the log.
        on_pixels: takes the number of pixels of a result.
    """

    def __init__(
        self,
        predictor: Predictor,
        most: int,
        hours: float,
        on_error: Callable[[BaseException], None],
        on_pixels: Callable[[int], None],
    ) -> None:
        self._predictor, self._most, self._age = predictor, most, timedelta(hours=hours)
        self._on_error, self._on_pixels = on_error, on_pixels
        self._lane = ThreadPoolExecutor(1, "job")
        self._jobs: dict[str, Job] = {}

    def all(self) -> list[Job]:
        """Return the jobs, for what is counted. No client gets them: who knows the id of a job may see its result."""
        self.clear_old()
        return list(self._jobs.values())

    def check_room(self) -> None:
        """Check that another job can be taken.

        Raises:
            Problem: all jobs that may be kept wait or run.
        """
        self.clear_old()
        if sum(job.is_open for job in self._jobs.values()) >= self._most:
            raise Problem(503, f"{self._most} jobs wait or run, the most that are taken. Send the image again later.")

    def add(self, order: Order, as_document: bool) -> Job:
        """Take a job. If there are too many, the one that finished first goes.

        Raises:
            Problem: as in `check_room`.
        """
        self.check_room()
        if len(self._jobs) >= self._most:
            done = [job for job in self._jobs.values() if not job.is_open]
            self._remove(min(done, key=lambda job: job.finished or job.created))
        job = Job(order, as_document)
        self._jobs[job.id] = job
        order.work = self._lane.submit(self._carry_out, job)
        return job

    def find(self, name: str) -> Job:
        """Return a job.

        Raises:
            Problem: there is none of this id.
        """
        self.clear_old()
        if name not in self._jobs:
            raise Problem(404, "There is no job of this id: it was dismissed, or it is too old.", NO_SUCH_JOB)
        return self._jobs[name]

    def dismiss(self, name: str) -> Job:
        """End a job, and delete its files.

        Raises:
            Problem: there is none of this id.
        """
        job = self.find(name)
        self._remove(job)
        job.status, job.message = "dismissed", "The job was dismissed, and its files are deleted."
        job.finished = job.finished or _now()
        return job

    def clear_old(self) -> None:
        """Delete the jobs that finished too long ago."""
        for job in [job for job in self._jobs.values() if job.finished and _now() - job.finished > self._age]:
            self._remove(job)

    def close(self) -> None:
        """End all jobs. `join` waits for the one in work."""
        for job in list(self._jobs.values()):
            self._remove(job)

    def join(self) -> None:
        """Wait for the thread."""
        self._lane.shutdown(cancel_futures=True)

    def _remove(self, job: Job) -> None:
        del self._jobs[job.id]
        job.order.release()

    def _carry_out(self, job: Job) -> None:
        """Predict the image of a job. This runs in the thread of the lane."""
        job.started, job.message = _now(), "The image is being predicted."
        job.status = "running"
        order = job.order
        try:
            job.result = carry_out(order, self._predictor)
            self._on_pixels(job.result.pixels)
            job.message, status = (
                " ".join(notes_of(job.result, order.source, self._predictor.path)) or "Done.",
                "successful",
            )
        except Cancelled:
            return
        except SkystillError as error:
            job.problem, status = problem_of(error, order.source, self._predictor.path), "failed"
            if job.problem.status >= 500:
                self._on_error(error)
        except Exception as error:  # noqa: BLE001 - the thread must not end
            job.problem, status = internal_problem(), "failed"
            self._on_error(error)
        if job.problem is not None:
            job.message = job.problem.detail
            order.release()  # nobody fetches the image or parts of a result
        job.finished = _now()
        job.status = "successful" if status == "successful" else "failed"


def result_of(job: Job) -> Result:
    """Return the result of a job.

    Raises:
        Problem: it is not ready, something has deleted its file, or the job failed. Then it is the problem that it
            failed with.
    """
    if job.problem is not None:
        raise job.problem
    if job.result is None:
        raise Problem(404, f"The job is {job.status}; ask for its result when it is successful.", RESULT_NOT_READY)
    if not job.result.path.is_file():
        raise Problem(404, "The result of the job was deleted on the service. Send the image again.", NO_SUCH_JOB)
    return job.result


def notes_of(result: Result, source: Path, model: Path) -> list[str]:
    """Return the notes of a result, without names of files of the service."""
    return [plain(note, source, model) for note in result.notes]


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
