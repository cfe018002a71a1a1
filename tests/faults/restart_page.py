"""Restarts → a line for each on the way, and a page at the end."""

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from tests.faults.checker import Verdict
from tests.faults.daemons import SESSION_S
from tests.faults.feeder import CHUNK_S

WAYS = ("SIGTERM", "SIGKILL")
EVENT_BOUND_S, CHUNKS_BOUND = 3.0, 1  # what is wanted


@dataclass(frozen=True, slots=True)
class Restart:
    """What one restart showed.

    Attributes:
        way: How the daemon was stopped.
        open_events: How many events were open then.
        stop_s: From the signal to the end of the process.
        ready_s: From the start of the next process until it is ready.
        event_s: From then until a reader of committed records has the first new one.
        quiet_s: From the signal until then.
        caught_up_s: From being ready until all is committed that was acknowledged by then.
        again: Partition → the offsets below the committed one that were read again.
    """

    way: str
    open_events: int
    stop_s: float
    ready_s: float
    event_s: float
    quiet_s: float
    caught_up_s: float
    again: Mapping[int, range]


def read_again(restart: Restart, records: Sequence[ConsumerRecord]) -> Counter[str]:
    """Camera → how many of its chunks were read again."""
    none = range(0)
    return Counter(
        record.key.decode()
        for record in records
        if record.offset in restart.again.get(record.partition, none)
        and "vc_end" not in dict(record.headers)
    )


def told(restart: Restart) -> str:
    """A restart in a line, for whoever waits."""
    return (
        f"{restart.way}, {restart.open_events} events open: gone after {restart.stop_s:.2f} s, "
        f"ready after {restart.ready_s:.2f} s, first event {restart.event_s:.2f} s later, "
        f"caught up {restart.caught_up_s:.2f} s later; "
        f"{sum(map(len, restart.again.values()))} records again"
    )


def page(
    options: argparse.Namespace,
    restarts: Sequence[Restart],
    records: Sequence[ConsumerRecord],
    verdict: Verdict,
) -> list[str]:
    """The report's lines.

    Args:
        options: As the command was told.
        restarts: In their order.
        records: All chunks.
        verdict: On all events that were told.
    """
    lines = [
        (
            f"{options.cameras} live cameras on {options.partitions} partitions, chunks of "
            f"{CHUNK_S:.2f} s, one daemon, a tiny model, a session time-out of {SESSION_S:g} s. "
            f"{options.times} restarts of each kind, in turns: median (worst)."
        ),
        "",
        f"| what | {' | '.join(WAYS)} | wanted |",
        "|---|---|---|---|",
    ]
    by_way = [[restart for restart in restarts if restart.way == way] for way in WAYS]
    again = [[read_again(restart, records) for restart in mine] for mine in by_way]

    def row(what: str, of: Callable[[Restart], float], wanted: str = "-") -> str:
        cells = (_median_worst([of(restart) for restart in mine]) for mine in by_way)
        return f"| {what} | {' | '.join(cells)} | {wanted} |"

    def counted(what: str, of: Callable[[Counter[str]], int], wanted: str = "-") -> str:
        cells = (_median_worst([of(cameras) for cameras in mine]) for mine in again)
        return f"| {what} | {' | '.join(cells)} | {wanted} |"

    return [
        *lines,
        row("events open at the signal", lambda r: r.open_events),
        row("signal → end of the process, s", lambda r: r.stop_s),
        row("start of the next process → `daemon.ready`, s", lambda r: r.ready_s),
        row(
            "`daemon.ready` → first new event record, s",
            lambda r: r.event_s,
            f"at most {EVENT_BOUND_S:g}",
        ),
        row("signal → first new event record, s", lambda r: r.quiet_s),
        row("`daemon.ready` → all committed that waited then, s", lambda r: r.caught_up_s),
        counted(
            "chunks read again below the committed offset, of the camera with the most",
            lambda cameras: max(cameras.values(), default=0),
            f"at most {CHUNKS_BOUND}",
        ),
        counted("cameras of which a chunk was read again", len),
        counted(
            "cameras with more than one",
            lambda cameras: sum(n > CHUNKS_BOUND for n in cameras.values()),
            "0",
        ),
        "",
        _judged(verdict),
    ]


def _median_worst(values: Sequence[float]) -> str:
    digits = 0 if all(isinstance(value, int) for value in values) else 2
    return f"{statistics.median(values):.{digits}f} ({max(values):.{digits}f})"


def _judged(verdict: Verdict) -> str:
    return (
        f"The reader is read_committed and deduplicates nothing: {verdict.records} records of "
        f"{verdict.events} events, {verdict.doubled} doubled, {verdict.conflicting} conflicting, "
        f"{verdict.torn_or_illegal} torn or illegal, {verdict.open_for_ever} open for ever; "
        f"{verdict.unprocessed} chunks unprocessed. No partition with chunks stood still for "
        f"longer than {verdict.stall.seconds:.1f} s."
    )
