"""What a task tells its command, whatever happens in it."""

import pickle
import threading

import pytest

from skystill.cluster.tasks import Crashed, Ended, Fatal, reporting
from skystill.errors import SettingsError


class Unpicklable(Exception):
    def __init__(self, text: str, lock: object) -> None:
        super().__init__(text)
        self.lock = lock


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (Unpicklable("a lock", threading.Lock()), Crashed, "Unpicklable: a lock"),
        (ZeroDivisionError("division by zero"), Crashed, "ZeroDivisionError: division by zero"),
        (SettingsError("--tile is wrong"), Fatal, "--tile is wrong"),
        (ImportError("No module named 'shapely'"), Fatal, "lacks a package: No module named 'shapely'"),
    ],
)
def test_an_exception_arrives_as_a_record(error: Exception, kind: type, text: str) -> None:
    """A command whose Dask cannot unpickle an exception would wait for it for ever."""

    def work() -> None:
        raise error

    found = pickle.loads(pickle.dumps(reporting(work)()))
    assert type(found) is kind and text in found.text
    assert not isinstance(found, Ended)
