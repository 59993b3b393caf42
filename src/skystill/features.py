"""`FeatureSource`: which features of a vector file a class is drawn from, as a classes file says it under `from`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skystill.errors import ClassesError, shortened

_REST = "rest"
_KEYS = ("layer", "field", "values", "buffer", "order")


@dataclass(frozen=True)
class FeatureSource:
    """Features of one layer that have a class.

    Args:
        layer: name of the layer; None for the only one of its file.
        field: name of the attribute that decides; None takes all features of the layer.
        values: values of this attribute, as `attribute_text` writes them.
        buffer_m: metres on the ground by which features grow. Lines and points need it.
        order: classes of a higher order cover those of a lower one. Of the same order, later classes cover earlier
            ones.
        rest: True for the class of all pixels that no feature covers. The other arguments are then not used.
    """

    layer: str | None = None
    field: str | None = None
    values: tuple[str, ...] = ()
    buffer_m: float | None = None
    order: int = 0
    rest: bool = False


def attribute_text(value: object) -> str:
    """Return the value of an attribute as text: 3 for 3.0, true for True, null where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def feature_sources(given: object, where: str) -> tuple[FeatureSource, ...]:
    """Return the sources that a classes file gives for a class.

    Args:
        given: what stands under `from`: `rest`, one mapping, or a list of mappings.
        where: the file and the class, for messages.

    Raises:
        ClassesError: it is none of these.
    """
    if isinstance(given, str) and given.strip().lower() == _REST:
        return (FeatureSource(rest=True),)
    listed: list[Any] = given if isinstance(given, list) else [given]
    if not listed or not all(isinstance(one, dict) for one in listed):
        raise ClassesError(
            f"{where}: from: {shortened(repr(given))} is not understood. Write {{layer: NAME}}, {{layer: NAME, field: "
            "NAME, values: [A, B]}, a list of these, or rest for all pixels that no feature covers."
        )
    return tuple(_source(one, f"{where}: from") for one in listed)


def _source(given: Mapping[Any, Any], where: str) -> FeatureSource:
    strange = [str(key) for key in given if key not in _KEYS]
    if strange:
        raise ClassesError(f"{where}: {shortened(', '.join(strange))} is not understood; there are {', '.join(_KEYS)}.")
    layer, field = (_name(given.get(key), f"{where}: {key}") for key in ("layer", "field"))
    values = given.get("values")
    if (field is None) != (values is None):
        raise ClassesError(f"{where}: field and values go together: the values of which attribute have this class?")
    buffer, order = given.get("buffer"), given.get("order", 0)
    is_number = isinstance(buffer, int | float) and not isinstance(buffer, bool)
    if buffer is not None and not (is_number and 0 < buffer < math.inf):
        raise ClassesError(f"{where}: buffer: {shortened(repr(buffer))}; a number of metres above 0 was expected.")
    if not isinstance(order, int) or isinstance(order, bool):
        raise ClassesError(f"{where}: order: {shortened(repr(order))}; a whole number was expected.")
    return FeatureSource(layer, field, _values(values, where), None if buffer is None else float(buffer), order)


def _name(given: object, where: str) -> str | None:
    if given is not None and not (isinstance(given, str) and given):
        raise ClassesError(f"{where}: {shortened(repr(given))} is not a name; write it in quotes.")
    return given


def _values(given: object, where: str) -> tuple[str, ...]:
    listed = given if isinstance(given, list) else [given]
    if given is None:
        return ()
    if not listed or any(isinstance(one, dict | list) for one in listed):
        raise ClassesError(f"{where}: values: {shortened(repr(given))}; a list such as [residential, 3] was expected.")
    return tuple(attribute_text(one) for one in listed)
