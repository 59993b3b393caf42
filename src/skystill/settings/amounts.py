"""Settings that are a length or an area, such as 1m, 20m2 or 50px."""

import re

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(m2|m²|m|px)")


def split_amount(text: str) -> tuple[float, str]:
    """Split a length or an area into its value and its unit: m, m2 or px.

    Raises:
        ValueError: the text is not such an amount.
    """
    found = _AMOUNT.fullmatch(text)
    if not found:
        raise ValueError(f"{text} has no value with a unit")
    return float(found[1]), found[2].replace("²", "2")


def check_amount(text: str | None, unit: str, expected: str) -> str | None:
    """Return the text, or raise a ValueError if it is not an amount above 0 in this unit or in pixels.

    Args:
        text: the value of the setting; None is not checked.
        unit: m or m2.
        expected: message of the error.
    """
    if text is not None:
        found = _AMOUNT.fullmatch(text)
        if not found or split_amount(text)[1] not in (unit, "px") or not float(found[1]) > 0:
            raise ValueError(expected)
    return text
