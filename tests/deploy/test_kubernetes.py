"""The Kubernetes manifests: valid by Kubernetes' own schemas, in agreement with each other and with the server."""

import importlib.util
import re

import kubernetes_validate
import pytest
import yaml

from neucodec_streaming.server.http.responses import METRICS_PATH, READY_PATH
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.settings.fields import DEFAULT_PORT
from neucodec_streaming.server.settings.sources import resolve
from tests.deploy.proxy import DEPLOY
from tests.deploy.test_image import last_stage

MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "neucodec.yaml").read_text()))
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
POD = BY_KIND["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
RAY_SERVICE = yaml.safe_load((DEPLOY / "kubernetes" / "rayservice.yaml").read_text())
RAY_CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]
RAY_GROUPS = [RAY_CLUSTER["headGroupSpec"], *RAY_CLUSTER["workerGroupSpecs"]]
ADAPTER = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())


@pytest.mark.parametrize("version", ["1.30", "1.33", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", BY_KIND)
def test_every_manifest_is_valid(kind, version):
    kubernetes_validate.validate(BY_KIND[kind], version, strict=True)


def test_service_disruption_budget_and_autoscaler_select_the_pods_of_the_deployment():
    labels = POD["metadata"]["labels"]
    assert BY_KIND["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert BY_KIND["Service"]["spec"]["selector"] == labels
    assert BY_KIND["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    target = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = BY_KIND["Deployment"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "two would set it"


def test_the_manifests_use_valid_settings_and_the_servers_port():
    environment = {one["name"]: one["value"] for one in CONTAINER["env"]}
    found = resolve({}, environment)
    settings = found.settings
    assert not found.unknown
    assert settings.workers == int(CONTAINER["resources"]["requests"]["cpu"]) and settings.api_keys_file
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == DEFAULT_PORT == int(POD["metadata"]["annotations"]["prometheus.io/port"])
    assert POD["metadata"]["annotations"]["prometheus.io/path"] == METRICS_PATH
    (outside,) = BY_KIND["Service"]["spec"]["ports"]
    assert outside["targetPort"] == port["name"]
    (keys,) = [one["mountPath"] for one in CONTAINER["volumeMounts"] if one["name"] == "keys"]
    assert settings.api_keys_file.startswith(keys)


def test_a_pod_has_time_to_drain():
    environment = {one["name"]: one["value"] for one in CONTAINER["env"]}
    settings = resolve({}, environment).settings
    takes_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.drain_s + settings.stop_timeout_s
    assert POD["spec"]["terminationGracePeriodSeconds"] > takes_s


def test_readiness_is_probed_and_a_stuck_device_is_restarted_only_after_a_while():
    probes = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert {probe["httpGet"]["path"] for probe in probes.values()} == {READY_PATH}
    patience = {name: probe["periodSeconds"] * probe["failureThreshold"] for name, probe in probes.items()}
    assert patience["readiness"] < patience["liveness"] < patience["startup"]


def test_pods_run_as_the_images_unprivileged_user():
    security, inner = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == last_stage()["USER"]
    assert security["runAsNonRoot"] and inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"]
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert "/tmp" in [mount["mountPath"] for mount in CONTAINER["volumeMounts"]], (
        "some imports look for a place to write"
    )


def test_the_autoscaler_uses_a_metric_that_server_and_adapter_provide():
    (metric,) = BY_KIND["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(rf"^{name} ", Metrics().text(), re.M)
    (rule,) = ADAPTER["rules"]["custom"]
    assert rule["name"]["as"] == name and rule["seriesQuery"].startswith(name + "{")


# Ray Serve


def test_the_ray_service_equals_the_generators_output():
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "kubernetes" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = (DEPLOY / "kubernetes" / "rayservice.yaml").read_text()
    assert written == generate.text(), "run python deploy/kubernetes/generate.py"


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("group", RAY_GROUPS, ids=["head", "workers"])
def test_ray_pods_are_valid_and_have_the_security_context_of_server_pods(group, version):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
    kubernetes_validate.validate(pod, version, strict=True)
    assert pod["spec"]["securityContext"] == POD["spec"]["securityContext"]
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == CONTAINER["securityContext"]


def test_the_ray_application_has_settings_of_the_server_and_as_many_processors_as_workers():
    serve = yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])
    (application,) = serve["applications"]
    given = application["args"]
    settings = resolve(given["settings"], {}).settings
    assert settings.workers == given["cpus"] == int(CONTAINER["resources"]["requests"]["cpu"])
    (group,) = RAY_CLUSTER["workerGroupSpecs"]
    assert (given["min_replicas"], given["max_replicas"]) == (group["minReplicas"], group["maxReplicas"])
    ports = {one["containerPort"] for one in group["template"]["spec"]["containers"][0]["ports"]}
    assert serve["http_options"]["port"] in ports


def test_the_ray_application_is_valid_by_rays_own_schema():
    schema = pytest.importorskip("ray.serve.schema", reason="the extra `ray` is not installed")
    from deploy.ray_serve import Arguments

    serve = schema.ServeDeploySchema.model_validate(yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]))
    assert Arguments(**serve.applications[0].args).room is None
