"""What was seen → rules that do not hold, and the page that tells all."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.log_lines import MOST_LINE_CHARS
from tests.faults.checker import Verdict
from tests.faults.report import commit, cpu, kafka_version
from tests.faults.soak import draw
from tests.misery.judge import Usage, growth

_PRIORITY_CHARS = 3  # before a line, for the journal
_TAKEN = {
    "topic_mib": ("topic: resident memory of daemon and decoders", "MiB"),
    "folder_mib": ("folder: the same", "MiB"),
    "files": ("open files of both", "number"),
    "threads": ("threads of both", "number"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the instances take at one moment."""

    at_s: float
    topic: Usage
    folder: Usage

    def of(self, instance: str) -> Usage:
        usage: Usage = getattr(self, instance)
        return usage

    @property
    def topic_mib(self) -> float:
        return self.topic.rss_mib

    @property
    def folder_mib(self) -> float:
        return self.folder.rss_mib

    @property
    def files(self) -> int:
        return self.topic.files + self.folder.files

    @property
    def threads(self) -> int:
        return self.topic.threads + self.folder.threads


@dataclass(slots=True)
class Told:
    """How a fault was told.

    Attributes:
        fault: Which.
        instance: Of which instance.
        round: In which round.
        metric: That should tell of it.
        line: So should this log line.
        delta: By how much the metric grew.
        is_logged: The line was logged.
        failure: What went wrong.
        skipped: Why it was not done.
    """

    fault: str
    instance: str
    round: int
    metric: str
    line: str
    delta: float = 0.0
    is_logged: bool = False
    failure: str = ""
    skipped: str = ""

    @property
    def is_told(self) -> bool:
        return self.delta > 0 and self.is_logged and not self.failure

    @property
    def summary(self) -> str:
        if self.skipped:
            return f"skipped: {self.skipped}"
        line = self.line if self.is_logged else f"NOT LOGGED ({self.line})"
        return f"{self.metric} +{self.delta:g}; {line} {self.failure}".rstrip()


@dataclass(slots=True)
class Misery:
    """Everything that was seen.

    Attributes:
        arguments: Of the command.
        n_cameras: That played.
        told: Each fault, and how it was told.
        samples: What the instances took.
        levels: Instance → what it took in the quiet time after each round.
        verdicts: Instance → its events against the undisturbed ones.
        longest_line: Instance → characters of its longest log line.
        restarts: Instance → how often systemd started it anew.
        complaints: Rules that do not hold.
    """

    arguments: Sequence[str]
    n_cameras: int
    told: list[Told] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    levels: list[dict[str, Usage]] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    longest_line: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Add what does not hold to the complaints."""
        self.complaints += [
            f"round {told.round}: {told.fault}: {told.summary}"
            for told in self.told
            if not told.is_told and not told.skipped
        ]
        for name, verdict in self.verdicts.items():
            self.complaints += [f"{name}: {what}" for what in self._wrong_with(name, verdict)]

    def _wrong_with(self, name: str, verdict: Verdict) -> Iterator[str]:
        yield from wrong_events(verdict)
        yield from growth([level[name] for level in self.levels])
        if self.longest_line[name] > MOST_LINE_CHARS + _PRIORITY_CHARS:
            yield f"a log line of {self.longest_line[name]} characters"
        if self.restarts[name]:
            yield f"started anew {self.restarts[name]} times"


def write_report(misery: Misery, path: Path) -> None:
    """Write the page, and the picture beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = None
    if len(misery.samples) > 1:
        picture = draw(misery.samples, path.with_suffix(".png"), _TAKEN)
    path.write_text("\n".join([*_page(misery, picture), ""]), encoding="utf-8")


def _page(misery: Misery, picture: Path | None) -> Iterator[str]:
    minutes = misery.samples[-1].at_s / 60 if misery.samples else 0
    rounds = len({told.round for told in misery.told})
    arguments = f" ARGS='{' '.join(misery.arguments)}'" if misery.arguments else ""
    yield from ("# Misery", "")
    yield "All rules hold." if not misery.complaints else "Not all rules hold:"
    yield ""
    for complaint in misery.complaints:
        yield f"- {complaint}"
    yield from (
        *([""] if misery.complaints else []),
        f"- date: {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- broker: Apache Kafka {kafka_version()}, one",
        f"- command: `make misery{arguments}`",
        "",
        (
            f"{misery.n_cameras} live cameras, half on a topic and half in a folder of chunks, "
            f"played for {minutes:.1f} min to two instances of the shipped unit under systemd, "
            f"with a tiny model. {len(misery.told)} times a fault was done to them, in {rounds} "
            "rounds."
        ),
        "",
        "## Each fault is told",
        "",
        "| fault | instance | metric | grew by, in each round | log line | logged |",
        "|---|---|---|---|---|---|",
    )
    for fault in dict.fromkeys(told.fault for told in misery.told):
        yield _row([told for told in misery.told if told.fault == fault])
    yield from events_table(misery.verdicts)
    yield from _taken(misery)
    if picture is not None:
        yield from ("", f"![what both instances take over time]({picture.name})")


def events_table(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    """A section on the events of each instance."""
    yield from ("", "## The cameras' events", "", *_EVENTS_HEAD)
    for name, verdict in verdicts.items():
        cells = (
            *(name, verdict.events, verdict.doubled + verdict.conflicting),
            *(verdict.torn_or_illegal, verdict.open_for_ever, verdict.lost),
            *(verdict.foreign, verdict.differing, verdict.unprocessed),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def wrong_events(verdict: Verdict) -> Iterator[str]:
    """What is not as it should be."""
    if broken := verdict.broken(None):
        yield f"events break {', '.join(broken)}: {'; '.join(verdict.examples)}"
    if not verdict.events:
        yield "no event was told"


def _taken(misery: Misery) -> Iterator[str]:
    yield from ("", "## What they take", "", *_LEVELS_HEAD)
    for number, levels in enumerate(misery.levels):
        for name, usage in levels.items():
            yield (
                f"| {number} | {name} | {usage.rss_mib:.0f} | {usage.files} | {usage.threads} |"
            )
    yield ""
    if len(misery.levels) == 1:
        yield from ("There was one round, so nothing is judged to have grown.", "")
    for name, n_chars in misery.longest_line.items():
        yield f"- {name}: the longest log line has {n_chars} characters."


_EVENTS_HEAD = (
    (
        "Against those of a daemon that nothing disturbs: ids, spans, revisions, states and "
        "reasons. Runs that a fault may cost are not compared; that events have a proper life is "
        "judged of all."
    ),
    "",
    (
        "| instance | events compared | doubled | torn or illegal | open for ever | lost "
        "| foreign | differing | unprocessed |"
    ),
    "|---|---|---|---|---|---|---|---|---|",
)
_LEVELS_HEAD = (
    "Daemon and decoders together, the median of the quiet seconds after each round:",
    "",
    "| round | instance | resident memory, MiB | open files | threads |",
    "|---|---|---|---|---|",
)


def _row(told: list[Told]) -> str:
    first = told[0]
    if first.skipped:
        return f"| {first.fault} | {first.instance} | skipped: {first.skipped} | | | |"
    deltas = ", ".join(f"{each.delta:g}" for each in told)
    is_logged = "yes" if all(each.is_logged for each in told) else "NO"
    cells = (
        first.fault,
        first.instance,
        f"`{first.metric}`",
        deltas,
        f"`{first.line}`",
        is_logged,
    )
    return f"| {' | '.join(cells)} |"
