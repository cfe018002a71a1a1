"""Results of rows → lines on the way, and a page at the end."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.daemons import SESSION_S
from tests.faults.trial import RowResult
from tests.support.checkout import CHECKOUT

_COLUMNS = (
    *("row", "fault", "injected", "events", "doubled", "conflicting", "torn or illegal"),
    *(
        "open for ever",
        "lost",
        "foreign",
        "differing",
        "unprocessed",
        "stalled",
        "bound",
        "result",
    ),
)

_RULES = (
    "The reader is read_committed, takes every record as an effect and deduplicates nothing. "
    "P1: no acknowledged chunk is unprocessed. P2: nothing doubled or conflicting. "
    "P3: nothing torn or illegal. P4: nothing open for ever. P5: nothing lost, foreign or "
    "differing against one undisturbed daemon. P6: the stall is within its bound."
)


def a_line(result: RowResult) -> str:
    """A row in a line, for whoever waits."""
    verdict = result.verdict
    return (
        f"row {result.row}: {_outcome(result)}: {result.fault}; {result.injected} faults, "
        f"{verdict.events} events, {verdict.doubled} doubled, {verdict.conflicting} conflicting, "
        f"{verdict.torn_or_illegal} torn or illegal, {verdict.open_for_ever} open for ever, "
        f"{verdict.lost} lost, {verdict.foreign} foreign, {verdict.differing} differing, "
        f"{verdict.unprocessed} unprocessed, stalled {verdict.stall.seconds:.1f} s "
        f"(bound {_bound(result)}), took {result.seconds:.0f} s"
    )


def write_report(results: Sequence[RowResult], path: Path, *, is_full: bool) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_page(results, is_full=is_full)) + "\n", encoding="utf-8")


def _page(results: Sequence[RowResult], *, is_full: bool) -> list[str]:
    passed = sum(result.passed for result in results)
    injected = sum(result.injected for result in results)
    lines = [
        "# Faults",
        "",
        f"{passed} of {len(results)} rows passed; {injected} faults were injected.",
        "",
        f"- date: {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- broker: Apache Kafka {kafka_version()}, one",
        f"- session time-out: {SESSION_S:g} s",
        f"- command: `make faults{' ARGS=--full' if is_full else ''}`",
        "",
        _RULES,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(_row(result) for result in results),
        "",
    ]
    for result in results:
        told = [*result.complaints, *result.notes, *result.verdict.examples]
        if told:
            lines += [f"## Row {result.row}", "", *(f"- {what}" for what in told), ""]
    return [_without_places(line) for line in lines][:-1]


def _row(result: RowResult) -> str:
    verdict = result.verdict
    cells = (
        *(result.row, result.fault, result.injected, verdict.events, verdict.doubled),
        *(verdict.conflicting, verdict.torn_or_illegal, verdict.open_for_ever, verdict.lost),
        *(verdict.foreign, verdict.differing, verdict.unprocessed),
        *(f"{verdict.stall.seconds:.1f} s", _bound(result), _outcome(result)),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _outcome(result: RowResult) -> str:
    if not result.passed:
        return f"FAILED ({', '.join(result.broken) or 'it should have'})"
    if result.expects_failure:
        return f"failed, as it must ({', '.join(result.broken)})"
    return "passed"


def _bound(result: RowResult) -> str:
    return "none" if result.stall_bound_s is None else f"{result.stall_bound_s:g} s"


def _without_places(line: str) -> str:
    """Scratch folders are nobody's business but that of who looks at the terminal."""
    return re.sub(r"/\S*s2netd-faults-[^/\s]+/", "", line)


def commit() -> str:
    """Of the checkout; ends in -dirty if a file has changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, cwd=CHECKOUT)
    return told.stdout.strip() or "unknown"


def cpu() -> str:
    """Its name, as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def kafka_version() -> str:
    """Of the broker that ``scripts/kafka`` starts."""
    pom = (CHECKOUT / "scripts" / "kafka.pom.xml").read_text(encoding="utf-8")
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([\d.]+)<", pom)
    return found[1] if found else "unknown"
