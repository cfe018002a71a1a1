"""The journal's database: atomic, held by one process, and plain about what it cannot use."""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from daemon.errors import ConfigError, DiskError, StaleOwnerError, TransportError
from daemon.journal import local
from daemon.journal.base import CameraState, Step
from daemon.journal.local import LocalJournal, LocalJournalSettings
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.wire.records import event_line, parse_event
from engine.session import StreamSession
from engine.types import ActionEvent, Place, VideoChunk
from engine.video.frames import PyAvDecoder
from tests.support.daemons import TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.records import an_event
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec
from tests.support.snapshots import as_version_2
from tests.support.waiting import until

WRITER = """
import asyncio, sys
from pathlib import Path
from daemon.journal.base import CameraState, Step
from daemon.journal.local import LocalJournal, LocalJournalSettings
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from tests.support.records import an_event

async def main():
    folder = Path(sys.argv[1])
    journal = LocalJournal(
        LocalJournalSettings(folder / "journal.sqlite"),
        JsonlProjection(JsonlSettings(folder / "events.jsonl")),
    )
    await journal.start()
    n = (await journal.take("p")).number
    while True:
        n += 1
        state = CameraState(bytes([n % 256]) * 200_000)
        events = tuple(an_event(f"{n}", at) for at in range(3))
        await journal.commit("p", Step(n, n, revisions=events, states={"door": state}))
        print(n, flush=True)

asyncio.run(main())
"""


def a_journal(folder: Path, lock_timeout_s: float = 5.0) -> LocalJournal:
    settings = LocalJournalSettings(folder / "journal.sqlite", lock_timeout_s)
    return LocalJournal(settings, JsonlProjection(JsonlSettings(folder / "events.jsonl")))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[LocalJournal]:
    journal = a_journal(folder)
    try:
        await journal.start()
        yield journal
    finally:
        await journal.close()


def shown(folder: Path) -> list[ActionEvent]:
    path = folder / "events.jsonl"
    return [parse_event(line) for line in path.read_bytes().splitlines()]


def is_in_order(events: Sequence[ActionEvent], n_steps: int) -> bool:
    """True if all revisions of so many steps are there, each once."""
    wanted = [(f"{n}", at) for n in range(1, n_steps + 1) for at in range(3)]
    return wanted == [(event.event_id, event.revision) for event in events]


