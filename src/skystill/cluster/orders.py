"""What the command leaves in the output folder for its workers, and how a worker reads it.

Workers and command meet in the output folder, which all of them see. The message of a task is therefore small: it names
the folder, the number of the run, and what to do.

The number of the run is a fence, too. A worker whose command was killed works on until its task ends. It looks at the
number while it works, and stops if another command has begun since, or if its own has ended.
"""

import contextlib
import hashlib
import math
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from skystill.cluster.connection import Versions, check_worker
from skystill.errors import ClusterError, RunFolderError
from skystill.model.external import model_digest, model_files
from skystill.parsing import read_json
from skystill.progress import Event
from skystill.run_folder import naming_failed_writes, write_json, written_whole
from skystill.settings import PredictSettings, build_settings

_RUN, _SEEN = "run.json", "seen-by"
_PATIENCE_SECONDS = 10.0
"""How long a worker waits for a file of the command: disks of the network show new files late."""
_LOOK_SECONDS = 1.0


class Stale(Exception):
    """The command of a task has ended, or another has begun."""


@dataclass(frozen=True)
class Order:
    """What all tasks of a run have in common.

    Args:
        settings: settings of the prediction. Their inputs are not used.
        model: the model file, as the command names it.
        model_sha256: its digest, as `model_digest` gives it.
        copy: a copy of it in the folder of the archive, for workers that do not see the other. There is none of a model
            whose weights lie in other files.
    """

    settings: PredictSettings
    model: Path
    model_sha256: str
    copy: Path


def write_order(folder: Path, settings: PredictSettings, model: Path, versions: Versions) -> str:
    """Write what the tasks of a run need, and return the number of the run.

    Args:
        folder: result of `archive_folder`.
        settings: settings of the prediction.
        model: the model file.
        versions: what every worker must have.

    Raises:
        DiskFull: the folder cannot be written.
    """
    token = secrets.token_hex(8)
    digest = model_digest(model)
    copy = folder / f"model-{digest[:16]}{model.suffix}"
    alone = len(model_files(model)) == 1  # a copy without the weights beside it would be worth nothing
    if alone and not (copy.is_file() and model_digest(copy) == digest):
        with written_whole(copy) as part:
            shutil.copyfile(model, part)
    values = settings.to_config() | {"inputs": ["-"], "model": None, "dask": None, "workers": None, "dask_config": None}
    if settings.classes is not None and Path(settings.classes).is_file():
        classes = folder / f"classes{Path(settings.classes).suffix}"
        with naming_failed_writes(classes):
            shutil.copyfile(settings.classes, classes)
        values["classes"] = str(classes.absolute())
    values["out"] = str(settings.out.absolute())
    order = {"token": token, "versions": dict(versions), "settings": values}
    order |= {"model": str(model.absolute()), "model_sha256": digest, "copy": str(copy.absolute())}
    write_json(folder / _RUN, order)
    return token


def end_run(folder: Path) -> None:
    """Tell workers that the run has ended."""
    with contextlib.suppress(OSError):
        (folder / _RUN).unlink(missing_ok=True)


class Fence:
    """Stops the work of a task whose run has ended, or after which another has begun. It looks once a second.

    Args:
        folder: the folder of the archive.
        token: number of the run.

    Raises:
        Stale: the run has ended. Calls raise it, too.
    """

    def __init__(self, folder: str, token: str) -> None:
        self._folder, self._token, self._looked = Path(folder), token, -math.inf
        self()

    def __call__(self, event: Event | None = None) -> None:
        """Look whether the run goes on. It is a callback for progress, too."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if _current(self._folder).get("token") != self._token:
                raise Stale


@lru_cache(maxsize=2)
def read_order(folder: Path, token: str) -> Order:
    """Read what the tasks of a run need, once in each worker.

    Raises:
        ClusterError: this worker has other versions, or does not see the folder.
        Stale: the run has ended.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while _current(folder).get("token") != token and time.monotonic() < until:
        time.sleep(0.5)
    found = _current(folder)
    if not folder.is_dir():
        raise ClusterError(unshared(socket.gethostname(), folder.parent))
    if found.get("token") != token:
        raise Stale
    check_worker(found["versions"])
    settings = build_settings(PredictSettings, found["settings"])
    return Order(settings, Path(found["model"]), found["model_sha256"], Path(found["copy"]))


def unshared(host: str, path: Path) -> str:
    """Return the message about a worker that does not see the output.

    Args:
        host: the machine of the worker.
        path: the folder of the output.
    """
    return (
        f"the worker on {host} does not see {path}, into which the results go, or not what this command writes there. "
        "All workers and this command need the output on one disk that they share, under the same path: choose such "
        "an --out, or, if it is a bucket, run the command in such a folder. What is done is kept."
    )


def model_of(order: Order) -> Path:
    """Return a model file with the digest of the order: the one of the command if this worker sees it, or the copy.

    Raises:
        ClusterError: neither has this digest.
    """
    for path in (order.model, order.copy):
        with contextlib.suppress(OSError):
            if model_digest(path) == order.model_sha256:
                return path
    raise ClusterError(
        f"the worker on {socket.gethostname()} finds no model file with SHA-256 {order.model_sha256[:16]}...: neither "
        f"{order.model} nor {order.copy}. Do not change the model file while the command runs. A model whose weights "
        "lie in other files is not copied: write it in one file, or to a folder that all workers see."
    )


def leave_sign(folder: Path, token: str, worker: str) -> None:
    """Write a file that says that a worker can write into the folder."""
    name = hashlib.sha256(worker.encode()).hexdigest()[:16]
    write_json(folder / f"{_SEEN}-{name}.json", {"token": token, "worker": worker})


def take_signs(folder: Path, token: str) -> set[str]:
    """Return the workers whose files are there, and remove the files."""
    found = set()
    for path in folder.glob(f"{_SEEN}-*.json"):
        with contextlib.suppress(RunFolderError, OSError):
            content = read_json(path, RunFolderError)
            path.unlink()
            if isinstance(content, dict) and content.get("token") == token:
                found.add(str(content.get("worker")))
    return found


def _current(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / _RUN, RunFolderError) if (folder / _RUN).exists() else {}
    except RunFolderError:
        return {}
    return found if isinstance(found, dict) else {}
