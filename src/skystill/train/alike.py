"""What the ranks of a run must have alike: each machine has its own command line and its own copy of the files."""

import hashlib
import json
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning_fabric import Fabric

from skystill import __version__
from skystill.data.prepare import PreparedData
from skystill.errors import RanksDiffer
from skystill.settings import FitSettings
from skystill.train.fitting import choose_precision
from skystill.train.loop.ranks import name_lost_ranks

_OF_A_MACHINE = (
    *("out", "data", "classes", "split", "teacher", "teacher_classes", "trust_teacher", "unlabeled", "cache"),
    *("measured", "logger", "devices"),
)
"""Settings that may differ: paths, whose content is compared instead, and what only the first rank uses."""
_WITHOUT_FOLDER = ("student", "network")


def check_alike(fabric: Fabric, facts: Mapping[str, str]) -> None:
    """Check that all ranks have the same. Each machine has its own command line and its own copy of the data.

    Args:
        fabric: the ranks.
        facts: what must be the same, by a name for the message. All ranks give the same names.

    Raises:
        RanksDiffer: a rank has something else than the first one. All ranks raise it, each with its own value.
        RankLost: another rank was lost.
    """
    own = [list(hashlib.sha256(value.encode(errors="backslashreplace")).digest()) for value in facts.values()]
    with name_lost_ranks(fabric):
        digests = fabric.all_gather(torch.tensor(own, dtype=torch.uint8, device=fabric.device))
    assert isinstance(digests, torch.Tensor), "as it was given"
    differs = (digests != digests[:1]).any(dim=2)  # (ranks, facts)
    if not differs.any():
        return
    names = {
        name: value for (name, value), wrong in zip(facts.items(), differs.any(dim=0).tolist(), strict=True) if wrong
    }
    raise RanksDiffer(fabric.global_rank, socket.gethostname(), differs.any(dim=1).nonzero()[:, 0].tolist(), names)


def facts_of_run(settings: FitSettings, prepared: PreparedData, fabric: Fabric) -> dict[str, str]:
    """Return what decides about a training, besides the teachers. Of image files these are their names and sizes."""
    split, config = prepared.split, settings.to_config()
    images = {pair.image: pair.image.stat().st_size for pair in (*split.train, *split.validation, *split.test)}
    facts = {f"--{name.replace('_', '-')}": str(value) for name, value in config.items() if name not in _OF_A_MACHINE}
    for name in _WITHOUT_FOLDER:
        if (flag := f"--{name}") in facts:
            facts[flag] = Path(facts[flag]).name
    return {
        **facts,
        "the split of the images": json.dumps(split.to_dict() | {"rule": ""}),
        "the images": f"{len(images)} files of {sum(images.values())} bytes: {list(images.values())}",
        "the masks": " ".join(prepared.parts),
        "the classes": ", ".join(prepared.classes.names),
        "the bands": f"{prepared.spec.labels} {prepared.spec.dtype}",
        "the versions": f"skystill {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "the device": f"{fabric.device.type}, {choose_precision(settings.precision)}",
    }
