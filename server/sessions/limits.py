"""Time limits of one session: of its slot, duration, first message and silence. Each is a named timer."""

import asyncio
from collections.abc import Callable
from functools import partial

from neucodec_streaming.errors import CapacityError, DeviceError, StreamingError, TimeLimitError
from neucodec_streaming.server.settings.fields import Settings


class SessionLimits:
    """Calls `fail` with the error of an exceeded limit, and `quiet` after a while without traffic.

    `active_s`: time of the latest traffic, by the loop's clock.
    """

    def __init__(self, settings: Settings, fail: Callable[[StreamingError], None], quiet: Callable[[], None]) -> None:
        self._settings, self._fail, self._quiet = settings, fail, quiet
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._has_spoken = False
        self.active_s = self._loop.time()
        no_slot = DeviceError("the device does not respond: try again later, or use another server")
        self.after("slot", settings.slot_timeout_s, partial(fail, no_slot))
        self.after("length", settings.max_session_s, self._reach_length)
        self.after("park", settings.park_after_s, self._check_quiet)

    def after(self, name: str, seconds: float | None, call: Callable[[], None]) -> None:
        """Starts the named timer in place of a running one; None: no limit."""
        self.cancel(name)
        if seconds is not None:
            self._timers[name] = self._loop.call_later(seconds, call)

    def cancel(self, *names: str) -> None:
        """Stops those timers if they run."""
        for name in names:
            if name in self._timers:
                self._timers.pop(name).cancel()

    def stop(self) -> None:
        """The session is over."""
        self.cancel(*list(self._timers))
        del self._fail, self._quiet  # breaks the reference cycle

    def attached(self) -> None:
        """A connection is open."""
        self.cancel("return")
        self.after("idle", self._idle_limit_s, self._check_idle)

    def heard(self) -> None:
        """The client sent something."""
        self.active_s = self._loop.time()
        if not self._has_spoken:
            self._has_spoken = True
            self.after("idle", self._idle_limit_s, self._check_idle)

    def wake(self) -> None:
        """A parked session waits for a place."""
        limit_s = self._settings.wake_timeout_s
        why = f"the session was parked while idle, and no slot came free within {limit_s:g} s: resume it"
        self.after("wake", limit_s, partial(self._fail, CapacityError(why)))

    def _check_quiet(self) -> None:
        limit_s = self._settings.park_after_s
        left_s = self.active_s + limit_s - self._loop.time()
        if left_s <= 0:
            self._quiet()
        self.after("park", left_s if left_s > 0 else limit_s, self._check_quiet)

    def _reach_length(self) -> None:
        limit_s = self._settings.max_session_s
        self._fail(TimeLimitError(f"the session has reached its time limit of {limit_s:.0f} s: open another"))

    @property
    def _idle_limit_s(self) -> float | None:
        settings = self._settings
        return settings.idle_timeout_s if self._has_spoken else settings.first_message_timeout_s

    def _check_idle(self) -> None:
        limit_s = self._idle_limit_s
        assert limit_s is not None, "there is no timer without a limit"
        left_s = self.active_s + limit_s - self._loop.time()
        if left_s > 0:
            self.after("idle", left_s, self._check_idle)
        else:
            why = "no traffic for" if self._has_spoken else "no message within"
            self._fail(TimeLimitError(f"{why} {limit_s:.0f} s: open a session when there is input"))
