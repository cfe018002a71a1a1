"""What the daemon waits for: a broker that is away or a full disk is a state, and never an end.

Whoever tries something says how that went, and tries on. What has failed for a moment is an
outage: the daemon is not ready, and one line says so when it begins, once a minute while it lasts,
and when it is over; one for all brokers, one for all disks, however many parts wait for them.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import structlog

from daemon.clock import Clock, SystemClock

# A try that fails and works at once when it is repeated is nothing to tell anybody of.
SETTLE_S = 2.0
AGAIN_S = 60.0
# What comes and goes is told of no more often than this.
_FLAP_S = 20.0


class Kind(Enum):
    """What may be away."""

    BROKER = "broker"
    DISK = "disk"
    FOLDER = "folder"


class Outage:
    """One thing that may be away, as one part of the daemon sees it.

    Args:
        kind: What it is.
        what: Which one.
        clock: Tells since when.
        costs_all: While it is away nothing is served, and not only one camera goes without.
    """

    def __init__(self, kind: Kind, what: str, clock: Clock, *, costs_all: bool = True) -> None:
        self.kind = kind
        self.what = what
        self.costs_all = costs_all
        self.reason = ""
        self._clock = clock
        self._since_s: float | None = None

    @property
    def is_on(self) -> bool:
        """True while it is away, and has been for a moment."""
        return self.age_s >= SETTLE_S

    @property
    def age_s(self) -> float:
        """For how many seconds it has been away; 0 if it is there."""
        since_s = self._since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s

    def failed(self, reason: object) -> None:
        """It was tried, and failed."""
        self.reason = str(reason)
        if self._since_s is None:
            self._since_s = self._clock.monotonic_s()

    def worked(self) -> None:
        """It was tried, and worked."""
        self._since_s = None


@dataclass(slots=True)
class _Told:
    """What the log says of one kind."""

    since_s: float | None = None  # an outage that was said to have begun
    said_s: float = float("-inf")


class Outages:
    """All that may be away, and what is told of it.

    Args:
        log: Where it is told.
        clock: The machine's, if None.
    """

    def __init__(
        self, log: structlog.stdlib.BoundLogger | None = None, clock: Clock | None = None
    ) -> None:
        self._log: structlog.stdlib.BoundLogger = log or structlog.get_logger()
        self._clock = clock or SystemClock()
        self._all: list[Outage] = []
        self._told = {kind: _Told() for kind in Kind}

    def watch(self, kind: Kind, what: str, *, costs_all: bool = True) -> Outage:
        """Take in one more thing that may be away; arguments as of ``Outage``."""
        outage = Outage(kind, what, self._clock, costs_all=costs_all)
        self._all.append(outage)
        return outage

    def forget(self, outage: Outage) -> None:
        """It is watched no more."""
        if outage in self._all:
            self._all.remove(outage)

    def on(self, kind: Kind | None = None) -> list[Outage]:
        """Those that are away now, the longest first; of one kind, or of all."""
        of_kind = [each for each in list(self._all) if kind in {None, each.kind} and each.is_on]
        return sorted(of_kind, key=lambda each: -each.age_s)

    @property
    def stop_all(self) -> bool:
        """True while something is away without which nothing is served."""
        return any(outage.costs_all for outage in self.on())

    @property
    def status(self) -> str:
        """One line of what is waited for; empty if there is nothing."""
        return "; ".join(
            f"waiting for {each.kind.value}: {each.what}: {each.reason}" for each in self.on()[:3]
        )

    def report(self) -> list[dict[str, Any]]:
        """What is waited for, for /readyz."""
        return [
            {
                "for": each.kind.value,
                "what": each.what,
                "reason": each.reason,
                "seconds": round(each.age_s, 1),
            }
            for each in self.on()
        ]

    def tick(self) -> None:
        """Say in the log what has changed, and once a minute what has not; call it often."""
        now_s = self._clock.monotonic_s()
        for kind, told in self._told.items():
            self._tell(self.on(kind), kind, told, now_s)

    def _tell(self, away: list[Outage], kind: Kind, told: _Told, now_s: float) -> None:
        if not away:
            if told.since_s is not None:
                after_s = round(now_s - told.since_s)
                self._log.warning("outage.over", waited_for=kind.value, after_s=after_s)
                told.since_s, told.said_s = None, now_s
            return
        is_new = told.since_s is None
        if now_s - told.said_s < (_FLAP_S if is_new else AGAIN_S):
            return
        if told.since_s is None:
            told.since_s = now_s - away[0].age_s
        told.said_s = now_s
        self._log.warning(
            "outage.began" if is_new else "outage.lasts",
            waiting_for=kind.value,
            what=sorted({outage.what for outage in away}),
            reason=away[0].reason,
            for_s=round(away[0].age_s),
        )
