"""`skystill predict --out s3://BUCKET/FOLDER/`: results are made in a local folder, and copied when they are done."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from skystill.errors import DataError, InputsFailed, SettingsError, SkystillError
from skystill.locks import hold_lock
from skystill.predict.batch import Predict, PredictedInput
from skystill.predict.inputs import find_inputs, is_one_file, name_targets, possible_files
from skystill.predict.stac_results import collection_of, item_of
from skystill.progress import Note, OnProgress, tracked
from skystill.raster.beside import category_names_of, style_of
from skystill.raster.buckets import (
    bucket_address,
    check_writable,
    copy_file,
    fixed_part,
    is_bucket,
    vsi_name,
)
from skystill.raster.output import journal_of
from skystill.raster.scratch import empty_folder
from skystill.settings import PredictSettings

_LOCK = "lock"


def local_folder(address: str) -> Path:
    """Return the folder, below the current one, in which results for an address of a bucket are made."""
    return Path(f".skystill-out-{hashlib.sha256(address.encode()).hexdigest()[:16]}")


def with_local_out(settings: PredictSettings) -> PredictSettings:
    """Return settings with a local --out in place of one in a bucket. Others stay as they are."""
    address = bucket_address(settings.out)
    if address is None:
        return settings
    local = local_folder(address)
    return settings.model_copy(update={"out": local / settings.out.name if is_one_file(settings) else local})


def predict_to_bucket(
    settings: PredictSettings, resume: bool, on_progress: OnProgress, predict: Predict
) -> Iterator[PredictedInput]:
    """Predict, and copy each result with the files beside it to a bucket. The class raster is copied last.

    Args:
        settings: settings of the command, whose --out is in a bucket.
        resume: continue predictions that were interrupted. Their unfinished work is in the local folder.
        on_progress: as in `predict_inputs`.
        predict: predicts into local files.

    Yields:
        each input when its result is in the bucket, under its address there.

    Raises:
        DataError: the bucket cannot be written. This is tried before anything is predicted.
        SettingsError: a result could replace an input, or would be one the next time.
        UserError, InputFailed, InputsFailed, PredictionStopped: as `predict`.
    """
    address = bucket_address(settings.out)
    assert address is not None  # noqa: S101 - the caller looks at it
    one_file = is_one_file(settings)
    folder = f"{address.rpartition('/')[0] if one_file else address.rstrip('/')}/"
    _check_outside(settings, address, folder)
    check_writable(folder)
    local = local_folder(address)
    inner = with_local_out(settings)
    with hold_lock(local / _LOCK, address, on_progress):
        found = predict(inner, resume, on_progress)
        if settings.on_cluster and settings.mosaic is None:
            yield from _copied_at_the_end(found, inner, (local, folder), on_progress)
        else:
            for done in found:
                yield _copied(done, local, folder)
        collection = collection_of(inner)
        if settings.stac and collection is not None and collection.exists():
            _copy(collection, local, folder)
        empty_folder(local, but=_LOCK)
    local.rmdir()


def _copied_at_the_end(
    found: Iterator[PredictedInput], inner: PredictSettings, where: tuple[Path, str], on_progress: OnProgress
) -> Iterator[PredictedInput]:
    """Copy all results when a cluster has made them, also those of earlier calls. It knows what is done by its files.

    Args:
        found: the results as they are made.
        inner: the settings, with a local --out.
        where: the local folder, and the address of the other.
        on_progress: receives a `Progress` for each result that is copied.

    Raises:
        DataError, InputsFailed: as `predict`, when the other results are copied. The local ones are kept.
    """
    made: dict[Path, PredictedInput] = {}
    failure: SkystillError | None = None
    try:
        for done in found:
            made[done.prediction.path] = done
    except (DataError, InputsFailed) as error:
        failure = error
    local, folder = where
    targets = name_targets(find_inputs(inner).sources, inner)
    for _, target in tracked(targets, f"copies to {folder}", on_progress):
        if target.exists() and not journal_of(target).exists():  # with a journal, files beside it are missing
            for path in (*_beside(target, possible_files(target)), target):
                _copy(path, local, folder)
            if target in made:
                yield _renamed(made[target], local, folder)
    if failure is not None:
        on_progress(Note(f"{local} is kept, so that the same command tries the others again; or delete it."))
        raise failure


def _copied(done: PredictedInput, local: Path, folder: str) -> PredictedInput:
    """Copy the files of one result, and return it with their addresses. The local files are deleted."""
    target = done.prediction.path
    for path in (*_beside(target, done.beside), target):
        _copy(path, local, folder)
        path.unlink()
    return _renamed(done, local, folder)


def _beside(target: Path, others: Sequence[Path]) -> list[Path]:
    """Return the files beside a result that are there, each of them once."""
    beside = dict.fromkeys((*others, category_names_of(target), style_of(target), item_of(target)))
    return [path for path in beside if path.exists()]


def _renamed(done: PredictedInput, local: Path, folder: str) -> PredictedInput:
    """Return a result with the addresses of its files."""
    target = done.prediction.path
    addresses = tuple(Path(_address(path, local, folder)) for path in done.beside)
    return replace(
        done, prediction=replace(done.prediction, path=Path(_address(target, local, folder))), beside=addresses
    )


def _copy(path: Path, local: Path, folder: str) -> None:
    try:
        copy_file(path, _address(path, local, folder))
    except DataError as error:
        raise DataError(f"{error} What was not copied is kept in {local}; copy it, or predict again.") from error


def _address(path: Path, local: Path, folder: str) -> str:
    return folder + path.relative_to(local).as_posix()


def _check_outside(settings: PredictSettings, address: str, folder: str) -> None:
    """Refuse results in a folder of a bucket whose images are predicted, and a result that is an input.

    Raises:
        SettingsError: that would happen.
    """
    to = vsi_name(folder)
    for name in filter(is_bucket, settings.inputs):
        root = vsi_name(fixed_part(name))
        below = settings.recursive or "**" in name
        if to == root or (below and to.startswith(root)):
            raise SettingsError(_refusal(address, name))
    for source in find_inputs(settings.model_copy(update={"out": local_folder(address)})).sources:
        if vsi_name(source).rpartition("/")[0] + "/" == to and not (
            is_one_file(settings) and _stem(source) != _stem(address)
        ):
            raise SettingsError(_refusal(address, source))


def _stem(name: str) -> str:
    return os.path.splitext(vsi_name(name))[0]  # noqa: PTH122 - an address


def _refusal(address: str, name: str) -> str:
    return (
        f"--out {address} is in the folder of the input {name}: results could replace inputs, or would be taken for "
        "images the next time. Nothing was written; choose another --out."
    )
