"""Writes `report.html` and `plots/*.png` from `results.json`, and `study.html` from `study.json`.

Nothing is computed here. Every figure that is shown is in these files, or in `teacher.json`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skystill import __version__
from skystill.classes import hex_color
from skystill.report.environment import big, data_url, megabytes, page_environment, percent, short
from skystill.report.metrics import with_truth
from skystill.report.plots import (
    plot_confusions,
    plot_importance,
    plot_losses,
    plot_precision_recall,
    plot_study,
    save_plot,
)
from skystill.report.records import ClassRecord, ModelRecord, read_results, read_study, read_teacher_scores
from skystill.report.samples import DISAGREEMENT
from skystill.report.truth import missing_classes, shown_interval
from skystill.run_folder import RunFolder, write_text

ROLES = {"teacher": "Teacher", "alone": "Student alone", "student": "Distilled student"}


def write_report(folder: RunFolder) -> None:
    """Write the report and the plots of an evaluated run.

    Args:
        folder: a run with `results.json` and the sample pictures.

    Raises:
        RunFolderError: the run was not evaluated, its results are damaged, or a later version of SkyStill wrote them.
    """
    results = read_results(folder)
    models, classes = results.models, results.classes.classes
    names = {role: ROLES[role] for role in models}
    if "student" not in models:
        names = {"teacher": "Network"}
    plots = {
        "losses": (
            "Training and validation loss by epoch",
            _draw(folder.plots, "losses", lambda: plot_losses(models, names)),
        ),
        "precision-recall": (
            "Precision against recall",
            _draw(folder.plots, "precision-recall", lambda: plot_precision_recall(models, names, classes)),
        ),
        "confusion": (
            "Confusion matrices: percent of the pixels of each true class (row), by predicted class (column)",
            _draw(folder.plots, "confusion", lambda: plot_confusions(models, names, classes)),
        ),
    }
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            teacher=read_teacher_scores(folder),
            names=names,
            rows=table_rows(models, names, classes),
            plots=plots,
            samples=[_embed_sample(folder, sample) for sample in results.samples],
            counted=_counted(models, classes),
            missing=missing_classes(
                {name: models[role].scores.confusion for role, name in names.items()}, [one.name for one in classes]
            ),
            images=len(results.data.test_images),
            kinds=_kinds(results.samples, names),
            disagreement={meaning: hex_color(color) for meaning, color in DISAGREEMENT.items()},
        )
    )
    write_text(folder.report, page)


def write_study_report(folder: Path) -> Path:
    """Write `study.html` from the `study.json` of a search.

    Args:
        folder: the folder of the study.

    Returns:
        the page.

    Raises:
        RunFolderError: `study.json` is missing or damaged.
    """
    study = read_study(RunFolder(folder))
    trials = study.trials
    plots = [("Trials", _draw(folder / "plots", "history", lambda: plot_study(trials)))]
    if study.importance:
        drawn = _draw(folder / "plots", "importance", lambda: plot_importance(study.importance))
        plots.append(("Importance of each setting", drawn))
    best = next(trial for trial in trials if trial.number == study.best)
    page = (
        page_environment()
        .get_template("study.html.j2")
        .render(
            study=study,
            title=folder.name,
            version=__version__,
            config=shlex.quote(str(folder / "best.yaml")),
            best=", ".join([f"{percent(best.validation_miou)} %", *(f"{k} {short(v)}" for k, v in best.drawn.items())]),
            names=sorted({name for trial in trials for name in trial.drawn}),
            rows=sorted(trials, key=lambda trial: -(trial.validation_miou or 0)),
            plots=plots,
        )
    )
    write_text(folder / "study.html", page)
    return folder / "study.html"


def table_rows(
    models: Mapping[str, ModelRecord], names: Mapping[str, str], classes: Sequence[ClassRecord]
) -> list[tuple[str, list[str]]]:
    """Return the rows of the table of the report.

    Args:
        models: the models by role.
        names: heading of each column by role, in the order of the columns.
        classes: the classes, in the order of the labels.

    Returns:
        one row per metric: its title, and one cell per model.
    """

    def row(title: str, cell: Callable[[ModelRecord], str]) -> tuple[str, list[str]]:
        return title, [cell(models[role]) for role in names]

    def iou_of(label: int) -> Callable[[ModelRecord], str]:
        return lambda model: percent(model.scores.per_class.iou[label])

    def mean_iou(model: ModelRecord) -> str:
        return f"{percent(model.scores.miou)} ({shown_interval(model.scores.miou_interval, model.scores.images)})"

    def latency(model: ModelRecord) -> str:
        low, high = model.cost.latency_spread_ms_per_mp
        return f"{model.cost.latency_ms_per_mp:.0f} ({low:.0f} to {high:.0f})"

    return [
        row("Network", lambda m: m.cost.network),
        row("Mean IoU, % (95 % interval)", mean_iou),
        *[row(f"IoU {entry.name}, %", iou_of(label)) for label, entry in enumerate(classes)],
        row("Mean F1, %", lambda m: percent(m.scores.mf1)),
        row("Mean precision, %", lambda m: percent(m.scores.mprecision)),
        row("Mean recall, %", lambda m: percent(m.scores.mrecall)),
        row("Pixel accuracy, %", lambda m: percent(m.scores.pixel_accuracy)),
        row("Parameters", lambda m: big(m.cost.parameters)),
        row("Model file, MB", lambda m: megabytes(m.cost.size_bytes, 2)),
        row("Multiply-adds per megapixel, G", lambda m: f"{m.cost.multiply_adds_per_megapixel / 1e9:.1f}"),
        row("Latency per megapixel, ms (shortest to longest)", latency),
        row("Peak memory in inference, MB", lambda m: megabytes(m.cost.peak_rss_bytes)),
        row("Peak memory in training, MB", lambda m: megabytes(m.training.peak_rss_bytes)),
        row("Training time, s", lambda m: f"{m.training.all_seconds:.0f}"),
        row("Training steps", lambda m: big(m.training.steps + m.training.int8_steps)),
    ]


def _counted(models: Mapping[str, ModelRecord], classes: Sequence[ClassRecord]) -> list[str]:
    """Return the names of the classes over which means are taken: those that are scored and have truth."""
    confusion = np.array(next(iter(models.values())).scores.confusion)
    return [one.name for one, has_truth in zip(classes, with_truth(confusion), strict=True) if one.scored and has_truth]


def _draw(plots: Path, name: str, plot: Callable[[], Figure]) -> dict[str, str]:
    """Write a plot as a PNG file in each theme, and return the data URL of each by theme."""
    paths = {theme: plots / f"{name}{'' if theme == 'light' else '-dark'}.png" for theme in ("light", "dark")}
    for theme, path in paths.items():
        save_plot(plot, path, theme)
    return {theme: _file_url(path) for theme, path in paths.items()}


def _kinds(samples: list[dict[str, str]], names: dict[str, str]) -> dict[str, str]:
    titles = {"image": "Image", "truth": "Ground truth", **names, "disagreement": "Disagreement"}
    return {kind: title for kind, title in titles.items() if samples and kind in samples[0]}


def _embed_sample(folder: RunFolder, sample: dict[str, str]) -> dict[str, str]:
    return {kind: name if kind == "key" else _file_url(folder.samples / name) for kind, name in sample.items()}


def _file_url(path: Path) -> str:
    return data_url(path.read_bytes(), path.suffix)
