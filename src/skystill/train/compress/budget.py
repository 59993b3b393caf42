"""Budgets: choice of the most capable student of the family within limits of latency, memory and file size, in INT8.

Latency, memory and size do not depend on what a network has learnt, but an export leaves constants out that are zero.
Each candidate is therefore exported untrained, with other values in their place, quantised and measured before anything
is trained. It is measured on this computer, or its figures come from another, weaker one (`skystill measure --save`).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skystill.classes import ClassMap
from skystill.errors import DataError, SettingsError
from skystill.model.measure import ModelCost, measure_models
from skystill.model.quantize import quantize_model
from skystill.parsing import built_from, read_json
from skystill.progress import Message, OnProgress, phase
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.scratch import scratch_folder
from skystill.settings import BudgetSettings, DistillSettings
from skystill.train.compress.export import describe, export_network
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.networks.imagenet import lacks_package
from skystill.train.networks.table import FAMILY, build_network


@dataclass(frozen=True)
class Budget:
    """Limits for a student in use. None means no limit.

    Args:
        latency_ms_per_mp: latency in milliseconds per megapixel.
        peak_rss_bytes: peak resident memory of the process in bytes.
        size_bytes: size of the model file in bytes.
    """

    latency_ms_per_mp: float | None
    peak_rss_bytes: int | None
    size_bytes: int | None

    def violations(self, cost: ModelCost) -> list[str]:
        """Describe each limit that a measured cost exceeds, for messages. The list is empty if it exceeds none."""
        return [
            f"{math.ceil(10 * found * factor) / 10:.1f} {unit} instead of {limit * factor:g}"
            for found, limit, factor, unit in self._limits(cost)
            if found > limit
        ]

    def excess(self, cost: ModelCost) -> float:
        """Return the largest ratio of a measured cost to its limit; above 1 it exceeds one."""
        return max(found / limit for found, limit, _, _ in self._limits(cost))

    def _limits(self, cost: ModelCost) -> list[tuple[float, float, float, str]]:
        limits = (
            (cost.latency_ms_per_mp, self.latency_ms_per_mp, 1.0, "ms per megapixel"),
            (cost.peak_rss_bytes, self.peak_rss_bytes, 1e-6, "MB of memory"),
            (cost.size_bytes, self.size_bytes, 1e-3, "kB of file"),
        )
        return [(found, limit, factor, unit) for found, limit, factor, unit in limits if limit is not None]


def budget_of(settings: BudgetSettings) -> Budget:
    """Return the budget of the settings."""
    return Budget(settings.latency_ms, settings.max_memory, settings.max_size)


def check_result(model: Path, budget: Budget) -> str:
    """Measure a trained, quantised student, and describe in one line whether it keeps the budget.

    Args:
        model: the model file.
        budget: the limits.

    Raises:
        ModelFileError: the file cannot be measured.
    """
    broken = budget.violations(measure_models([model])[0])
    return f"budget broken: {', '.join(broken)}" if broken else "the budget is kept"


def choose_student(
    settings: DistillSettings, classes: ClassMap, fed: InputSpec, on_progress: OnProgress
) -> DistillSettings:
    """Return the settings with the most capable student that keeps the budget.

    Args:
        settings: settings of the distillation, with the budget.
        classes: the classes of the data.
        fed: what the student is fed.
        on_progress: receives a `Message` about each candidate.

    Raises:
        SettingsError: no student keeps the budget. The message names the nearest one with what it needs.
        DataError: the figures of another computer cannot be read, or contain no student of the family.
    """
    budget = budget_of(settings)
    known = None if settings.measured is None else read_measured(settings.measured)
    breaks: list[tuple[float, str]] = []
    for name in reversed(FAMILY):  # the most capable first
        if not settings.from_scratch and lacks_package(build_network(name, len(classes), fed)):
            on_progress(Message(f'{name}: left out, because pip install "skystill[pretrained]" is missing'))
            continue
        if known is not None:
            cost = known.get(name)
        else:
            with phase(f"measuring {name}", on_progress, leaves_line=None):
                cost = measure_untrained(name, classes, fed)
        if cost is None:
            continue
        broken = budget.violations(cost)
        found = f"{cost.latency_ms_per_mp:.1f} ms per megapixel, {cost.peak_rss_bytes / 1e6:.0f} MB"
        result = "; too much" if broken else ": taken"
        on_progress(Message(f"{name}: {found}, {cost.size_bytes / 1e3:.0f} kB{result}"))
        if not broken:
            return settings.model_copy(update={"student": name})
        breaks.append((budget.excess(cost), f"{name} needs {', '.join(broken)}"))
    if not breaks:
        raise SettingsError(f'{settings.measured} holds no figures of a student that can be trained here: pip install '
                            '"skystill[pretrained]", or measure others.')  # fmt: skip
    _, nearest = min(reversed(breaks), key=lambda one: one[0])  # of equals the smallest
    raise SettingsError(f"no student keeps this budget; the nearest, {nearest}. Allow that much.")


def measure_untrained(name: str, classes: ClassMap, fed: InputSpec = RGB) -> ModelCost:
    """Measure an untrained student in INT8 on this computer.

    Args:
        name: the name of the student.
        classes: the classes of the data; their number is the number of output channels.
        fed: what the student is fed.
    """
    return measure_int8(name, _without_zeros(build_network(name, len(classes), fed)), classes)


def _without_zeros(network: nn.Module) -> nn.Module:
    """Give constants that are zero before a training, such as biases and means of BatchNorm, small random values."""
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in (*network.parameters(), *network.buffers()):
            if values.is_floating_point() and not values.any():
                values.normal_(std=0.01, generator=drawn)
    return network


def measure_int8(name: str, network: nn.Module, classes: ClassMap) -> ModelCost:
    """Measure a network in INT8 on this computer.

    Args:
        name: the name of the network, for the model file.
        network: on the CPU.
        classes: the classes of the data.
    """
    with int8_file(name, network, classes) as (_, made):
        return measure_models([made])[0]


@contextmanager
def int8_file(name: str, network: nn.Module, classes: ClassMap) -> Iterator[tuple[Path, Path]]:
    """Export a network as a temporary float file and a temporary INT8 file.

    The INT8 file is calibrated on noise, because latency does not depend on the scales.

    Args:
        name: the name of the network, for the model files.
        network: on the CPU.
        classes: the classes of the data.

    Yields:
        The paths of the float file and the INT8 file. Both are deleted afterwards.
    """
    noise = list(noise_images(input_spec_of(network), 2, 256, 256).permute(0, 2, 3, 1).numpy())
    with scratch_folder() as scratch:
        exported, made = scratch / "float.onnx", scratch / "int8.onnx"
        export_network(network, describe(name, network, classes), exported)
        quantize_model(exported, made, noise, lambda path: 0.0)
        yield exported, made


def read_measured(path: Path) -> dict[str, ModelCost]:
    """Read the INT8 figures that `skystill measure --save` wrote.

    Args:
        path: the JSON file.

    Returns:
        The costs by name, for students of the family.

    Raises:
        DataError: the file cannot be read, or contains no student of the family in INT8.
    """

    def refuse(reason: str) -> DataError:
        return DataError(f"{path} holds no figures of skystill measure --save ({reason}).")

    costs = built_from(
        read_json(path, refuse), lambda content: [_read_cost(cost) for cost in content["models"]], refuse
    )
    found = {
        cost.network: cost
        for cost in costs
        if cost.precision == "int8" and cost.network in FAMILY and cost.runtime == "onnxruntime"  # which predict takes
    }
    if not found:
        raise DataError(f"{path} holds no figures of {', '.join(FAMILY)} in INT8, in ONNX Runtime; measure such files "
                        "on that computer.")  # fmt: skip
    return found


def _read_cost(values: Mapping[str, Any]) -> ModelCost:
    cost = ModelCost(**{field.name: values[field.name] for field in fields(ModelCost)})
    for name in ("latency_ms_per_mp", "peak_rss_bytes", "size_bytes"):
        if isinstance(number := getattr(cost, name), bool) or not isinstance(number, int | float):
            raise TypeError(f"{name} is {number!r}, not a number")
    return cost
