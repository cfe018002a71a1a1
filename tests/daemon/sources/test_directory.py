"""A folder of chunk files, as it is found in the field: foreign and half-copied files."""

import asyncio
import errno
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from daemon.errors import ConfigError, MalformedRecordError, TransportError
from daemon.outages import Kind, Outages
from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.sources import chunk_files, positions
from daemon.sources.base import Delivery
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.wire.facts import ChunkFacts
from engine.errors import CorruptChunkError, RefusedChunkError
from tests.support.owner import Owner
from tests.support.processes import PATIENCE_S
from tests.support.records import a_chunk, an_end
from tests.support.waiting import SetClock, until


async def read_all(root: Path, owner: Owner | None = None, **settings: object) -> list[Delivery]:
    """Everything there is, once."""
    options = DirectorySourceSettings(root, follow=False, **settings)  # type: ignore[arg-type]
    source = DirectoryChunkSource(options)
    await source.start(owner or Owner())
    deliveries = [delivery async for delivery in source.deliveries()]
    await source.close()
    return deliveries


def put(path: Path, payload: bytes = b"video") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)


async def write(root: Path, *chunks: object, content_type: str = "video/mp4") -> None:
    writer = DirectoryChunkWriter(root)
    await writer.start()
    for chunk in chunks:
        await writer.write(chunk, ChunkFacts(content_type))  # type: ignore[arg-type]
    await writer.close()


async def test_foreign_files_come_by_number_at_their_own_time(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        put(tmp_path / "door" / f"clip-{number}.ts", str(number).encode())

    deliveries = await read_all(tmp_path)

    assert [9, 10, 100] == [d.position.offset for d in deliveries]
    first = deliveries[0].chunk
    assert first is not None
    assert ("door", "0", 9, b"9") == (
        first.camera, first.run, first.sequence, first.payload
    )  # fmt: skip
    mtime_us = (tmp_path / "door" / "clip-9.ts").stat().st_mtime_ns // 1000
    assert (mtime_us, 0) == (first.start_us, first.anchor_us)


async def test_what_is_no_chunk_file_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "door" / "1.mp4")
    for name in ("notes.txt", "2.mp4.tmp", "3.part", ".4.mp4", "5.json", f"{2**63}.mp4"):
        put(tmp_path / "door" / name)
    put(tmp_path / "6.mp4")
    put(tmp_path / ".trash" / "7.mp4")

    assert [1] == [d.position.offset for d in await read_all(tmp_path)]


async def test_of_two_files_with_one_number_the_first_by_name_counts(tmp_path: Path) -> None:
    put(tmp_path / "door" / "a1.mp4", b"a")
    put(tmp_path / "door" / "b1.mp4", b"b")

    assert [b"a"] == [d.chunk.payload for d in await read_all(tmp_path) if d.chunk]


async def test_a_foreign_end_marker_ends_the_run(tmp_path: Path) -> None:
    put(tmp_path / "door" / "1.mp4")
    put(tmp_path / "door" / "2.end", b"")

    deliveries = await read_all(tmp_path)

    assert [False, True] == [d.chunk.is_end for d in deliveries if d.chunk]


@pytest.mark.parametrize(
    "sidecar",
    [
        *(b"{", b"[]", b'{"vc_epoch": 1}', b"\xff", b'{"vc_epoch": "\\ud800"}'),
        *(b"[" * 60_000, b" " * 200_000 + b"{}"),
    ],
    ids=["torn", "list", "number", "bytes", "half a character", "deep", "long"],
)
async def test_an_unreadable_sidecar_is_a_delivery(tmp_path: Path, sidecar: bytes) -> None:
    put(tmp_path / "door" / "1.json", sidecar)
    put(tmp_path / "door" / "1.mp4")

    (delivery,) = await read_all(tmp_path)

    assert isinstance(delivery.error, MalformedRecordError)
    assert b"video" == delivery.payload


async def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    put(tmp_path / "door" / "1.mp4", bytes(1001))

    (delivery,) = await read_all(tmp_path, max_chunk_bytes=1000)

    assert isinstance(delivery.error, RefusedChunkError)
    assert "1001 bytes, at most 1000" in str(delivery.error)
    assert b"" == delivery.payload


