"""What every Journal promises, held against each of them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from daemon.errors import StaleOwnerError
from daemon.journal.base import CameraState, DeadLetter, FeatureRows, Journal, Past, Step
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.journal.local import LocalJournal, LocalJournalSettings
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from daemon.kafka.connection import KafkaConnection
from daemon.wire.records import parse_event
from engine.types import ActionEvent
from tests.support.kafka import MakeTopic, Member
from tests.support.kafka_daemon import topic_events
from tests.support.records import an_event


class Keeper(Protocol):
    """One place where steps are kept, with an independent reader of its events.

    Attributes:
        partitions: Two that may be taken.
    """

    partitions: tuple[str, str]

    async def journal(self) -> Journal:
        """One more journal of that place, started; nobody needs to close it."""

    async def put_out(self, journal: Journal, partition: str) -> None:
        """Let the journal lose the partition, without being asked where there is a way."""

    async def kill(self, journal: Journal) -> None:
        """Let the journal's process die: nothing more of it runs."""

    async def events(self) -> list[ActionEvent]:
        """What other programs read, oldest first."""

    async def close(self) -> None:
        """Close what is still open."""


class MemoryKeeper:
    partitions = ("chunks/0", "chunks/1")

    def __init__(self) -> None:
        self._records = MemoryRecords()

    async def journal(self) -> Journal:
        journal = MemoryJournal(self._records)
        await journal.start()
        return journal

    async def put_out(self, journal: Journal, partition: str) -> None:
        assert journal
        await MemoryJournal(self._records).take(partition)

    async def kill(self, journal: Journal) -> None:
        """Nothing runs in the background."""

    async def events(self) -> list[ActionEvent]:
        return list(self._records.events)

    async def close(self) -> None:
        pass


class LocalKeeper:
    """A database that only one journal can hold, and a file of lines."""

    partitions = ("chunks/0", "chunks/1")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state" / "journal.sqlite"
        self._lines = folder / "events" / "events.jsonl"
        self._open: list[LocalJournal] = []

    async def journal(self) -> Journal:
        projection = JsonlProjection(JsonlSettings(self._lines))
        journal = LocalJournal(LocalJournalSettings(self._path), projection)
        self._open.append(journal)
        await journal.start()
        return journal

    async def put_out(self, journal: Journal, partition: str) -> None:
        """Nobody else can have it, so it is given back."""
        await journal.give_back(partition)

    async def kill(self, journal: Journal) -> None:
        assert isinstance(journal, LocalJournal)
        self._open.remove(journal)
        # What the system does with the locks of a process that dies.
        connection = journal._open_connection
        await journal._run(connection.close)
        journal._thread.shutdown()
        assert isinstance(journal._projection, JsonlProjection)
        os.close(journal._projection._fd)

    async def events(self) -> list[ActionEvent]:
        return [parse_event(line) for line in self._lines.read_bytes().splitlines()]

    async def close(self) -> None:
        for journal in self._open:
            await journal.close()


class KafkaKeeper:
    """Topics of a real broker, and a reader of committed records."""

    def __init__(self, bootstrap: str, chunks: str, events: str) -> None:
        self.partitions = (f"{chunks}/0", f"{chunks}/1")
        self._settings = KafkaJournalSettings(
            connection=KafkaConnection(bootstrap),
            group_id=chunks,
            chunks_topic=chunks,
            events_topic=events,
            prefix=chunks,
        )
        self._open: list[KafkaJournal] = []

    async def journal(self) -> Journal:
        journal = KafkaJournal(self._settings, Member())
        self._open.append(journal)
        await journal.start()
        return journal

    async def put_out(self, journal: Journal, partition: str) -> None:
        assert journal in self._open
        await (await self.journal()).take(partition)

    async def kill(self, journal: Journal) -> None:
        assert isinstance(journal, KafkaJournal)
        for seat in journal._seats.values():
            await journal._give_up(seat)

    async def events(self) -> list[ActionEvent]:
        bootstrap = self._settings.connection.bootstrap_servers
        return [
            parse_event(json.dumps(plain).encode())
            for plain in await topic_events(bootstrap, self._settings.events_topic, 1)
        ]

    async def close(self) -> None:
        for journal in self._open:
            await journal.close()


