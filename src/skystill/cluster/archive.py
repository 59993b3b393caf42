"""`skystill predict` on a cluster: an archive of many rasters, which goes on where it was however it was stopped."""

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from skystill import __version__
from skystill.cluster.connection import RUNTIME, Connection, open_connection, run_everywhere
from skystill.cluster.dispatch import Dispatch, absolute
from skystill.cluster.earlier import check_apart, earlier_results
from skystill.cluster.manifest import Manifest
from skystill.cluster.orders import end_run, take_signs, unshared, write_order
from skystill.cluster.tasks import Crashed, Ended, Fatal, file_state, look_around, source_state
from skystill.errors import ClusterError, DataError, InputsFailed, PredictionStopped, RunFolderError, first_few
from skystill.locks import hold_lock
from skystill.predict.ahead import Ahead, check_inputs, cost_of, count_pixels
from skystill.predict.archive_folder import LOCK, MANIFEST, archive_folder
from skystill.predict.batch import PredictedInput, check_packages, files_beside, open_predictor
from skystill.predict.further import square_labels
from skystill.predict.inputs import check_targets, find_inputs, name_targets
from skystill.predict.predictor import Predictor
from skystill.predict.stac_results import StacItems, item_of, stac_files
from skystill.progress import Message, OnProgress, ignore_progress, phase, report_notes
from skystill.raster.scratch import clear_scratch
from skystill.run_folder import naming_failed_writes
from skystill.settings import PredictSettings

_SIGN_SECONDS = 60.0  # disks of the network show new files late
_WAIT_SECONDS = 30.0
_MOST_PROBLEMS = 1000
_NOT_RESULT = {"inputs", "asset", "model", "out", "recursive", "threads", "runtime", "max_memory", "dask", "workers"}
_NOT_RESULT |= {"dask_config", "stac"}


Connect = Callable[[PredictSettings, OnProgress, Sequence[str]], AbstractContextManager[Connection]]
"""Opens the connection to the cluster of some settings, as `open_connection` does."""


class ArchiveStopped(PredictionStopped):
    """An archive that Ctrl-C stopped. What is done is kept."""

    def __init__(self, out: Path) -> None:
        Exception.__init__(self, f"stopped; what is done is kept. The same command goes on ({out}).")


def predict_archive(
    settings: PredictSettings,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    connect: Connect = open_connection,
) -> Iterator[PredictedInput]:
    """Predict every input on the workers of a cluster. What was done by an earlier call is not done again.

    Results are those of `predict_inputs`, to the byte.

    Args:
        settings: settings of the command, which name a cluster.
        resume: makes no difference: every call goes on.
        on_progress: called with a `Progress` in pixels of all inputs, and with notes and messages.
        connect: opens the connection to the cluster.

    Yields:
        each input when it is finished. An input that an earlier call finished is not yielded.

    Raises:
        UserError: as `predict_inputs`. A bad input is tried three times, and the others are done. A file that belongs
            to the result of an earlier command is not overwritten, either.
        InUse: another command works on this output.
        RunFolderError: the output was begun with other settings, or inputs have changed since their results were made.
        ClusterError: the cluster cannot be used, or was lost. What is done is kept.
        ArchiveStopped: the user pressed Ctrl-C. What is done is kept.
    """
    check_packages(settings)
    clear_scratch()
    predictor = open_predictor(settings)
    found = find_inputs(settings)
    targets = name_targets(found.sources, settings)
    check_targets(targets, settings, predictor, stac_files(targets, settings))
    square_labels(settings, predictor.classes)  # it may name a class that there is not
    report_notes((*predictor.notes, *found.notes), on_progress)
    folder = archive_folder(settings.out)
    with naming_failed_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        hold_lock(folder / LOCK, str(settings.out), on_progress),
        contextlib.closing(Manifest(folder / MANIFEST)) as manifest,
    ):
        runtime = _begin(manifest, settings, predictor)
        beside = functools.partial(files_beside, predictor=predictor, settings=settings)
        check_apart(manifest, targets, _ends(beside, settings))
        manifest.add_inputs(absolute(targets))
        _compare_with_disk(manifest, beside, on_progress)
        total, described = len(targets), (targets, found.dates) if settings.stac else ([], {})
        del targets, found
        if manifest.inputs("waiting", most=1):
            with connect(settings, on_progress, _needs(settings, runtime)) as connection:
                ordered = settings.model_copy(update={"runtime": runtime})
                token = write_order(folder, ordered, predictor.path, connection.versions)
                yield from _run(connection, manifest, (folder.absolute(), token), settings.out, on_progress)
        _write_items(manifest, described, settings, predictor, on_progress)
        _raise_failed(manifest, total, settings.out)