async def test_an_empty_file_is_a_corrupt_chunk(tmp_path: Path) -> None:
    put(tmp_path / "door" / "1.mp4", b"")

    (delivery,) = await read_all(tmp_path)

    assert isinstance(delivery.error, CorruptChunkError)


async def test_a_file_that_cannot_be_read_is_a_delivery(tmp_path: Path) -> None:
    (tmp_path / "door" / "1.mp4").mkdir(parents=True)
    put(tmp_path / "door" / "2.mp4")

    bad, good = await read_all(tmp_path)

    assert "is no regular file" in str(bad.error)
    assert good.chunk is not None


async def test_nothing_but_a_regular_file_is_read(tmp_path: Path) -> None:
    """A pipe would wait for a writer, and a device may have no end."""
    (tmp_path / "door").mkdir()
    os.mkfifo(tmp_path / "door" / "1.mp4")
    (tmp_path / "door" / "2.mp4").symlink_to("/dev/zero")
    put(tmp_path / "door" / "3.mp4")
    os.mkfifo(tmp_path / "door" / "3.json")
    put(tmp_path / "door" / "4.mp4")

    *bad, good = await read_all(tmp_path)

    assert [1, 2, 3] == [d.position.offset for d in bad]
    assert all("no regular file" in str(d.error) for d in bad)
    assert good.chunk is not None


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[AsyncIterator[Delivery]]:
    settings = DirectorySourceSettings(tmp_path, poll_interval_s=0.01, settle_s=0.2)
    source = DirectoryChunkSource(settings)
    await source.start(Owner())
    yield source.deliveries()
    await source.close()


async def test_a_growing_foreign_file_is_taken_once_a_later_one_exists(
    tmp_path: Path,
) -> None:
    settings = DirectorySourceSettings(tmp_path, poll_interval_s=0.01, settle_s=3600)
    source = DirectoryChunkSource(settings)
    await source.start(Owner())
    put(tmp_path / "door" / "1.ts", b"whole")
    put(tmp_path / "door" / "2.ts", b"half")

    stream = source.deliveries()
    first = await anext(stream)
    put(tmp_path / "door" / "2.ts", b"half and the rest")
    put(tmp_path / "door" / "3.ts", b"")
    second = await anext(stream)
    await source.close()

    assert first.chunk is not None
    assert second.chunk is not None
    assert (b"whole", b"half and the rest") == (first.chunk.payload, second.chunk.payload)


async def test_a_foreign_file_that_stands_still_is_taken(
    tmp_path: Path, following: AsyncIterator[Delivery]
) -> None:
    put(tmp_path / "door" / "1.ts", b"whole")

    delivery = await anext(following)

    assert 1 == delivery.position.offset


async def test_a_camera_that_appears_later_is_read(
    tmp_path: Path, following: AsyncIterator[Delivery]
) -> None:
    await write(tmp_path, a_chunk("door", 0))
    await anext(following)
    await write(tmp_path, a_chunk("yard", 0))

    delivery = await anext(following)

    assert "yard" == delivery.camera


async def test_a_producer_that_starts_again_numbers_on(tmp_path: Path) -> None:
    await write(tmp_path, a_chunk("door", 0), an_end("door", 1))
    await write(tmp_path, a_chunk("door", 0, run="run-2"))

    deliveries = await read_all(tmp_path)

    assert [0, 1, 2] == [d.position.offset for d in deliveries]
    assert ["run-1", "run-1", "run-2"] == [d.chunk.run for d in deliveries if d.chunk]


async def test_what_a_producer_writes_is_plain_to_see(tmp_path: Path) -> None:
    await write(tmp_path, a_chunk("door", 0), content_type="video/mp2t")
    await write(tmp_path, an_end("door", 1))

    names = sorted(path.name for path in (tmp_path / "door").iterdir())
    assert ["0000000000.json", "0000000000.ts", "0000000001.end", "0000000001.json"] == names
    headers = json.loads((tmp_path / "door" / "0000000000.json").read_text())
    assert "video/mp2t" == headers["content-type"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "nul\0"])
