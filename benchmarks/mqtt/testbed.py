"""Environment of `benchmarks.mqtt`: server processes with a bridge, and listeners."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.common.surroundings import ROOT
from demos.server_process import ServerProcess
from neucodec_streaming.client.events import Tokens
from neucodec_streaming.client.mqtt.stream import Missing
from neucodec_streaming.protocol.concealment import concealed
from neucodec_streaming.protocol.messages import TOKENS
from neucodec_streaming.tokens import tokens_from_bytes, tokens_to_bytes

SMALL_MODEL = ROOT / "tests" / "data" / "neucodec-mini"


def bridge_process(broker_url: str, model: str | Path = "nano", *settings: str) -> ServerProcess:
    arguments = ("--model", model, "--mqtt", broker_url, "--threads", "1", "--profiles", "default", "--max-load", "9")
    return ServerProcess(*arguments, *settings)


@dataclass
class Heard:
    """Tokens of `frames` frames: uint16 (F,), which are concealed, and when each arrived."""

    frames: int
    tokens: np.ndarray = field(init=False)
    lost: np.ndarray = field(init=False)
    at_s: np.ndarray = field(init=False)
    told_units: int = 0

    def __post_init__(self) -> None:
        self.tokens = np.zeros(self.frames, np.uint16)
        self.lost = np.ones(self.frames, bool)
        self.at_s = np.full(self.frames, np.nan)

    def take(self, event: object, now_s: float = 0.0) -> None:
        """A gap is reported before the next tokens, which may start with concealed ones."""
        if isinstance(event, Missing):
            self.told_units += event.units
            self._concealed = (event.position - event.units, event.position) if event.is_concealed else (0, 0)
        elif isinstance(event, Tokens):
            places = slice(event.position, event.position + event.tokens.size)
            self.tokens[places], self.lost[places], self.at_s[places] = event.tokens, False, now_s
            self.lost[slice(*self._concealed)] = True
            self._concealed = (0, 0)

    _concealed: tuple[int, int] = (0, 0)

    def complete(self) -> None:
        """Conceals an end that did not arrive."""
        heard = np.flatnonzero(~self.lost)
        end = int(heard[-1]) + 1 if heard.size else 0
        before = tokens_to_bytes(self.tokens[max(end - 1, 0) : end])
        self.tokens[end:] = tokens_from_bytes(concealed(TOKENS, before, self.frames - end, b""))
