"""What an instance told of an outage → rules that do not hold, and the page that tells all."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from daemon.config import Config
from tests.faults.checker import Verdict
from tests.faults.report import commit, cpu, kafka_version
from tests.misery.ground import Ground
from tests.misery.report import events_table

MOST_LINES = 30  # of the log, for each outage
DEADLINE_S = float(Config.model_fields["drain_timeout_s"].default)
_MARGIN_S = 5.0  # a stop is measured from outside, on a machine that may be busy


@dataclass(frozen=True, slots=True)
class Outage:
    """A row of the table.

    Attributes:
        name: What is away.
        instance: Which instance needs it.
        waits_for: What /readyz and the status call it.
        away: It is away as long as the block runs.
        length_s: For how long.
        short_s: For how long in the short form.
    """

    name: str
    instance: str
    waits_for: str
    away: Callable[[Ground], AbstractAsyncContextManager[None]]
    length_s: float
    short_s: float


@dataclass(slots=True)
class Seen:
    """What an instance told of an outage.

    Attributes:
        outage: Which.
        length_s: For how long it was away.
        n_looks: How often somebody looked while it was away, once the daemon had noticed.
        untrue: What was said then that is not so.
        noticed_s: Until the daemon said that it waits.
        healed_s: Until it was ready again.
        n_lines: That it logged until then, but for those of cameras.
        stopped_s: How long a stop took in the same state.
        result: Of the unit after that stop.
    """

    outage: Outage
    length_s: float
    n_looks: int = 0
    untrue: list[str] = field(default_factory=list)
    noticed_s: float = 0.0
    healed_s: float = 0.0
    n_lines: int = 0
    stopped_s: float = 0.0
    result: str = ""

    def complaints(self) -> Iterator[str]:
        """What does not hold."""
        name = self.outage.name
        if not self.n_looks:
            yield f"{name}: nobody looked"
        if self.untrue:
            yield f"{name}: {len(self.untrue)} of {self.n_looks} looks: {self.untrue[0]}"
        if self.n_lines > MOST_LINES:
            yield f"{name}: {self.n_lines} log lines"
        if self.result != "success" or self.stopped_s > DEADLINE_S + _MARGIN_S:
            yield f"{name}: stopped in {self.stopped_s:.1f} s with the result {self.result!r}"


def outage_page(
    seen: Sequence[Seen], verdicts: Mapping[str, Verdict], complaints: Sequence[str]
) -> Iterator[str]:
    """The page, line by line."""
    arguments = f" ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else ""
    yield from ("# Outages", "")
    yield "All rules hold." if not complaints else "Not all rules hold:"
    yield ""
    for complaint in complaints:
        yield f"- {complaint}"
    yield from (
        *([""] if complaints else []),
        f"- date: {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- broker: Apache Kafka {kafka_version()}, one",
        f"- command: `make outages{arguments}`",
        "",
        (
            "Live cameras play to two instances of the shipped unit under systemd, one that reads "
            "a topic and one that reads a folder of chunks. Something is away for a time, and "
            "then once more, when the instance is told to stop. Meanwhile it is asked each "
            "second: /readyz must say that it waits and for what, /livez that it lives, systemd "
            "that it is active and waits. Log lines are all but those of cameras' runs and events."
        ),
        "",
        (
            "| away | instance | for | noticed after | looks | untrue | log lines "
            f"(at most {MOST_LINES}) | ready again after | stopped in the midst of it within "
            f"(deadline {DEADLINE_S:g} s) | result |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    )
    for each in seen:
        cells = (
            *(each.outage.name, each.outage.instance, f"{each.length_s:.0f} s"),
            *(f"{each.noticed_s:.1f} s", each.n_looks, len(each.untrue), each.n_lines),
            *(f"{each.healed_s:.1f} s", f"{each.stopped_s:.1f} s", each.result),
        )
        yield f"| {' | '.join(map(str, cells))} |"
    yield from events_table(verdicts)
