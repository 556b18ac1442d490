"""The server's metrics for Prometheus; every metric's name is in this module.

docs/metrics.md lists them and deploy/grafana-dashboard.json shows them; tests/server/test_metrics.py compares all
three. Counters and histograms are updated by events; gauges are set at a scrape or when their value changes.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
STEP_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0)
"""Durations of chunks of 1 to 5 and 10 frames are bucket edges, so the share of longer steps is exact."""
BEHIND_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FIRST_OUTPUT_S = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)


class Processes(Collector):
    """Resource use of several processes, as in prometheus_client for one, labelled by number as `worker`."""

    def __init__(self, namespace: str, pids: Sequence[int], registry: CollectorRegistry) -> None:
        self._processes = [ProcessCollector(namespace, partial(int, pid), registry=None) for pid in pids]
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        found: dict[str, Metric] = {}
        for number, process in enumerate(self._processes):
            for family in process.collect():
                all_of_them = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    all_of_them.add_sample(sample.name, {"worker": str(number)}, sample.value)
        yield from found.values()


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._count_sessions()
        self._count_work()
        self._count_events()

    def watch_workers(self, pids: Sequence[int]) -> None:
        """Adds the worker processes' resource use, as `neucodec_workers_process_*`."""
        Processes("neucodec_workers", pids, self._registry)

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def _count_sessions(self) -> None:
        self.sessions = self._gauge("neucodec_sessions", "Open sessions", "kind", "profile", "state")
        self.capacity = self._gauge(
            "neucodec_capacity_sessions",
            "Capacity in sessions of one kind and profile, if no others are open",
            "kind",
            "profile",
        )
        self.slots_used = self._gauge("neucodec_slots_used", "Slots in use")
        self.parked_bytes = self._gauge("neucodec_parked_bytes", "Memory for the state of parked sessions")
        self.slots_limit = self._gauge("neucodec_slots_limit", "Number of slots (the setting max_sessions)")
        self.load = self._gauge("neucodec_load_ratio", "Share of time that the open sessions keep the device busy")
        self.max_load = self._gauge("neucodec_load_limit_ratio", "The load above which sessions are refused")
        self.utilization = self._gauge(
            "neucodec_utilization_ratio", "Utilization: the larger of slots and load, each relative to its limit"
        )
        self.draining = self._gauge(
            "neucodec_draining", "1 while the server drains: open sessions end, new ones are refused"
        )

    def _count_work(self) -> None:
        self.step = self._histogram(
            "neucodec_step_seconds", "Time of one step of the device", STEP_S, "part", "profile"
        )
        self.behind = self._histogram(
            "neucodec_behind_seconds",
            "Lateness of output: time beyond one chunk after its input was complete",
            BEHIND_S,
        )
        self.first_output = self._histogram(
            "neucodec_first_output_seconds",
            "Time from the first input of a session to its first output",
            FIRST_OUTPUT_S,
            "kind",
            "profile",
        )
        self.pending_input = self._gauge(
            "neucodec_pending_input_seconds", "Input of all sessions that has no output yet"
        )
        self.queued_output = self._gauge("neucodec_queued_output_bytes", "Output that clients have not read yet")
        self.input_bytes = self._counter("neucodec_input_bytes", "Payload received", "kind")
        self.output_bytes = self._counter("neucodec_output_bytes", "Payload sent", "kind")

    def _count_events(self) -> None:
        self.refusals = self._counter("neucodec_refusals", "Connections refused before the upgrade", "code")
        self.errors = self._counter("neucodec_errors", "Sessions that ended with an error", "code")
        self.resumes = self._counter(
            "neucodec_resumes", "Requests to resume a session whose connection was lost", "outcome"
        )
        self.evictions = self._counter("neucodec_evictions", "Lost or parked sessions that were closed", "reason")

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(name, help, labels, registry=self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self._registry)