def count_archive(settings: PredictSettings, on_progress: OnProgress = ignore_progress) -> Ahead:
    """Count the inputs, and measure one window of the largest on a worker. Nothing is predicted.

    Args:
        settings: settings of the command, which name a cluster.
        on_progress: receives a `Progress` while inputs are counted.

    Raises:
        UserError: the command would be refused, or no input can be opened.
    """
    from skystill.cluster import tasks

    check_packages(settings)
    predictor = open_predictor(settings)
    sources = check_inputs(predictor, settings, on_progress)
    sizes = count_pixels(sources, on_progress)
    sample = _absolute(sizes.sample)
    with (
        _folder_for_a_time(settings, on_progress) as folder,
        open_connection(settings, on_progress, _needs(settings, predictor.runtime)) as connection,
    ):
        ordered = settings.model_copy(update={"runtime": predictor.runtime})
        token = write_order(folder, ordered, predictor.path, connection.versions)
        try:
            _wait_for_worker(connection, on_progress)
            _look_around(connection, folder, token, sample if Path(sample).exists() else None)
            run = connection.client.submit(tasks.measure_rate, str(folder), token, sample, pure=False)
            measured = _answer(run.result())
        finally:
            end_run(folder)
    return cost_of(len(sources), sizes, measured)


def _write_items(
    manifest: Manifest,
    described: tuple[Sequence[tuple[str, Path]], Mapping[str, datetime]],
    settings: PredictSettings,
    predictor: Predictor,
    on_progress: OnProgress,
) -> None:
    """Write the STAC items of what is done, and the collection, which also lists those of earlier commands.

    Args:
        manifest: what is done.
        described: the inputs with their targets, and when they were taken.
        settings: settings of the command.
        predictor: the model.
        on_progress: receives a `Progress` while earlier items are read.
    """
    targets, dates = described
    if not targets:
        return
    items = StacItems(settings, predictor.classes, dates)
    with phase("reading earlier STAC items", on_progress, leaves_line=None):
        for _, target in earlier_results(manifest, targets):
            items.keep(target)
    done = {target for _, _, target, _, _ in manifest.states()}
    for source, target in targets:
        if str(target.absolute()) in done:
            items.add(source, target)
    items.finish()


@contextlib.contextmanager
def _folder_for_a_time(settings: PredictSettings, on_progress: OnProgress) -> Iterator[Path]:
    """Yield the folder of an archive, which is removed again if it was not there."""
    folder = archive_folder(settings.out).absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with naming_failed_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder / LOCK, str(settings.out), on_progress):
            yield folder
    finally:
        if folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        for path in made[1:]:
            with contextlib.suppress(OSError):
                path.rmdir()


def _needs(settings: PredictSettings, runtime: str) -> tuple[str, ...]:
    """Return the packages that workers need in the version of this process."""
    polygons = {None: (), "geojson": ("shapely",), "gpkg": ("pyogrio", "shapely")}
    return (*RUNTIME, *(["openvino"] if runtime == "openvino" else []), *polygons[settings.vector])


def _begin(manifest: Manifest, settings: PredictSettings, predictor: Predictor) -> str:
    """Compare the settings with those that the output was begun with. Returns the runtime to use.

    Raises:
        RunFolderError: they differ.
    """
    values = {name: value for name, value in settings.to_config().items() if name not in _NOT_RESULT}
    now: dict[str, Any] = {**values, "model": predictor.digest, "version": __version__, "runtime": predictor.runtime}
    known = predictor.classes  # and not the name of their file
    now["classes"] = [[name, *color] for name, color in zip(known.names, known.colors, strict=True)]
    before = manifest.about().get("settings")
    if before is not None and settings.runtime == "auto":
        now["runtime"] = before.get("runtime", predictor.runtime)
    changed = [name for name in now if before is not None and before.get(name) != now[name]]
    if changed:
        raise RunFolderError(
            f"{settings.out} was begun with other settings ({', '.join(changed)}). Use the same ones, choose another "
            f"--out, or delete {manifest.path.parent} to begin again: results that are there are then written anew."
        )
    manifest.tell(settings=now)
    return str(now["runtime"])


def _ends(beside: Callable[[Path], Sequence[Path]], settings: PredictSettings) -> list[str]:
    """Return what follows the stem of a class raster in the names of the files that this command writes beside it."""
    target = Path("a.tif")
    items = [item_of(target)] if settings.stac else []
    return [path.name.removeprefix(target.stem) for path in (*beside(target), *items)]