async def test_a_camera_that_cannot_name_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a folder"):
        await write(tmp_path, a_chunk(name))


async def test_positions_are_kept_where_asked(tmp_path: Path) -> None:
    put(tmp_path / "in" / "door" / "1.mp4")
    settings = DirectorySourceSettings(tmp_path / "in", positions=tmp_path / "state")
    source = DirectoryChunkSource(settings)
    await source.start(Owner())
    put(tmp_path / "in" / "door" / "2.mp4")
    await anext(source.deliveries())
    source.reached("door", 2)
    await source.close()

    assert "1\n" == (tmp_path / "state" / "door").read_text()


@pytest.mark.parametrize(
    ("reached", "position"), [([5], "4\n"), ([2, 5, 3], "4\n"), ([1], None), ([0], None)]
)
async def test_a_position_never_goes_back_and_names_the_last_that_is_done(
    tmp_path: Path, reached: list[int], position: str | None
) -> None:
    put(tmp_path / "door" / "1.mp4")
    put(tmp_path / ".positions" / "door", b"0")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, follow=False))
    await source.start(Owner())
    await anext(source.deliveries())
    for next_offset in reached:
        source.reached("door", next_offset)
    await source.close()

    assert (position or "0") == (tmp_path / ".positions" / "door").read_text()


async def test_a_camera_is_taken_with_what_was_done_before_a_journal_knew(
    tmp_path: Path,
) -> None:
    for number in range(1, 6):
        put(tmp_path / "door" / f"{number}.mp4")
        put(tmp_path / "yard" / f"{number}.mp4")
    put(tmp_path / ".positions" / "door", b"3\n")
    owner = Owner({"yard": 2})

    deliveries = await read_all(tmp_path, owner)

    assert {"door": 4, "yard": 0} == {name: first for name, (first, _) in owner.taken.items()}
    assert [("door", 4), ("door", 5), *(("yard", n) for n in range(2, 6))] == sorted(
        (d.camera, d.position.offset) for d in deliveries
    )


async def test_an_owner_may_begin_before_the_position(tmp_path: Path) -> None:
    """For the sake of frames that are needed again; the position stays."""
    for number in range(1, 6):
        put(tmp_path / "door" / f"{number}.mp4")
    put(tmp_path / ".positions" / "door", b"3\n")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, follow=False))
    await source.start(Owner({"door": 2}))
    deliveries = [delivery async for delivery in source.deliveries()]
    source.reached("door", 3)
    await source.close()

    assert [2, 3, 4, 5] == [d.position.offset for d in deliveries]
    assert "3\n" == (tmp_path / ".positions" / "door").read_text()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; make it"):
        await read_all(tmp_path / "nowhere")


@pytest.mark.parametrize("position", [b"", b"one", b"\xff", b"-1", b"9" * 30])
async def test_a_position_that_is_no_number_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, position: bytes
) -> None:
    put(tmp_path / "door" / "1.mp4")
    put(tmp_path / ".positions" / "door", position)

    assert [1] == [d.position.offset for d in await read_all(tmp_path)]
    assert "positions/door: holds no number" in caplog.text


async def test_a_folder_whose_name_is_no_text_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / os.fsdecode(b"d\xff") / "1.mp4")
    put(tmp_path / "yard" / "1.mp4")

    assert ["yard"] == [d.camera for d in await read_all(tmp_path)]
    assert "not UTF-8" in caplog.text


async def test_a_folder_that_cannot_be_listed_stops_no_other_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "door").symlink_to("too long" * 100)
    settings = DirectorySourceSettings(tmp_path, poll_interval_s=0)
    source = DirectoryChunkSource(settings)
    await source.start(Owner())
    stream = source.deliveries()
    for sequence in range(3):  # found by at least three scans
        await write(tmp_path, a_chunk("yard", sequence))
        assert sequence == (await anext(stream)).position.offset
    await source.close()

    assert 1 == caplog.text.count("/'door' is left out")


