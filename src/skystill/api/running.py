"""The commands that need no training: checking data, and scoring, shrinking, measuring and running model files."""

from typing import TYPE_CHECKING

from skystill.progress import OnProgress, ignore_progress
from skystill.run_folder import RunFolder, write_json
from skystill.settings import (
    CheckSettings,
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    QuantizeSettings,
    settings_from,
)

if TYPE_CHECKING:
    from pathlib import Path

    from skystill.data.prepare import CheckedData
    from skystill.model.measure import ComparedCost
    from skystill.predict.batch import PredictedInput
    from skystill.report.int8 import Quantization


def check(
    settings: CheckSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "CheckedData":
    """Find pairs of images and masks, open all of them, and tell what is there and what is wrong.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: follows the pairs that are opened.
        keywords: fields of `CheckSettings`.

    Returns:
        what the data holds, every problem in it, and its split where there is no problem.

    Raises:
        DataError: no folder, or no pair in it.
        ClassesError, SettingsError: no classes, or a split that cannot be made.
    """
    from skystill.data.prepare import check_folder

    return check_folder(settings_from(CheckSettings, settings, keywords), on_progress)


def evaluate(
    settings: EvaluateSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> RunFolder:
    """Score and measure all models of a run on its test images; write `results.json`, the plots and `report.html`.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: follows the images.
        keywords: fields of `EvaluateSettings`.

    Returns:
        the run.

    Raises:
        UserError: not a run, not finished, or data that has changed.
    """
    from skystill.report.page import write_report  # first: what it needs may be missing, and scoring takes minutes
    from skystill.report.results import evaluate_run

    folder = evaluate_run(settings_from(EvaluateSettings, settings, keywords), on_progress)
    write_report(folder)
    return folder


def quantize(
    settings: QuantizeSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "Quantization":
    """Turn a model file into INT8, held to a loss of mIoU on validation images, and timed against the float file.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: takes a `Message` about each attempt.
        keywords: fields of `QuantizeSettings`.

    Returns:
        the file, its scores, and what both files cost.

    Raises:
        UserError: not a float model file, no images to calibrate or validate on, or INT8 is not faster here.
    """
    from skystill.report.int8 import quantize_on_data

    return quantize_on_data(settings_from(QuantizeSettings, settings, keywords), on_progress)


def measure(
    settings: MeasureSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "list[ComparedCost]":
    """Size, work, time and memory of model files, each measured in a process of its own.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: follows the files.
        keywords: fields of `MeasureSettings`.

    Raises:
        UserError: a file that cannot be measured, or a runtime that is not installed.
    """
    from dataclasses import asdict

    from skystill.model.measure import compare_models

    settings = settings_from(MeasureSettings, settings, keywords)
    costs = compare_models(settings.models, settings.runtime, on_progress)
    if settings.save:
        write_json(settings.save, {"models": [asdict(cost) for cost in costs]})
    return costs


def export(settings: ExportSettings | None = None, **keywords: object) -> "Path":
    """Write a run's network as a model file, checked against torch.

    Args:
        settings: of the command; or its fields as keywords.
        keywords: fields of `ExportSettings`.

    Returns:
        the file. With `stac` a STAC item lies beside it.

    Raises:
        UserError: not a finished run, or a format that cannot be written.
    """
    from skystill.model.stac import write_stac_item
    from skystill.train.compress.formats import export_run

    settings = settings_from(ExportSettings, settings, keywords)
    path, _ = export_run(settings)
    if settings.stac:
        write_stac_item(path, path.with_suffix(".stac.json"))
    return path


def predict(
    settings: PredictSettings | None = None,
    *,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> "list[PredictedInput]":
    """Run a model file over photographs and rasters of any size, in bounded memory.

    Args:
        settings: of the command; or its fields as keywords.
        resume: go on with a prediction that was interrupted.
        on_progress: follows the pixels of each input.
        keywords: fields of `PredictSettings`.

    Returns:
        each input with the files that were written. To have each as soon as it is done, loop over
        `skystill.predict.batch.predict_inputs`.

    Raises:
        UserError: inputs that were not found, or failed, all of them named; the others are done.
        PredictionStopped: Ctrl-C; what is done is kept for `resume`.
    """
    from skystill.predict.batch import predict_inputs

    return list(predict_inputs(settings_from(PredictSettings, settings, keywords), resume, on_progress))
