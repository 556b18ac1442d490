"""Decides when a device that cannot keep up has to drop a session. No clock."""

from neucodec_streaming.errors import CapacityError

DEFAULT_MAX_BEHIND_S = 2.0
PATIENCE_S = 1.0
"""Time for the last measure, or for a pause of the machine, to take effect."""


class Overload:
    """Watches the lateness of the most urgent window and decides when a session must be dropped."""

    def __init__(self, max_behind_s: float) -> None:
        self.max_behind_s = max_behind_s
        self._seen: tuple[float, float] | None = None  # time and lateness when the bound was passed or last checked

    def sheds(self, behind_s: float, now_s: float) -> bool:
        """Whether a session must be dropped now: late beyond the bound for PATIENCE_S, without recovering."""
        if behind_s <= self.max_behind_s:
            self._seen = None
            return False
        if self._seen is None:
            self._seen = now_s, behind_s
        since_s, before_s = self._seen
        if now_s - since_s < PATIENCE_S:
            return False
        self._seen = now_s, behind_s
        return behind_s >= before_s

    def error(self, behind_s: float) -> CapacityError:
        """The error of a session that is dropped."""
        return CapacityError(
            f"the device is overloaded (sessions are {behind_s:.1f} s behind), and this session is the newest:"
            " reconnect later, or use another server"
        )
