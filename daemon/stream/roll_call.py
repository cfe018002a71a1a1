"""How cameras are → one line when that changes, and one a minute of all that are not well."""

import logging

import structlog

from daemon.journal.base import CameraStatus, Condition

_INTERVAL_S = 60.0


def tell_change(
    log: structlog.stdlib.BoundLogger, before: CameraStatus | None, now: CameraStatus
) -> None:
    """Log that a camera's condition is another one, if it is."""
    was = None if before is None else before.condition
    if now.condition is was:
        return
    log.log(
        logging.INFO if now.condition is Condition.LIVE else logging.WARNING,
        "camera.state",
        camera=now.camera,
        state=now.condition.value,
        before=None if was is None else was.value,
        lag_s=None if now.lag_s is None else round(now.lag_s, 1),
        degraded=list(now.degraded),
    )


class RollCall:
    """Says once a minute which cameras are not well, as long as there are any.

    Args:
        log: The daemon's.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._since_s: float | None = None

    def tell(self, statuses: list[CameraStatus], now_s: float) -> None:
        """Take note of how all cameras are.

        Args:
            statuses: One of each camera.
            now_s: Seconds of a clock that never goes back.
        """
        unwell = [status for status in statuses if status.condition is not Condition.LIVE]
        if not unwell:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < _INTERVAL_S:
            return
        self._since_s = now_s
        names: dict[str, list[str]] = {}
        for status in unwell:
            names.setdefault(status.condition.value, []).append(status.camera)
        self._log.warning("cameras.unwell", cameras=len(unwell), **names)