def write_and_kill(folder: Path, n_steps: int) -> int:
    """A process that keeps steps until it is killed; gives the last number it has told of."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _ in range(n_steps)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    return reported[-1]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5, 30])
async def test_a_kill_leaves_whole_steps_and_each_line_once(tmp_path: Path, steps: int) -> None:
    for _ in range(3):
        reported = write_and_kill(tmp_path, steps)
        async with opened(tmp_path) as journal:
            past = await journal.take("p")
            assert past.number == past.next_offset
            assert past.number >= reported
            assert bytes([past.number % 256]) * 200_000 == past.cameras["door"].state.blob
            assert is_in_order(shown(tmp_path), past.number)


class Torn(JsonlProjection):
    """Once told to, it writes some bytes of what it is to show, and the process is over."""

    n_bytes: int | None = None

    @override
    async def show(self, events: Sequence[ActionEvent]) -> None:
        if self.n_bytes is None:
            await super().show(events)
            return
        os.write(self._fd, b"".join(map(self._line, events))[: self.n_bytes])
        raise TransportError("the process was killed")


async def kill(journal: LocalJournal) -> None:
    """What the system does with the locks of a process that dies."""
    await journal._run(journal._open_connection.close)
    journal._thread.shutdown()
    assert isinstance(journal._projection, JsonlProjection)
    os.close(journal._projection._fd)


STEP = tuple(an_event("torn", revision) for revision in range(3))
N_BYTES = sum(len(event_line(event, site="default")) + 1 for event in STEP)


@pytest.mark.parametrize("n_bytes", [*range(0, N_BYTES, 97), N_BYTES])
@pytest.mark.parametrize("is_told", [False, True])
async def test_a_step_whose_lines_were_torn_is_shown_whole_at_the_next_start(
    tmp_path: Path, n_bytes: int, *, is_told: bool
) -> None:
    projection = Torn(JsonlSettings(tmp_path / "events.jsonl"))
    journal = LocalJournal(LocalJournalSettings(tmp_path / "journal.sqlite"), projection)
    await journal.start()
    await journal.take("p")
    first = an_event("first")
    await journal.commit("p", Step(1, 1, revisions=(first,)))
    projection.n_bytes = n_bytes
    with pytest.raises(TransportError, match="killed"):
        await journal.commit("p", Step(2, 2, revisions=STEP))
    if is_told:  # such a journal is of no use any more
        with pytest.raises(TransportError, match="killed"):
            await journal.commit("p", Step(3, 3))
    await kill(journal)

    async with opened(tmp_path) as again:
        assert 2 == (await again.take("p")).number
        assert [first, *STEP] == shown(tmp_path)
        await again.commit("p", Step(3, 3, revisions=(an_event("last"),)))

    assert [first, *STEP, an_event("last")] == shown(tmp_path)


async def test_a_full_disk_under_the_events_loses_none_and_repeats_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.take("p")
        await journal.commit("p", Step(1, 1, revisions=(an_event("first"),)))
        file = (tmp_path / "events.jsonl").open("rb+")
        file.truncate(2**20)  # the database must still be able to grow
        file.truncate(len(event_line(an_event("first"), site="default")) + 1)
        file.close()
        write = os.write

        def full(fd: int, payload: bytes) -> int:
            if fd == journal._projection._fd:  # type: ignore[attr-defined]
                write(fd, payload[: len(payload) // 2])
                raise OSError(28, "No space left on device")
            return write(fd, payload)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "write", full)
            keeping = [
                asyncio.create_task(journal.commit("p", step))
                for step in (Step(2, 2, revisions=STEP), Step(3, 3, revisions=(an_event("last"),)))
            ]
            await until(lambda: "cannot append" in journal._disk.reason)
            assert [an_event("first")] == shown(tmp_path)
            assert [False, False] == [each.done() for each in keeping]
        await asyncio.gather(*keeping)  # there is room again
        assert 0 == journal._disk.age_s

        assert [an_event("first"), *STEP, an_event("last")] == shown(tmp_path)


@pytest.mark.parametrize("what", ["journal", "moved", "events"])
async def test_a_disk_that_does_not_answer_is_an_outage_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(local, "_SOON_S", 0.01)
    is_there = threading.Event()
    async with opened(tmp_path) as journal:
        await journal.take("p")
        hangs, name, file = {
            "journal": (journal, "_keep", journal._path),
            "moved": (journal._projection, "_let_go_if_moved", tmp_path / "events.jsonl"),
            "events": (journal._projection, "_append", tmp_path / "events.jsonl"),
        }[what]
        do = getattr(hangs, name)

        def hang(*args: object, **options: object) -> object:
            is_there.wait()
            return do(*args, **options)

        monkeypatch.setattr(hangs, name, hang)
        keeping = asyncio.create_task(journal.commit("p", Step(1, 1, revisions=STEP)))
        try:
            await until(lambda: journal._disk.age_s > 0)
            assert f"{file} does not answer" == journal._disk.reason
        finally:
            is_there.set()
        await keeping

        assert 0 == journal._disk.age_s
        assert list(STEP) == shown(tmp_path)


async def test_what_could_not_be_shown_until_the_end_is_shown_at_the_next_start(
    tmp_path: Path,
) -> None:
    journal = a_journal(tmp_path)
    await journal.start()
    await journal.take("p")
    with pytest.MonkeyPatch.context() as patched:
        write = os.write

        def full(fd: int, payload: bytes) -> int:
            if fd == journal._projection._fd:  # type: ignore[attr-defined]
                raise OSError(28, "No space left on device")
            return write(fd, payload)

        patched.setattr(os, "write", full)
        keeping = asyncio.create_task(journal.commit("p", Step(1, 1, revisions=STEP)))
        await until(lambda: "cannot append" in journal._disk.reason)
        await journal.close()
        with pytest.raises(DiskError):
            await keeping

    async with opened(tmp_path) as again:
        assert 1 == (await again.take("p")).number
    assert list(STEP) == shown(tmp_path)


async def test_a_start_that_fails_forgets_nothing(tmp_path: Path) -> None:
    """Another program holds the events file while lines wait for it."""
    projection = Torn(JsonlSettings(tmp_path / "events.jsonl"))
    journal = LocalJournal(LocalJournalSettings(tmp_path / "journal.sqlite"), projection)
    await journal.start()
    await journal.take("p")
    await journal.commit("p", Step(1, 1, revisions=(an_event("first"),)))
    projection.n_bytes = N_BYTES // 2
    with pytest.raises(TransportError):
        await journal.commit("p", Step(2, 2, revisions=STEP))
    await kill(journal)
    other = JsonlProjection(JsonlSettings(tmp_path / "events.jsonl"))
    await other.start(len(event_line(an_event("first"), site="default")) + 1, ())

    with pytest.raises(ConfigError, match="another process writes events there"):
        async with opened(tmp_path):
            pass
    await other.close()

    async with opened(tmp_path):
        pass
    assert [an_event("first"), *STEP] == shown(tmp_path)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_file_that_was_rotated_away_is_begun_anew(
    tmp_path: Path, *, is_killed: bool
) -> None:
    """Both files together have each line once; the last one may be in both after a kill."""
    journal = a_journal(tmp_path)
    await journal.start()
    await journal.take("p")
    for n in (1, 2):
        await journal.commit("p", Step(n, n, revisions=(an_event(f"{n}"),)))
    await (kill(journal) if is_killed else journal.close())
    (tmp_path / "events.jsonl").rename(tmp_path / "events.jsonl.1")

    async with opened(tmp_path) as again:
        await again.take("p")
        await again.commit("p", Step(3, 3, revisions=(an_event("3"),)))

    assert [an_event("1"), an_event("2")] == [
        parse_event(line) for line in (tmp_path / "events.jsonl.1").read_bytes().splitlines()
    ]
    left_over = [an_event("2")] if is_killed else []
    assert [*left_over, an_event("3")] == shown(tmp_path)
    async with opened(tmp_path):
        pass
    assert [*left_over, an_event("3")] == shown(tmp_path)


async def test_events_wait_in_the_database_until_they_are_safe_elsewhere(tmp_path: Path) -> None:
    projection = JsonlProjection(
        JsonlSettings(tmp_path / "events.jsonl", fsync="interval", fsync_interval_s=3600)
    )
    journal = LocalJournal(LocalJournalSettings(tmp_path / "journal.sqlite"), projection)
    await journal.start()
    await journal.take("p")
    for n in range(1, 5):
        await journal.commit("p", Step(n, n, revisions=(an_event(f"{n}"),)))
    _mark, waiting = await journal._run(journal._waiting)
    # The first one was synced at once, which the second step has noted.
    assert ["2", "3", "4"] == [event.event_id for event in waiting]
    await kill(journal)
    (tmp_path / "events.jsonl").write_bytes(  # a power cut took the rest
        event_line(an_event("1"), site="default") + b"\n"
    )

    async with opened(tmp_path) as again:
        assert ["1", "2", "3", "4"] == [event.event_id for event in shown(tmp_path)]
        assert [] == (await again._run(again._waiting))[1]


async def test_a_step_in_hand_is_waited_for_by_whoever_takes_the_partition(
    tmp_path: Path,
) -> None:
    """The one who asked for it has lost patience; it is kept all the same, and known then."""

    class Slow(JsonlProjection):
        async def show(self, events: Sequence[ActionEvent]) -> None:
            await asyncio.sleep(0.1)
            await super().show(events)

    projection = Slow(JsonlSettings(tmp_path / "events.jsonl"))
    journal = LocalJournal(LocalJournalSettings(tmp_path / "journal.sqlite"), projection)
    await journal.start()
    for partition in "pq":
        await journal.take(partition)
    first = asyncio.create_task(journal.commit("q", Step(1, 1, revisions=(an_event("q"),))))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await journal.commit("p", Step(1, 1, revisions=(an_event("p"),)))
    await journal.give_back("p")

    past = await journal.take("p")

    assert 1 == past.number
    await first
    await journal.close()
    assert ["q", "p"] == [event.event_id for event in shown(tmp_path)]


async def test_two_daemons_cannot_share_a_journal(tmp_path: Path) -> None:
    async with opened(tmp_path):
        second = a_journal(tmp_path, lock_timeout_s=0.1)
        with pytest.raises(
            TransportError, match=r"journal\.sqlite.*locked.*stop the process that uses it"
        ):
            await second.start()
        await second.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_another_tool_that_holds_the_journal_for_a_moment_is_waited_for(
    tmp_path: Path, mode: str
) -> None:
    tool = sqlite3.connect(
        tmp_path / "journal.sqlite", isolation_level=None, check_same_thread=False
    )
    tool.execute(f"PRAGMA journal_mode = {mode}")
    tool.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, tool.close)
    release.start()

    journal = a_journal(tmp_path, lock_timeout_s=60)
    await journal.start()

    await journal.take("p")
    await journal.commit("p", Step(1, 1))
    await journal.close()
    release.join()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_full_disk_at_the_start_is_no_fault_of_the_configuration(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    with full_disk():
        starting = asyncio.create_task(journal.start())
        await until(lambda: "is the disk full" in journal._disk.reason)
        assert not starting.done()
    await starting  # there is room again

    assert 0 == (await journal.take("p")).number
    await journal.close()


async def test_a_step_that_finds_the_disk_full_is_kept_whole_once_there_is_room(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as journal:
        await journal.take("p")
        await journal.commit("p", Step(1, 1, states={"door": CameraState(b"small")}))
        large = {"door": CameraState(bytes(2**20))}
        with full_disk():
            step = Step(2, 2, revisions=STEP, states=large)
            keeping = asyncio.create_task(journal.commit("p", step))
            await until(lambda: "journal.sqlite: " in journal._disk.reason)
            past = await journal._run(lambda: journal._past("p"))
            assert (1, b"small") == (past.number, past.cameras["door"].state.blob)
        await keeping  # there is room again

    assert list(STEP) == shown(tmp_path)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"these are not the bytes of a database" * 100)

    with pytest.raises(ConfigError, match=r"journal\.sqlite.*not a database.*move the file away"):
        async with opened(tmp_path):
            pass


async def test_a_journal_of_another_version_is_named(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "journal.sqlite")
    foreign.execute("PRAGMA user_version = 99")
    foreign.close()

    with pytest.raises(ConfigError, match="a journal of version 99, wanted 2"):
        async with opened(tmp_path):
            pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file.journal\.sqlite: cannot open the journal"):
        async with opened(tmp_path / "file"):
            pass


async def test_a_journal_that_is_closed_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.take("p")

    with pytest.raises((TransportError, RuntimeError)):
        await journal.commit("p", Step(1, 1))


async def test_a_partition_that_was_never_taken_is_nobody_s(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        with pytest.raises(StaleOwnerError):
            await journal.commit("p", Step(1, 1))


def version_1(path: Path, rows: Sequence[tuple[str, str, int | None, bytes]]) -> None:
    """A database as the daemon before this one left it.

    Args:
        path: Its file.
        rows: Camera, partition, first offset to read again, and snapshot.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE stream_state (stream_id TEXT PRIMARY KEY, partition TEXT NOT NULL, "
        "low_offset INTEGER, blob BLOB NOT NULL) STRICT, WITHOUT ROWID"
    )
    connection.executemany("INSERT INTO stream_state VALUES (?, ?, ?, ?)", rows)
    connection.execute("PRAGMA user_version = 1")
    connection.close()


