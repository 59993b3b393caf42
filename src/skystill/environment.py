"""Variables of the environment: numbers that users set, and what is set for processes that are started."""

import os
import re

from skystill.errors import SettingsError

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Python then imports nothing from the current folder, in which the user may have a script called statistics.py. This
holds for the processes that a process starts, too."""


def number_in_environment(
    variable: str, default: float, expected: str, least: float, most: float, *, whole: bool = True
) -> float:
    """Return the number that an environment variable holds, or a default if it is not set, or blank.

    Args:
        variable: its name.
        default: the number without it.
        expected: what it should hold, in words.
        least: the smallest number that it may hold.
        most: the largest number that it may hold.
        whole: whether the number must be a whole one, of digits alone.

    Raises:
        SettingsError: it holds anything else.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    found: float | None = None
    if re.fullmatch(r"[0-9]{1,18}", text):
        found = int(text)
    elif not whole and re.fullmatch(r"[0-9.]+(e[-+]?[0-9]+)?", text, re.IGNORECASE):
        try:
            found = float(text)
        except ValueError:  # several dots
            found = None
    if found is None or not least <= found <= most:
        raise SettingsError(
            f"{variable} is {text[:40]!r} in the environment; {expected} was expected, such as "
            f"{default if whole else format(default, 'g')}."
        )
    return found
