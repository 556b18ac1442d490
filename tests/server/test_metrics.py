"""The names of the metrics are the same in the module, in the docs and on the dashboard."""

import json
import re
from pathlib import Path

import promql_parser
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import STEP_S, Metrics
from server.settings import PROFILES
from streaming.config import FRAME_MS

ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OF_PROMETHEUS = {"instance", "le"}
"""Labels that Prometheus or a histogram adds."""


def ours() -> dict[str, tuple[str, set[str]]]:
    """Name of each metric -> its type and labels."""
    made = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    return {one._name: (one._type, set(one._labelnames)) for one in made}


def series() -> dict[str, set[str]]:
    """Name of each series that can be asked for, those of the process too -> its labels."""
    found = {name + end: labels for name, (kind, labels) in ours().items() for end in SUFFIXES[kind]}
    for family in text_string_to_metric_families(Metrics().text()):
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    return found


def test_every_name_is_ours_and_says_its_unit():
    names = ours()
    assert len(names) > 15 and all(name.startswith("neucodec_") for name in names)
    units = ("_seconds", "_bytes", "_ratio", "_sessions")
    bare = {"neucodec_slots_used", "neucodec_slots_limit", "neucodec_draining"}
    assert all(name.endswith(units) for name, (kind, _) in names.items() if kind != "counter" and name not in bare)


def test_the_docs_list_every_metric_with_its_labels_and_no_other():
    page = (ROOT / "docs" / "serving.md").read_text()
    said = re.findall(r"`(neucodec_\w+)(?:\{([a-z,]+)\})?`", page)
    documented = {name: set(labels.split(",")) - {""} for name, labels in said}
    assert documented == {
        name + ("_total" if kind == "counter" else ""): labels for name, (kind, labels) in ours().items()
    }


def expressions() -> list[tuple[str, str]]:
    """Every query of the dashboard with the legend beside it."""
    return [(target["expr"], target["legendFormat"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_only_for_what_there_is():
    known = series()
    for expression, legend in expressions():
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))  # raises what is no PromQL
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


def test_the_dashboards_panels_have_a_place_each_and_ask_the_chosen_data_source():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    (asked,) = {json.dumps(panel["datasource"]) for panel in DASHBOARD["panels"]}
    assert "${datasource}" in asked
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}


def test_the_chunk_of_every_bundled_profile_is_an_edge_of_the_step_times():
    chunks = {pair[0] for pair in PROFILES.values() if pair is not None} | {1, 2, 3, 4, 5, 10}
    assert {frames * FRAME_MS / 1000 for frames in chunks} <= set(STEP_S)
