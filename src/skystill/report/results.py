"""`results.json`: every figure of a run, from its model files, its test images and its training record."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skystill import __version__
from skystill.classes import ClassMap
from skystill.data import Pair, find_pairs, read_pairs, resolve_classes, split_pairs
from skystill.errors import DataError
from skystill.model.measure import measure_models
from skystill.predict.predictor import Predictor
from skystill.report.compared import ComparedModel, Track, compared_models, no_bar
from skystill.report.metrics import Comparison, Evaluation, compare, evaluate
from skystill.report.samples import write_samples
from skystill.report.verdict import verdict
from skystill.run_folder import RunFolder, write_json
from skystill.settings import EvaluateSettings


def evaluate_run(settings: EvaluateSettings, track: Track[Any] = no_bar) -> RunFolder:
    """Score and measure every model of a run on the same whole test images, and write `results.json` and samples.

    Raises:
        RunFolderError: not a run, or not finished.
        DataError: the data has changed, or has no test images.
        ModelFileError: a model file is damaged.
    """
    folder = RunFolder(settings.run)
    config = folder.read_config()
    models = compared_models(folder)
    data = settings.data or Path(config["data"])
    classes, pairs, rule, notes = _test_images(folder, settings, config, data)
    evaluations = {
        model.role: _evaluate(Predictor(model.folder.model), pairs, classes, track, model.role) for model in models
    }
    measured = measure_models(list(track([model.folder.model for model in models], "measuring")))
    comparisons = _comparisons(evaluations)
    records = [_record(m, evaluations[m.role], cost) for m, cost in zip(models, measured, strict=True)]
    write_json(
        folder.results,
        {
            "skystill_version": __version__,
            "created": time.strftime("%Y-%m-%d %H:%M:%S"),
            "title": folder.path.name,
            "data": {"folder": str(data), "split": rule, "test_images": [pair.key for pair in pairs]},
            "classes": classes.to_dict(),
            "models": {model.role: record for model, record in zip(models, records, strict=True)},
            "comparisons": {name: comparison.to_dict() for name, comparison in comparisons.items()},
            "verdict": verdict(evaluations, comparisons, measured, _foreign_teacher(folder)),
            "notes": notes,
            "samples": write_samples(folder, models, pairs, classes, track),
            "settings": config,
        },
    )
    return folder


def _foreign_teacher(folder: RunFolder) -> dict[str, Any] | None:
    """The scores of a teacher that is no run, as they were found when the student was distilled."""
    return folder.read_json(folder.teacher_scores) if folder.teacher_scores.exists() else None


def _comparisons(evaluations: dict[str, Evaluation]) -> dict[str, Comparison]:
    wanted = (("student", "teacher"), ("student", "alone"), ("alone", "teacher"))
    return {
        f"{one}-{other}": compare([evaluations[one]], [evaluations[other]])
        for one, other in wanted
        if one in evaluations and other in evaluations
    }


def _test_images(
    folder: RunFolder, settings: EvaluateSettings, config: dict[str, Any], data: Path
) -> tuple[ClassMap, list[Pair], str, list[str]]:
    search = find_pairs(data)
    classes, _ = resolve_classes(data, config.get("classes"), search.pairs)
    split = folder.read_json(folder.split)
    if settings.data is None and settings.split is None:
        by_key = {pair.key: pair for pair in search.pairs}
        gone = [key for key in split["test"] if key not in by_key]
        if gone:
            raise DataError(
                f"{data}: test images of the run are gone:", gone, "Put them back, or give another --split."
            )
        return classes, [by_key[key] for key in split["test"]], split["rule"], []
    chosen = split_pairs(search.pairs, settings.split or "auto", config["seed"])
    trained = set(split["train"]) & {pair.key for pair in chosen.test}
    notes = (
        [f"{len(trained)} of these {len(chosen.test)} test images were trained on: the scores are too good."]
        if trained
        else []
    )
    return classes, list(chosen.test), chosen.rule, notes


def _evaluate(
    predictor: Predictor, pairs: Sequence[Pair], classes: ClassMap, track: Track[Any], role: str
) -> Evaluation:
    if predictor.classes.names != classes.names:
        raise DataError(
            f"{predictor.path} knows the classes {', '.join(predictor.classes.names)}; "
            f"the data has {', '.join(classes.names)}."
        )

    return evaluate(predictor.probabilities, read_pairs(track(pairs, f"evaluating {role}"), classes), classes)


def _record(model: ComparedModel, evaluation: Evaluation, cost: dict[str, Any]) -> dict[str, Any]:
    training = model.folder.read_json(model.folder.training)
    rounded = [
        {name: [round(value, 4) for value in values] for name, values in curve.items()}
        for curve in evaluation.precision_recall()
    ]
    return {
        "run": str(model.folder.path),
        "cost": cost,
        "training": training,
        "scores": evaluation.scores(),
        "curves": rounded,
    }
