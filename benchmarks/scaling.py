"""Estimates the nodes, gateways and bandwidth of many live round trips, and the cost of a lost node.

Computed from measured results (benchmarks/results); nothing was run at that scale. ASSUMED are figures of other
people's hardware.

    python -m benchmarks.scaling        # writes the table into docs/scaling.md
"""

import argparse
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT
from neucodec_streaming.config import FRAME_MS, StreamConfig
from neucodec_streaming.protocol.query import session_request

PAGE = ROOT / "docs" / "scaling.md"
SERVE_RESULTS = RESULTS_FOLDER / "serve.json"
"""From benchmarks.serve; without it the table has no column for Ray Serve."""
SESSIONS = (10_000, 1_000_000)
NODE_CORES = 16
TARGET_SHARE = 0.7
"""Share of a node's capacity that autoscaling aims at (deploy/kubernetes/neucodec.yaml, deploy/ray_serve.py)."""
MAX_REPLAY_S = 60.0
"""The longest replay by a client."""

# ASSUMED
GATEWAY_BITS_S = 25e9
GATEWAY_SHARE = 0.6
"""Planned share of a gateway's bandwidth, each way."""
GATEWAY_CONNECTIONS = 100_000
"""Open connections that a gateway keeps, with two sockets each."""
SEGMENT_BYTES, PACKET_HEADER_BYTES = 1448, 40


@dataclass(frozen=True)
class SessionCost:
    """A live round trip: shares of a core for steps and for the process that speaks with clients."""

    step_cores: float
    front_cores: float
    up_bits_s: float
    down_bits_s: float


def wire_bits_s(payload_bytes: int, messages_a_second: float) -> float:
    """Bits a second of one direction, with the headers of WebSocket, TCP and IP."""
    frame = payload_bytes + (4 if payload_bytes >= 126 else 2)
    return messages_a_second * 8 * (frame + PACKET_HEADER_BYTES * math.ceil(frame / SEGMENT_BYTES))


def session_cost(front_cores: float, load: dict[str, Any]) -> SessionCost:
    """From the first row of load.json, the phase without a burst."""
    row, request, config = load["rows"][0], session_request("roundtrip"), StreamConfig(5, 5)
    steps = (row["server_cpu"] - row["loop_cpu"]) / row["held"]
    up, down = (stream.hop * stream.unit_bytes for stream in (request.input, request.output))
    chunk = config.chunk_frames
    per_s = 1000 / FRAME_MS
    return SessionCost(steps, front_cores, wire_bits_s(up + 4, per_s), wire_bits_s(down * chunk, per_s / chunk))


def needs(sessions: int, cost: SessionCost) -> dict[str, float]:
    """Whole nodes and gateways, gigabits, and what is lost with one of them."""
    here = math.floor(NODE_CORES * TARGET_SHARE / (cost.step_cores + cost.front_cores) + 1e-9)
    nodes = math.ceil(sessions / here)
    by_bits = GATEWAY_BITS_S * GATEWAY_SHARE / max(cost.up_bits_s, cost.down_bits_s)
    gateways = math.ceil(sessions / min(by_bits, GATEWAY_CONNECTIONS))
    spare_cores = (nodes - 1) * NODE_CORES * (1 - TARGET_SHARE)
    replayed_s = here * MAX_REPLAY_S / 2  # an utterance is cut in its middle
    return {
        "nodes": nodes,
        "sessions of a node": here,
        "Gbit/s up": sessions * cost.up_bits_s / 1e9,
        "Gbit/s down": sessions * cost.down_bits_s / 1e9,
        "gateways": gateways,
        "sessions of a gateway": math.ceil(sessions / gateways),
        "share of sessions lost with a node": here / sessions,
        "seconds for the other nodes to replay them": replayed_s * cost.step_cores / max(spare_cores, 1e-9),
    }


def table() -> str:
    load = json.loads((RESULTS_FOLDER / "load.json").read_text())
    own = load["rows"][0]["loop_cpu"] / load["rows"][0]["held"]
    costs = {"our own listener": session_cost(own, load)}
    if SERVE_RESULTS.exists():
        serve = json.loads(SERVE_RESULTS.read_text())["serve"]
        costs["Ray Serve"] = session_cost((serve["front_percent"] + serve["replica_percent"]) / 100, load)
    columns = [(way, sessions, needs(sessions, cost)) for way, cost in costs.items() for sessions in SESSIONS]
    lines = ["| | " + " | ".join(f"{way}, {sessions:,}" for way, sessions, _ in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for name in columns[0][2]:
        lines.append(f"| {name} | " + " | ".join(_shown(name, found[name]) for *_, found in columns) + " |")
    return "\n".join(lines)


def _shown(name: str, value: float) -> str:
    if name.startswith("share"):
        return f"{value:.2g}" if value >= 1e-3 else f"{value:.0e}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    argparse.ArgumentParser(description="Writes the table of docs/scaling.md from measured results.").parse_args()
    PAGE.write_text(re.sub(r"(^\|.*\n)+", lambda _: table() + "\n", PAGE.read_text(), count=1, flags=re.M))
    print(table())
