"""What the server counts, for Prometheus: every name of a metric is in this module."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BEHIND_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.sessions = Gauge("neucodec_sessions", "Sessions that are open", ["kind", "profile"], registry=registry)
        self.capacity = Gauge(
            "neucodec_capacity_sessions",
            "Sessions of one kind and profile that the device steps in time, with no others beside them",
            ["kind", "profile"],
            registry=registry,
        )
        self.load = Gauge(
            "neucodec_load_ratio", "Share of the time that the open sessions keep the device busy", registry=registry
        )
        self.max_load = Gauge(
            "neucodec_load_limit_ratio", "The load above which sessions are refused", registry=registry
        )
        self.refusals = Counter(
            "neucodec_refusals", "Connections refused before the upgrade", ["code"], registry=registry
        )
        self.errors = Counter("neucodec_errors", "Sessions that ended with an error", ["code"], registry=registry)
        self.behind = Histogram(
            "neucodec_behind_seconds",
            "How late a chunk's output was: beyond one chunk after its input was complete",
            buckets=_BEHIND_S,
            registry=registry,
        )

    def text(self) -> str:
        """All of them in the format that Prometheus reads."""
        return generate_latest(self._registry).decode()
