"""The browser of the tests, or a skipped test where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skystill.predict.web import browser
from skystill.predict.web.browser import Browser

__all__ = ["Browser", "open_browser"]

_PATIENCE = 240  # seconds; a machine may be busy


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium, or skip the test where there is none."""
    binary = browser.find_browser()
    if binary is None:
        pytest.skip("Chromium is not installed: the page is not tried in a browser")
    with browser.open_browser(binary, folder, _PATIENCE) as found:
        yield found