async def test_a_folder_that_becomes_a_file_stops_no_other(tmp_path: Path) -> None:
    for number in (1, 2):
        put(tmp_path / "door" / f"{number}.mp4")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, follow=False))
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)
    shutil.rmtree(tmp_path / "door")
    put(tmp_path / "door")
    put(tmp_path / "yard" / "1.mp4")
    await source._look(0.0)

    assert ["yard"] == [delivery.camera async for delivery in stream]


async def test_a_root_that_is_removed_is_waited_for(tmp_path: Path) -> None:
    root, clock = tmp_path / "chunks", SetClock()
    outages = Outages(clock=clock)
    source = DirectoryChunkSource(DirectorySourceSettings(root, poll_interval_s=0), outages)
    await write(root, a_chunk("door", 0))
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)
    root.rename(tmp_path / "away")
    coming = asyncio.ensure_future(anext(stream))
    await until(lambda: "cannot look for cameras: No such file" in source._root.reason)
    clock.now_s += 10
    assert [str(root)] == [each.what for each in outages.on(Kind.FOLDER)]
    (tmp_path / "away").rename(root)
    await write(root, a_chunk("door", 1))

    assert 1 == (await coming).position.offset
    assert [] == outages.on()
    await source.close()


async def test_a_position_that_cannot_be_written_waits_for_room(tmp_path: Path) -> None:
    clock = SetClock()
    outages = Outages(clock=clock)
    positions = tmp_path / "positions"
    settings = DirectorySourceSettings(tmp_path / "in", positions=positions, poll_interval_s=0)
    await write(tmp_path / "in", a_chunk("door", 0), a_chunk("door", 1))
    source = DirectoryChunkSource(settings, outages)
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)
    shutil.rmtree(positions)
    positions.touch()  # no folder can be made there
    source.reached("door", 1)
    await source._positions.keep()
    clock.now_s += 10
    assert ([str(positions)], False) == ([each.what for each in outages.on()], outages.stop_all)
    assert 1 == (await anext(stream)).position.offset  # nothing waits for it
    positions.unlink()
    await source._positions.keep()

    assert ("0\n", []) == ((positions / "door").read_text(), outages.on())
    await source.close()


@pytest.mark.parametrize("name", ["1.mp4", "1.json"])
async def test_a_pipe_among_the_files_is_refused_by_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / "door" / "1.mp4")
    (tmp_path / "door" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "door" / name)
    put(tmp_path / "door" / "2.mp4")

    bad, good = await read_all(tmp_path)

    assert f"door/{name}: is no regular file" in str(bad.error)
    assert good.chunk is not None


class HungFile:
    """Reading a file hangs until it is let go, as on a dead file server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
        self.let_go = threading.Event()
        self._read, self._part = chunk_files.read_regular, part
        for reads in (chunk_files, positions):
            monkeypatch.setattr(reads, "read_regular", self._wait)

    def _wait(self, path: Path, most_bytes: int) -> bytes:
        if self._part in str(path):
            self.let_go.wait(PATIENCE_S)
        return self._read(path, most_bytes)


async def test_a_file_that_hangs_costs_its_camera_alone_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, clock = HungFile(monkeypatch, "/door/"), SetClock()
    outages = Outages(clock=clock)
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, poll_interval_s=0), outages)
    await write(tmp_path, *(a_chunk("door", n) for n in range(2)))
    await write(tmp_path, *(a_chunk("yard", n) for n in range(5)))
    await source.start(Owner())
    stream = source.deliveries()

    first = [(await anext(stream)).camera for _ in range(5)]
    coming = asyncio.ensure_future(anext(stream))
    clock.now_s += 10
    await until(lambda: bool(outages.on(Kind.FOLDER)))

    assert ["yard"] * 5 == first
    assert [str(tmp_path / "door")] == [each.what for each in outages.on()]
    assert not outages.stop_all
    hung.let_go.set()
    assert ("door", 0) == ((late := await coming).camera, late.position.offset)
    assert ("door", 1) == ((late := await anext(stream)).camera, late.position.offset)
    assert [] == outages.on()
    await source.close()


async def test_a_camera_whose_file_hangs_is_not_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its time does not count, and it is not silent."""
    hung = HungFile(monkeypatch, "door/0000000001")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, poll_interval_s=0))
    await write(tmp_path, *(a_chunk("door", n) for n in range(2)))
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)
    coming = asyncio.ensure_future(anext(stream))
    await until(lambda: "door" in source._hanging)

    assert not source.is_caught_up("door")
    hung.let_go.set()
    await coming
    assert source.is_caught_up("door")
    await source.close()


