"""What a reader saw, what was acknowledged and what was wanted → what is wrong.

The reader takes every record as an effect: nothing is deduplicated here, so a record that came
twice is a fault. The rules are those that a reader of the events may rely on:

P1  each acknowledged chunk lies below the group's committed offset, or is a dead letter;
P2  there is one record for each (event id, revision);
P3  an event opens, is updated any number of times and is closed or retracted, once; its revisions
    count from 0;
P4  no event stays open when all runs have ended;
P5  the final records are those of one undisturbed daemon: ids, spans, revisions, reasons;
P6  no partition that holds acknowledged chunks stands still for longer than a bound.

Pure: no clock, no broker.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_FINAL_STATES = ("closed", "retracted")
_EXAMPLES = 4  # of each kind of fault; the counts tell how many there are


@dataclass(frozen=True, slots=True)
class Effect:
    """A record as the reader was given it.

    Attributes:
        partition: Of the events' topic.
        offset: In that partition.
        seen_s: When, by a monotonic clock, in seconds.
        record: Its value; None: no JSON object that tells of an event.
    """

    partition: int
    offset: int
    seen_s: float
    record: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """From ``at_s`` on, an offset of a partition was ``offset``: the end, or the committed one."""

    at_s: float
    offset: int


@dataclass(frozen=True, slots=True)
class Final:
    """What P5 compares of an event."""

    camera: str
    start_us: int
    end_us: int
    revision: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was seen of a row.

    Attributes:
        effects: Every record of the events, in the order in which the reader was given them.
        acknowledged: Partition of the chunks → its end, as the broker's acknowledgements tell it.
        committed: Partition of the chunks → the group's committed offset.
        ended_s: When looking on ended.
        wanted: Event id → its final record, undisturbed. None: nothing to compare with.
        dead: Chunks that are dead letters: (partition, offset).
        excused: Cameras that P5 does not judge, because the fault took chunks from them.
    """

    effects: Sequence[Effect]
    acknowledged: Mapping[int, Sequence[Mark]]
    committed: Mapping[int, Sequence[Mark]]
    ended_s: float
    wanted: Mapping[str, Final] | None
    dead: frozenset[tuple[int, int]] = frozenset()
    excused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest time without progress.

    Attributes:
        seconds: How long.
        partition: Where.
        began_s: When, by the marks' clock.
    """

    seconds: float = 0.0
    partition: int = -1
    began_s: float = 0.0


@dataclass(slots=True)
class Verdict:
    """How often each rule was broken.

    Attributes:
        events: How many event ids the reader saw.
        records: How many records.
        unprocessed: P1: acknowledged chunks that are neither committed nor dead letters.
        doubled: P2: records that repeat an earlier one.
        conflicting: P2: records that contradict an earlier one of the same revision.
        torn_or_illegal: P3: events whose life is none, and records that cannot be read.
        open_for_ever: P4: events without a final record.
        lost: P5: final records that are missing.
        foreign: P5: events that the undisturbed daemon did not tell of.
        differing: P5: final records that are not the same.
        stall: P6.
        by_camera: How many of the faults of P2 to P5 are a camera's.
        examples: Some of them, in words.
    """

    events: int = 0
    records: int = 0
    unprocessed: int = 0
    doubled: int = 0
    conflicting: int = 0
    torn_or_illegal: int = 0
    open_for_ever: int = 0
    lost: int = 0
    foreign: int = 0
    differing: int = 0
    stall: Stall = field(default_factory=Stall)
    by_camera: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def broken(self, stall_bound_s: float | None) -> list[str]:
        """The rules that do not hold, by name."""
        counts = {
            "P1": self.unprocessed,
            "P2": self.doubled + self.conflicting,
            "P3": self.torn_or_illegal,
            "P4": self.open_for_ever,
            "P5": self.lost + self.foreign + self.differing,
            "P6": stall_bound_s is not None and self.stall.seconds > stall_bound_s,
        }
        return [rule for rule, count in counts.items() if count]


def check(evidence: Evidence) -> Verdict:
    """Hold what was seen against the rules."""
    verdict = Verdict(records=len(evidence.effects))
    readable = [effect for effect in evidence.effects if _is_readable(effect.record)]
    for effect in evidence.effects:
        if not _is_readable(effect.record):
            verdict.torn_or_illegal += 1
            _tell(verdict, f"unreadable: partition {effect.partition} offset {effect.offset}")
    lives: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for effect in readable:
        assert effect.record is not None
        lives[effect.record["event_id"]].append(effect.record)
    verdict.events = len(lives)
    finals = {}
    for event_id, records in lives.items():
        first_told = _count_repeats(verdict, event_id, records)
        _check_life(verdict, event_id, first_told)
        if first_told[-1]["final"]:
            finals[event_id] = first_told[-1]
    if evidence.wanted is not None:
        _compare(verdict, finals, evidence.wanted, evidence.excused)
    _check_processed(verdict, evidence)
    verdict.stall = longest_stall(evidence.acknowledged, evidence.committed, evidence.ended_s)
    return verdict


def final_of(record: Mapping[str, Any]) -> Final:
    """What P5 compares of a final record."""
    return Final(
        record["camera_id"],
        record["start"]["stream_us"],
        record["end"]["stream_us"],
        record["revision"],
        record["state"],
        record["reason"],
    )


def finals_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Final]:
    """Event id → what P5 compares, of records of an undisturbed daemon."""
    return {record["event_id"]: final_of(record) for record in records if record["final"]}


def _is_readable(record: Mapping[str, Any] | None) -> bool:
    if record is None:
        return False
    named = ("event_id", "revision", "state", "final", "reason", "camera_id", "start", "end")
    return all(name in record for name in named)


def _count_repeats(
    verdict: Verdict, event_id: str, records: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The first record of each revision, in the order in which they came."""
    told: dict[int, Mapping[str, Any]] = {}
    for record in records:
        revision = record["revision"]
        if revision not in told:
            told[revision] = record
        elif told[revision] == record:
            verdict.doubled += 1
            _blame(verdict, record)
            _tell(verdict, f"doubled: {event_id} revision {revision}")
        else:
            verdict.conflicting += 1
            _blame(verdict, record)
            _tell(verdict, f"conflicting: {event_id} revision {revision}")
    return list(told.values())


