"""Metric names agree between the module, the docs and the dashboard, and counts match the events."""

import asyncio
import json
import os
import re
import urllib.request
from pathlib import Path

import promql_parser
import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.protocol.messages import Flush, Flushed
from neucodec_streaming.server.metrics import STEP_S, Metrics
from neucodec_streaming.server.settings.fields import PROFILES
from tests.server.hosting import Host, hosted, s16, talk
from tests.server.test_resume import Caller
from tests.streaming.engine.fake import FakeRunner, speech

ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OF_PROMETHEUS = {"instance", "le"}
"""Labels added by Prometheus or by a histogram."""


def ours() -> dict[str, tuple[str, set[str]]]:
    """Metric -> type and labels."""
    made = vars(Metrics()).values()
    return {one._name: (one._type, set(one._labelnames)) for one in made if isinstance(one, MetricWrapperBase)}


def series() -> dict[str, set[str]]:
    """Series, process metrics included -> labels."""
    found = {name + end: labels for name, (kind, labels) in ours().items() for end in SUFFIXES[kind]}
    metrics = Metrics()
    metrics.watch_workers([os.getpid()])
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    return found


def test_every_metric_name_has_our_prefix_and_its_unit():
    names = ours()
    assert len(names) > 15 and all(name.startswith("neucodec_") for name in names)
    units = ("_seconds", "_bytes", "_ratio", "_sessions")
    bare = {"neucodec_slots_used", "neucodec_slots_limit", "neucodec_draining"}
    assert all(name.endswith(units) for name, (kind, _) in names.items() if kind != "counter" and name not in bare)


def test_the_docs_list_every_metric_with_its_labels_and_no_other():
    page = (ROOT / "docs" / "metrics.md").read_text()
    said = re.findall(r"`(neucodec_\w+)(?:\{([a-z,]+)\})?`", page)
    documented = {name: set(labels.split(",")) - {""} for name, labels in said}
    assert documented == {
        name + ("_total" if kind == "counter" else ""): labels for name, (kind, labels) in ours().items()
    }


def expressions() -> list[tuple[str, str]]:
    return [(target["expr"], target["legendFormat"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_queries_only_existing_metrics():
    known = series()
    for expression, legend in expressions():
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))  # raises for invalid PromQL
        names = set(re.findall(r"\b((?:neucodec|process)_\w+)", expression))
        assert names and names <= set(known), expression
        labels = set(re.findall(r"\{\{(\w+)\}\}", legend))
        for grouped in re.findall(r"by \(([\w, ]+)\)", expression):
            labels |= set(grouped.split(", "))
        assert labels - OF_PROMETHEUS <= set.union(*(known[name] for name in names)), expression


def test_every_metric_is_on_the_dashboard():
    asked = " ".join(expression for expression, _ in expressions())
    missing = [name for name in ours() if not re.search(rf"\b{name}(_total|_bucket|_sum)?\b", asked)]
    assert not missing


def test_dashboard_panels_do_not_overlap_and_query_the_selected_data_source():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    (asked,) = {json.dumps(panel["datasource"]) for panel in DASHBOARD["panels"]}
    assert "${datasource}" in asked
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}


def test_the_chunk_of_every_bundled_profile_is_a_bucket_bound_of_the_step_times():
    chunks = {pair[0] for pair in PROFILES.values() if pair is not None} | {1, 2, 3, 4, 5, 10}
    assert {frames * FRAME_MS / 1000 for frames in chunks} <= set(STEP_S)


async def scraped(host: Host) -> dict[str, float]:
    """A missing sample counts as 0."""
    url = host.url.replace("ws", "http", 1) + "/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


@pytest.fixture
def host():
    with hosted(FakeRunner(), max_sessions=4, resume_s=30.0, close_timeout_s=0.2, drain_s=0.0) as made:
        yield made


async def test_a_session_is_counted_from_its_first_byte_to_its_last(host):
    async with talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*range(1, 11))), s16(speech(11))[:100], Flush())
        await client.hear_until(Flushed)
        seen = await scraped(host)
        assert seen["neucodec_sessions{kind=encode,profile=default,state=attached}"] == 1
        assert (seen["neucodec_slots_used"], seen["neucodec_slots_limit"]) == (1, 4)
        assert seen["neucodec_utilization_ratio"] == 0.25
        assert seen["neucodec_input_bytes_total{kind=encode}"] == 10 * 640 + 100
        assert seen["neucodec_output_bytes_total{kind=encode}"] == 10 * 2
        assert seen["neucodec_step_seconds_count{part=encode,profile=default}"] == len(host.runner.steps) > 0
        assert seen["neucodec_first_output_seconds_count{kind=encode,profile=default}"] == 1
        assert 0 < seen["neucodec_first_output_seconds_sum{kind=encode,profile=default}"] < 10
        await client.finish()
    await host.emptied()
    seen = await scraped(host)
    assert seen["neucodec_sessions{kind=encode,profile=default,state=attached}"] == 0 == seen["neucodec_slots_used"]


async def test_queues_are_reported(host):
    async with talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*range(1, 8))))  # of the 10 frames that a window needs
        await (await client.socket.ping())
        seen = await scraped(host)
        assert seen["neucodec_pending_input_seconds"] == pytest.approx(7 * FRAME_MS / 1000)
        assert seen["neucodec_queued_output_bytes"] == 0
        await client.finish()


async def test_resumed_and_evicted_sessions_are_counted(host):
    detached = "neucodec_sessions{kind=encode,profile=default,state=detached}"
    one = Caller("/v1/encode")
    await one.call(host.url)
    one.lose()
    while (await scraped(host))[detached] != 1:
        pass
    await one.call(host.url)
    assert (await scraped(host))[detached] == 0
    assert (await scraped(host))["neucodec_resumes_total{outcome=exact}"] == 1
    one.lose()
    while (await scraped(host))[detached] != 1:
        pass
    others = [Caller("/v1/encode") for _ in range(4)]
    for other in others:
        await other.call(host.url)
    seen = await scraped(host)
    assert seen["neucodec_evictions_total{reason=full}"] == 1 and seen[detached] == 0
    for other in others:
        await other.finish()


async def test_a_draining_server_is_visible_in_the_metrics(host):
    assert (await scraped(host))["neucodec_draining"] == 0
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(host.app.drain(), host.loop))
    assert (await scraped(host))["neucodec_draining"] == 1
