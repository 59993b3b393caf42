"""The file of --dask-config, which says what cluster to start."""

import importlib
import inspect
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill.errors import SettingsError, shortened
from skystill.parsing import read_yaml

CLUSTER_PACKAGES = (
    "coiled",
    "dask_cloudprovider",
    "dask_gateway",
    "dask_jobqueue",
    "dask_kubernetes",
    "dask_yarn",
    "distributed",
)
"""Packages whose classes a file of --dask-config may name."""

_CLASS = re.compile(r"([a-z_]+)(\.[a-z_]+)*\.[A-Z][A-Za-z]*Cluster|coiled\.Cluster")
_KEYS = {"cluster", "options", "workers"}


@dataclass(frozen=True)
class DescribedCluster:
    """What the file says.

    Args:
        kind: class of the cluster.
        options: its keywords.
        workers: number of workers, or minimum and maximum; None for what the class does by itself.
    """

    kind: Callable[..., Any]
    options: dict[str, Any]
    workers: int | dict[str, int] | None

    def start(self) -> Any:  # noqa: ANN401 - any cluster
        """Start the cluster, and return it.

        Dask prints no log here unless the options ask for it: what fails, an error says.
        """
        can_be_silent = "silence_logs" in inspect.signature(self.kind).parameters
        silent = {"silence_logs": logging.CRITICAL} if can_be_silent else {}
        cluster = self.kind(**{**silent, **self.options})
        if isinstance(self.workers, dict):
            cluster.adapt(**self.workers)
        elif self.workers is not None:
            cluster.scale(self.workers)
        return cluster


def read_cluster_file(path: Path) -> DescribedCluster:
    """Read the file of --dask-config. The package of its class is imported; nothing is started.

    Raises:
        SettingsError: the file cannot be used.
    """

    def refuse(reason: str) -> SettingsError:
        return SettingsError(
            f"--dask-config {path}: {reason}. Write such as cluster: dask_jobqueue.SLURMCluster, options: {{cores: 8, "
            "memory: 16GB}, workers: 20."
        )

    content = read_yaml(path, refuse)
    if not isinstance(content, dict) or not isinstance(content.get("cluster"), str):
        raise refuse("it has no line cluster with the class of a cluster")
    unknown = sorted(map(str, set(content) - _KEYS))
    if unknown:
        raise refuse(f"{shortened(', '.join(unknown))} is not known; there are {', '.join(sorted(_KEYS))}")
    options, workers = content.get("options", {}), content.get("workers")
    options = {} if options is None else options
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise refuse("options are no keywords with values")
    if not _are_workers(workers):
        raise refuse(f"workers is {shortened(repr(workers))}, which is no number of workers, or minimum and maximum")
    return DescribedCluster(_cluster_class(content["cluster"], refuse), options, workers)


def _cluster_class(name: str, refuse: Callable[[str], SettingsError]) -> Callable[..., Any]:
    """Return the class of a cluster by its name, from one of the known packages.

    Raises:
        SettingsError: it is no such class, or its package is not installed.
    """
    package = name.partition(".")[0]
    if package not in CLUSTER_PACKAGES or not _CLASS.fullmatch(name):
        raise refuse(f"{shortened(name)} is no class of a cluster in {', '.join(CLUSTER_PACKAGES)}")
    try:
        found = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2], None)
    except ImportError as error:
        raise refuse(f"{shortened(error)}; install the package of {name} here") from error
    if not inspect.isclass(found):
        raise refuse(f"{package} has no class {name}")
    return found


def _are_workers(value: object) -> bool:
    if not isinstance(value, dict):
        return value is None or (_is_count(value) and value != 0)
    if not value or not set(value) <= {"minimum", "maximum"} or not all(map(_is_count, value.values())):
        return False
    return bool(value.get("minimum", 0) <= value.get("maximum", math.inf))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
