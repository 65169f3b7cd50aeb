"""Figures for Prometheus. Those of several workers are added up, whichever of them is asked.

With `PROMETHEUS_MULTIPROC_DIR` in the environment before prometheus_client is imported, each process keeps its figures
in files of that folder; counters of a worker that has ended are kept, its gauges are not.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Metrics:
    """The figures of one worker.

    Attributes:
        requests: answered, by path and status.
        seconds: from the head of a request for detection to its answer.
        in_flight: requests being answered.
        queue: images accepted and not yet answered.
        images: answered with detections ("detected"), or not ("refused").
        batches: images that went through the model together.
        reloads: of the file of the model: "loaded" or "failed".
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("engine_requests", "Requests answered", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "engine_request_seconds", "Seconds for a detection request", buckets=_SECONDS, registry=registry
        )
        self.in_flight = _gauge("engine_requests_in_flight", "Requests being answered", registry)
        self.queue = _gauge("engine_queue_images", "Images accepted and not yet answered", registry)
        self.images = Counter("engine_images", "Images by outcome", ["outcome"], registry=registry)
        self.batches = Histogram(
            "engine_batch_images", "Images that went through the model together", buckets=_SIZES, registry=registry
        )
        self.reloads = Counter("engine_model_reloads", "New model files by outcome", ["outcome"], registry=registry)
        for outcome in ("loaded", "failed"):
            self.reloads.labels(outcome)  # so that an alarm can be set before the first

    def text(self) -> bytes:
        """The figures of all workers in Prometheus' text format."""
        registry = self.registry
        if os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


def _gauge(name: str, words: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, words, registry=registry, multiprocess_mode="livesum")
