"""`results.json`: every figure of a run, from its model files, its test images and its training record."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill import __version__
from skystill.classes import VOID, ClassMap, Labels
from skystill.data import Pair, find_pairs, read_image, read_labels, read_pairs, resolve_classes, split_pairs
from skystill.errors import DataError, RunFolderError
from skystill.model.measure import measure_models
from skystill.predict.predictor import Predictor
from skystill.report.metrics import ENOUGH_IMAGES, Comparison, Evaluation, compare, evaluate
from skystill.run_folder import RunFolder, write_json, written_whole
from skystill.settings import EvaluateSettings

T = TypeVar("T")
Track = Callable[[Sequence[T], str], Iterable[T]]
"""Wraps a loop to show a bar: (items, description) to items."""

_SAMPLES = 10
_SAMPLE_SIDE = 400
_AGREE, _BOTH_WRONG, _STUDENT_WRONG, _TEACHER_WRONG = (225, 225, 225), (120, 120, 120), (213, 94, 0), (0, 114, 178)
DISAGREEMENT = {
    "agree and right": _AGREE,
    "both wrong": _BOTH_WRONG,
    "only the student wrong": _STUDENT_WRONG,
    "only the teacher wrong": _TEACHER_WRONG,
}
"""Colours of the disagreement picture; void is black."""


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison.

    Args:
        role: "teacher", "alone" or "student".
        folder: the run that made it.
    """

    role: str
    folder: RunFolder


def compared_models(folder: RunFolder) -> list[ComparedModel]:
    """The models of a run: its own, and of a distilled one the baseline's, and the teacher's if it is a run as well.

    Raises:
        RunFolderError: not a run, or not finished.
    """
    config = folder.read_config()
    if "teacher" not in config:
        found = [ComparedModel("teacher", folder)]
    else:
        teachers = [config["teacher"]] if isinstance(config["teacher"], str) else config["teacher"]
        found = []
        if not folder.teacher_scores.exists():
            found.append(ComparedModel("teacher", RunFolder(Path(teachers[0]))))
        if folder.alone.model.exists():
            found.append(ComparedModel("alone", folder.alone))
        found.append(ComparedModel("student", folder))
    for compared_model in found:
        if not compared_model.folder.model.exists():
            raise RunFolderError(
                f"{compared_model.folder.model} is missing: that run has not finished. Finish it with --resume."
            )
    return found


def no_bar(items: Sequence[T], description: str) -> Iterable[T]:
    """Show nothing."""
    return items


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
            "samples": _write_samples(folder, models, pairs, classes, track),
            "settings": config,
        },
    )
    return folder


def _foreign_teacher(folder: RunFolder) -> dict[str, Any] | None:
    """The scores of a teacher that is no run, as they were found when the student was distilled."""
    return folder.read_json(folder.teacher_scores) if folder.teacher_scores.exists() else None


def verdict(
    evaluations: dict[str, Evaluation],
    comparisons: dict[str, Comparison],
    measured: list[dict[str, Any]],
    foreign: dict[str, Any] | None = None,
) -> list[str]:
    """The result in sentences: what was kept, what was saved, and whether distillation helped."""
    costs = dict(zip(evaluations, measured, strict=True))
    if "student" not in evaluations:
        role = next(iter(evaluations))
        scores = evaluations[role].scores()
        low, high = scores["miou_interval"]
        return [
            f"The network reaches {_points(scores['miou'])} % mean IoU on {scores['images']} test images "
            f"(95 % interval {_points(low)} to {_points(high)})."
        ]
    lines = [_kept(evaluations, comparisons, costs) if foreign is None else _kept_of_foreign(evaluations, foreign)]
    if "student-alone" not in comparisons:
        return [*lines, "The same student was not trained alone, so this run cannot say whether distillation helped."]
    against = comparisons["student-alone"]
    if against.images < ENOUGH_IMAGES:
        lines.append(
            f"Whether distillation helped cannot be told from {against.images} test image(s): the difference to the "
            f"same student trained alone is {_span(against)}, but an interval needs {ENOUGH_IMAGES} images at least."
        )
    elif not against.clear:
        lines.append(
            f"Distillation did not help here: against the same student trained alone the difference is "
            f"{_span(against)}, and that interval holds zero."
        )
    elif against.difference > 0:
        lines.append(f"Distillation helped: against the same student trained alone the difference is {_span(against)}.")
    else:
        lines.append(
            f"Distillation hurt here: against the same student trained alone the difference is {_span(against)}."
        )
    return [*lines, "The interval is over test images of this one run; another seed may move the difference as much."]


