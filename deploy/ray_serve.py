"""The codec as a Ray Serve application: replicas of the ASGI application, routed by free capacity.

    serve run deploy.ray_serve:build                       # on a machine of the cluster, from a checkout
    serve deploy deploy/ray_serve.yaml                     # on a running cluster

A replica is a whole server with its own workers. It reports how many sessions it has room for, by measured step times.
The router sends a session to the replica with the smallest share of its room in use, and a resuming one to the replica
of its token. A replica refuses sessions beyond its room, before the upgrade. Needs the extra `ray`.
"""

import os
import pickle
import random
from dataclasses import replace
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.query import parse_target
from neucodec_streaming.server.asgi import Application
from neucodec_streaming.server.asgi.application import path_below
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.sessions.admission import Admission
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import resolve

BESIDE = 16
"""Requests that a replica accepts in addition to its sessions: pages, probes, and refused ones."""
PROBED = 16
"""Replicas queried for their sessions when one opens; of more, a random choice."""
TARGET_SHARE = 0.7
"""Share of a replica's room that autoscaling aims at; the rest is for a failing node."""
HEALTH_PERIOD_S = 5.0
NICE = 5
"""Default of the setting `nice`. Otherwise each of the processes that a message passes waits for a worker's step."""
STOP_S = 10.0
"""Time for a replica to end, in addition to its sessions' time."""


class Arguments(BaseModel):
    """Arguments of the configuration file. `settings`: flags of neucodec-server, such as {"model": "nano"}.

    `cpus`, `gpus`: of a replica. `room`: round-trip sessions of a replica; by default measured at startup.
    """

    model_config = ConfigDict(extra="forbid")
    settings: dict[str, Any] = {}
    cpus: float = 2
    gpus: float = 0
    min_replicas: int = 1
    max_replicas: int = 10
    upscale_delay_s: float = 10
    downscale_delay_s: float = 600
    room: int | None = None


def build(arguments: Arguments) -> serve.Application:
    """Builds the application for `serve run` and the configuration file. Raises ConfigError."""
    settings = settings_of(arguments.settings)
    resources = {"num_cpus": arguments.cpus, "num_gpus": arguments.gpus}
    room = arguments.room
    if room is None:
        room = ray.get(ray.remote(**resources)(measured_room).remote(arguments.settings))
    return CodecReplica.options(
        max_ongoing_requests=settings.max_sessions + BESIDE,
        max_queued_requests=BESIDE,
        backpressure_config=BackpressureConfig(retry_after_s=1),
        ray_actor_options=resources,
        autoscaling_config=AutoscalingConfig(
            min_replicas=arguments.min_replicas,
            max_replicas=arguments.max_replicas,
            target_ongoing_requests=max(1.0, TARGET_SHARE * room),
            upscale_delay_s=arguments.upscale_delay_s,
            downscale_delay_s=arguments.downscale_delay_s,
        ),
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=settings.drain_s + settings.stop_timeout_s + STOP_S,
        request_router_config=RequestRouterConfig(request_router_class=SessionRouter),
    ).bind(arguments.settings)


def settings_of(given: dict[str, Any]) -> Settings:
    """Settings from the file, then from NEUCODEC_... in the environment. Raises ConfigError."""
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"{', '.join(sorted(unknown))}: no setting of neucodec-server")
    resolved = resolve(given, os.environ)
    return resolved.settings if "nice" in resolved.origins else replace(resolved.settings, nice=NICE)


def measured_room(given: dict[str, Any]) -> int:
    """Measures with the most expensive kind, in the default profile."""
    settings = settings_of(given)
    engines, model = load_engines(settings)
    admission = Admission(model.budget, settings.max_sessions, len(engines))
    return admission.capacity(model.kinds[-1], model.profiles[model.default_profile])


class SessionRouter(RequestRouter):
    """Routes a request to the replica whose session it resumes, else to the one with the most room."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each; a later one is tried if an earlier one is gone or full."""
        holder = None
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # if none accepts it, Serve waits and asks again
            holder = holder_of(_query(pending_request), candidate_replicas)
        chosen = random.sample(candidate_replicas, min(PROBED, len(candidate_replicas)))
        sessions = await self._probe_queue_lens(chosen, 0)
        by_load = sorted(
            ((count / one.replica_metadata["room"], one) for one, count in sessions if count is not None),
            key=lambda pair: pair[0],
        )
        return [*([[holder]] if holder is not None else []), *([one] for _, one in by_load)]


def holder_of(target: str | None, replicas: list[RunningReplica]) -> RunningReplica | None:
    """The replica of a session target's token, if it exists."""
    try:
        asked = parse_target(target) if target is not None else None
    except ConfigError:
        return None  # the replica reports the fault
    if asked is None or asked.resume is None:
        return None
    return next((one for one in replicas if asked.resume.startswith(one.replica_id.unique_id)), None)


def _query(request: PendingRequest) -> str | None:
    """Path and query of a WebSocket, as packed by the proxy for the replica."""
    if not request.args or not isinstance(request.args[0], bytes):
        return None
    scope = pickle.loads(request.args[0]).asgi_scope
    if scope["type"] != "websocket":
        return None
    path = path_below(scope["path"], scope.get("root_path", ""))
    return f"{path}?{scope['query_string'].decode('latin-1')}"


@serve.deployment
@serve.ingress()
class CodecReplica:
    """One server; its tokens have a prefix that identifies it."""

    def __init__(self, given: dict[str, Any]) -> None:
        replica = serve.get_replica_context().replica_id.unique_id
        self._codec = Application(settings_of(given), token_prefix=replica)

    def __serve_build_asgi_app__(self) -> Application:
        return self._codec

    def record_replica_metadata(self) -> dict[str, int]:
        """The room for the router; queried once the model is warm."""
        return {"room": self._codec.app.room()}

    def check_health(self) -> None:
        """Raises if the device is stuck or a worker has ended: Serve replaces the replica."""
        why_not = self._codec.app.why_not_ready()
        if why_not is not None:
            raise RuntimeError(why_not)
