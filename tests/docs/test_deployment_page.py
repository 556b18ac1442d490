"""docs/deployment.md: its links lead somewhere, its settings, paths, metrics and figures are those that there are."""

import re
from dataclasses import fields

import yaml

from neucodec_streaming.server.http.responses import HEALTH_PATH, METRICS_PATH, READY_PATH
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import resolve
from tests.deploy.proxy import DEPLOY

DOCS = DEPLOY.parent / "docs"
PAGE = (DOCS / "deployment.md").read_text()


def test_every_link_leads_to_a_file_and_every_file_of_deploy_is_listed():
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)}
    assert all((DOCS / link).exists() for link in links)
    assert all(
        path.name in PAGE for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".pyc")
    )


def test_every_setting_and_default_on_the_page_is_correct():
    known = {field.name: field.default for field in fields(Settings)}
    for name, value in re.findall(r"`(\w+_s)` \((\d+) s\)", PAGE):
        assert known[name] == float(value)
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE))
    assert {name for name in named if not name.startswith("neucodec_")} <= set(known)


def test_the_example_settings_file_is_valid(tmp_path):
    block = re.search(r"server\.toml`:\n\n((?:    .*\n)+)", PAGE)[1]
    path = tmp_path / "server.toml"
    path.write_text(re.sub("^    ", "", block, flags=re.M))
    assert resolve({"config": str(path)}, {}).settings.trusted_proxies == ("127.0.0.1",)


def test_the_metrics_and_paths_on_the_page_exist():
    text = Metrics().text()
    for name in re.findall(r"`(neucodec_\w+)`", PAGE):
        assert re.search(rf"^# HELP {name} ", text, re.M), name
    assert {HEALTH_PATH, READY_PATH, METRICS_PATH} <= set(re.findall(r"^\| `(/\w+)` \|", PAGE, re.M))


def test_the_times_equal_those_of_the_unit_and_the_pods():
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes" / "neucodec.yaml").read_text())
    pod = next(one for one in manifests if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert f"the pods have {pod['terminationGracePeriodSeconds']} s" in PAGE.replace("\n", " ")
    unit = (DEPLOY / "neucodec.service").read_text()
    assert f"unit waits {re.search(r'TimeoutStopSec=(.*)', unit)[1]} s" in PAGE.replace("\n", " ")