@pytest.fixture(params=["memory", "local", pytest.param("kafka", marks=pytest.mark.kafka)])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper: Keeper = MemoryKeeper()
    if request.param == "local":
        keeper = LocalKeeper(tmp_path)
    elif request.param == "kafka":
        make_topic: MakeTopic = request.getfixturevalue("make_topic")
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        keeper = KafkaKeeper(bootstrap, await make_topic(2), await make_topic(1))
    yield keeper
    await keeper.close()


@pytest.fixture
async def journal(keeper: Keeper) -> Journal:
    return await keeper.journal()


@pytest.fixture
def partition(keeper: Keeper) -> str:
    return keeper.partitions[0]


@pytest.fixture(params=["closed", "killed"])
def end(request: pytest.FixtureRequest, keeper: Keeper) -> Any:
    """Ends a journal, in order or not; gives the one that follows."""

    async def end(journal: Journal) -> Journal:
        if request.param == "closed":
            await journal.close()
        else:
            await keeper.kill(journal)
        return await keeper.journal()

    return end


def rows(
    camera: str = "door", first: int = 0, n: int = 2, run: str = "run-1", **other: Any
) -> FeatureRows:
    """Features whose numbers tell camera and index."""
    start = first + len(camera) / 8
    vectors = np.arange(start, start + n)[:, None] * np.array([1, -2, 0.5])
    fields: dict[str, Any] = {"segment": 3, "feature_id": "f", "anchor_us": 1_780_000_000_123_456}
    return FeatureRows(
        camera, run, first_index=first, vectors=vectors.astype(np.float16), **(fields | other)
    )


def plain(rows: Sequence[FeatureRows]) -> list[tuple[Any, ...]]:
    """Rows as values that can be compared, snippet by snippet."""
    return [
        (
            one.camera,
            one.run,
            one.segment,
            one.first_index + n,
            vector.tolist(),
            one.feature_id,
            one.anchor_us,
        )
        for one in rows
        for n, vector in enumerate(one.vectors)
    ]


def a_state(blob: bytes = b"blob", first_feature: int | None = 0, **other: Any) -> CameraState:
    fields: dict[str, Any] = {"low_offset": 5, "run": "run-1"}
    return CameraState(blob, first_feature=first_feature, **(fields | other))


def states(past: Past) -> Mapping[str, CameraState]:
    return {name: camera.state for name, camera in past.cameras.items()}


async def test_of_a_partition_that_nobody_had_nothing_is_known(
    journal: Journal, partition: str
) -> None:
    assert Past() == await journal.take(partition)


