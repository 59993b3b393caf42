"""The models that a page holds: found, opened, and described."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill.errors import ModelFileError, SettingsError, visible
from skystill.model.file import ModelInfo, is_foreign, open_session, read_info
from skystill.model.trial import try_once
from skystill.predict.plan import tile_shape
from skystill.raster.input_spec import InputSpec
from skystill.raster.shown import shown_places
from skystill.run_folder import RunFolder
from skystill.tiling import PHASE


@dataclass(frozen=True)
class Held:
    """A model that a page holds.

    Args:
        path: the model file.
        name: what the page calls it.
        info: its metadata.
        tensor: data type that its graph takes.
    """

    path: Path
    name: str
    info: ModelInfo
    tensor: str

    @property
    def card(self) -> str:
        """The model card, if one lies beside the file."""
        card = self.path.with_suffix(".md")
        return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def find_model(run: Path) -> tuple[Path, list[Path]]:
    """Return the model file of a run, or the file itself, and all files that are read or belong to the run."""
    if not run.is_dir():
        return run, [run]
    folder = RunFolder(run)
    folder.read_config()
    for model in (folder.model_int8, folder.model):
        if model.is_file():
            return model, folder.own_files
    raise ModelFileError(f"{run} has no model file, {folder.model.name}: the run has not finished. Use --resume.")


def name_of(run: Path, model: Path) -> str:
    """Return what a page calls the model of a run, or a model file."""
    return run.resolve().name if run.is_dir() else model.stem


def open_model(model: Path, name: str) -> Held:
    """Open a model file, and check that a page can run it."""
    try_once(model)
    session = open_session(model)
    if is_foreign(session):
        raise ModelFileError(
            f"{model} was not exported by SkyStill, and a page knows only the form of its model files. Give a run, or "
            "a file that skystill export or quantize wrote."
        )
    info, taken = read_info(session, model), session.get_inputs()[0].type
    spec = info.input_spec
    if taken not in ("tensor(float)", f"tensor({spec.dtype})"):
        raise ModelFileError(f"{model} takes {taken}; for {spec.labels}, tensor({spec.dtype}) was expected.")
    if info.tile_size < PHASE + info.overlap // 2 * 2:
        raise ModelFileError(
            f"{model}: tiles of {info.tile_size} pixels that share {info.overlap} leave no middle of {PHASE} pixels. "
            "Export the run again."
        )
    return Held(model, name, info, "float32" if taken == "tensor(float)" else spec.dtype)


def check_alike(model: Held, other: Held) -> None:
    """Refuse a second model whose classes or bands are others: a page reads an image once, for both."""
    specs = [held.info.input_spec for held in (model, other)]
    fed = [f"{spec.labels} in {spec.dtype}" for spec in specs]
    if fed[0] != fed[1] or specs[0].is_colors != specs[1].is_colors:
        raise SettingsError(
            f"--with {other.path} is fed {fed[1]}, and {model.path} {fed[0]}: give a model that is fed the same."
        )
    names = [held.info.classes.names for held in (model, other)]
    if sorted(names[0]) != sorted(names[1]):
        raise SettingsError(
            f"--with {other.path} has the classes {', '.join(names[1])}, and {model.path} {', '.join(names[0])}: give "
            "a model of the same classes."
        )


def describe(models: Sequence[Held]) -> dict[str, Any]:
    """Return what the scripts of the page know of the models."""
    model, others = models[0], models[1:]
    spec, classes = model.info.input_spec, model.info.classes
    bands = [
        {"name": band.name, "number": band.number, "label": band.label, "low": _finite(band.low),
         "high": _finite(band.high), "fill": fill}
        for band, fill in zip(spec.bands, spec.fill.tolist(), strict=True)
    ]  # fmt: skip
    found = {
        "classes": [
            {"name": visible(name), "rgb": color} for name, color in zip(classes.names, classes.colors, strict=True)
        ],
        "spec": {
            "isColors": spec.is_colors,
            "dtype": spec.dtype,
            "bands": bands,
            "shown": _shown(spec),
            "resolution": spec.resolution_m,
        },
    }
    places = [[classes.names.index(name) for name in other.info.classes.names] for other in others]
    compared = [_run(other) | {"places": place} for other, place in zip(others, places, strict=True)]
    return found | _run(model) | {"other": compared[0] if compared else None}


def _run(model: Held) -> dict[str, Any]:
    """Return how the page runs a model."""
    info, margin = model.info, model.info.overlap // 2
    rows, columns = tile_shape(info.tile_size, margin)
    return {
        "name": visible(model.name),
        "grid": {"rows": rows, "columns": columns, "margin": margin},
        "input": {"tensor": model.tensor, "bands": len(info.input_spec), "classes": len(info.classes)},
    }


def _finite(value: float) -> float:
    """Return a limit that JSON can hold."""
    return value if math.isfinite(value) else math.copysign(1.7e308, value)


def _shown(spec: InputSpec) -> list[int]:
    """Return the three bands that are painted. One band is painted grey."""
    places = shown_places(spec)
    return places if len(places) == 3 else places * 3


def facts_of(model: Held) -> list[tuple[str, str]]:
    """Return the rows about a model: what it is fed and gives, how good it is, and which file it is."""
    info, spec, content = model.info, model.info.input_spec, model.path.read_bytes()
    return [
        ("Model", model.name),
        ("Classes", ", ".join(info.classes.names)),
        ("Fed", f"{spec.labels}, {spec.dtype}"),
        ("Ground resolution", f"{spec.resolution_m:g} m per pixel" if spec.resolution_m else "not known"),
        ("Trained on", info.data or "not known"),
        ("Scores", ", ".join(f"{name} {value:g}" for name, value in info.scores.items()) or "not known"),
        ("Network", f"{info.network}, {info.parameters:,} parameters, {info.precision}"),
        ("Model file", f"{len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"),
        ("Written by", f"SkyStill {info.version}"),
    ]
