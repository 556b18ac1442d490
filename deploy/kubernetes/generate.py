"""Writes rayservice.yaml (KubeRay): the application of ray_serve.yaml in pods like those of neucodec.yaml.

    python deploy/kubernetes/generate.py

The pods' user, rights, environment, memory and keys are those of our own deployment, so that there is one place to
change them; a test holds the file to what this writes.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
RAY_VERSION = "2.60.0"
IMAGE = "neucodec-ray:0.1.0"
SERVE_PORT = 8000
HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": SERVE_PORT}
STORE = {"object-store-memory": "100000000"}
"""Audio does not go through Ray's object store."""
HEADER = """\
# Written by generate.py: do not edit. The codec on Ray Serve, by KubeRay 1.4 and later, installed before:
#   docker build --target ray -t neucodec-ray:0.1.0 .
#   kubectl create secret generic neucodec-keys --from-file=keys
# Clients connect to the service neucodec-serve-svc at port 8000, whose proxies are on the nodes with replicas.
"""


def ray_service(server: list[dict[str, Any]], serve_config: str) -> dict[str, Any]:
    deployment = next(one for one in server if one["kind"] == "Deployment")
    scaler = next(one for one in server if one["kind"] == "HorizontalPodAutoscaler")
    pod = deployment["spec"]["template"]["spec"]
    least, most = scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0", **STORE}
    head_pod = _pod(pod, HEAD_PORTS, probed=False)
    del head_pod["automountServiceAccountToken"]  # the autoscaler in this pod calls the Kubernetes API
    worker = {
        "groupName": "codec",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": STORE,
        "template": {"spec": _pod(pod, {"serve": SERVE_PORT}, probed=True)},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "neucodec", "labels": deployment["metadata"]["labels"]},
        "spec": {
            "serveConfigV2": serve_config,
            "rayClusterConfig": {
                "rayVersion": RAY_VERSION,
                "enableInTreeAutoscaling": True,
                "headGroupSpec": {
                    "rayStartParams": head,
                    "template": {"spec": head_pod},
                },
                "workerGroupSpecs": [worker],
            },
        },
    }


def _pod(server: dict[str, Any], ports: dict[str, int], *, probed: bool) -> dict[str, Any]:
    """A pod of Ray's with the server's rights; Ray starts its own processes in it, and logs to /tmp."""
    pod = copy.deepcopy(server)
    (container,) = pod["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        del container[name]
    container |= {"name": "ray", "image": IMAGE}
    own = ("NEUCODEC_WORKERS", "NEUCODEC_THREADS")  # which the application's settings have
    container["env"] = [one for one in container["env"] if one["name"] not in own]
    container["env"] += [{"name": name, "value": value} for name, value in ray_environment().items()]
    container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    if probed:
        container["readinessProbe"] = {
            "httpGet": {"path": "/-/healthz", "port": "serve"},
            "periodSeconds": 5,
            "timeoutSeconds": 2,
        }
    container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "tmp"]
    pod["volumes"] += [
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
    ]
    return pod


def ray_environment() -> dict[str, str]:
    lines = (FOLDER.parent / "ray.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def text() -> str:
    server = list(yaml.safe_load_all((FOLDER / "neucodec.yaml").read_text()))
    manifest = ray_service(server, (FOLDER.parent / "ray_serve.yaml").read_text())
    return HEADER + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represented(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _represented)

if __name__ == "__main__":
    (FOLDER / "rayservice.yaml").write_text(text())
