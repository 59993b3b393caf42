"""The commands. Each parses its options, calls one function of `skystill.api`, and prints the result.

Slow imports are inside the commands, so that `--help` is fast.
"""

import errno
import shlex
import sys
import warnings
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from skystill import __version__
from skystill.cli.bars import console, messages, progress_display, rate
from skystill.cli.interrupts import noting_interrupts
from skystill.cli.options import ConfigOption, DryRunOption, ReportOption, ResumeOption, settings_options
from skystill.cli.tables import show_ahead, show_check, show_costs, show_status, show_verdict
from skystill.errors import CommandFailed, DiskFull, Interrupted, SkystillError
from skystill.progress import is_a_step
from skystill.settings import (
    CacheSettings,
    CheckSettings,
    DemoSettings,
    DistillSettings,
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    PretrainSettings,
    PruneSettings,
    QuantizeSettings,
    ServeSettings,
    StatusSettings,
    TrainSettings,
    TuneSettings,
)

app = typer.Typer(
    help="Distil large aerial-image segmentation models into small ones that run without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Inspect data before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_EXTRAS = dict.fromkeys(("torch", "lightning_fabric", "safetensors", "onnx", "onnxscript"), "train")
_EXTRAS |= dict.fromkeys(("jinja2", "matplotlib"), "report")
_EXTRAS |= dict.fromkeys(("starlette", "uvicorn", "prometheus_client"), "serve")
_EXTRAS |= {"distributed": "cluster", "dask": "cluster", "optuna": "train,tune", "torch_pruning": "train,prune"}
"""The extra of the package that installs a missing module."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What only a write fails with. A write that nobody names may end here, such as that of the output to a full disk."""


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
    """Find pairs of images and masks, open all of them, and report their content and all problems."""
    from skystill.api import check

    with progress_display() as on_progress:
        checked = check(settings, on_progress=on_progress)
    show_check(settings.data, checked)
    if settings.html is not None:
        console.print(f"page: {settings.html}", markup=False)
    checked.check.raise_problems(settings.data)


@app.command()
@settings_options(TrainSettings)
def train(
    settings: TrainSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a network on labels alone: a teacher, or a student without a teacher."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.train(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report and _is_first_rank())


@app.command()
@settings_options(DistillSettings)
def distill(
    settings: DistillSettings, resume: ResumeOption = False, report: ReportOption = True, config: ConfigOption = None
) -> None:
    """Train a student on labels and on the softened outputs of a teacher, and a baseline without the teacher."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.distill(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report and _is_first_rank())


@app.command()
@settings_options(PretrainSettings)
def pretrain(settings: PretrainSettings, resume: ResumeOption = False) -> None:
    """Let a student learn the features of a teacher from images alone, as a start for its training."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.pretrain(settings, resume=resume, on_progress=on_progress)
    if not is_a_step():
        start = shlex.quote(str(run.weights))
        line = f"start from it: skystill distill --student {start}, or skystill train --network {start}"
        console.print(line, markup=False)


@app.command()
@settings_options(PruneSettings, "run")
def prune(settings: PruneSettings, resume: ResumeOption = False, report: ReportOption = True) -> None:
    """Remove channels from the network of a run until it keeps a budget, then distil it from the unpruned network."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.prune(settings, resume=resume, report=report, on_progress=on_progress)
    show_verdict(run, report)


@app.command()
@settings_options(CacheSettings)
def cache(settings: CacheSettings) -> None:
    """Run teachers once over the training images and store their logits, for distill --teacher-mode cached."""
    from skystill import api

    with progress_display() as on_progress:
        api.cache(settings, on_progress=on_progress)


@app.command()
@settings_options(TuneSettings)
def tune(settings: TuneSettings) -> None:
    """Search for the best settings of a distillation. Several processes can share one study."""
    from skystill import api
    from skystill.train.tune import best_line

    with progress_display() as on_progress:
        study = api.tune(settings, on_progress=on_progress)
    console.print(best_line(study), markup=False)
    console.print(f"report: {settings.out / 'study.html'}", markup=False)
    best = shlex.quote(str(settings.out / "best.yaml"))
    console.print(f"use it: skystill distill --config {best} --out runs/NAME", markup=False)


@app.command()
@settings_options(EvaluateSettings, "run")
def evaluate(settings: EvaluateSettings) -> None:
    """Score and measure the models of a run on its test images, and write results.json and report.html."""
    from skystill import api

    with progress_display() as on_progress:
        run = api.evaluate(settings, on_progress=on_progress)
    show_verdict(run)


@app.command()
def box() -> None:
    """Show the model card of the bundled model: what it was trained on, how good it is, and where it fails."""
    from rich.markdown import Markdown

    from skystill.model.bundled import bundled_model, model_card

    console.print(Markdown(model_card()), soft_wrap=False)
    console.print(f"{bundled_model()}", markup=False, soft_wrap=True)


@app.command()
@settings_options(ExportSettings, "run")
def export(settings: ExportSettings) -> None:
    """Write the network of a run as a model file, and check that its logits equal those of torch; or as a web page."""
    from skystill import api

    with progress_display() as on_progress:
        path = api.export(settings, on_progress=on_progress)
    files = list(path.iterdir()) if path.is_dir() else [path]
    console.print(f"{path}: {sum(file.stat().st_size for file in files) / 1e3:,.0f} kB", markup=False)
    if settings.stac:
        console.print(f"{path.with_suffix('.stac.json')}", markup=False)


@app.command()
@settings_options(QuantizeSettings, "model")
def quantize(settings: QuantizeSettings) -> None:
    """Quantise a model file to INT8 with a limited loss of mIoU, and compare the cost of both files."""
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
    """Measure size, multiply-adds, latency and memory of model files, each in a separate process."""
    from skystill import api

    with progress_display() as on_progress:
        costs = api.measure(settings, on_progress=on_progress)
    show_costs(costs)


@app.command()
@settings_options(PredictSettings, "inputs")
def predict(settings: PredictSettings, resume: ResumeOption = False, dry_run: DryRunOption = False) -> None:
    """Run a model file on photographs and rasters of any size in bounded memory, here or on a cluster of Dask."""
    from skystill.allocator import use_one_heap
    from skystill.api import count_ahead, predict_each
    from skystill.predict.stac_results import collection_of, item_of
    from skystill.progress import Note

    use_one_heap()
    with progress_display() as on_progress:
        if settings.model is None:
            on_progress(
                Note("the bundled student (classes of Dubai) is used; skystill box describes it. Your own: --model.")
            )
        if dry_run:
            ahead = count_ahead(settings, on_progress=on_progress)
            show_ahead(ahead, settings.workers)
            return
        for done in predict_each(settings, resume, on_progress):  # each result is printed as soon as it is done
            for note in done.prediction.notes:
                on_progress(Note(note))
            speed = rate(done.prediction.pixels, done.seconds)
            console.print(
                f"{_shown(done.prediction.path)}: {done.prediction.pixels / 1e6:.1f} MP, {speed:.1f} MP/s", markup=False
            )
            for path in done.beside:
                console.print(_shown(path), markup=False)
        if settings.stac:
            console.print(_shown(collection_of(settings) or item_of(settings.out)), markup=False)


@app.command()
@settings_options(StatusSettings, "out")
def status(settings: StatusSettings) -> None:
    """Show how far a prediction on a cluster is: what is done, what failed and why, the rate, and the time left."""
    from skystill import api

    show_status(api.status(settings))
    if settings.html is not None:
        console.print(f"page: {settings.html}", markup=False)


@app.command()
@settings_options(ServeSettings, "model")
def serve(settings: ServeSettings) -> None:
    """Serve a model over HTTP: images and GeoTIFFs in, classes out, at once or as jobs of OGC API - Processes."""
    from skystill import api

    with progress_display() as on_progress:
        by_ctrl_c = api.serve(settings, on_progress=on_progress)
    if by_ctrl_c:
        raise typer.Exit(Interrupted.exit_code)


@app.command()
@settings_options(DemoSettings)
def demo(settings: DemoSettings, resume: ResumeOption = False) -> None:
    """Generate aerial scenes, train a teacher, distil a student, and write the report. Takes a few minutes."""
    from skystill import api

    with progress_display() as on_progress:
        api.demo(settings, resume=resume, on_progress=on_progress)


@app.command()
def networks() -> None:
    """List the available networks with their parameters and multiply-adds for six classes, and what other libraries
    have.
    """
    from skystill.train.compress.export import multiply_adds_per_megapixel
    from skystill.train.networks.library import FORMS, LIBRARIES, OPTION
    from skystill.train.networks.shipped import WEIGHTS
    from skystill.train.networks.table import NETWORKS, build_network, count_parameters

    table = Table("name", "parameters", "multiply-adds per megapixel")
    for name in NETWORKS:
        network = build_network(name, 6)
        work = multiply_adds_per_megapixel(network)
        table.add_row(name, f"{count_parameters(network):,}", f"{work / 1e9:.1f} G")
    console.print(table)
    shipped = {f"{name}{OPTION}{one}": text for name, texts in WEIGHTS.items() for one, text in texts.items()}
    others = {form: LIBRARIES[library] for library, form in FORMS.items()}
    for form, text in (shipped | others).items():
        console.print(f"{form}  {text}", markup=False, highlight=False, soft_wrap=True)


def _shown(path: Path) -> str:
    """Return a path as the user would write it: s3://bucket/a for the path s3:/bucket/a."""
    from skystill.raster.buckets import bucket_address

    return bucket_address(path) or str(path)


def _is_first_rank() -> bool:
    """Whether this process is the first rank, the only one that prints. torch is already imported at that point."""
    from skystill.train.loop.ranks import rank_and_count

    return rank_and_count()[0] == 0


def main() -> None:
    """Run the command line. An error ends it with one message and an exit code.

    The exit code is 2 if the user can fix the problem, 130 after Ctrl-C, and 1 otherwise. With `--debug` an error is
    raised with its traceback.
    """
    debug = "--debug" in sys.argv
    if not debug:
        sys.unraisablehook = _without_quotes_of_gdal
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding cannot show is written in escapes
            stream.reconfigure(errors="backslashreplace")
    with noting_interrupts() as is_interrupted:
        try:
            app()
        except KeyboardInterrupt:
            sys.exit(Interrupted.exit_code)
        except Exception as error:
            if debug:
                raise
            by_ctrl_c = is_interrupted() and not isinstance(error, SkystillError)
            sys.exit(Interrupted.exit_code if by_ctrl_c else _report(error))


def _without_quotes_of_gdal(ignored: "sys.UnraisableHookArgs") -> None:
    """Print nothing where rasterio cannot log a message of GDAL, because it quotes bytes of a damaged file."""
    if not isinstance(ignored.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(ignored)


def _missing(error: ModuleNotFoundError) -> str:
    """Return the package of a missing module."""
    return (error.name or "").partition(".")[0]


def _report(error: Exception) -> int:
    """Print the error message and return the exit code."""
    if isinstance(error, CommandFailed):  # the failed process has printed the reason
        if error.hint:
            messages.print(error.hint, markup=False, style="red")
        return error.exit_code
    if isinstance(error, SkystillError):
        style = None if error.exit_code == Interrupted.exit_code else "red"
        messages.print(f"error: {error}", markup=False, style=style)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _FULL:
        messages.print(f"error: {DiskFull(Path(error.filename or 'the output'), error)}", markup=False, style="red")
        return DiskFull.exit_code
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):  # of Python's tempfile
        folders = Path("temporary files in any of the usual folders")
        messages.print(
            f"error: {DiskFull(folders, OSError(errno.ENOSPC, ''), scratch=True)}", markup=False, style="red"
        )
        return DiskFull.exit_code
    if isinstance(error, ModuleNotFoundError) and _missing(error) in _EXTRAS:
        extra = _EXTRAS[_missing(error)]
        torch = " (on Linux without a GPU take torch's CPU build first, as the README says)"
        hint = torch if extra.startswith("train") else ""
        messages.print(
            f'error: {error}. Install what this command needs: pip install "skystill[{extra}]"{hint}.',
            markup=False,
            style="red",
        )
        return 2
    messages.print(
        f"internal error: {type(error).__name__}: {error}. Run again with --debug to see where.", markup=False
    )
    return 1