async def test_a_database_of_version_1_is_taken_over(tmp_path: Path) -> None:
    rows = [("door", "chunks/0", 7, b"of door"), ("yard", "chunks/0", None, b"of yard")]
    version_1(tmp_path / "journal.sqlite", [*rows, ("gate", "chunks/1", 3, b"of gate")])

    for _ in range(2):
        async with opened(tmp_path) as journal:
            past = await journal.take("chunks/0")
            assert (0, None) == (past.number, past.next_offset)
            assert {"door": CameraState(b"of door", 7), "yard": CameraState(b"of yard")} == {
                name: camera.state for name, camera in past.cameras.items()
            }
            assert {"gate"} == set((await journal.take("chunks/1")).cameras)


CAMERA = "cam"


def left_by_an_older_daemon(
    chunks: Sequence[VideoChunk], n_owed: int
) -> tuple[bytes, int | None, list[ActionEvent]]:
    """A camera's snapshot after some chunks, what to read again, and what was published.

    Args:
        chunks: What it has seen.
        n_owed: How many of the newest revisions it has not published yet.
    """
    spec = a_spec()
    session, decoder = StreamSession(CAMERA, "file", spec), PyAvDecoder(spec.geometry, spec.grid)
    revisions: list[ActionEvent] = []
    starts: list[int] = []
    for chunk in chunks:
        frames = decoder.decode(chunk)
        starts.append(int(frames.pts_us[0]))
        features = MeanColourExtractor().extract(session.sample(frames))
        windows = SmoothingLocalizer().localize(session.buffer(features))
        revisions += session.track(windows)
    low = None
    if session.resume_us is not None:
        low = max(n for n, start_us in enumerate(starts) if start_us <= session.resume_us)
    last = len(chunks) - 1
    session.place = Place(CAMERA, last, low, last)
    n_published = len(revisions) - n_owed
    blob = as_version_2(session.snapshot(), session.features, revisions[n_published:])
    return blob, low, revisions[:n_published]


