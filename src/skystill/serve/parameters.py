"""What a request asks for: parameters of `skystill predict`, under the same names, and the form of the result."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill.errors import SettingsError, shortened
from skystill.serve.kinds import AS_GEOJSON, AS_PNG, AS_TIFF, FORMS, Form, named_form
from skystill.serve.problems import Problem
from skystill.settings import PredictSettings, build_settings

NAMES = ("bands", "scale", "resolution", "views", "smooth", "min_area", "simplify", "square", "confidence")
"""Fields of `PredictSettings` that a request may set."""
FOR_POLYGONS = ("simplify", "square")
_NUMBER = {"resolution": r"\d{1,9}(\.\d{1,9})?", "smooth": r"\d{1,3}"}
_RESOLUTION = (1e-9, 999_999_999)
_DIGITS = r"\d{1,15}(\.\d{1,9})?"
_AMOUNTS = {"min_area": "m2", "simplify": "m"}
"""Parameters that have a number of `_DIGITS` and a unit: this one, or px."""
_BOOLEAN = {"true": True, "false": False}
CONFIDENCE = (
    "The result is the probability of the predicted class, as OUT-confidence.tif of skystill predict, instead of the "
    "class. It is a GeoTIFF."
)
"""What `confidence` means here."""
MOST_LETTERS = 500


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

    Args:
        form: the form of the result. None: GeoTIFF for a raster with a position, otherwise PNG.
        values: fields of `PredictSettings`.
    """

    form: Form | None
    values: Mapping[str, Any]

    @property
    def confidence(self) -> bool:
        """Whether the confidence is the result."""
        return bool(self.values.get("confidence"))

    def settings(self, form: Form) -> PredictSettings:
        """Return the settings of the prediction.

        Args:
            form: the form of the result.
        """
        vector = "geojson" if form is AS_GEOJSON else None
        return build_settings(PredictSettings, {**self.values, "inputs": ["image"], "vector": vector})


def wanted_by_query(pairs: Iterable[tuple[str, str]], accepted: Form | None) -> Wanted:
    """Return what the query of a request asks for.

    Args:
        pairs: its parameters.
        accepted: the form by the header Accept. `f` goes before it.

    Raises:
        Problem: a parameter is unknown, stands there twice, or has no value that it may have.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in (*NAMES, "f"):
            raise Problem(400, f"There is no parameter {name[:60]}; there are f, {', '.join(NAMES)}.")
        if name in given:
            raise Problem(400, f"The parameter {name} stands there twice.")
        given[name] = value
    form = named_form(given.pop("f")) if "f" in given else accepted
    return checked({name: _typed(name, value) for name, value in given.items()}, form)


def checked(values: dict[str, Any], form: Form | None) -> Wanted:
    """Return what is asked for, if all of it fits together.

    Args:
        values: fields of `PredictSettings`, each in `NAMES`.
        form: the form of the result, or None.

    Raises:
        Problem: a value is none that the parameter may have, or two do not fit together.
    """
    for name, value in values.items():
        if isinstance(value, str) and (len(value) > MOST_LETTERS or not value.isprintable()):
            raise Problem(400, f"{name} has more than {MOST_LETTERS} characters, or some that cannot be printed.")
    if values.get("confidence"):
        if form not in (None, AS_TIFF):
            raise Problem(400, "confidence is given as a GeoTIFF: say f=tif, or leave confidence out.")
        form = AS_TIFF
    for name in FOR_POLYGONS:
        if values.get(name) is not None and form is not AS_GEOJSON:
            raise Problem(400, f"{name} is for polygons: say f=geojson, or leave {name} out.")
    wanted = Wanted(form, values)
    try:
        wanted.settings(form or AS_PNG)
    except SettingsError as error:
        raise Problem(400, re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", "_"), str(error))) from error
    _check_bounds(values)
    return wanted


def _check_bounds(values: Mapping[str, Any]) -> None:
    """Refuse numbers that no image has, and that are no finite ones in the end."""
    least, most = _RESOLUTION
    resolution = values.get("resolution")
    if resolution is not None and not least <= resolution <= most:
        raise Problem(400, f"resolution is {resolution:g}; it may be {least:g} to {most:,} metres.")
    for name in _AMOUNTS:
        value = values.get(name)
        if value is not None and not re.match(rf"{_DIGITS} ?[mp]", value):
            raise Problem(
                400, f"{name} is {shortened(value, 40)}; it may have 15 digits before the point, and 9 behind it."
            )


def _typed(name: str, value: str) -> Any:  # noqa: ANN401 - as the field has it
    if name == "confidence":
        if value not in _BOOLEAN:
            raise Problem(400, f"confidence is {value[:60]}; it may be true or false.")
        return _BOOLEAN[value]
    if name in _NUMBER:
        if not re.fullmatch(_NUMBER[name], value, re.ASCII):
            raise Problem(
                400, f"{name} is {value[:60]}; a plain number was expected, such as {3 if name == 'smooth' else 0.5}."
            )
        return int(value) if name == "smooth" else float(value)
    return value


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each parameter, with its meaning as description."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in PredictSettings.model_json_schema()["properties"].items():
        if name in NAMES:
            plain = next((one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"), schema)
            kept = {key: value for key, value in plain.items() if key not in ("title", "default")}
            found[name] = {**kept, "description": _described(schema["description"])}
    for name in found:
        if found[name].get("type") == "string" and "enum" not in found[name]:
            found[name]["maxLength"] = MOST_LETTERS
    found["resolution"].pop("exclusiveMinimum", None)
    found["resolution"].update({"minimum": _RESOLUTION[0], "maximum": _RESOLUTION[1]})
    found["scale"]["pattern"] = r"^-?\d+(\.\d+)?,-?\d+(\.\d+)?$"
    for name, unit in _AMOUNTS.items():
        found[name]["pattern"] = rf"^{_DIGITS} ?({unit}|px)$"
    found["confidence"]["description"] = CONFIDENCE
    return {name: found[name] for name in NAMES}


def _described(text: str) -> str:
    text = re.sub(r"--([a-z][a-z-]*[a-z])", lambda found: found[1].replace("-", "_"), " ".join(text.split()))
    return text.replace("the polygons of vector", "the polygons").replace("in vector", "in the polygons")


def query_schema() -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of the parameters of a query, `f` first."""
    names = [form.name for form in FORMS]
    about = "The form of the result. By default what Accept says, otherwise tif for a raster with a position, and png."
    return {"f": {"type": "string", "enum": names, "description": about}, **schemas()}


def result_path(folder: Path, form: Form, confidence: bool) -> tuple[Path, Path]:
    """Return the class raster to write, and the file of it, or beside it, that is the result.

    Args:
        folder: the folder of the results.
        form: the form of the result.
        confidence: whether it is the confidence.
    """
    target = folder / ("classes.png" if form is AS_PNG else "classes.tif")
    if confidence:
        return target, folder / "classes-confidence.tif"
    return target, target.with_suffix(".geojson") if form is AS_GEOJSON else target
