"""What the service counts, for Prometheus."""

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from skystill.serve.jobs import STATUSES

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


class Metrics:
    """Counters and gauges of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self._registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(name, about, labels, registry=self._registry)

        self._requests = counter("skystill_requests", "Requests that were answered.", "method", "route", "status")
        self._seconds = Histogram(
            "skystill_request_seconds", "Time of a request, its body included.", ("route",), registry=self._registry,
            buckets=_BUCKETS,
        )  # fmt: skip
        self._megapixels = counter("skystill_megapixels", "Megapixels that were predicted, those of jobs included.")
        self._waiting = gauge("skystill_queue", "Requests with an image that are received, wait, or are predicted.")
        self._jobs = gauge("skystill_jobs", "Jobs that are kept.", "status")
        self._memory = gauge("skystill_resident_memory_bytes", "Memory of the process.")

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is one of the paths of the service, so that there are few of them."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_pixels(self, pixels: int) -> None:
        """Count the pixels of a result."""
        self._megapixels.inc(pixels / 1e6)

    def text(self, waiting: int, jobs: list[str]) -> bytes:
        """Return everything in the text format of Prometheus.

        Args:
            waiting: requests with an image at the moment.
            jobs: the status of each job.
        """
        self._waiting.set(waiting)
        for status in STATUSES:
            self._jobs.labels(status).set(jobs.count(status))
        self._memory.set(psutil.Process().memory_info().rss)
        return generate_latest(self._registry)