async def test_a_camera_is_not_caught_up_while_its_folder_cannot_be_looked_for(
    tmp_path: Path,
) -> None:
    root, away = tmp_path / "chunks", tmp_path / "away"
    source = DirectoryChunkSource(DirectorySourceSettings(root, poll_interval_s=0))
    await write(root, a_chunk("door", 0))
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)
    assert source.is_caught_up("door")
    root.rename(away)
    coming = asyncio.ensure_future(anext(stream))
    await until(lambda: not source.is_caught_up("door"))
    assert source.is_blind("door")
    away.rename(root)
    await until(lambda: source.is_caught_up("door"))
    assert not source.is_blind("door")
    await write(root, a_chunk("door", 1))

    assert 1 == (await coming).position.offset
    await source.close()


class SlowOwner(Owner):
    """Cannot say where one partition begins until it is let go, as one whose journal hangs."""

    def __init__(self, partition: str) -> None:
        super().__init__()
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()
        self._partition = partition

    @override
    async def take(self, partition: str, **told: Any) -> int:
        if partition == self._partition:
            self.asked.set()
            await self.let_go.wait()
        return await super().take(partition, **told)


async def test_while_a_new_camera_cannot_be_taken_the_others_are_not_caught_up(
    tmp_path: Path,
) -> None:
    """For nobody looks for their chunks then, and none of them may be called silent."""
    clock, owner = SetClock(), SlowOwner("yard")
    settings = DirectorySourceSettings(tmp_path, poll_interval_s=0)
    source = DirectoryChunkSource(settings, clock=clock)
    await write(tmp_path, a_chunk("door", 0))
    await source.start(owner)
    stream = source.deliveries()
    await anext(stream)
    assert source.is_caught_up("door")

    await write(tmp_path, a_chunk("yard", 0))
    coming = asyncio.ensure_future(anext(stream))
    await owner.asked.wait()
    await write(tmp_path, a_chunk("door", 1))
    clock.now_s += 60.0
    assert not source.is_caught_up("door")
    owner.let_go.set()

    come = [await coming, await anext(stream)]
    assert [("door", 1), ("yard", 0)] == sorted((one.camera, one.position.offset) for one in come)
    ending = asyncio.ensure_future(anext(stream, None))
    await until(lambda: source.is_caught_up("door"))
    await source.close()
    await ending


async def test_a_folder_that_hangs_costs_its_camera_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages = Outages()
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, poll_interval_s=0), outages)
    await write(tmp_path, *(a_chunk("door", n) for n in range(2)))
    await write(tmp_path, *(a_chunk("yard", n) for n in range(2)))
    put(tmp_path / ".positions" / "door", b"0")
    hung = HungFile(monkeypatch, ".positions/door")
    await source.start(Owner())
    stream = source.deliveries()

    assert ["yard", "yard"] == [(await anext(stream)).camera for _ in range(2)]
    coming = asyncio.ensure_future(anext(stream))
    await until(lambda: "door" in source._hanging)
    hung.let_go.set()
    assert ("door", 1) == ((late := await coming).camera, late.position.offset)
    assert {} == source._hanging
    await source.close()


async def test_the_longest_name_a_folder_can_have_keeps_its_position(tmp_path: Path) -> None:
    name = "d" * 255
    put(tmp_path / name / "1.mp4")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, follow=False))
    await source.start(Owner())
    await anext(source.deliveries())

    source.reached(name, 2)
    await source.close()

    assert "1\n" == (tmp_path / ".positions" / name).read_text()


async def test_names_with_too_many_digits_are_explained_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        put(tmp_path / "door" / f"2026-01-31T09-30-00.123456-{number}.mp4")

    assert [] == await read_all(tmp_path)
    assert 1 == caplog.text.count("too many digits")
    assert "at most 18 digits" in caplog.text


