"""The commands that train."""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from skystill.api.demo_settings import prepare_demo
from skystill.api.processes import call_command, start_ranks, to_arguments
from skystill.api.running import evaluate, quantize
from skystill.progress import Message, OnProgress, SaidOnce, ignore_progress, phase
from skystill.run_folder import RunFolder
from skystill.settings import (
    CacheSettings,
    ClusterSettings,
    DemoSettings,
    DistillSettings,
    PretrainSettings,
    PruneSettings,
    QuantizeSettings,
    TrainSettings,
    TuneSettings,
    settings_from,
)

if TYPE_CHECKING:
    import optuna


def train(
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    report: bool = True,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Train a network on labels alone: a teacher, or a student without a teacher.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a run that was stopped or killed.
        report: score the models on the test images and write the report at the end.
        on_progress: receives notes, and the progress of the training.
        keywords: fields of `TrainSettings`, instead of `settings`.

    Returns:
        The run folder.

    Raises:
        UserError: a problem that the user can fix: data, settings, run folder, full disk, a loss that is not finite.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
        CommandFailed: one of several processes failed.
    """
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import train_run

    settings = settings_from(TrainSettings, settings, keywords)
    _check_report(report)
    folder, is_first = RunFolder(settings.out), rank_and_count()[0] == 0
    if not start_ranks("train", settings, *_flags(resume)):
        train_run(settings, resume, SaidOnce(on_progress if is_first else ignore_progress))
        leave_process_group()
    if report and is_first:
        evaluate(run=folder.path, on_progress=on_progress)
    return folder


def distill(
    settings: DistillSettings | None = None,
    *,
    resume: bool = False,
    report: bool = True,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Train a student on labels and on the softened outputs of a teacher, and a baseline without the teacher.

    The steps are, in this order:

    1. With a budget, choose the student.
    2. Prepare the data and report what it holds. In the mode "cached", fill the cache of the teacher's logits. This is
       a separate process, so that nothing of the teacher stays in memory.
    3. With `feature_epochs`, let the student learn the features of the teacher, in a separate process as well.
    4. Distil the student.
    5. If `quantize` is set, or with a budget, write the INT8 file.
    6. If `alone` is set, train the same student without the teacher. This is a separate process, so that its peak
       memory is measured on its own.
    7. Score the models and write the report.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a run that was stopped or killed.
        report: score the models on the test images and write the report at the end.
        on_progress: receives notes, and the progress of the training.
        keywords: fields of `DistillSettings`, instead of `settings`.

    Returns:
        The run folder. `skystill.report.records.read_results` reads its results.

    Raises:
        UserError: as in `train`; also a teacher that cannot be used, or a budget that no student keeps.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
        CommandFailed: a separate process failed. It has printed the reason.
    """
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import alone_settings, distill_run, keep_split, within_budget

    settings = settings_from(DistillSettings, settings, keywords)
    _check_report(report)
    folder, is_first = RunFolder(settings.out), rank_and_count()[0] == 0
    if not start_ranks("distill", settings, *_flags(resume)):
        shown = SaidOnce(on_progress if is_first else ignore_progress)
        settings = within_budget(settings, shown)
        fill_cache = partial(_fill_cache, settings, shown) if settings.teacher_mode == "cached" else None
        distill_run(settings, resume, shown, fill_cache, partial(_learn_features, shown))
        leave_process_group()
        if is_first and (settings.quantize or settings.has_budget):
            _quantize_student(settings, on_progress, check=settings.measured is None)
        if is_first and settings.alone:
            keep_split(folder, folder.alone)
            call_command("train", alone_settings(settings), "--resume", "--no-report", said=shown)
    if report and is_first:
        evaluate(run=folder.path, on_progress=on_progress)
    return folder


def pretrain(
    settings: PretrainSettings | None = None,
    *,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Train a student to have the features of a teacher, from images alone. A training then starts from it.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a run that was stopped or killed.
        on_progress: receives notes, and the progress of the training.
        keywords: fields of `PretrainSettings`, instead of `settings`.

    Returns:
        The run folder. Its `weights` are a `student` for `distill`, or a `network` for `train`.

    Raises:
        UserError: as in `train`; also a teacher that has learnt nothing, or an image that is held out.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
    """
    from skystill.train.pretraining import pretrain_run

    return pretrain_run(settings_from(PretrainSettings, settings, keywords), resume, SaidOnce(on_progress))


def prune(
    settings: PruneSettings | None = None,
    *,
    resume: bool = False,
    report: bool = True,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Remove channels from the network of a run until it keeps a budget, then distil it from the unpruned network.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a run that was stopped or killed.
        report: score the models on the test images and write the report at the end.
        on_progress: receives notes, a `Message` about each round of pruning, and the progress of quantisation and
            scoring. The distillation is a separate process and does not report to it.
        keywords: fields of `PruneSettings`, instead of `settings`.

    Returns:
        The run folder of the pruned network.

    Raises:
        UserError: as in `distill`; also a run that cannot be read, or a budget that pruning cannot reach.
        CommandFailed: the distillation failed. It has printed the reason.
    """
    from skystill.train.compress.prune import prune_run

    settings = settings_from(PruneSettings, settings, keywords)
    _check_report(report)
    shown = SaidOnce(on_progress)
    call_command("distill", prune_run(settings, resume, shown), "--resume", "--no-report", said=shown)
    _quantize_student(settings, on_progress, check=True)
    if report:
        evaluate(run=settings.out, on_progress=on_progress)
    return RunFolder(settings.out)


def cache(
    settings: CacheSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> None:
    """Run teachers once over the training images and store their logits, for `distill` with `teacher_mode="cached"`.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives a `Progress` for each image, and notes.
        keywords: fields of `CacheSettings`, instead of `settings`.

    Raises:
        UserError: as in `distill`.
    """
    from skystill.train.runs import fill_cache_folder

    fill_cache_folder(settings_from(CacheSettings, settings, keywords), SaidOnce(on_progress))


def tune(
    settings: TuneSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "optuna.Study":
    """Search for the best settings of a distillation. Several processes can share one study.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        on_progress: receives the progress of each trial.
        keywords: fields of `TuneSettings`, instead of `settings`.

    Returns:
        The study. Its folder contains `best.yaml`, `study.json` and `study.html`.

    Raises:
        UserError: as in `distill`; also a storage that cannot be opened or has a study of other settings, or a cluster
            that cannot be used.
        CommandFailed: the teacher's logits cannot be cached. That process has printed the reason.
    """
    from skystill.report.page import write_study_report
    from skystill.train.runs import cache_settings
    from skystill.train.tune import run_study

    settings = settings_from(TuneSettings, settings, keywords)
    shown = SaidOnce(on_progress)
    if settings.on_cluster:
        from skystill.train.cluster_tune import run_study_on_cluster  # needs the extra cluster

        alone = settings.model_copy(update=dict.fromkeys(ClusterSettings.model_fields))
        study = run_study_on_cluster(settings, to_arguments(alone), shown)
    else:
        study = run_study(settings, lambda drawn: call_command("cache", cache_settings(drawn), said=shown), shown)
    with phase("writing study.html", on_progress):
        write_study_report(settings.out)
    return study


def demo(
    settings: DemoSettings | None = None,
    *,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Generate aerial scenes, train a teacher, distil a student, and write the report.

    Args:
        settings: settings of the command. Give either this or `keywords`.
        resume: continue a demo that was stopped or killed.
        on_progress: receives a `Progress` for each scene.
        keywords: fields of `DemoSettings`, instead of `settings`.

    Returns:
        The run folder of the student.

    Raises:
        RunFolderError: the folder exists and `resume` is False.
        CommandFailed: a training failed. It has printed the reason.
    """
    teacher, student = prepare_demo(settings_from(DemoSettings, settings, keywords), resume, on_progress)
    flags = ["--resume"] if resume else []
    call_command("train", teacher, *flags)
    call_command("distill", student, *flags)
    return RunFolder(student.out)


def _fill_cache(settings: DistillSettings, shown: SaidOnce) -> None:
    from skystill.train.runs import cache_settings

    call_command("cache", cache_settings(settings), said=shown)


def _learn_features(shown: SaidOnce, settings: PretrainSettings) -> None:
    call_command("pretrain", settings, "--resume", said=shown)


def _quantize_student(settings: DistillSettings | PruneSettings, on_progress: OnProgress, check: bool) -> None:
    """Write the INT8 file of a run.

    With a budget the loss of accuracy is not limited, because keeping the budget is more important. If `check` is set,
    the file is measured, and whether it keeps the budget is reported.
    """
    folder = RunFolder(settings.out)
    limit: dict[str, object] = {"max_drop": 100.0} if settings.has_budget else {}
    own = {"model": folder.model, "data": settings.data, "out": folder.model_int8, "fit_masks": settings.fit_masks}
    keywords = own | limit
    quantize(settings_from(QuantizeSettings, None, keywords), on_progress=on_progress)
    if settings.has_budget and check:
        from skystill.train.compress.budget import budget_of, check_result

        with phase(f"measuring {folder.model_int8.name}", on_progress):
            result = check_result(folder.model_int8, budget_of(settings))
        on_progress(Message(result))


def _flags(resume: bool) -> list[str]:
    """Return the arguments for the ranks. They write no report, because the process that starts them does."""
    return ["--resume", "--no-report"] if resume else ["--no-report"]


def _check_report(report: bool) -> None:
    """Import what the report needs before hours of training, not after them."""
    if report:
        import_module("skystill.report.page")
