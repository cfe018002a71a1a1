"""The events file: whole lines only, whatever happened to the process before."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.sinks.jsonl import JsonlEventSink, JsonlSinkSettings
from daemon.wire.records import event_line
from tests.support.records import an_event

E1 = event_line(an_event("e1"), site="default") + b"\n"
E2 = event_line(an_event("e2"), site="default") + b"\n"


async def publish(path: Path, event_id: str, **settings: object) -> None:
    sink = JsonlEventSink(JsonlSinkSettings(path, **settings))  # type: ignore[arg-type]
    await sink.start()
    try:
        await sink.publish([an_event(event_id)])
    finally:
        await sink.close()


@pytest.mark.parametrize("n_bytes", [0, 1, len(E1) // 2, len(E1) - 1])
async def test_a_torn_last_line_is_cut_off_at_opening(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(E1 + E1[:n_bytes])

    await publish(path, "e2")

    assert E1 + E2 == path.read_bytes()


@pytest.mark.parametrize("torn", [b"x" * 10, b"x" * 200_000])
async def test_a_file_that_is_one_torn_line_starts_anew(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(torn)

    await publish(path, "e1")

    assert E1 == path.read_bytes()


async def test_a_long_torn_line_takes_no_whole_one_with_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(E1 + b"x" * 200_000)

    await publish(path, "e2")

    assert E1 + E2 == path.read_bytes()


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
async def test_every_policy_writes_before_publish_returns(tmp_path: Path, fsync: str) -> None:
    path = tmp_path / "events.jsonl"

    await publish(path, "e1", fsync=fsync)
    await publish(path, "e2", fsync=fsync)

    assert E1 + E2 == path.read_bytes()


async def test_two_daemons_cannot_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = JsonlEventSink(JsonlSinkSettings(path))
    await first.start()

    with pytest.raises(ConfigError, match="another process writes events there"):
        await JsonlEventSink(JsonlSinkSettings(path)).start()
    await first.close()


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/events\.jsonl: cannot write events there"):
        await JsonlEventSink(JsonlSinkSettings(tmp_path / "file" / "events.jsonl")).start()


async def test_a_pipe_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError, match=r"pipe: is no regular file"):
        await JsonlEventSink(JsonlSinkSettings(tmp_path / "pipe")).start()


async def test_a_device_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"/dev/null: is no regular file"):
        await JsonlEventSink(JsonlSinkSettings(Path("/dev/null"))).start()


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


async def test_a_full_disk_tears_no_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlEventSink(JsonlSinkSettings(path))
    await sink.start()
    await sink.publish([an_event("e1")])

    problem = r"events\.jsonl: cannot append events: File too"
    with disk_of_1000_bytes(), pytest.raises(TransportError, match=problem):
        await sink.publish([an_event("e2", revision) for revision in range(3)])

    assert E1 == path.read_bytes()
    await sink.close()


async def test_a_publish_that_is_cancelled_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlEventSink(JsonlSinkSettings(path))
    await sink.start()

    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(sink.publish([an_event("e1")] * 500))
        await asyncio.sleep(0)
        publishing.cancel()
    await sink.close()
    await publish(path, "e2")

    assert {E1, E2} >= set(path.read_bytes().splitlines(keepends=True))
    assert path.read_bytes().endswith(E2)
    assert path.stat().st_size in (len(E2), 500 * len(E1) + len(E2))
