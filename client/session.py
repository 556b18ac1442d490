"""Interface of an open session over a WebSocket (connection.py) or a broker (mqtt/).

Both directions run at the same time: iterate over events while you send.
"""

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np

from neucodec_streaming.protocol.messages import Clear, ClientMessage, End, Flush, Mark, Prime, Ready
from neucodec_streaming.tokens import check_voice


class LiveSession(ABC):
    """An open session. `async for event in session` ends after Done."""

    @property
    @abstractmethod
    def ready(self) -> Ready:
        """The server's latest description of the session."""

    @property
    @abstractmethod
    def input_position(self) -> int:
        """Samples or tokens sent since the session began."""

    @property
    @abstractmethod
    def output_position(self) -> int:
        """Samples or tokens received since the session began."""

    @property
    def lost_s(self) -> float | None:
        """Seconds since the connection was lost; None while it is open or if unknown."""
        return None

    @abstractmethod
    async def send(self, chunk: np.ndarray) -> None:
        """Sends audio, float32 mono (n,) at `ready.input.rate`, or tokens (n,); waits for room."""

    async def flush(self) -> None:
        """Ends the utterance: its remaining output, then a Flushed event; the stream is reset."""
        await self._say(Flush())

    async def clear(self) -> None:
        """Barge-in: drops pending input (here and at the server) and unsent output, and ends a `send` in progress.

        Nothing of the old utterance follows Cleared. `input_position` is then the position that the server received.
        """
        await self._say(Clear())

    async def mark(self, id: str | int) -> None:
        """Requests a Marked event after the output of the last whole frame sent so far."""
        await self._say(Mark(id))

    async def prime(self, voice: Any) -> None:
        """Starts the decoder from a voice, named on the server or given as 100 tokens or more, now and after each
        `flush` and `clear`; within an utterance from its end on. None removes the voice. A Primed event has the number
        of its tokens.

        Raises TokenError, InputError; a name that the server does not know ends the session with InputError.
        """
        if isinstance(voice, str):
            await self._say(Prime(voice))
        else:
            await self._say(Prime(tokens=() if voice is None else tuple(check_voice(voice).tolist())))

    async def end(self) -> None:
        """Ends the input: the remaining output, a Done event with the totals, then the iteration ends."""
        await self._say(End())

    @abstractmethod
    async def _say(self, message: ClientMessage) -> None:
        """Sends a request."""

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> Any:
        """The next event; StopAsyncIteration after Done."""
