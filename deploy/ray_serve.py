"""The codec as a Ray Serve application: replicas of the ASGI application, routed to by free capacity.

    serve run deploy.ray_serve:build                       # on a machine of the cluster, from a checkout
    serve deploy deploy/ray_serve.yaml                     # on a cluster that runs

A replica is a whole server, with workers of its own. It says how many sessions it has room for, by measured step times;
the router sends a session to the replica with the least share of that in use, and one that resumes to the replica whose
token it shows. A replica refuses what it has no room for, before the upgrade. Needs the extra `ray`.
"""

import os
import pickle
import random
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
from neucodec_streaming.server.model import load_engines
from neucodec_streaming.server.sessions.admission import Admission
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import resolve

BESIDE = 16
"""Requests that a replica takes beyond its sessions: pages, probes, and those that it refuses."""
PROBED = 16
"""Replicas that are asked how many sessions they have, for one that opens; of more, a random choice."""
TARGET_SHARE = 0.7
"""Of a replica's room that autoscaling aims at: the rest is for a node that fails."""
HEALTH_PERIOD_S = 5.0
STOP_S = 10.0
"""For a replica to end, beyond the time that its sessions have."""


class Arguments(BaseModel):
    """What the configuration file may say. `settings`: as flags of neucodec-server, such as {"model": "nano"}.

    `cpus`, `gpus`: of a replica. `room`: roundtrip sessions of a replica; without it, measured once at the start.
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
    """The application, for `serve run` and the configuration file. Raises ConfigError."""
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
    """Settings as the file has them, then NEUCODEC_... in the environment. Raises ConfigError."""
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"{', '.join(sorted(unknown))}: no setting of neucodec-server")
    return resolve(given, os.environ).settings


def measured_room(given: dict[str, Any]) -> int:
    """Loads the model on a node of the cluster: sessions of the kind that takes most, in the default profile."""
    settings = settings_of(given)
    engines, model = load_engines(settings)
    admission = Admission(model.budget, settings.max_sessions, len(engines))
    return admission.capacity(model.kinds[-1], model.profiles[model.default_profile])


class SessionRouter(RequestRouter):
    """Where a request goes: to the replica that it resumes a session of, else to the one with the most room."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each; a later one is asked if an earlier one is gone or takes no more requests."""
        holder = None
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # when none takes it, Serve waits and asks again
            holder = holder_of(_query(pending_request), candidate_replicas)
        chosen = random.sample(candidate_replicas, min(PROBED, len(candidate_replicas)))
        sessions = await self._probe_queue_lens(chosen, 0)
        by_load = sorted(
            ((count / one.replica_metadata["room"], one) for one, count in sessions if count is not None),
            key=lambda pair: pair[0],
        )
        return [*([[holder]] if holder is not None else []), *([one] for _, one in by_load)]


def holder_of(target: str | None, replicas: list[RunningReplica]) -> RunningReplica | None:
    """The replica whose token a session's target shows, if it is there."""
    try:
        asked = parse_target(target) if target is not None else None
    except ConfigError:
        return None  # a replica says what is wrong
    if asked is None or asked.resume is None:
        return None
    return next((one for one in replicas if asked.resume.startswith(one.replica_id.unique_id)), None)


def _query(request: PendingRequest) -> str | None:
    """Path and query of a WebSocket, as the proxy packed them for the replica."""
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
    """One server; a prefix of its tokens says that they are its own."""

    def __init__(self, given: dict[str, Any]) -> None:
        replica = serve.get_replica_context().replica_id.unique_id
        self._codec = Application(settings_of(given), token_prefix=replica)

    def __serve_build_asgi_app__(self) -> Application:
        return self._codec

    def record_replica_metadata(self) -> dict[str, int]:
        """What the router goes by; asked for once, when the model is warm."""
        return {"room": self._codec.app.room()}

    def check_health(self) -> None:
        """Raises when the device is stuck or a worker has ended: Serve ends the replica and starts another."""
        why_not = self._codec.app.why_not_ready()
        if why_not is not None:
            raise RuntimeError(why_not)
