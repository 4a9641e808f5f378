"""What a service counts and times, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Figures:
    """Counters of one service; several in one process do not mix."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.requests = Counter(
            "ovseg_requests", "Requests by their status.", ["status"], registry=self._all
        )
        self.seconds = Histogram(
            "ovseg_request_seconds",
            "From the first byte of a request to its answer.",
            buckets=_SECONDS,
            registry=self._all,
        )
        self.batch = Histogram(
            "ovseg_batch_images",
            "Images worked on together.",
            buckets=(1, 2, 4, 8, 16),
            registry=self._all,
        )
        self.at_once = Gauge("ovseg_requests_at_once", "Requests in hand.", registry=self._all)

    def exposed(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._all)