async def test_a_folder_without_news_is_not_listed_again(tmp_path: Path) -> None:
    put(tmp_path / "door" / "1.mp4")
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, settle_s=1.0))
    await source.start(Owner())
    listed = [await listings(source, now_s) for now_s in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)]
    put(tmp_path / "door" / "2.mp4")
    os.utime(tmp_path / "door", ns=(0, 0))

    # While the foreign file may grow, until it is taken, and no more.
    assert [True, True, True, False, False, False] == listed
    assert await listings(source, 3.5)
    await source.close()


async def test_a_folder_whose_clock_stands_still_is_listed_now_and_then(tmp_path: Path) -> None:
    await write(tmp_path, a_chunk("door", 0))
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path))
    await source.start(Owner())
    for now_s in (0.0, 0.5, 1.0):
        await source._look(now_s)
    mtime_ns = (tmp_path / "door").stat().st_mtime_ns
    for suffix in (".json", ".mp4"):  # its number cannot be foreseen
        put(tmp_path / "door" / f"0000000009{suffix}")
    os.utime(tmp_path / "door", ns=(mtime_ns, mtime_ns))

    await source._look(2.0)
    assert 1 == len(source._cameras["door"].pending)
    await source._look(60.0)
    assert 2 == len(source._cameras["door"].pending)


async def listings(source: DirectoryChunkSource, now_s: float) -> bool:
    """Does a scan at ``now_s`` list the camera's folder?"""
    await source._look(now_s)
    return source._cameras["door"].folder.n_listed > 0


async def test_a_producer_numbers_on_from_what_was_read_and_removed(tmp_path: Path) -> None:
    await write(tmp_path, a_chunk("door", 0), a_chunk("door", 1))
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path))
    await source.start(Owner())
    stream = source.deliveries()
    for _ in range(2):
        await anext(stream)
    source.reached("door", 2)
    await source._look(0.0)
    for path in (tmp_path / "door").iterdir():
        path.unlink()

    await write(tmp_path, a_chunk("door", 2))

    assert 2 == (await anext(stream)).position.offset
    await source.close()
    assert [2] == [d.position.offset for d in await read_all_again(tmp_path)]


async def read_all_again(root: Path) -> list[Delivery]:
    return await read_all(root, positions=root / "others")


async def test_two_producers_of_one_camera_lose_nothing(tmp_path: Path) -> None:
    one, other = DirectoryChunkWriter(tmp_path), DirectoryChunkWriter(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        for sequence in range(20):
            for writer, run in ((one, "one"), (other, "other")):
                chunk = a_chunk("door", sequence, run=run)
                tasks.create_task(writer.write(chunk, ChunkFacts()))

    deliveries = await read_all(tmp_path)

    assert list(range(40)) == [d.position.offset for d in deliveries]
    written = {(e, n) for e in ("one", "other") for n in range(20)}
    assert written == {(d.chunk.run, d.chunk.sequence) for d in deliveries if d.chunk}


async def test_a_producer_never_replaces_a_foreign_file(tmp_path: Path) -> None:
    writer = DirectoryChunkWriter(tmp_path)
    await writer.write(a_chunk("door", 0), ChunkFacts())
    put(tmp_path / "door" / "0000000001.mp4", b"foreign")

    await writer.write(a_chunk("door", 1), ChunkFacts())

    foreign, ours = (await read_all(tmp_path))[1:]
    assert foreign.chunk is not None
    assert b"foreign" == foreign.chunk.payload
    assert a_chunk("door", 1) == ours.chunk


async def test_a_disk_that_takes_nothing_is_named(tmp_path: Path) -> None:
    put(tmp_path / "door")

    with pytest.raises(TransportError, match="cannot write a chunk of door"):
        await write(tmp_path, a_chunk("door"))


async def test_a_full_disk_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _payload: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TransportError, match="No space left on device; free some") as caught:
        await write(tmp_path, a_chunk("door"))

    assert str(tmp_path) in str(caught.value)
    monkeypatch.undo()
    assert [] == list((tmp_path / "door").iterdir())
