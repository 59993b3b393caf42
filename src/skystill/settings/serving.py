"""Settings of `serve`."""

from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field

from skystill.settings.band_lists import BandList
from skystill.settings.base import Settings


class ServeSettings(Settings):
    """Settings of `skystill serve`."""

    model: Path | None = None
    """Model file from a run folder or from skystill export. By default the bundled model."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this computer only. The service has neither TLS nor passwords:
    put a proxy that has them in front of it before others can reach it."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on. 0 takes one that is free."""
    max_body: ByteSize = Field(default=ByteSize(256 * 2**20), ge=2**16)
    """Largest image that is taken, such as 64MB. Bodies are kept on disk, in the folder for temporary files."""
    max_megapixels: float = Field(default=100.0, gt=0, le=100_000)
    """Most pixels of an image, and of its result, in millions. An image that declares more is refused before it is
    decoded."""
    queue: int = Field(default=256, ge=1, le=10_000)
    """Most requests with an image that are received, wait or are predicted at the same time, jobs apart. Further ones
    are refused with the status 503."""
    request_seconds: float = Field(default=120.0, gt=0, le=86_400)
    """Most seconds that a request waits for its result once its image has arrived. Then it is refused with the status
    503. Jobs have no such limit."""
    jobs: int = Field(default=100, ge=1, le=10_000)
    """Most jobs that are kept, finished ones included. A new job takes the place of the one that finished first; if all
    of them wait or run, it is refused with the status 503."""
    job_hours: float = Field(default=24.0, gt=0, le=8_760)
    """Hours that the result of a finished job is kept. Jobs end with the service."""
    grace_seconds: float = Field(default=20.0, ge=0, le=3_600)
    """Seconds that requests in work have to finish after SIGTERM or Ctrl-C."""
    threads: int = Field(default=0, ge=0)
    """Number of tiles that are computed at the same time, and of small images in work. 0 uses all cores."""
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    """Library that runs the model, as in predict."""
    classes: str | None = None
    """Classes of a model file of another program, as in predict."""
    input: str | None = None
    """Scale of the pixels that a model file of another program expects, as in predict."""
    bands: BandList = None
    """Bands that a model file of another program is fed, as in predict. A request may name others."""