def _compare_with_disk(manifest: Manifest, beside: Callable[[Path], Sequence[Path]], on_progress: OnProgress) -> None:
    """Compare results and sources of the inputs that are named with what the manifest says of them.

    A result that has gone or changed is made again, as is one without a file that belongs to it. What is not done is
    tried again.

    Args:
        manifest: what was done.
        beside: returns the files that belong to a class raster.
        on_progress: receives a `Message`.

    Raises:
        RunFolderError: sources have changed since their results were made.
    """
    changed, gone, done = [], 0, 0
    for number, source, target, state_then, target_state in manifest.states():
        if file_state(target) != target_state or not all(path.exists() for path in beside(Path(target))):
            manifest.forget_result(number)
            gone += 1
        elif state_then != source_state(source):
            changed.append(source)
        else:
            done += 1
    if changed:
        raise RunFolderError(
            f"{len(changed):,} inputs have changed since their results were made: {', '.join(first_few(changed))}. "
            "Delete those results, so that they are predicted again, or choose another --out."
        )
    manifest.try_again()
    manifest.commit()
    if done or gone:
        again = f"; {gone:,} results have gone or changed, and are made again" if gone else ""
        goes_on = "it goes on with the others" if manifest.inputs("waiting", most=1) else "these are all"
        on_progress(Message(f"{done:,} inputs are done already{again}; {goes_on}."))


def _run(
    connection: Connection, manifest: Manifest, run: tuple[Path, str], out: Path, on_progress: OnProgress
) -> Iterator[PredictedInput]:
    """Do all that is left."""
    folder, token = run
    first = manifest.inputs("waiting", most=1)[0][1]
    dispatch = Dispatch(connection, manifest, run, on_progress)
    manifest.tell(state="running", began=time.time(), dashboard=connection.dashboard, updated=time.time(), windows=0)
    manifest.commit()
    state = "stopped"
    try:
        _wait_for_worker(connection, on_progress)
        _look_around(connection, folder, token, first if Path(first).exists() else None)
        for found in dispatch.results():
            yield _as_given(found, out)
        state = "ended"
    except KeyboardInterrupt as error:
        raise ArchiveStopped(out) from error
    finally:
        end_run(folder)
        dispatch.cancel()
        manifest.tell(state=state, updated=time.time())


def _wait_for_worker(connection: Connection, on_progress: OnProgress) -> None:
    """Wait for the first worker. A cluster that adapts itself starts workers only when there is a task."""
    knock = connection.client.submit(os.getpid, pure=False)
    told = time.monotonic()
    while not knock.done():
        if connection.is_lost:
            raise connection.lost()
        if time.monotonic() - told > _WAIT_SECONDS:
            told = time.monotonic()
            on_progress(connection.waits())
        time.sleep(0.1)


def _look_around(connection: Connection, folder: Path, token: str, source: str | None) -> None:
    """Check that all workers see the output and the first input, and that this command sees what they write.

    Raises:
        ClusterError: they do not.
    """
    found = run_everywhere(connection.client, look_around, str(folder), token, source)
    answers = {name: answer for name, answer in found.items() if not isinstance(answer, Exception)}
    for answer in answers.values():
        if isinstance(answer, Ended):
            raise ClusterError(unshared(answer.host, folder.parent))
        _answer(answer)
    until, missing = time.monotonic() + _SIGN_SECONDS, set(answers)
    while missing:
        missing -= take_signs(folder, token)
        if missing and time.monotonic() > until:
            raise ClusterError(
                f"this command does not see what the worker {min(missing)} writes into {folder.parent}. All workers "
                "and this command need the output on one disk that they share, under the same path. Nothing was "
                "predicted; choose another --out."
            )
        time.sleep(0.1 if missing else 0.0)


def _answer(found: Any) -> Any:  # noqa: ANN401 - what a worker answers
    if isinstance(found, Fatal):
        raise ClusterError(found.text)
    if isinstance(found, Crashed):
        raise RuntimeError(found.text)
    return found


def _as_given(found: PredictedInput, out: Path) -> PredictedInput:
    """Return a result with paths as the user gave --out."""
    if out.is_absolute():
        return found
    path = Path(os.path.relpath(found.prediction.path))
    beside = tuple(Path(os.path.relpath(one)) for one in found.beside)
    return replace(found, prediction=replace(found.prediction, path=path), beside=beside)


def _absolute(source: str) -> str:
    return next(absolute([(source, Path())]))[0]


def _raise_failed(manifest: Manifest, total: int, out: Path) -> None:
    """Raise one error about all inputs that failed, or whose source is damaged."""
    found = manifest.failed(_MOST_PROBLEMS, named=True)
    if not found:
        return
    problems = [text for _, text, _ in found]
    if any(ours for _, _, ours in found):
        raise InputsFailed(total, problems)
    if len(found) == 1:
        raise DataError(problems[0])
    count = manifest.failed_count(named=True)
    raise DataError(
        f"{count:,} of {total:,} inputs had problems:", problems,
        f"All others are done. skystill status {out} shows them; the same command tries those that failed again.",
    )  # fmt: skip
