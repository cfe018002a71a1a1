"""The period that is asked for: what a person writes → Unix time; and the moment of logged rows.

Producers tell the wall clock of their footage, or they do not. Rows without it count as being of
the moment at which the daemon logged them. Pure.
"""

from dataclasses import dataclass
from datetime import datetime

from daemon.errors import ConfigError
from daemon.journal.base import FeatureRows
from daemon.moments import parse_moment
from engine.grid import US_PER_S, Grid

# Long enough that an event which began before the period is seen whole, and that overlapping
# windows have settled; an event that lasts longer may differ at the period's edge.
MARGIN_US = 600 * US_PER_S


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open interval of Unix time, in microseconds; None is open on that side."""

    since_us: int | None = None
    until_us: int | None = None

    def holds(self, moment_us: int) -> bool:
        """True if the moment is in it."""
        is_late_enough = self.since_us is None or moment_us >= self.since_us
        return is_late_enough and (self.until_us is None or moment_us < self.until_us)

    def widened(self, margin_us: int = MARGIN_US) -> "Period":
        """The period and so much before and after it."""
        since_us = None if self.since_us is None else self.since_us - margin_us
        return Period(since_us, None if self.until_us is None else self.until_us + margin_us)

    @property
    def text(self) -> str:
        """For people, by the local clock."""
        if self.since_us is None and self.until_us is None:
            return "the whole log"
        since = "" if self.since_us is None else f"from {local_text(self.since_us)} "
        return f"{since}{'on' if self.until_us is None else 'to ' + local_text(self.until_us)}"


@dataclass(frozen=True, slots=True, eq=False)
class LoggedRows:
    """Rows of the feature log.

    Attributes:
        rows: The rows, or an end marker.
        logged_us: Unix time at which a daemon wrote them, in microseconds.
    """

    rows: FeatureRows
    logged_us: int

    def moment_us(self, grid: Grid) -> int:
        """Unix time of the first row's first frame; of an end marker, of the footage's end."""
        if self.rows.anchor_us is None:
            return self.logged_us
        return self.rows.anchor_us + grid.snippet_start_us(self.rows.first_index)


def parse_period(since: str | None, until: str | None, now: datetime) -> Period:
    """What `--since` and `--until` say.

    Args:
        since: See ``parse_moment``; None: from the log's beginning.
        until: See ``parse_moment``; None: up to the log's end.
        now: The local time now, with its zone.

    Raises:
        ConfigError: One of them is no moment, or they are in the wrong order.
    """
    since_us = None if since is None else parse_moment(since, "--since", now)
    until_us = None if until is None else parse_moment(until, "--until", now)
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise ConfigError(f"--since {since} is not before --until {until}")
    return Period(since_us, until_us)


def local_text(moment_us: int) -> str:
    """Date and time of day by the local clock, to the second."""
    seconds = moment_us // US_PER_S
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