@pytest.mark.parametrize("n_before", [5, 6, 7, 12])
@pytest.mark.parametrize("n_owed", [0, 1, 2])
@pytest.mark.parametrize("n_between", [0, 1, 2, 4])
async def test_a_daemon_goes_on_where_an_older_one_stopped(
    tmp_path: Path, n_before: int, n_owed: int, n_between: int
) -> None:
    """And so does the next one, a few chunks later, while the old features are still needed."""
    clip = colour_clip(tmp_path / "odd.mp4", BUSY, gop=13)
    chunks = chunks_of(clip, CAMERA, chunk_s=0.5)
    blob, low, published = left_by_an_older_daemon(chunks[:n_before], n_owed)
    assert len(published) > 0
    version_1(tmp_path / "journal.sqlite", [(CAMERA, CAMERA, low, blob)])
    (tmp_path / "events.jsonl").write_bytes(
        b"".join(event_line(event, site="default") + b"\n" for event in published)
    )
    log = MemoryLog()
    for chunk in chunks[: n_before + n_between]:
        log.append(CAMERA, chunk)
    async with opened(tmp_path) as journal, asyncio.timeout(240):
        await serve_some(log, journal, n_before, n_between)
    for chunk in chunks[n_before + n_between :]:
        log.append(CAMERA, chunk)
    log.finish()

    async with opened(tmp_path) as journal:
        daemon = TestDaemon(MemoryChunkSource(log), journal)
        await daemon.serve()

    assert 0 == daemon.count("snapshots_refused_total", camera=CAMERA)
    assert [(r.event_id, r.revision, r.span) for r in straight_line(clip, CAMERA)] == [
        (r.event_id, r.revision, r.span) for r in shown(tmp_path)
    ]


