"""The commands that train, from beginning to end."""

from typing import TYPE_CHECKING

from skystill.api.demo_settings import prepare_demo
from skystill.api.processes import call_command, start_ranks
from skystill.api.running import evaluate, quantize
from skystill.progress import Message, OnProgress, ignore_progress
from skystill.run_folder import RunFolder
from skystill.settings import (
    CacheSettings,
    DemoSettings,
    DistillSettings,
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
    """Train a network on labels alone: a teacher, or a student without one.

    Args:
        settings: of the command; or its fields as keywords.
        resume: go on with a run that was stopped or killed.
        report: score on the test images and write the report at the end.
        on_progress: follows the training.
        keywords: fields of `TrainSettings`.

    Returns:
        the run.

    Raises:
        UserError: anything the user can mend: data, settings, folder, disk, a loss that is not finite.
        Interrupted: Ctrl-C; the checkpoint is saved.
        CommandFailed: one of several processes failed.
    """
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import train_run

    settings = settings_from(TrainSettings, settings, keywords)
    folder, is_first = RunFolder(settings.out), rank_and_count()[0] == 0
    if not start_ranks("train", settings, *_flags(resume)):
        train_run(settings, resume, on_progress if is_first else ignore_progress)
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
    """Train a student on labels and on a teacher's softened outputs, and the same student alone to compare with.

    In this order: choose a student where there is a budget; fill the cache of the teacher's logits where it is wanted;
    distil; quantise where it is wanted; train the same student without the teacher; score, and write the report.
    Filling the cache and the training without the teacher are processes of their own: the first so that nothing of the
    teacher stays in memory, the second so that its peak memory is its own.

    Args:
        settings: of the command; or its fields as keywords.
        resume: go on with a run that was stopped or killed.
        report: score on the test images and write the report at the end.
        on_progress: follows the training.
        keywords: fields of `DistillSettings`.

    Returns:
        the run. Its results are read by `skystill.report.records.read_results`.

    Raises:
        UserError: as `train`, and a teacher that cannot be used, or a budget that no student keeps.
        Interrupted: Ctrl-C; the checkpoint is saved.
        CommandFailed: a process of its own failed, and has said why.
    """
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import alone_settings, cache_settings, distill_run, within_budget

    settings = settings_from(DistillSettings, settings, keywords)
    folder, is_first = RunFolder(settings.out), rank_and_count()[0] == 0
    if not start_ranks("distill", settings, *_flags(resume)):
        shown = on_progress if is_first else ignore_progress
        settings = within_budget(settings, shown)
        if settings.teacher_mode == "cached":
            call_command("cache", cache_settings(settings))
        distill_run(settings, resume, shown)
        leave_process_group()
        if is_first and (settings.quantize or settings.has_budget):
            _quantize_student(settings, on_progress, check=settings.measured is None)
        if is_first and settings.alone:
            call_command("train", alone_settings(settings), "--resume", "--no-report")
    if report and is_first:
        evaluate(run=folder.path, on_progress=on_progress)
    return folder


def prune(
    settings: PruneSettings | None = None,
    *,
    resume: bool = False,
    report: bool = True,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Take channels from a run's network until it keeps a budget, then distil it from the network it was.

    Args:
        settings: of the command; or its fields as keywords.
        resume: go on with a run that was stopped or killed.
        report: score on the test images and write the report at the end.
        on_progress: takes a `Message` about each round, and follows the training.
        keywords: fields of `PruneSettings`.

    Returns:
        the run of the pruned network.

    Raises:
        UserError: as `distill`, and a run that cannot be read or pruned so far.
        CommandFailed: the distillation failed, and has said why.
    """
    from skystill.train.compress.prune import prune_run

    settings = settings_from(PruneSettings, settings, keywords)
    call_command("distill", prune_run(settings, resume, on_progress), "--resume", "--no-report")
    _quantize_student(settings, on_progress, check=True)
    if report:
        evaluate(run=settings.out, on_progress=on_progress)
    return RunFolder(settings.out)


def cache(
    settings: CacheSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> None:
    """Run teachers once over the training images and keep their logits, for `distill` with `teacher_mode="cached"`.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: follows the images.
        keywords: fields of `CacheSettings`.

    Raises:
        UserError: as `distill`.
    """
    from skystill.train.runs import fill_cache_folder

    fill_cache_folder(settings_from(CacheSettings, settings, keywords), on_progress)


def tune(
    settings: TuneSettings | None = None, *, on_progress: OnProgress = ignore_progress, **keywords: object
) -> "optuna.Study":
    """Search for the best settings of a distillation. Several processes may share one study.

    Args:
        settings: of the command; or its fields as keywords.
        on_progress: follows each trial.
        keywords: fields of `TuneSettings`.

    Returns:
        the study. Its folder holds `best.yaml`, `study.json` and `study.html`.

    Raises:
        UserError: as `distill`, and a storage that cannot be opened.
    """
    from skystill.report.page import write_study_report
    from skystill.train.runs import cache_settings
    from skystill.train.tune import run_study

    settings = settings_from(TuneSettings, settings, keywords)
    study = run_study(settings, lambda drawn: call_command("cache", cache_settings(drawn)), on_progress)
    write_study_report(settings.out)
    return study


def demo(
    settings: DemoSettings | None = None,
    *,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    **keywords: object,
) -> RunFolder:
    """Make aerial scenes, train a teacher, distil a student, and write the report.

    Args:
        settings: of the command; or its fields as keywords.
        resume: go on with a demo that was stopped or killed.
        on_progress: follows the scenes.
        keywords: fields of `DemoSettings`.

    Returns:
        the run of the student.

    Raises:
        RunFolderError: the folder is there, and `resume` is False.
        CommandFailed: a training failed, and has said why.
    """
    teacher, student = prepare_demo(settings_from(DemoSettings, settings, keywords), resume, on_progress)
    flags = ["--resume"] if resume else []
    call_command("train", teacher, *flags)
    call_command("distill", student, *flags)
    return RunFolder(student.out)


def _quantize_student(settings: DistillSettings | PruneSettings, on_progress: OnProgress, check: bool) -> None:
    """Write the INT8 file of a run, and report whether it keeps its budget, which then goes before accuracy."""
    folder = RunFolder(settings.out)
    limit: dict[str, object] = {"max_drop": 100.0} if settings.has_budget else {}
    keywords = {"model": folder.model, "data": settings.data, "out": folder.model_int8, **limit}
    quantize(settings_from(QuantizeSettings, None, keywords), on_progress=on_progress)
    if settings.has_budget and check:
        from skystill.train.compress.budget import budget_of, check_result

        on_progress(Message(check_result(folder.model_int8, budget_of(settings))))


def _flags(resume: bool) -> list[str]:
    """For the ranks: the process that starts them writes the report."""
    return ["--resume", "--no-report"] if resume else ["--no-report"]
