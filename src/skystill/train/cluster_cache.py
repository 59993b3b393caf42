"""`skystill cache` on a cluster: its workers run the teacher, and write the same files as one process would."""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skystill.cluster.connection import Connection, open_connection
from skystill.cluster.stream import WorkersKilled, count_workers, stream, threads_of_workers
from skystill.data.unlabeled import ImageWindow
from skystill.errors import ClusterError, DataError, shortened
from skystill.progress import Note, OnProgress, Progress
from skystill.run_folder import write_text
from skystill.settings import CacheSettings
from skystill.train.teachers.cache_tasks import CacheOrder, Failed, Fatal, compare_mirrored, fill_some, look_around
from skystill.train.teachers.loaders.loader import Origin
from skystill.train.teachers.logit_cache import LogitCache
from skystill.train.teachers.origins import Teachers, files_digest

_MOST_IMAGES = 8  # of one task
_SAMPLES = 5
_KILLED = "the workers that had it were lost one after the other, such as out of memory. See their logs."
_NEEDS = ("torch", "lightning_fabric", "safetensors")


def fill_on_cluster(
    settings: CacheSettings,
    caches: Sequence[LogitCache],
    teachers: Teachers,
    images: Sequence[ImageWindow],
    on_progress: OnProgress,
) -> list[str]:
    """Fill the cache of each teacher on the workers of a cluster. Files that are there stay.

    Args:
        settings: settings of the command, which name a cluster.
        caches: the cache of each teacher.
        teachers: the teachers.
        images: the images of this command's share.
        on_progress: receives a `Progress` for each task, in images.

    Returns:
        notes for the user.

    Raises:
        ClusterError: the cluster is lost, or a worker cannot be used. What is done is kept.
        DataError: some images have no logits; the others have.
    """
    part, parts = (int(number) for number in settings.share.split("/"))
    teachers = replace(teachers, origins=tuple(map(_absolute, teachers.origins)))
    windows = [replace(window, path=window.path.absolute()) for window in images]
    notes, problems = [], dict[str, None]()
    with open_connection(settings, on_progress, _NEEDS) as connection:
        _compare_threads(connection, on_progress)
        for index, cache in enumerate(caches):
            cache = replace(cache, folder=cache.folder.absolute())
            sign = cache.own_folder / f".cluster-{part}-of-{parts}"
            with (
                cache.held(part, parts, on_progress),
                _ordered(cache, teachers, index, windows, connection, sign) as order,
            ):
                problems |= dict.fromkeys(_fill(connection, order, windows, on_progress))
                if not cache.symmetric and not problems:
                    agrees = _agreement(connection, order, windows[0], on_progress)
                    notes.append(
                        f"mirrored cache and teacher agree on {100 * agrees:.1f} % of the pixels of {images[0].name}"
                    )
    if problems:
        raise DataError(
            f"{caches[0].folder}: {len(problems)} of {len(caches) * len(windows)} image(s) have no logits:",
            list(problems),
            "The others are done. Mend these or take them out, and run the same command again: it goes on.",
        )
    return notes


def _compare_threads(connection: Connection, on_progress: OnProgress) -> None:
    """Give a note if workers have other threads than this process: how torch adds up depends on their number."""
    here = torch.get_num_threads()
    if others := ", ".join(map(str, sorted(threads_of_workers(connection) - {here}))):
        on_progress(
            Note(
                f"workers have {others} thread(s), and this process {here}: the logits are those of one process but "
                "for their last digits. OMP_NUM_THREADS gives one process another number."
            )
        )


def _absolute(origin: Origin) -> Origin:
    """Return a teacher whose files are named as workers understand them, whose current folder is another."""
    target = str(origin.path.absolute()) if origin.path.exists() else origin.target
    options = dict(origin.options)
    if "weights" in options and origin.weights.exists():
        options["weights"] = str(origin.weights.absolute())
    return replace(origin, target=target, options=options)


@contextmanager
def _ordered(
    cache: LogitCache,
    teachers: Teachers,
    index: int,
    windows: Sequence[ImageWindow],
    connection: Connection,
    sign: Path,
) -> Iterator[CacheOrder]:
    """Yield what the tasks of a teacher have in common. A file in the cache tells workers whether they see it.

    It takes the place of the one that a command left that was killed. Those of other parts of the cache are in use.
    """
    token = secrets.token_hex(16)
    samples = tuple(dict.fromkeys(window.path for window in windows))[:_SAMPLES]
    digest = files_digest(teachers.origins[index])
    write_text(sign, token)
    try:
        yield CacheOrder(cache, teachers, index, digest, connection.versions, sign, token, samples)
    finally:
        sign.unlink(missing_ok=True)


def _fill(
    connection: Connection, order: CacheOrder, windows: Sequence[ImageWindow], on_progress: OnProgress
) -> list[str]:
    """Fill the cache of one teacher, and return why some images could not be done."""
    for found in connection.client.run(look_around, order, on_error="return").values():
        _checked(found)
    done, problems = 0, list[str]()
    each = max(1, min(_MOST_IMAGES, len(windows) // (4 * max(1, count_workers(connection)))))
    pieces = (tuple(windows[first : first + each]) for first in range(0, len(windows), each))
    waiting = deque((order, piece) for piece in pieces)
    on_progress(Progress("teacher", 0, len(windows), leaves_line=True))
    for (_, piece), found in stream(connection, fill_some, waiting, on_progress):
        if isinstance(found, Failed | WorkersKilled):
            if len(piece) > 1:  # it is not known which of them it was: each goes alone
                waiting.extend((order, (window,)) for window in piece)
                continue
            problems.append(f"{piece[0].name}: {found.text if isinstance(found, Failed) else _KILLED}")
        else:
            problems.extend(_checked(found).problems)
        done += len(piece)
        on_progress(Progress("teacher", done, len(windows), leaves_line=True))
    return problems


def _checked(found: Any) -> Any:  # noqa: ANN401 - what a task returned
    """Return the record of a task.

    Raises:
        ClusterError: the worker cannot be used, or nothing can go on.
    """
    if isinstance(found, Fatal):
        raise ClusterError(found.text)
    if isinstance(found, Failed):
        raise ClusterError(found.text)
    if isinstance(found, BaseException):
        raise ClusterError(
            f"a worker cannot run the tasks of skystill ({type(found).__name__}: {shortened(found)}). Install skystill "
            "there, in the same version, with the extras train and cluster."
        )
    return found


def _agreement(connection: Connection, order: CacheOrder, window: ImageWindow, on_progress: OnProgress) -> float:
    """Let a worker compare the cache of an image with the teacher on the mirrored image."""
    ((_, found),) = stream(connection, compare_mirrored, deque([(order, window)]), on_progress)
    return float(_checked(found))
