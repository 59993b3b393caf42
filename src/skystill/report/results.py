"""`results.json`: all figures of a run, from its model files, its test images and its training record."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from skystill.classes import ClassMap
from skystill.data import Pair, find_pairs, mask_areas, read_pairs, resolve_classes, split_pairs
from skystill.data.leaks import copies_of
from skystill.data.maps import block_of
from skystill.data.pairs import count_known, find_named
from skystill.data.run_split import run_split
from skystill.data.scale import check_scale
from skystill.errors import DataError, RunFolderError
from skystill.model.measure import ModelCost, measure_models
from skystill.predict.predictor import Predictor
from skystill.progress import OnProgress, ignore_progress, phase, tracked
from skystill.raster.band_names import wanted_bands
from skystill.report.compared import ComparedModel, compared_models
from skystill.report.metrics import Comparison, Curve, Evaluation, compare, evaluate
from skystill.report.own_classes import own_classes
from skystill.report.records import (
    ClassesRecord,
    ComparisonRecord,
    DataRecord,
    ModelRecord,
    Results,
    SplitRecord,
    read_split,
    read_teacher_scores,
    read_training,
    write_record,
)
from skystill.report.samples import write_samples
from skystill.report.verdict import features_first, tuned_for_int8, verdict
from skystill.run_folder import RunFolder, is_own_data
from skystill.settings import EvaluateSettings


def evaluate_run(settings: EvaluateSettings, on_progress: OnProgress = ignore_progress) -> RunFolder:
    """Score every model of a run on the same whole test images, measure its cost, and write `results.json` and samples.

    Args:
        settings: settings of the command.
        on_progress: called with a `Progress` for each image and each model.

    Returns:
        the run.

    Raises:
        RunFolderError: the folder is not a run, or the run has not finished.
        DataError: the data has changed since the training, or there are no test images.
        ModelFileError: a model file is damaged.
    """
    folder = RunFolder(settings.run)
    config = folder.read_config()
    models = compared_models(folder)
    if settings.data is None and "data" not in config:
        raise RunFolderError(f"{folder.config} is damaged: it names no data. Give the data folder with --data.")
    data = settings.data or Path(config["data"])
    classes, pairs, rule, notes = _test_images(folder, settings, config, data)
    evaluations = {
        model.role: _evaluate(Predictor(model.folder.model), pairs, classes, model.role, on_progress)
        for model in models
    }
    measured = {
        model.role: measure_models([model.folder.model])[0]
        for model in tracked(models, "measuring time and memory", on_progress, leaves_line=True)
    }
    show = wanted_bands(settings.show or config.get("show"), "--show")
    samples = write_samples(folder, models, pairs, classes, on_progress, show)
    with phase("computing the scores and their intervals", on_progress):
        comparisons = _comparisons(evaluations)
        records = {model.role: _record(model, evaluations[model.role], measured[model.role]) for model in models}
    results = Results(
        created=time.strftime("%Y-%m-%d %H:%M:%S"),
        title=folder.path.name,
        data=DataRecord(folder=str(data), split=rule, test_images=_images(pairs)),
        classes=ClassesRecord.model_validate(classes.to_dict()),
        models=records,
        comparisons={
            name: ComparisonRecord(difference=one.difference, interval=one.interval, clear=one.clear)
            for name, one in comparisons.items()
        },
        verdict=[
            *verdict(evaluations, comparisons, measured, read_teacher_scores(folder)),
            *_features_first(folder, config, records),
            *tuned_for_int8(records["student"].training.int8_epochs if "student" in records else 0, "alone" in records),
        ],
        notes=notes,
        samples=samples,
        settings=config,
    )
    write_record(folder.results, results)
    return folder


def _features_first(folder: RunFolder, config: Mapping[str, Any], models: Mapping[str, ModelRecord]) -> list[str]:
    passes = models["student"].training.feature_epochs if "student" in models else 0
    alone = folder.alone.read_config()["epochs"] if passes and "alone" in models else None
    return features_first(passes, config.get("epochs", 0), alone)


def _comparisons(evaluations: dict[str, Evaluation]) -> dict[str, Comparison]:
    """Return the comparisons by pair of roles, or none if no scored class has truth in the test images."""
    if not all(evaluation.counted.any() for evaluation in evaluations.values()):
        return {}
    wanted = (("student", "teacher"), ("student", "alone"), ("alone", "teacher"))
    return {
        f"{one}-{other}": compare([evaluations[one]], [evaluations[other]])
        for one, other in wanted
        if one in evaluations and other in evaluations
    }


def _test_images(
    folder: RunFolder, settings: EvaluateSettings, config: Mapping[str, Any], data: Path
) -> tuple[ClassMap, list[Pair], str, list[str]]:
    fit_masks = bool(config.get("fit_masks")) if settings.fit_masks is None else settings.fit_masks
    search = find_pairs(data, fit_masks)
    classes = own_classes(config, data, search.pairs) or resolve_classes(data, None, search.pairs)[0]
    split = read_split(folder)
    if settings.data is None and settings.split is None:
        by_key = find_named(search.pairs, split.test)
        gone = [key for key in split.test if key not in by_key]
        if gone:
            raise DataError(
                f"{data}: test images of the run are gone:", gone, "Put them back, or give another --split."
            )
        return classes, [by_key[key] for key in split.test], split.rule, []
    same = run_split(folder, search.pairs) if settings.split is None else None
    if same is not None:
        return classes, list(same.test), same.rule, []
    chosen = split_pairs(
        search.pairs, settings.split or "auto", config["seed"], lambda found: mask_areas(found, classes)
    )
    return classes, list(chosen.test), chosen.rule, _seen_notes(split, config, data, chosen.test, search.pairs)


def _seen_notes(
    split: SplitRecord, config: Mapping[str, Any], data: Path, test: Sequence[Pair], every: Sequence[Pair]
) -> list[str]:
    """Say how many test images the run was trained on, or chose its weights by.

    Images of the run's own data are known by their names, those of other data by their bytes.
    """
    notes, own = [], Path(str(config.get("data", "")))
    is_own = is_own_data(config, data)
    of_run = None if is_own else _files_of_run(own, test)
    for keys, what in (
        (split.train, "were trained on: the scores are too good"),
        (split.validation, "were validated on, which is how --patience chooses weights: the scores may be too good"),
    ):
        if of_run is not None:
            seen = len(copies_of(test, list(find_named(of_run, keys).values())))
        else:
            seen = count_known(test, keys, every)
        if not is_own and of_run is None:
            what = f"have the names of images that {what}, if they are the same ({own} is not there)"
        if seen:
            notes.append(f"{seen} of these {len(test)} test images {what}.")
    return notes


def _files_of_run(own: Path, test: Sequence[Pair]) -> Sequence[Pair] | None:
    """Return the pairs of a run, to compare their bytes; None if its data cannot be read, or either is a map."""
    try:
        pairs = find_pairs(own).pairs
    except (DataError, OSError):
        return None
    return None if pairs[0].is_window or test[0].is_window else pairs


def _images(pairs: Sequence[Pair]) -> list[str]:
    """Return the names of test images: keys of pairs, and of a map its blocks."""
    return list(dict.fromkeys(block_of(pair.key) for pair in pairs))


def _evaluate(
    predictor: Predictor, pairs: Sequence[Pair], classes: ClassMap, role: str, on_progress: OnProgress
) -> Evaluation:
    if predictor.classes.names != classes.names:
        raise DataError(
            f"{predictor.path} knows the classes {', '.join(predictor.classes.names)}; "
            f"the data has {', '.join(classes.names)}."
        )
    check_scale([pair.image for pair in pairs], predictor.info.input_spec, f"{predictor.path}")
    images = read_pairs(
        tracked(pairs, f"evaluating {role}", on_progress, leaves_line=True), classes, predictor.info.input_spec
    )
    return evaluate(predictor.probabilities, images, classes)


def _record(model: ComparedModel, evaluation: Evaluation, cost: ModelCost) -> ModelRecord:
    return ModelRecord(
        run=str(model.folder.path),
        cost=cost,
        training=read_training(model.folder),
        scores=evaluation.scores(),
        curves=[_rounded(curve) for curve in evaluation.precision_recall()],
    )


def _rounded(curve: Curve) -> Curve:
    """Round to four digits. This saves a quarter of the file, and moves the plot by less than a pixel."""
    return Curve(*([round(value, 4) for value in values] for values in astuple(curve)))
