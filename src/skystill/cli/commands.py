"""The command line: one function a verb. Heavy imports are inside, so that --help answers at once."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from skystill import __version__
from skystill.cli.bars import console, messages, pixel_bar, rate, track, training_bar
from skystill.cli.options import ConfigOption, ReportOption, ResumeOption, settings_options
from skystill.cli.processes import call_command, start_ranks
from skystill.cli.tables import show_check, show_costs, show_notes
from skystill.errors import Interrupted, SkystillError
from skystill.settings import (
    CacheSettings,
    DemoSettings,
    DistillSettings,
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    PruneSettings,
    QuantizeSettings,
    TrainSettings,
    TuneSettings,
)

app = typer.Typer(
    help="Distil large aerial-image segmentation models into small ones that run without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_EXTRAS = dict.fromkeys(("torch", "lightning_fabric", "safetensors", "onnx", "onnxscript"), "train")
_EXTRAS |= {"optuna": "train,tune", "torch_pruning": "train,prune"}
"""What has to be installed, by the module that is missing."""


@app.callback(invoke_without_command=True)
def skystill(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and warnings.")] = False,
) -> None:
    """Distil large aerial-image segmentation models into small ones that run without a GPU."""
    if not debug:
        warnings.simplefilter("ignore")
    if version:
        console.print(f"skystill {__version__}")
        raise typer.Exit


@data_app.command("check")
def data_check(
    data: Annotated[Path, typer.Argument(help="Folder with images and masks.")],
    classes: Annotated[str | None, typer.Option(help="Classes: a YAML or JSON file, or a built-in name.")] = None,
    split: Annotated[str, typer.Option(help="How to split; as in train.")] = "auto",
) -> None:
    """Find pairs of images and masks, open all of them, and report what is there and what is wrong."""
    from skystill.data import check_data, find_pairs, resolve_classes, split_pairs

    search = find_pairs(data)
    class_map, notes = resolve_classes(data, classes, search.pairs)
    check = check_data(search, class_map, lambda pairs: track(list(pairs), "opening"))
    show_check(data, check, notes)
    check.raise_problems(data)
    parts = split_pairs(search.pairs, split)
    sizes = ", ".join(f"{len(getattr(parts, part))} {part}" for part in ("train", "validation", "test"))
    console.print(f"split {parts.rule}: {sizes} images")


@app.command()
@settings_options(TrainSettings)
def train(
    settings: TrainSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a network on labels alone: a teacher, or a student without one."""
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import train_run

    if start_ranks(settings):
        return
    with training_bar(settings.network) as bar:
        train_run(settings, resume, bar, show_notes)
    leave_process_group()
    if report and rank_and_count()[0] == 0:
        score(settings.out)


