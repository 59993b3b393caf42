"""The setting that weighs the classes in the loss against labels, such as auto or 1,2,0.5."""

import math
from typing import Annotated

from pydantic import BeforeValidator

AUTO = "auto"


def check_class_weights(value: object) -> object:
    """Return weights of classes as text. A list of numbers becomes numbers with commas; other types stay as they are.

    Raises:
        ValueError: a part is no number, negative or not finite, or all are 0.
    """
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if not isinstance(value, str) or value == AUTO:
        return value
    weights = parse_weights(value)
    if any(not math.isfinite(weight) or weight < 0 for weight in weights):
        raise ValueError("a weight must be 0 or more, and finite")
    if not any(weights):
        raise ValueError("all weights are 0, so that nothing could be learnt; give one class more than 0")
    return value


def parse_weights(text: str) -> tuple[float, ...]:
    """Return the numbers of a text such as 1,2,0.5.

    Raises:
        ValueError: a part is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"write one number for each class, such as 1,2,0.5, or {AUTO}") from None


ClassWeights = Annotated[str | None, BeforeValidator(check_class_weights)]
"""Type of a setting that weighs the classes."""
