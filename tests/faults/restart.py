"""``python -m tests.faults.restart``: how long a restart takes, and what is read again after it.

Live cameras go on while their daemon is stopped in the middle of events and started again at once:
by SIGTERM, which lets it finish what it was given, and by SIGKILL, in turns.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from tests.faults.bench import (
    Bench,
    a_bench,
    a_daemon,
    end_on_sigterm,
    options_of,
    reaches,
    say,
    write_page,
)
from tests.faults.checker import Evidence, check
from tests.faults.cluster import Observer
from tests.faults.daemons import PATIENCE_S, Daemon, Place, RowError
from tests.faults.feeder import Feeder, KafkaLink
from tests.faults.restart_page import WAYS, Restart, page, told

_PLAY_S = (4.0, 8.0)  # between restarts, once the daemon has caught up
_HIDDEN_S = 25.0  # a dead daemon's transaction hides records until its time is out


class Restarter:
    """Restarts one daemon again and again, and looks on."""

    def __init__(self, bench: Bench, place: Place, daemon: Daemon, feeder: Feeder) -> None:
        self.observer = Observer(bench.cluster, place.group, place.chunks, place.events)
        self._cluster = bench.cluster
        self._place = place
        self._daemon = daemon
        self._feeder = feeder

    async def restart(self, way: str) -> Restart:
        """Stop the daemon and start it at once."""
        n_seen, n_open = len(self.observer.effects), self._n_open()
        signalled_s = time.monotonic()
        await (self._daemon.stop() if way == "SIGTERM" else self._daemon.kill())
        gone_s = time.monotonic()
        self._daemon.start(tells_fetched=True)
        # What the old process left. The new one cannot have added to it: it is still importing.
        ends, done = await asyncio.gather(
            self._cluster.ends(self._place.events),
            self._cluster.committed(self._place.group, self._place.chunks),
        )
        await self._daemon.ready()
        ready_s = _monotonic_s(self._daemon.logged("daemon.ready")[-1]["timestamp"])
        event_s, caught_up_s = await asyncio.gather(
            self._first_event_s(n_seen, ends), self.caught_up_s()
        )
        first = self._daemon.fetched(self._place.chunks)
        again = {number: range(mark.offset, done.get(number, 0)) for number, mark in first.items()}
        return Restart(
            way=way,
            open_events=n_open,
            stop_s=gone_s - signalled_s,
            ready_s=ready_s - gone_s,
            event_s=event_s - ready_s,
            quiet_s=event_s - signalled_s,
            caught_up_s=caught_up_s - ready_s,
            again=again,
        )

    async def caught_up_s(self) -> float:
        """Wait until all is committed that is acknowledged now; gives the moment."""
        ends = {number: marks[-1].offset for number, marks in self._feeder.acknowledged.items()}
        committed = self.observer.committed

        def is_caught_up() -> bool:
            return reaches({number: marks[-1].offset for number, marks in committed.items()}, ends)

        await _until(is_caught_up, "the backlog to be read")
        return time.monotonic()

    async def _first_event_s(self, n_seen: int, ends: Mapping[int, int]) -> float:
        """When the reader was given a record that the old process had not written."""
        effects = self.observer.effects

        def first() -> float | None:
            new = (e.seen_s for e in effects[n_seen:] if e.offset >= ends.get(e.partition, 0))
            return next(new, None)

        await _until(lambda: first() is not None, "a new event")
        seen_s = first()
        assert seen_s is not None
        return seen_s

    def _n_open(self) -> int:
        state = {
            e.record["event_id"]: e.record["final"] for e in self.observer.effects if e.record
        }
        return sum(not is_final for is_final in state.values())


async def _until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end_s:
            raise RowError(f"waited in vain for {what}")
        await asyncio.sleep(0.05)


def _monotonic_s(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() - time.time() + time.monotonic()


async def measure(options: argparse.Namespace) -> list[str]:
    """All of it, as lines of a report."""
    end_on_sigterm()
    rng = random.Random(1)  # noqa: S311 - the same moments every time, no secret
    restarts: list[Restart] = []
    async with a_bench(options.cameras, options.partitions) as bench:
        chunks = await bench.chunks_topic()
        async with a_daemon(bench, chunks, "restart") as (daemon, place):
            await daemon.ready()
            feeder = Feeder(
                KafkaLink(place.bootstrap, chunks),
                bench.footage,
                bench.cameras,
                name="run",
                is_live=True,
            )
            restarter = Restarter(bench, place, daemon, feeder)
            async with restarter.observer.looking_on():
                async with feeder.running():
                    for way in WAYS * options.times:
                        await asyncio.sleep(rng.uniform(*_PLAY_S))
                        await restarter.caught_up_s()
                        restarts.append(await restarter.restart(way))
                        say(told(restarts[-1]))
                    await asyncio.sleep(_PLAY_S[0])
                await restarter.caught_up_s()
                ended_s = time.monotonic()
                await daemon.stop()
                await restarter.observer.read_to_the_end(_HIDDEN_S)
        seen = restarter.observer
        evidence = Evidence(seen.effects, feeder.acknowledged, seen.committed, ended_s, None)
        records = await bench.cluster.records(chunks)
    return page(options, restarts, records, check(evidence))


def main() -> None:
    """Measure, and print the report."""
    options = options_of(__doc__, cameras=64, partitions=16, times=5).parse_args()
    lines = asyncio.run(measure(options))
    write_page("A daemon that is started again", "tests.faults.restart", lines, options.report)


if __name__ == "__main__":
    main()
