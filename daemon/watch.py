"""Watches the daemon itself: is it alive, what does it wait for, and does its event loop turn?

/livez and the service manager's watchdog are told that the daemon is alive as long as its event
loop turns and no call has run for too long. To wait for a broker or a disk is no hang.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from daemon.calls import RunningCalls
from daemon.clock import Clock, SystemClock
from daemon.metrics import Metrics
from daemon.outages import Kind, Outages
from daemon.systemd import Notifier

# Share of WatchdogSec between two signs of life; a quarter leaves time for a busy event loop.
WATCHDOG_SHARE = 0.25
_LOOK_S = 1.0
_MOST_CALLS = 8  # that /livez names


def nobody_listens() -> None:
    """The ``tell`` of a daemon whose state nobody asks for: it does nothing."""


class Watch:
    """Looks at the daemon once a second.

    Args:
        notifier: The service manager.
        calls: The calls that run.
        outages: What is waited for.
        metrics: The loop's state is shown there.
        stall_s: A call that runs for so many seconds hangs, and so does an event loop that has not
            turned for so long.
        tell: Called after each look, to tell the service manager what has changed.
        clock: The machine's, if None.

    Attributes:
        stall_s: As above.
        outages: As above.
    """

    def __init__(
        self,
        notifier: Notifier,
        calls: RunningCalls,
        outages: Outages,
        metrics: Metrics,
        *,
        stall_s: float = 60.0,
        tell: Callable[[], None] = nobody_listens,
        clock: Clock | None = None,
    ) -> None:
        self.stall_s = stall_s
        self.outages = outages
        self._notifier = notifier
        self._calls = calls
        self._metrics = metrics
        self._tell = tell
        self._clock = clock or SystemClock()
        self._turned_s: float | None = None  # when the loop was seen to turn; None: nobody looks

    async def serve(self) -> None:
        """Look until cancelled."""
        interval_s = min((self._notifier.watchdog_s or 4.0) * WATCHDOG_SHARE, _LOOK_S)
        try:
            while True:
                self._look()
                before_s = self._turned_s = self._clock.monotonic_s()
                await asyncio.sleep(interval_s)
                late_s = self._clock.monotonic_s() - before_s - interval_s
                self._metrics.loop_lag_seconds.set(max(late_s, 0.0))
        finally:
            self._turned_s = None

    def is_live(self) -> tuple[bool, dict[str, Any]]:
        """Tell, in any thread, whether work goes forward, and which calls run."""
        turned_s = self._turned_s
        silent_s = 0.0 if turned_s is None else self._clock.monotonic_s() - turned_s
        calls = self._calls.all()
        oldest_s = calls[0].age_s if calls else 0.0
        is_live = max(oldest_s, silent_s) < self.stall_s
        return is_live, {
            "live": is_live,
            "oldest_running_call_s": round(oldest_s, 3),
            "running_calls": [
                {"what": call.what, "seconds": round(call.age_s, 3)}
                for call in calls[:_MOST_CALLS]
            ],
            "loop_turned_s_ago": round(silent_s, 3),
        }

    def _look(self) -> None:
        self.outages.tick()
        for kind in Kind:
            self._metrics.waiting.labels(kind.value).set(len(self.outages.on(kind)))
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        self._tell()
        if self.is_live()[0]:
            self._notifier.alive()