async def test_a_step_comes_back_whole(
    keeper: Keeper, journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    letter = DeadLetter("gate", partition, 8, "CorruptChunkError", "no video", b"\0\xff")
    step = Step(
        number=1,
        next_offset=9,
        log_id="log",
        revisions=(an_event("e1"), an_event("e2", camera="yard")),
        features=(rows("door", 0), rows("door", 2, 3), rows("yard", 7, 1, anchor_us=None)),
        states={"door": a_state(b"of door", 1), "yard": a_state(b"", 7, low_offset=None)},
        dead=(letter,),
    )

    await journal.commit(partition, step)

    past = await (await end(journal)).take(partition)
    assert (1, 9, "log") == (past.number, past.next_offset, past.log_id)
    assert step.states == states(past)
    assert plain(step.features[:2]) == plain(past.cameras["door"].features)
    assert plain(step.features[2:]) == plain(past.cameras["yard"].features)
    assert list(step.revisions) == await keeper.events()


async def test_readers_see_a_step_once_it_is_kept(
    keeper: Keeper, journal: Journal, partition: str
) -> None:
    await journal.take(partition)
    for number in range(1, 4):
        await journal.commit(partition, Step(number, number, revisions=(an_event(str(number)),)))
        assert number == len(await keeper.events())


@pytest.mark.parametrize(
    "state",
    [
        CameraState(b""),
        CameraState(b"\0\xff" * 1000, 0, "", 0),
        CameraState(bytes(2**19), 2**62, "Lauf \N{SNOWMAN}", 2**40),
    ],
    ids=["empty", "bytes", "large"],
)
async def test_a_state_comes_back_byte_for_byte(
    journal: Journal, partition: str, end: Any, state: CameraState
) -> None:
    await journal.take(partition)
    await journal.commit(partition, Step(1, 1, states={"Tür 1": state}))

    assert {"Tür 1": state} == states(await (await end(journal)).take(partition))


async def test_a_step_from_which_nothing_follows_moves_the_offset(
    keeper: Keeper, journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    await journal.commit(partition, Step(1, 5, "one"))
    await journal.commit(partition, Step(2, 7, "other"))

    again = await end(journal)
    assert Past(2, 7, "other") == await again.take(partition)
    assert [] == await keeper.events()


async def test_the_newest_state_counts_and_others_stay(
    journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    old, new, yard = a_state(b"old"), a_state(b"new", low_offset=None), a_state(b"yard")
    await journal.commit(partition, Step(1, 5, states={"door": old, "yard": yard}))
    await journal.commit(partition, Step(2, 6, states={"door": new}))

    past = await (await end(journal)).take(partition)
    assert {"door": new, "yard": yard} == states(past)


async def test_features_of_many_steps_come_back_in_order(
    journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    logged = [rows("door", first) for first in range(0, 20, 2)]
    for number, one in enumerate(logged, 1):
        step = Step(number, number, features=(one,), states={"door": a_state()})
        await journal.commit(partition, step)

    past = await (await end(journal)).take(partition)
    assert plain(logged) == plain(past.cameras["door"].features)


@pytest.mark.parametrize(
    ("state", "first"),
    [
        (a_state(first_feature=6), 6),
        (a_state(first_feature=7), 6),  # rows come whole
        (a_state(first_feature=30), None),
        (a_state(first_feature=None), None),
        (a_state(first_feature=0, run="run-2"), None),
    ],
)
async def test_features_that_no_state_needs_any_more_do_not_come_back(
    journal: Journal, partition: str, end: Any, state: CameraState, first: int | None
) -> None:
    await journal.take(partition)
    logged = [rows("door", at) for at in range(0, 20, 2)]
    step = Step(1, 1, features=tuple(logged), states={"door": a_state()})
    await journal.commit(partition, step)
    await journal.commit(partition, Step(2, 2, states={"door": state}))

    past = await (await end(journal)).take(partition)
    wanted = [] if first is None else [one for one in logged if one.first_index >= first]
    assert plain(wanted) == plain(past.cameras["door"].features)


async def test_features_of_a_run_before_do_not_come_back(
    journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    old, new = rows("door", 40), rows("door", 0, run="run-2")
    await journal.commit(partition, Step(1, 1, features=(old,), states={"door": a_state()}))
    state = a_state(run="run-2")
    await journal.commit(partition, Step(2, 2, features=(new,), states={"door": state}))

    past = await (await end(journal)).take(partition)
    assert plain([new]) == plain(past.cameras["door"].features)


async def test_partitions_do_not_touch_each_other(
    keeper: Keeper, journal: Journal, end: Any
) -> None:
    """Not even where they have cameras of the same name."""
    for n, partition in enumerate(keeper.partitions):
        await journal.take(partition)
        features, blob = rows("door", 10 * n), partition.encode()
        state = a_state(blob, 10 * n)
        for number in range(1, 3 + n):
            step = Step(number, 100 * n + number, f"log-{n}", states={"door": state})
            await journal.commit(
                partition, replace(step, features=(features,) if number == 1 else ())
            )

    again = await end(journal)
    for n, partition in enumerate(keeper.partitions):
        past = await again.take(partition)
        assert (2 + n, 101 * n + 2, f"log-{n}") == (past.number, past.next_offset, past.log_id)
        assert {"door": a_state(partition.encode(), 10 * n)} == states(past)
        assert plain([rows("door", 10 * n)]) == plain(past.cameras["door"].features)


async def test_an_owner_that_was_put_out_keeps_nothing_more(
    keeper: Keeper, journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    await journal.commit(partition, Step(1, 5, states={"door": a_state(b"kept")}))
    await keeper.put_out(journal, partition)
    step = Step(
        2,
        6,
        revisions=(an_event(),),
        features=(rows(),),
        states={"door": a_state(b"not kept"), "yard": a_state()},
    )

    for _ in range(2):
        with pytest.raises(StaleOwnerError):
            await journal.commit(partition, step)

    past = await (await end(journal)).take(partition)
    assert (1, 5) == (past.number, past.next_offset)
    assert {"door": a_state(b"kept")} == states(past)
    assert () == past.cameras["door"].features
    assert [] == await keeper.events()


async def test_an_owner_that_was_put_out_of_one_partition_keeps_the_other(
    keeper: Keeper, journal: Journal
) -> None:
    one, other = keeper.partitions
    for partition in keeper.partitions:
        await journal.take(partition)
    await keeper.put_out(journal, one)

    await journal.commit(other, Step(1, 5, revisions=(an_event(),)))

    assert [an_event()] == await keeper.events()


async def test_a_partition_may_be_given_back_and_taken_again(
    journal: Journal, partition: str
) -> None:
    await journal.take(partition)
    await journal.commit(partition, Step(1, 5, states={"door": a_state()}))
    for _ in range(2):
        await journal.give_back(partition)
    with pytest.raises(StaleOwnerError):
        await journal.commit(partition, Step(2, 6))

    past = await journal.take(partition)

    assert (1, 5, {"door": a_state()}) == (past.number, past.next_offset, states(past))
    await journal.commit(partition, Step(2, 6))


async def test_a_camera_that_is_forgotten_leaves_nothing(
    journal: Journal, partition: str, end: Any
) -> None:
    await journal.take(partition)
    known = {"door": a_state(), "yard": a_state()}
    await journal.commit(partition, Step(1, 5, features=(rows(),), states=known))
    await journal.commit(partition, Step(2, 6, features=(rows("door", 2),), states={"door": None}))
    await journal.commit(partition, Step(3, 7, states={"gate": None}))  # one that left nothing

    journal = await end(journal)
    past = await journal.take(partition)
    assert {"yard": a_state()} == states(past)

    again = a_state(run="run-2")  # it comes back
    await journal.commit(partition, Step(4, 8, states={"door": again}))
    past = await (await end(journal)).take(partition)
    assert [] == plain(past.cameras["door"].features)


async def test_revisions_are_seen_once_and_in_order_across_restarts(
    keeper: Keeper, journal: Journal, end: Any
) -> None:
    wanted, numbers = [], dict.fromkeys(keeper.partitions, 0)
    for life in range(4):
        for partition in keeper.partitions:
            assert numbers[partition] == (await journal.take(partition)).number
        for n in range(3):
            for partition in keeper.partitions:
                numbers[partition] += 1
                events = [an_event(f"{partition} {life} {n}", at, camera="c") for at in range(n)]
                wanted += events
                step = Step(numbers[partition], life, revisions=tuple(events))
                await journal.commit(partition, step)
        journal = await end(journal)

    seen = await keeper.events()
    for partition in keeper.partitions:
        assert [e for e in wanted if e.event_id.startswith(partition)] == [
            e for e in seen if e.event_id.startswith(partition)
        ]
    assert len(wanted) == len(seen)


async def test_partitions_may_keep_steps_at_the_same_time(
    keeper: Keeper, journal: Journal, end: Any
) -> None:
    async def keep(partition: str) -> None:
        await journal.take(partition)
        for number in range(1, 11):
            event = an_event(partition, number, camera=partition)
            await journal.commit(partition, Step(number, number, revisions=(event,)))

    async with asyncio.TaskGroup() as tasks:
        for partition in keeper.partitions:
            tasks.create_task(keep(partition))

    again, seen = await end(journal), await keeper.events()
    for partition in keeper.partitions:
        assert list(range(1, 11)) == [e.revision for e in seen if e.camera == partition]
        assert (10, 10) == ((past := await again.take(partition)).number, past.next_offset)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_a_step_that_nobody_waits_for_any_more_is_kept_whole_or_not_at_all(
    keeper: Keeper, journal: Journal, partition: str, turns: int
) -> None:
    """Its number tells which, to whoever takes the partition next."""
    await journal.take(partition)
    step = Step(1, 5, revisions=(an_event(),), states={"door": a_state()})
    task = asyncio.create_task(journal.commit(partition, step))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await journal.give_back(partition)

    past = await journal.take(partition)
    await journal.commit(partition, Step(past.number + 1, 6, revisions=(an_event("e2"),)))

    is_kept = past.number == 1
    wanted = ({"door": a_state()}, [an_event(), an_event("e2")]) if is_kept else (
        {}, [an_event("e2")]
    )  # fmt: skip
    assert wanted == (states(past), await keeper.events())


async def test_close_may_be_repeated(journal: Journal, partition: str) -> None:
    await journal.take(partition)
    await journal.close()
    await journal.close()
    await journal.give_back(partition)
