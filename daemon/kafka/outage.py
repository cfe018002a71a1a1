"""An outage is a state, not an error: said when it begins, once a minute, and when it ends."""

import logging
import time

_AGAIN_S = 60.0


class Outage:
    """Says so when something is away for a while.

    Args:
        what: What may be away.
        log: Where to say it.
    """

    def __init__(self, what: str, log: logging.Logger) -> None:
        self._what = what
        self._log = log
        self._since_s: float | None = None
        self._said_s = 0.0

    @property
    def is_on(self) -> bool:
        """True while it is away."""
        return self._since_s is not None

    def failed(self, error: Exception) -> None:
        """It was tried, and failed."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._said_s < _AGAIN_S:
            return
        self._said_s = now_s
        self._log.warning("%s: %s; trying on", self._what, error)

    def worked(self) -> None:
        """It was tried, and worked."""
        if self._since_s is not None:
            away_s = time.monotonic() - self._since_s
            self._log.warning("%s: works again after %.0f s", self._what, away_s)
            self._since_s = None