def _check_life(verdict: Verdict, event_id: str, told: Sequence[Mapping[str, Any]]) -> None:
    revisions = [record["revision"] for record in told]
    states = [record["state"] for record in told]
    has_ended = states[-1] in _FINAL_STATES
    wanted = ["open"] * (len(told) - has_ended) + states[-1:] * has_ended
    is_consistent = all(record["final"] == (record["state"] != "open") for record in told)
    opens = states[0] == "open"
    if revisions != list(range(len(told))) or states != wanted or not is_consistent or not opens:
        verdict.torn_or_illegal += 1
        _blame(verdict, told[0])
        shown = " ".join(f"{r}:{s}" for r, s in zip(revisions, states, strict=True))
        _tell(verdict, f"illegal: {event_id} reads {shown}")
    if not any(record["final"] for record in told):
        verdict.open_for_ever += 1
        _blame(verdict, told[0])
        _tell(verdict, f"open for ever: {event_id} after revision {revisions[-1]}")


def _compare(
    verdict: Verdict,
    finals: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Final],
    excused: frozenset[str],
) -> None:
    found = {
        event_id: final_of(record)
        for event_id, record in finals.items()
        if record["camera_id"] not in excused
    }
    for event_id in wanted.keys() - found.keys():
        verdict.lost += 1
        verdict.by_camera[wanted[event_id].camera] += 1
        _tell(verdict, f"lost: {event_id} {wanted[event_id]}")
    for event_id in found.keys() - wanted.keys():
        verdict.foreign += 1
        verdict.by_camera[found[event_id].camera] += 1
        _tell(verdict, f"foreign: {event_id} {found[event_id]}")
    for event_id in found.keys() & wanted.keys():
        if found[event_id] != wanted[event_id]:
            verdict.differing += 1
            verdict.by_camera[found[event_id].camera] += 1
            _tell(verdict, f"differing: {event_id} {found[event_id]}, wanted {wanted[event_id]}")


def _check_processed(verdict: Verdict, evidence: Evidence) -> None:
    for partition, marks in evidence.acknowledged.items():
        committed = evidence.committed.get(partition)
        done = committed[-1].offset if committed else 0
        missing = [
            offset
            for offset in range(done, marks[-1].offset if marks else 0)
            if (partition, offset) not in evidence.dead
        ]
        verdict.unprocessed += len(missing)
        if missing:
            _tell(verdict, f"unprocessed: partition {partition} from offset {missing[0]} on")


def longest_stall(
    acknowledged: Mapping[int, Sequence[Mark]],
    committed: Mapping[int, Sequence[Mark]],
    ended_s: float,
) -> Stall:
    """The longest time for which any partition had acknowledged chunks and made no progress."""
    stalls = [
        _longest(partition, marks, committed.get(partition, ()), ended_s)
        for partition, marks in acknowledged.items()
    ]
    return max(stalls, key=lambda stall: stall.seconds, default=Stall())


def _longest(
    partition: int, ends: Sequence[Mark], committed: Sequence[Mark], ended_s: float
) -> Stall:
    # At the same moment, the acknowledgement comes first: nothing is committed before it.
    moments = sorted(
        [(mark.at_s, 0, mark.offset) for mark in ends]
        + [(mark.at_s, 1, mark.offset) for mark in committed]
    )
    end = done = 0
    waiting_since_s: float | None = None
    longest = Stall()

    def note(until_s: float) -> Stall:
        if waiting_since_s is None or until_s - waiting_since_s <= longest.seconds:
            return longest
        return Stall(until_s - waiting_since_s, partition, waiting_since_s)

    for at_s, is_commit, offset in moments:
        if not is_commit:
            end = max(end, offset)
            if waiting_since_s is None and end > done:
                waiting_since_s = at_s
        elif offset > done:
            longest = note(at_s)
            waiting_since_s = at_s if end > offset else None
            done = offset
        else:  # an operator set it back
            done = offset
            if waiting_since_s is None and end > done:
                waiting_since_s = at_s
    return note(ended_s)


def _blame(verdict: Verdict, record: Mapping[str, Any]) -> None:
    verdict.by_camera[record["camera_id"]] += 1


def _tell(verdict: Verdict, what: str) -> None:
    kind = what.partition(":")[0]
    told = Counter(example.partition(":")[0] for example in verdict.examples)
    if told[kind] < _EXAMPLES:
        verdict.examples.append(what)
