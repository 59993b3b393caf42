"""One cluster of two worker processes for all tests that do not kill it."""

from collections.abc import Iterator

import pytest

from tests.cluster.scheduler import running


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("dask"), 2) as (address, _):
        yield address


@pytest.fixture(scope="package")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler without workers, on which one failed attempt is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
        with running(tmp_path_factory.mktemp("scheduler"), 0) as (address, _):
            yield address


@pytest.fixture
def short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of a fraction of a second, so that small rasters are cut into pieces."""
    monkeypatch.setattr("skystill.cluster.dispatch.TASK_SECONDS", 0.1)
    monkeypatch.setattr("skystill.cluster.dispatch.FIRST_PIXELS", 20_000)
