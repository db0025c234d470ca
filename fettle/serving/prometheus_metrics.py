"""Prometheus metrics of a server: requests, latency, batches; few series, fixed labels.

    fettle_requests_total{route, method, status}     fettle_request_seconds{route}  histogram
    fettle_requests_running                          fettle_batch_images            histogram
    fettle_release_info{name, digest} 1

Several workers write to the files of PROMETHEUS_MULTIPROC_DIR (BentoML sets it); any of them
answers a scrape with the sum. BentoML's own metrics are off: they label by raw path, and cost more
CPU than a small model.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

OTHER = "other"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
KIND = b"text/plain; version=0.0.4; charset=utf-8"
# half a millisecond (a pruned model on a fast core) to the time-out
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2, 8, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServerMetrics:
    """The counters of one worker process."""

    def __init__(self, *, name: str, digest: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "fettle_requests_total",
            "Requests answered; status 0: the client left before the answer.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "fettle_request_seconds",
            "From a request's head to its whole answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._running = Gauge(
            "fettle_requests_running",
            "Requests at work now.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._images = Histogram(
            "fettle_batch_images",
            "Images that went to the model together.",
            buckets=IMAGES,
            registry=self._registry,
        )
        info = Gauge(
            "fettle_release_info",
            "1 for the release that is served.",
            ("name", "digest"),
            multiprocess_mode="max",
            registry=self._registry,
        )
        info.labels(name, digest).set(1)

    def running(self, change: int) -> None:
        """Note that a request began (1) or ended (-1)."""
        self._running.inc(change)

    def batch(self, images: int) -> None:
        """Note that a batch goes to the model."""
        self._images.observe(images)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request; `route` and `method` must come from a fixed list."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return generate_latest(self._registry)
        for pid in _dead(Path(folder)):
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # theirs
        summed = CollectorRegistry()
        multiprocess.MultiProcessCollector(summed, folder)  # type: ignore[no-untyped-call]  # theirs
        return generate_latest(summed)


def _dead(folder: Path) -> list[int]:
    """Name the workers that left their live gauges behind: they were killed."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}
    return sorted(pid for pid in pids if not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Tell whether it is dead and nobody has waited for it, as in a container without an init."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:  # gone meanwhile, or not Linux
        return False
