"""The events file: each line whole and exactly once, whatever happened to the process before."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.journal.projections.jsonl import JsonlProjection, JsonlSettings
from daemon.wire.records import event_line, parse_event
from engine.types import ActionEvent
from tests.support.records import an_event

EVENTS = [an_event(f"e{n}") for n in range(5)]
LINES = [event_line(event, site="default") + b"\n" for event in EVENTS]
E0, E1, E2 = LINES[:3]


async def opened(
    path: Path, mark: int | None = None, waiting: Sequence[ActionEvent] = (), **settings: object
) -> JsonlProjection:
    projection = JsonlProjection(JsonlSettings(path, **settings))  # type: ignore[arg-type]
    await projection.start(mark, waiting)
    return projection


async def show(
    path: Path, *events: ActionEvent, mark: int | None = None, waiting: Sequence[ActionEvent] = ()
) -> None:
    """One life of a daemon."""
    projection = await opened(path, mark, waiting)
    try:
        await projection.show(events)
    finally:
        await projection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.mark.slow
async def test_a_tail_torn_at_any_byte_is_mended(path: Path) -> None:
    """The last three lines were kept, and the process died while they were written."""
    whole = b"".join(LINES[:4])
    for size in range(len(E0), len(whole) + 1):
        path.write_bytes(whole[:size])

        await show(path, EVENTS[4], mark=len(E0), waiting=EVENTS[1:4])

        assert whole + LINES[4] == path.read_bytes(), f"torn at byte {size}"


@pytest.mark.parametrize("garbage", [b"\0", b"x", b"{"])
async def test_a_tail_whose_bytes_never_reached_the_disk_is_mended(
    path: Path, garbage: bytes
) -> None:
    """A power cut may leave a file its size, but not what was in it."""
    whole = b"".join(LINES[:4])
    for size in range(len(E0), len(whole), 23):
        path.write_bytes(whole[:size] + garbage * (len(whole) - size))

        await show(path, EVENTS[4], mark=len(E0), waiting=EVENTS[1:4])

        assert whole + LINES[4] == path.read_bytes(), f"from byte {size} on"


async def test_a_file_that_has_all_that_waited_is_left_as_it_is(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"".join(LINES))
    projection = await opened(path, len(E0), EVENTS[1:])

    assert path.stat().st_size == projection.mark
    await projection.close()
    assert b"".join(LINES) == path.read_bytes()
    assert not caplog.records


@pytest.mark.parametrize("n_bytes", [0, 1, len(E0) // 2, len(E0) - 1])
async def test_of_a_file_that_no_journal_knows_a_torn_last_line_is_cut_off(
    path: Path, n_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(E0 + E0[:n_bytes])

    await show(path, EVENTS[1])

    assert E0 + E1 == path.read_bytes()
    assert not caplog.records


@pytest.mark.parametrize("torn", [b"x" * 10, b"x" * 200_000])
async def test_a_file_that_is_one_torn_line_starts_anew(path: Path, torn: bytes) -> None:
    path.write_bytes(torn)

    await show(path, EVENTS[0])

    assert E0 == path.read_bytes()


async def test_a_long_torn_line_takes_no_whole_one_with_it(path: Path) -> None:
    path.write_bytes(E0 + b"x" * 200_000)

    await show(path, EVENTS[1])

    assert E0 + E1 == path.read_bytes()


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (b"", b""),  # rotated away, or removed
        (E0[:-1], b""),  # a copy that was cut
        (E0, E0),
        (b"foreign\n", b"foreign\n"),
        (E0 + b"foreign\n", E0 + b"foreign\n"),
        (E0 + E1 + b"foreign\n" + E2[:9], E0 + E1 + b"foreign\n"),
        (b"longer than ours\n" * 1000 + b"torn", b"longer than ours\n" * 1000),
    ],
    ids=["gone", "cut", "shorter", "replaced", "added to", "torn", "long"],
)
async def test_a_file_that_was_changed_gets_what_waits_at_its_end(
    path: Path, caplog: pytest.LogCaptureFixture, there: bytes, kept: bytes
) -> None:
    path.write_bytes(there)

    with caplog.at_level(logging.WARNING):
        await show(path, EVENTS[4], mark=len(E0 + E1), waiting=EVENTS[2:4])

    assert kept + b"".join(LINES[2:]) == path.read_bytes()
    assert "was changed or replaced" in caplog.text


async def test_what_is_shown_is_there_to_read_and_counted_in_bytes(path: Path) -> None:
    projection = await opened(path)
    await projection.show(EVENTS[:2])
    await projection.show([])
    assert E0 + E1 == path.read_bytes()
    assert len(E0 + E1) == projection.mark == sum(map(projection.size_of, EVENTS[:2]))

    await projection.show(EVENTS[2:])

    assert EVENTS == [parse_event(line) for line in path.read_bytes().splitlines()]
    assert path.stat().st_size == projection.mark
    await projection.close()


@pytest.mark.parametrize(
    ("fsync", "safe"),
    [("always", [1, 2, 3]), ("interval", [1, 1, 1]), ("never", [1, 2, 3])],
)
async def test_every_policy_writes_at_once_and_counts_what_is_safe(
    path: Path, fsync: str, safe: list[int]
) -> None:
    """Of ``interval``, the first events are synced at once, and the rest at the close."""
    projection = await opened(path, fsync=fsync, fsync_interval_s=3600)
    marks = []
    for n in range(3):
        await projection.show([EVENTS[n]])
        assert b"".join(LINES[: n + 1]) == path.read_bytes()
        marks.append(projection.mark)
    await projection.close()

    assert [len(b"".join(LINES[:n])) for n in safe] == marks
    assert path.stat().st_size == projection.mark


async def test_two_daemons_cannot_share_a_file(path: Path) -> None:
    first = await opened(path)

    with pytest.raises(ConfigError, match="another process writes events there"):
        await opened(path)
    await first.close()
    await first.close()
    await (await opened(path)).close()


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/events\.jsonl: cannot write events there"):
        await opened(tmp_path / "file" / "events.jsonl")


async def test_a_pipe_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError, match=r"pipe: is no regular file"):
        await opened(tmp_path / "pipe")


async def test_a_device_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"/dev/null: is no regular file"):
        await opened(Path("/dev/null"))


@contextlib.contextmanager
def disk_of_1000_bytes() -> Iterator[None]:
    """Files cannot grow further, as on a full disk; the test runner's own log neither."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_full_disk_tears_no_line(path: Path) -> None:
    projection = await opened(path)
    await projection.show(EVENTS[:1])

    problem = r"events\.jsonl: cannot append events: File too"
    with disk_of_1000_bytes(), pytest.raises(TransportError, match=problem):
        await projection.show(EVENTS[1:])

    assert E0 == path.read_bytes()
    await projection.close()
    assert len(E0) == projection.mark
    await show(path, mark=len(E0), waiting=EVENTS[1:])
    assert b"".join(LINES) == path.read_bytes()


async def test_a_disk_that_fails_at_the_close_is_named_and_the_file_let_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection = await opened(path, fsync="interval", fsync_interval_s=3600)
    await projection.show(EVENTS[:1])
    await projection.show(EVENTS[1:2])

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(
            TransportError, match=r"events\.jsonl: cannot write events to the disk"
        ):
            await projection.close()

    assert len(E0) == projection.mark  # the rest may be lost with the power
    await show(path, mark=len(E0), waiting=EVENTS[1:3])
    assert E0 + E1 + E2 == path.read_bytes()


async def test_a_show_that_is_cancelled_leaves_whole_lines(path: Path) -> None:
    projection = await opened(path)

    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(projection.show([EVENTS[0]] * 500))
        await asyncio.sleep(0)
        showing.cancel()
    await projection.close()
    await show(path, EVENTS[1])

    assert {E0, E1} >= set(path.read_bytes().splitlines(keepends=True))
    assert path.read_bytes().endswith(E1)
    assert path.stat().st_size in (len(E1), 500 * len(E0) + len(E1))