def _kept(
    evaluations: dict[str, Evaluation], comparisons: dict[str, Comparison], costs: dict[str, dict[str, Any]]
) -> str:
    teacher, student = evaluations["teacher"].scores(), evaluations["student"].scores()
    smaller = costs["teacher"]["parameters"] / costs["student"]["parameters"]
    faster = costs["teacher"]["latency_ms_per_mp"] / costs["student"]["latency_ms_per_mp"]
    speed = f"{faster:.3g} times faster" if faster >= 1 else f"{1 / faster:.3g} times slower"
    return (
        f"The distilled student reaches {_points(student['miou'])} % mean IoU where its teacher reaches "
        f"{_points(teacher['miou'])} % ({_span(comparisons['student-teacher'])}), with {smaller:.3g} times fewer "
        f"parameters, and is {speed} on this CPU."
    )


def _kept_of_foreign(evaluations: dict[str, Evaluation], foreign: dict[str, Any]) -> str:
    low, high = foreign["scores"]["miou_interval"]
    student = _points(evaluations["student"].scores()["miou"])
    return (
        f"The distilled student reaches {student} % mean IoU where its teacher "
        f"({' + '.join(foreign['teacher'])}) reached {_points(foreign['scores']['miou'])} % "
        f"(95 % interval {_points(low)} to {_points(high)}) on the run's own test images."
    )


def _points(fraction: float | None) -> str:
    return "no" if fraction is None else f"{100 * fraction:.1f}"


def _span(comparison: Comparison) -> str:
    difference, low, high = (100 * value for value in (comparison.difference, comparison.low, comparison.high))
    return f"{difference:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"


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


def _write_samples(
    folder: RunFolder, models: Sequence[ComparedModel], pairs: Sequence[Pair], classes: ClassMap, track: Track[Any]
) -> list[dict[str, str]]:
    """Small pictures of up to ten test images, spread over the test set; file names by kind."""
    predictors = {m.role: Predictor(m.folder.model) for m in models if m.role != "alone"}
    count = min(_SAMPLES, len(pairs))
    chosen = [pairs[index * len(pairs) // count] for index in range(count)]
    written: list[dict[str, str]] = []
    for number, pair in enumerate(track(chosen, "sample pictures")):
        image, labels = read_image(pair.image), read_labels(pair.mask, classes).labels
        found = {role: predictor.labels(image) for role, predictor in predictors.items()}
        pictures = {"image": image, "truth": classes.paint(labels)}
        pictures |= {role: classes.paint(predicted) for role, predicted in found.items()}
        if {"student", "teacher"} <= found.keys():
            pictures["disagreement"] = paint_disagreement(labels, found["teacher"], found["student"])
        names = {"key": pair.key}
        for kind, picture in pictures.items():
            names[kind] = f"{number:02d}-{kind}.{'jpg' if kind == 'image' else 'png'}"
            _save_small(folder.samples / names[kind], picture, photo=kind == "image")
        written.append(names)
    return written


def paint_disagreement(labels: Labels, teacher: Labels, student: Labels) -> npt.NDArray[np.uint8]:
    """Who is wrong where, in the colours of `DISAGREEMENT`: three (H, W) uint8 to (H, W, 3) uint8."""
    picture = np.empty((*labels.shape, 3), np.uint8)
    picture[:] = _AGREE
    picture[(student != labels) & (teacher != labels)] = _BOTH_WRONG
    picture[(student != labels) & (teacher == labels)] = _STUDENT_WRONG
    picture[(student == labels) & (teacher != labels)] = _TEACHER_WRONG
    picture[labels == VOID] = 0
    return picture


def _save_small(path: Path, picture: npt.NDArray[np.uint8], photo: bool) -> None:
    opened = Image.fromarray(picture)
    scale = min(1.0, _SAMPLE_SIDE / max(opened.size))
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    with written_whole(path) as part:
        if photo:
            opened.resize(size, Image.Resampling.LANCZOS).save(part, quality=85)
        else:
            opened.resize(size, Image.Resampling.NEAREST).quantize(256).save(part, optimize=True)
