"""The commands: each parses, calls one function of `skystill.api`, and prints. Heavy imports are inside, so that --help
answers at once.
"""

import sys
import warnings
from typing import Annotated

import typer
from rich.table import Table

from skystill import __version__
from skystill.cli.bars import console, messages, progress_display, rate
from skystill.cli.options import ConfigOption, ReportOption, ResumeOption, settings_options
from skystill.cli.tables import show_check, show_costs, show_verdict
from skystill.errors import CommandFailed, Interrupted, SkystillError
from skystill.settings import (
    CacheSettings,
    CheckSettings,
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
_EXTRAS |= dict.fromkeys(("jinja2", "matplotlib"), "report")
_EXTRAS |= {"optuna": "train,tune", "torch_pruning": "train,prune"}
"""The extra to install, by the module that is missing."""


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
@settings_options(CheckSettings, "data")
def data_check(settings: CheckSettings) -> None:
    """Find pairs of images and masks, open all of them, and report what is there and what is wrong."""
    from skystill.api import check

    with progress_display() as on_progress:
        checked = check(settings, on_progress=on_progress)
    show_check(settings.data, checked)
    checked.check.raise_problems(settings.data)


@app.command()
@settings_options(TrainSettings)
def train(
    settings: TrainSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a network on labels alone: a teacher, or a student without one."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.train(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report and _is_first_rank())


@app.command()
@settings_options(DistillSettings)
def distill(
    settings: DistillSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a student on labels and on a teacher's softened outputs, and the same student alone to compare with."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.distill(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report and _is_first_rank())


@app.command()
@settings_options(PruneSettings, "run")
def prune(settings: PruneSettings, resume: ResumeOption = False, report: ReportOption = True) -> None:
    """Take channels from a run's network until it keeps a budget, then distil it from the network it was."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.prune(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report)


@app.command()
@settings_options(CacheSettings)
def cache(settings: CacheSettings) -> None:
    """Run a teacher once over the training images and keep its logits, for distill --teacher-mode cached."""
    from skystill import api

    with progress_display() as on_progress:
        api.cache(settings, on_progress=on_progress)


@app.command()
@settings_options(TuneSettings)
def tune(settings: TuneSettings) -> None:
    """Search for the best settings of a distillation; run it in several processes to share one study."""
    from skystill import api
    from skystill.train.tune import best_line

    with progress_display() as on_progress:
        study = api.tune(settings, on_progress=on_progress)
    console.print(best_line(study), markup=False)
    console.print(f"report: {settings.out / 'study.html'}", markup=False)
    console.print(f"use it: skystill distill --config {settings.out / 'best.yaml'} --out runs/NAME", markup=False)


@app.command()
@settings_options(EvaluateSettings, "run")
def evaluate(settings: EvaluateSettings) -> None:
    """Score and measure all models of a run on its test images; write results.json and report.html."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.evaluate(settings, on_progress=on_progress)
    show_verdict(run)


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
    from skystill import api

    path = api.export(settings)
    console.print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB", markup=False)
    if settings.stac:
        console.print(f"{path.with_suffix('.stac.json')}", markup=False)


@app.command()
@settings_options(QuantizeSettings, "model")
def quantize(settings: QuantizeSettings) -> None:
    """Turn a model file into INT8, calibrated on images; layers that hurt stay in float, and both files are timed."""
    from skystill import api

    with progress_display() as on_progress:
        done = api.quantize(settings, on_progress=on_progress)
    kept = ", ".join(done.quantized.kept) or "none"
    console.print(f"kept in float: {kept}", markup=False)
    show_costs(done.costs)
    console.print(f"{done.path}", markup=False)


@app.command()
@settings_options(MeasureSettings, "models")
def measure(settings: MeasureSettings) -> None:
    """Size, work, time and memory of model files, each in a process of its own."""
    from skystill import api

    with progress_display() as on_progress:
        costs = api.measure(settings, on_progress=on_progress)
    show_costs(costs)


@app.command()
@settings_options(PredictSettings, "inputs")
def predict(settings: PredictSettings, resume: ResumeOption = False) -> None:
    """Run a model file over photographs and rasters of any size, in bounded memory."""
    from skystill.allocator import use_one_heap
    from skystill.predict.batch import predict_inputs
    from skystill.progress import Note

    use_one_heap()
    with progress_display() as on_progress:
        if settings.model is None:
            on_progress(
                Note("the bundled student: Dubai's classes; skystill box says how good it is. Your own: --model.")
            )
        for done in predict_inputs(settings, resume, on_progress):  # each is printed as soon as it is done
            for note in done.prediction.notes:
                on_progress(Note(note))
            speed = rate(done.prediction.pixels, done.seconds)
            console.print(
                f"{done.prediction.path}: {done.prediction.pixels / 1e6:.1f} MP, {speed:.1f} MP/s", markup=False
            )
            for path in done.beside:
                console.print(f"{path}", markup=False)


@app.command()
@settings_options(DemoSettings)
def demo(settings: DemoSettings, resume: ResumeOption = False) -> None:
    """Make aerial scenes, train a teacher, distil a student, and write the report: a few minutes, nothing to give."""
    from skystill import api

    with progress_display() as on_progress:
        api.demo(settings, resume=resume, on_progress=on_progress)


@app.command()
def networks() -> None:
    """List the networks of the table: parameters, and work for six classes."""
    from skystill.train.compress.export import multiply_adds_per_megapixel
    from skystill.train.networks.table import NETWORKS, build_network, count_parameters

    table = Table("name", "parameters", "multiply-adds per megapixel")
    for name in NETWORKS:
        network = build_network(name, 6)
        work = multiply_adds_per_megapixel(network)
        table.add_row(name, f"{count_parameters(network):,}", f"{work / 1e9:.1f} G")
    console.print(table)


def _is_first_rank() -> bool:
    """Whether this process is the one of several ranks that prints; torch is loaded already."""
    from skystill.train.loop.ranks import rank_and_count

    return rank_and_count()[0] == 0


def main() -> None:
    """Run the command line; errors end in one message and an exit code: 2 the user's, 1 ours, 130 Ctrl-C."""
    debug = "--debug" in sys.argv
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        if debug:
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Print what went wrong, and give the exit code."""
    if isinstance(error, CommandFailed):  # its process has said why
        if error.hint:
            messages.print(error.hint, markup=False, style="red")
        return error.exit_code
    if isinstance(error, SkystillError):
        style = None if error.exit_code == Interrupted.exit_code else "red"
        messages.print(f"error: {error}", markup=False, style=style)
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        messages.print(
            f'error: {error}. Install what this command needs: pip install "skystill[{_EXTRAS[error.name]}]" (on '
            "Linux without a GPU take torch's CPU build first, as the README says).",
            markup=False,
            style="red",
        )
        return 2
    messages.print(
        f"internal error: {type(error).__name__}: {error}. Run again with --debug to see where.", markup=False
    )
    return 1
