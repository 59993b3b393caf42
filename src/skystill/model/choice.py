"""Which runtime runs a model file: onnxruntime, unless `skystill measure --choose` recorded another one beside it.

The record is `MODEL.runtime.json`. It is never made by a prediction, so that the same command gives the same result
whatever else the machine does: the runtimes differ in the last bits, which changes the class of some pixels.
"""

import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill import __version__
from skystill.errors import ModelFileError, SettingsError, shortened
from skystill.model.external import model_digest
from skystill.model.measure import ComparedCost, cores
from skystill.parsing import built_from, read_json
from skystill.raster.files import check_regular
from skystill.run_folder import write_json

DEFAULT_RUNTIME = "onnxruntime"
RUNTIMES = (DEFAULT_RUNTIME, "openvino")
_FIGURES = (
    "latency_ms_per_mp_1_thread",
    "latency_spread_ms_per_mp_1_thread",
    "latency_ms_per_mp",
    "latency_spread_ms_per_mp",
    "peak_rss_bytes",
)


@dataclass(frozen=True)
class Choice:
    """The runtime to use.

    Args:
        runtime: "onnxruntime" or "openvino".
        notes: what a record says, or why it is not used.
    """

    runtime: str = DEFAULT_RUNTIME
    notes: tuple[str, ...] = ()


def choice_path(model: Path) -> Path:
    """Return the path of the record of a model file."""
    return model.with_name(f"{model.name}.runtime.json")


def installed_runtimes() -> list[str]:
    """Return the runtimes that are installed."""
    return [runtime for runtime in RUNTIMES if importlib.util.find_spec(runtime) is not None]


def check_choosing(runtime: str) -> None:
    """Check that there is something to choose from.

    Args:
        runtime: the value of --runtime.

    Raises:
        SettingsError: a runtime is named, or only one is installed.
    """
    if runtime != DEFAULT_RUNTIME:
        raise SettingsError(f"--choose measures in all runtimes: leave --runtime {runtime} out, or leave --choose out.")
    if len(installed_runtimes()) < 2:
        raise SettingsError(
            f"--choose compares {' and '.join(RUNTIMES)}, and only {' and '.join(installed_runtimes())} is installed. "
            'Install the other one with pip install "skystill[openvino]", or leave --choose out.'
        )


def write_choice(model: Path, costs: Sequence[ComparedCost]) -> Choice:
    """Record the fastest runtime beside a model file, with the figures of all.

    The time on one thread counts, because a prediction computes each tile on one thread.

    Args:
        model: the model file.
        costs: its cost in each runtime.

    Raises:
        DiskFull: the record cannot be written.
    """
    best = min(costs, key=lambda cost: cost.latency_ms_per_mp_1_thread)
    figures = {cost.runtime: {name: getattr(cost, name) for name in _FIGURES} for cost in costs}
    content = {
        "runtime": best.runtime,
        "model_sha256": _digest(model),
        "measured": figures,
        "machine": {"processor": _processor(), "cores": cores(), "system": platform.platform()},
        "skystill_version": __version__,
    }
    write_json(choice_path(model), content)
    return Choice(best.runtime, (_sentence(model, best.runtime, figures),))


def read_choice(model: Path) -> Choice:
    """Return the recorded runtime of a model file, or onnxruntime without a record.

    A record of another model file, or of a runtime that is not installed, is not used, and a note says so.

    Args:
        model: the model file.

    Raises:
        ModelFileError: there is a record that cannot be understood.
        DataError: there is a record, and the model file is a named pipe or the like.
    """
    path = choice_path(model)
    if not path.is_file():
        return Choice()
    mend = f"skystill measure {model} --choose makes it again; without it, {DEFAULT_RUNTIME} is used."

    def refuse(reason: str) -> ModelFileError:
        return ModelFileError(f"{path} is damaged ({reason}). {mend}")

    def build(content: Any) -> tuple[str, str, str]:  # noqa: ANN401 - what the file holds
        if content["runtime"] not in RUNTIMES:
            raise ValueError(f"no runtime is called {shortened(content['runtime'], 50)}")
        sentence = _sentence(model, content["runtime"], content["measured"])
        return str(content["runtime"]), str(content["model_sha256"]), sentence

    runtime, digest, sentence = built_from(read_json(path, refuse), build, refuse)
    if digest != _digest(model):
        return Choice(notes=(f"{path} was measured with another model file, and is not used. {mend}",))
    if runtime not in installed_runtimes():
        return Choice(
            notes=(
                f"{path} chooses {runtime}, which is not installed here: {DEFAULT_RUNTIME} is used, and some pixels "
                f'may get another class. pip install "skystill[{runtime}]" installs it.',
            )
        )
    return Choice(runtime, () if runtime == DEFAULT_RUNTIME else (sentence,))


def _sentence(model: Path, chosen: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    times = ", ".join(
        f"{runtime} {float(of['latency_ms_per_mp_1_thread']):.1f}" for runtime, of in sorted(figures.items())
    )
    return (
        f"{choice_path(model)} chooses {chosen} (measured, in ms per megapixel on one thread: {times}). --runtime "
        "names another one."
    )


def _digest(model: Path) -> str:
    check_regular(model)
    try:
        return model_digest(model)
    except OSError as error:
        raise ModelFileError(f"{model} cannot be read: {error.strerror or error}.") from error


def _processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found = next((line for line in file if line.startswith("model name")), "")
    except OSError:
        found = ""
    return found.partition(":")[2].strip() or platform.processor() or os.name
