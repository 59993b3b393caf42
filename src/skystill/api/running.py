"""The commands that do not train: check data; evaluate, quantise, measure, export, run and serve models."""

import functools
from typing import TYPE_CHECKING

from skystill.progress import OnProgress, ignore_progress, phase, report_notes
from skystill.run_folder import RunFolder, write_json
from skystill.settings import (
    CheckSettings,
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    QuantizeSettings,
    ServeSettings,
    StatusSettings,
    settings_from,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skystill.cluster.status import Status
    from skystill.data.prepare import CheckedData
    from skystill.model.measure import ComparedCost
    from skystill.predict.ahead import Ahead
    from skystill.predict.batch import Predict, PredictedInput
    from skystill.report.int8 import Quantization


def check(
    settings: CheckSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "CheckedData":
    """Find pairs of images and masks, open all of them, and report their content and all problems.

    With `html` the result is written as a page, too.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Progress` for each pair that is opened.
        keywords: fields of `CheckSettings`, instead of `settings`.

    Returns:
        The content of the data, every problem, and the split if there is no problem.

    Raises:
        DataError: the folder does not exist, or contains no pair.
        ClassesError: the classes are missing or cannot be read.
        SettingsError: the data cannot be split in this way.
        DiskFull: the page cannot be written.
    """
    from skystill.data.prepare import check_folder

    settings = settings_from(CheckSettings, settings, keywords)
    if settings.html is None:
        return check_folder(settings, on_progress)
    from skystill.report.check_page import write_check_page  # before the data are read: its libraries may be missing

    checked = check_folder(settings, on_progress)
    write_check_page(settings.html, settings.data, checked, on_progress)
    return checked


def evaluate(
    settings: EvaluateSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> RunFolder:
    """Score and measure the models of a run on its test images, and write `results.json`, plots and `report.html`.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Progress` for each image.
        keywords: fields of `EvaluateSettings`, instead of `settings`.

    Returns:
        The run folder.

    Raises:
        UserError: the folder is not a run, the run is not finished, its data has changed, or another process uses it.
    """
    from skystill.report.page import write_report  # before scoring, which takes minutes: its libraries may be missing
    from skystill.report.results import evaluate_run

    settings = settings_from(EvaluateSettings, settings, keywords)
    folder = RunFolder(settings.run)
    folder.read_config()  # a folder that is no run gets no lock
    with folder.locked(on_progress):
        evaluate_run(settings, on_progress)
        with phase(f"writing {folder.report.name}", on_progress):
            write_report(folder)
    return folder


def quantize(
    settings: QuantizeSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "Quantization":
    """Quantise a model file to INT8 with a limited loss of mIoU on validation images, and compare both files.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Message` about each attempt, and a `Progress` for each image that is scored.
        keywords: fields of `QuantizeSettings`, instead of `settings`.

    Returns:
        The INT8 file, its scores, and the cost of both files.

    Raises:
        UserError: the file is not a float model file, or there are no images for calibration or validation.
    """
    from skystill.report.int8 import quantize_on_data

    return quantize_on_data(settings_from(QuantizeSettings, settings, keywords), on_progress)


def measure(
    settings: MeasureSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "list[ComparedCost]":
    """Measure size, multiply-adds, latency and memory of model files, each in a separate process.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Progress` for each file, and a `Note` for each runtime that was recorded.
        keywords: fields of `MeasureSettings`, instead of `settings`.

    Returns:
        The cost of each file, in the order of `models`; with `choose`, in each runtime.

    Raises:
        UserError: a file cannot be measured, the runtime is not installed, or `save` is a model file.
    """
    from dataclasses import asdict

    from skystill.model.choice import RUNTIMES, check_choosing, choice_path, write_choice
    from skystill.model.measure import compare_models
    from skystill.raster.overwriting import check_outputs

    settings = settings_from(MeasureSettings, settings, keywords)
    models = list(dict.fromkeys(settings.models)) if settings.choose else settings.models
    outputs = [("runtime to use", choice_path(model)) for model in models] if settings.choose else []
    check_outputs([*([("measurements", settings.save)] if settings.save else []), *outputs], models, "--save")
    if settings.choose:
        check_choosing(settings.runtime)
        costs = []
        for model in models:
            found = [compare_models([model], runtime, on_progress)[0] for runtime in RUNTIMES]
            report_notes(write_choice(model, found).notes, on_progress)
            costs.extend(found)
    else:
        costs = compare_models(models, settings.runtime, on_progress)
    if settings.save:
        write_json(settings.save, {"models": [asdict(cost) for cost in costs]})
    return costs


def export(
    settings: ExportSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "Path":
    """Write the network of a run as a model file, and check that its logits equal those of torch.

    With the formats html and web, a model file goes into a web page as it is, and torch is not needed.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Progress` while the file is written.
        keywords: fields of `ExportSettings`, instead of `settings`.

    Returns:
        The model file, the page, or its folder. If `stac` is set, a STAC item is written next to the file, with the
        suffix `.stac.json`.

    Raises:
        UserError: the folder is not a finished run, or the format cannot be written.
    """
    settings = settings_from(ExportSettings, settings, keywords)
    if settings.format in ("html", "web"):
        from skystill.predict.web.export import export_page

        return export_page(settings, on_progress)
    from skystill.train.compress.formats import export_run

    return export_run(settings, on_progress)[0]


def predict(
    settings: PredictSettings | None = None,
    *,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> "list[PredictedInput]":
    """Run a model file on photographs and rasters of any size in bounded memory.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a prediction that was interrupted.
        on_progress: receives a `Progress` in pixels while an input is predicted.
        keywords: fields of `PredictSettings`, instead of `settings`.

    Returns:
        The inputs with the files that were written for each. To get each input as soon as it is done, iterate over
        `predict_each`. On a cluster (`dask`, `workers`, `dask_config`), those that an earlier call finished are not
        done again, and are left out.

    Raises:
        UserError: inputs were not found or failed. If some failed, all of them are listed and the others are done.
        InputFailed, InputsFailed: the same, where at least one failed by a fault of SkyStill.
        PredictionStopped: the user pressed Ctrl-C. The finished part is kept for `resume`.
        ClusterError: a cluster was named that cannot be used, or was lost. What is done is kept.
    """
    return list(predict_each(settings_from(PredictSettings, settings, keywords), resume, on_progress))


def predict_each(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> "Iterator[PredictedInput]":
    """Predict as `predict`, and yield each input as soon as it is done.

    Args:
        settings: settings of the command.
        resume: continue a prediction that was interrupted. On a cluster, every call does so.
        on_progress: as in `predict`.

    Yields:
        each input that was predicted, or the mosaic of all of them.

    Raises:
        UserError, InputFailed, InputsFailed, PredictionStopped: as `predict`.
    """
    from skystill.raster.buckets import bucket_address

    run = _predictor_of(settings)
    if bucket_address(settings.out) is not None:
        from skystill.predict.to_bucket import predict_to_bucket

        run = functools.partial(predict_to_bucket, predict=run)
    yield from run(settings, resume, on_progress)


def _predictor_of(settings: PredictSettings) -> "Predict":
    """Return what predicts the inputs, or a mosaic of them: this process, or a cluster."""
    if settings.on_cluster and settings.mosaic is not None:
        from skystill.cluster.mosaic import predict_mosaic_on_cluster

        return predict_mosaic_on_cluster
    if settings.mosaic is not None:
        from skystill.predict.mosaic_batch import predict_mosaic

        return predict_mosaic
    if settings.on_cluster:
        from skystill.cluster.archive import predict_archive

        return predict_archive
    from skystill.predict.batch import predict_inputs

    return predict_inputs


def count_ahead(
    settings: PredictSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "Ahead":
    """Count the megapixels of a prediction, and measure one window, without predicting anything.

    With a cluster the window is measured on one of its workers.

    Args:
        settings: settings of `predict`. Give either this or `keywords`.
        on_progress: receives a `Progress` while inputs are counted.
        keywords: fields of `PredictSettings`, instead of `settings`.

    Returns:
        Megapixels, bytes read and written, and hours for any number of workers.

    Raises:
        UserError: `predict` would be refused, or no input can be opened.
    """
    from skystill.predict.to_bucket import with_local_out

    settings = with_local_out(settings_from(PredictSettings, settings, keywords))
    if settings.on_cluster:
        from skystill.cluster.archive import count_archive

        return count_archive(settings, on_progress)
    from skystill.predict.ahead import count_ahead as count_here

    return count_here(settings, on_progress)


def status(settings: StatusSettings | None = None, **keywords: object) -> "Status":
    """Return how far a prediction on a cluster is, while its command runs or after it.

    With `html` the status is written as a page, too.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        keywords: fields of `StatusSettings`, instead of `settings`.

    Returns:
        What is done and what failed, the rate, and the time that is left.

    Raises:
        RunFolderError: no prediction on a cluster wrote there.
        DiskFull: the page cannot be written.
    """
    from skystill.cluster.status import read_status
    from skystill.predict.to_bucket import local_folder
    from skystill.raster.buckets import bucket_address

    settings = settings_from(StatusSettings, settings, keywords)
    address = bucket_address(settings.out)
    found = read_status(settings.out if address is None else local_folder(address))
    if settings.html is not None:
        from skystill.report.archive_page import write_archive_page

        write_archive_page(settings.html, found)
    return found


def serve(
    settings: ServeSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> bool:
    """Serve a model over HTTP, until SIGTERM or Ctrl-C.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Message` for each line of the log, and a `Note` about the model.
        keywords: fields of `ServeSettings`, instead of `settings`.

    Returns:
        Whether it was ended by Ctrl-C.

    Raises:
        UserError: the address cannot be listened on, or the model cannot be opened.
    """
    from skystill.serve.run import run_service

    return run_service(settings_from(ServeSettings, settings, keywords), on_progress)
