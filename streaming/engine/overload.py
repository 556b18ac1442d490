"""When a device that cannot keep up must lose a session so that the others are in time again. No clock."""

DEFAULT_MAX_BEHIND_S = 2.0
PATIENCE_S = 1.0
"""How long what was done last, or a pause of the machine, has to show an effect."""


class Overload:
    """Watches how late the most urgent window is, and says when one session is too many."""

    def __init__(self, max_behind_s: float) -> None:
        self.max_behind_s = max_behind_s
        self._seen: tuple[float, float] | None = (
            None  # when the bound was passed or looked at last, and how late it was
        )

    def sheds(self, behind_s: float, now_s: float) -> bool:
        """Whether a session must go now: past the bound for the length of the patience, and not catching up."""
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