@app.command()
@settings_options(DistillSettings)
def distill(
    settings: DistillSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a student on labels and on a teacher's softened outputs, and the same student alone to compare with."""
    from skystill.train.loop.ranks import leave_process_group, rank_and_count
    from skystill.train.runs import alone_settings, cache_settings, distill_run, within_budget

    if start_ranks(settings):
        return
    settings = within_budget(settings, lambda line: messages.print(line, markup=False))
    if settings.teacher_mode == "cached":
        # A process of its own: afterwards nothing of the teacher is in memory.
        call_command("cache", cache_settings(settings))
    name = Path(settings.student).stem if settings.student.endswith(".safetensors") else settings.student
    with training_bar(f"{name} distilled") as bar:
        distill_run(settings, resume, bar, show_notes)
    leave_process_group()
    if rank_and_count()[0] > 0:
        return
    if settings.quantize or settings.has_budget:
        quantize_student(settings, check=settings.measured is None)
    if settings.alone:
        # A process of its own, so that its peak memory is its own.
        call_command("train", alone_settings(settings), "--resume", "--no-report")
    if report:
        score(settings.out)


def quantize_student(settings: DistillSettings | PruneSettings, check: bool = True) -> None:
    """Write student-int8.onnx of a run, and say whether it keeps its budget, which then goes before accuracy."""
    from skystill.run_folder import RunFolder

    folder = RunFolder(settings.out)
    chosen: dict[str, Any] = {"model": folder.model, "data": settings.data, "out": folder.model_int8}
    chosen |= {"max_drop": 100.0} if settings.has_budget else {}
    quantize(**{name: field.default for name, field in QuantizeSettings.model_fields.items()} | chosen)
    if settings.has_budget and check:
        from skystill.train.compress.budget import budget_of, check_result

        console.print(check_result(folder.model_int8, budget_of(settings)), markup=False)


@app.command()
@settings_options(PruneSettings, "run")
def prune(settings: PruneSettings, resume: ResumeOption = False, report: ReportOption = True) -> None:
    """Take channels from a run's network until it keeps a budget, then distil it from the network it was."""
    from skystill.train.compress.prune import prune_run

    distilled = prune_run(settings, resume, lambda line: messages.print(line, markup=False), show_notes)
    call_command("distill", distilled, "--resume", "--no-report")
    quantize_student(settings)
    if report:
        score(settings.out)


@app.command()
@settings_options(CacheSettings)
def cache(settings: CacheSettings) -> None:
    """Run a teacher once over the training images and keep its logits, for distill --teacher-mode cached."""
    from skystill.train.runs import fill_cache_folder

    fill_cache_folder(settings, track, show_notes)


@app.command()
@settings_options(TuneSettings)
def tune(settings: TuneSettings) -> None:
    """Search for the best settings of a distillation; run it in several processes to share one study."""
    from skystill.report.page import write_study_report
    from skystill.train.runs import cache_settings
    from skystill.train.tune import best_line, run_study

    study = run_study(
        settings, lambda drawn: call_command("cache", cache_settings(drawn)), training_bar, lambda notes: None
    )
    console.print(best_line(study), markup=False)
    console.print(f"report: {write_study_report(settings.out)}", markup=False)
    console.print(f"use it: skystill distill --config {settings.out / 'best.yaml'} --out runs/NAME", markup=False)


@app.command()
@settings_options(EvaluateSettings, "run")
def evaluate(settings: EvaluateSettings) -> None:
    """Score and measure all models of a run on its test images; write results.json and report.html."""
    from skystill.report.page import write_report
    from skystill.report.results import evaluate_run

    folder = evaluate_run(settings, track)
    for line in write_report(folder):
        console.print(line)
    console.print(f"report: {folder.report}")


@app.command()
def box() -> None:
    """Show the card of the model that comes with SkyStill: what it knows, how good it is, where it fails."""
    from rich.markdown import Markdown

    from skystill.model.bundled import bundled_model, model_card

    console.print(Markdown(model_card()))
    console.print(f"{bundled_model()}", markup=False, soft_wrap=True)


@app.command()
@settings_options(ExportSettings, "run")
def export(settings: ExportSettings) -> None:
    """Write a run's network as a model file, checked against torch."""
    from skystill.train.compress.formats import export_run

    path, info = export_run(settings)
    console.print(f"{path}: {info.network}, {path.stat().st_size / 1e3:,.0f} kB", markup=False)
    if settings.stac:
        from skystill.model.stac import write_stac_item

        write_stac_item(path, path.with_suffix(".stac.json"))
        console.print(f"{path.with_suffix('.stac.json')}", markup=False)


@app.command()
@settings_options(QuantizeSettings, "model")
def quantize(settings: QuantizeSettings) -> None:
    """Turn a model file into INT8, calibrated on images; layers that hurt stay in float, and both files are timed."""
    from skystill.report.int8 import quantize_on_data

    done = quantize_on_data(settings, lambda line: console.print(line, markup=False))
    kept = ", ".join(done.quantized.kept) or "none"
    console.print(f"kept in float: {kept}", markup=False)
    show_costs(done.costs)
    console.print(f"{done.path}", markup=False)


@app.command()
@settings_options(MeasureSettings, "models")
def measure(settings: MeasureSettings) -> None:
    """Size, work, time and memory of model files, each in a process of its own."""
    from skystill.model.measure import compare_models
    from skystill.run_folder import write_json

    costs = compare_models(settings.models, settings.runtime)
    show_costs(costs)
    if settings.save:
        write_json(settings.save, {"models": costs})


@app.command()
@settings_options(PredictSettings, "inputs")
def predict(settings: PredictSettings, resume: ResumeOption = False) -> None:
    """Run a model file over photographs and rasters of any size, in bounded memory."""
    from skystill.allocator import use_one_heap
    from skystill.predict.batch import predict_inputs

    use_one_heap()
    if settings.model is None:
        show_notes(("the student in the box: Dubai's classes; skystill box says how good it is. Your own: --model.",))
    for mapped in predict_inputs(settings, resume, pixel_bar, track):
        show_notes(mapped.prediction.notes)
        speed = rate(mapped.prediction.pixels, mapped.seconds)
        console.print(
            f"{mapped.prediction.path}: {mapped.prediction.pixels / 1e6:.1f} MP, {speed:.1f} MP/s", markup=False
        )
        for path in mapped.beside:
            console.print(f"{path}", markup=False)


@app.command()
@settings_options(DemoSettings)
def demo(settings: DemoSettings, resume: ResumeOption = False) -> None:
    """Make aerial scenes, train a teacher, distil a student, and write the report: a few minutes, nothing to give."""
    from skystill.cli.demo import prepare_demo

    teacher, student = prepare_demo(settings, resume, track)
    call_command("train", teacher, *(["--resume"] if resume else []))
    call_command("distill", student, *(["--resume"] if resume else []))


@app.command()
def networks() -> None:
    """List the networks of the table: parameters, and work for six classes."""
    from skystill.train.compress.export import multiply_adds_per_megapixel
    from skystill.train.networks.table import NETWORKS, build_network, count_parameters

    table = Table("name", "parameters", "multiply-adds a megapixel")
    for name in NETWORKS:
        network = build_network(name, 6)
        work = multiply_adds_per_megapixel(network)
        table.add_row(name, f"{count_parameters(network):,}", f"{work / 1e9:.1f} G")
    console.print(table)


def score(run: Path) -> None:
    """Evaluate a finished run and write its report."""
    evaluate(run=run, data=None, split=None)


def main() -> None:
    """Run the command line; errors end in one message and an exit code: 2 the user's, 1 ours, 130 Ctrl-C."""
    debug = "--debug" in sys.argv
    try:
        app()
    except SkystillError as error:
        if debug:
            raise
        messages.print(
            f"error: {error}", markup=False, style=None if error.exit_code == Interrupted.exit_code else "red"
        )
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
            messages.print(
                f'error: {error}. Install what this command needs: pip install "skystill[{_EXTRAS[error.name]}]" (on '
                "Linux without a GPU take torch's CPU build first, as the README says).",
                markup=False,
                style="red",
            )
            sys.exit(2)
        messages.print(
            f"internal error: {type(error).__name__}: {error}. Run again with --debug to see where.", markup=False
        )
        sys.exit(1)