async def serve_some(log: MemoryLog, journal: LocalJournal, n_before: int, n_between: int) -> None:
    """A daemon that begins after what the older one has done, as a source remembers that."""
    daemon = TestDaemon(MemoryChunkSource(log), journal)
    take = daemon.app.partitions.take

    async def take_after(partition: str, *, fallback: int, **told: Any) -> int:
        assert 0 == fallback
        return await take(partition, fallback=n_before, **told)

    daemon.app.partitions.take = take_after  # type: ignore[method-assign]
    serving = asyncio.create_task(daemon.serve())
    while (await journal.take(CAMERA)).next_offset != n_before + n_between:
        assert not serving.done()
        await asyncio.sleep(0.01)
    daemon.app.stop()
    await serving


def ids(path: Path) -> list[str]:
    return [parse_event(line).event_id for line in path.read_bytes().splitlines()]


def step(number: int) -> Step:
    return Step(number, number, revisions=(an_event(f"{number}"),))


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
@pytest.mark.parametrize("makes_new", [False, True])
async def test_a_file_that_was_rotated_is_whole_and_followed_by_a_new_one(
    tmp_path: Path, *, fsync: Any, makes_new: bool
) -> None:
    path, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    settings = LocalJournalSettings(tmp_path / "journal.sqlite")
    journal = LocalJournal(settings, JsonlProjection(JsonlSettings(path, fsync=fsync)))
    await journal.start()
    await journal.take("p")
    for number in (1, 2):
        await journal.commit("p", step(number))
    path.rename(old)
    if makes_new:
        path.touch()
    for number in (3, 4):
        await journal.commit("p", step(number))
    await kill(journal)

    assert ["1", "2"] == ids(old)
    assert ["3", "4"] == ids(path)
    async with opened(tmp_path) as again:
        await again.take("p")
        await again.commit("p", step(5))
    assert ["3", "4", "5"] == ids(path)


async def test_a_file_that_is_rotated_again_and_again_has_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with opened(tmp_path) as journal:
        await journal.take("p")
        for number in range(1, 10):
            await journal.commit("p", step(number))
            if number % 2 == 0:
                path.rename(tmp_path / f"old-{number}")
            if number % 4 == 0:
                await journal.commit("p", Step(number, number))  # nothing to show

    seen = [ids(file) for file in (*sorted(tmp_path.glob("old-*")), path)]
    assert [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"], ["9"]] == seen


async def test_a_file_that_was_removed_or_cut_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with opened(tmp_path) as journal:
        await journal.take("p")
        await journal.commit("p", step(1))
        path.unlink()
        await journal.commit("p", step(2))
        assert ["2"] == ids(path)
        os.truncate(path, 0)
        await journal.commit("p", step(3))
        assert ["3"] == ids(path)


async def test_a_kill_right_after_a_rotation_shows_nothing_twice(tmp_path: Path) -> None:
    """The database has settled, and the new file is not there yet."""
    journal = a_journal(tmp_path)
    await journal.start()
    await journal.take("p")
    await journal.commit("p", step(1))
    (tmp_path / "events.jsonl").rename(tmp_path / "old")
    assert await journal._projection.let_go_if_moved()
    await journal._run(journal._settle)
    await journal._run(journal._open_connection.close)
    journal._thread.shutdown()

    async with opened(tmp_path) as again:
        await again.take("p")
        await again.commit("p", step(2))

    assert [["1"], ["2"]] == [ids(tmp_path / name) for name in ("old", "events.jsonl")]
