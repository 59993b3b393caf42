"""Settings of the commands that can run on a Dask cluster: which one."""

from pathlib import Path

from pydantic import Field, model_validator

from skystill.settings.base import Page, Settings


class ClusterSettings(Settings):
    """Where the work is done: in this process, or on a cluster of Dask."""

    dask: str | None = None
    """Address of a running Dask scheduler, such as tcp://10.0.0.5:8786: the work is done by its workers, which need
    this version of skystill, and see the same files under the same paths. By default this computer does the work."""
    workers: int | None = Field(default=None, ge=1)
    """Number of worker processes to start on this computer, which share its cores. By default none: the work is done in
    this process."""
    dask_config: Path | None = None
    """YAML file that says which Dask cluster to start: cluster names its class, such as dask_jobqueue.SLURMCluster,
    options holds its keywords, and workers a number, or minimum and maximum. This file decides what is started, and may
    hold commands: give only one that you trust as you trust a program. By default none is started."""

    @property
    def on_cluster(self) -> bool:
        """Whether the work is done by the workers of a cluster."""
        return any(value is not None for value in (self.dask, self.workers, self.dask_config))

    @model_validator(mode="after")
    def _check_cluster(self) -> "ClusterSettings":
        given = {"--dask": self.dask, "--workers": self.workers, "--dask-config": self.dask_config}
        named = [flag for flag, value in given.items() if value is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} each name a cluster: give one of them")
        return self


class StatusSettings(Settings):
    """Settings of `skystill status`."""

    out: Path
    """The --out of a skystill predict that runs on a cluster, or ran. If it is in a bucket, give the status command in
    the folder in which the other runs."""
    html: Page = None
    """Also write the status as one HTML file, such as status.html. By default none is written."""
