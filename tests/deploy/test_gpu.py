"""Deployment on a GPU: the patch of the deployment, the Compose file, and the image that both use."""

import re
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from neucodec_streaming.server.settings.sources import resolve
from tests.deploy.proxy import DEPLOY
from tests.deploy.test_image import DOCKERFILE
from tests.deploy.test_kubernetes import BY_KIND

PATCH = yaml.safe_load((DEPLOY / "kubernetes" / "gpu-patch.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose-gpu.yaml").read_text())
KEYS = ("mountPath", "name")
"""The keys by which lists of objects are merged."""


def patched(old: Any, new: Any) -> Any:
    """The strategic merge of `kubectl patch`, as far as the patch needs it."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: patched(old.get(name), value) for name, value in new.items()}
    if isinstance(old, list) and new and isinstance(new[0], dict):
        key = next(key for key in KEYS if key in new[0])
        found = {one[key]: one for one in deepcopy(old)}
        for one in new:
            found[one[key]] = patched(found.get(one[key]), one)
        return list(found.values())
    return new


DEPLOYMENT = patched(BY_KIND["Deployment"], PATCH)
(CONTAINER,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]


def cuda_environment() -> dict[str, str]:
    stage = DOCKERFILE.partition("AS cuda")[2].partition("\nFROM")[0]
    return dict(re.findall(r"(NEUCODEC_\w+)=(\S+)", stage))


@pytest.mark.parametrize("version", ["1.30", "1.33", kubernetes_validate.latest_version()])
def test_the_patched_deployment_is_valid(version):
    kubernetes_validate.validate(DEPLOYMENT, version, strict=True)


def test_a_pod_asks_for_one_gpu_and_serves_with_one_worker():
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == "1"
    environment = cuda_environment() | {one["name"]: one["value"] for one in CONTAINER["env"] if "value" in one}
    found = resolve({}, environment)
    assert not found.unknown
    assert (found.settings.device, found.settings.dtype, found.settings.workers) == ("cuda", "bfloat16", 1)


def test_every_mounted_volume_exists():
    volumes = {volume["name"] for volume in DEPLOYMENT["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} <= volumes


def test_compose_builds_the_target_that_the_patch_runs_and_reserves_a_gpu():
    service = COMPOSE["services"]["neucodec"]
    assert (service["image"], service["build"]["target"]) == (CONTAINER["image"], "cuda")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    flags = dict(zip(service["command"][::2], service["command"][1::2], strict=True))
    found = resolve({name.lstrip("-").replace("-", "_"): value for name, value in flags.items()}, cuda_environment())
    assert found.settings.max_sessions == 256


def test_compose_gives_triton_a_folder_to_load_from_and_the_server_time_to_drain():
    service = COMPOSE["services"]["neucodec"]
    cache = re.search(r"TRITON_CACHE_DIR=(\S+)", DOCKERFILE)
    mounts = dict(mount.split(":") for mount in service["tmpfs"])
    assert cache is not None
    assert mounts["/" + cache[1].split("/")[1]] == "exec"  # Docker's default is noexec
    settings = resolve({}, {}).settings
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.drain_s + settings.stop_timeout_s
