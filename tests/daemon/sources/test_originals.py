"""A delivery of a folder brings its record as it lay there, for whoever must look into it."""

from pathlib import Path

from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.sources.base import Delivery
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.wire.facts import ChunkFacts
from tests.support.records import a_chunk


class FromTheStart:
    """Owns every partition, and knows nothing of any."""

    async def take(self, partition: str, *, fallback: int, oldest: int = 0, **more: object) -> int:
        assert (partition, oldest) == (partition, 0), more
        return fallback

    async def hold(self, partition: str) -> None:
        raise AssertionError(partition)

    async def give_back(self, partition: str) -> None:
        raise AssertionError(partition)


async def deliveries(folder: Path) -> list[Delivery]:
    source = DirectoryChunkSource(DirectorySourceSettings(folder, follow=False))
    await source.start(FromTheStart())
    found = [each async for each in source.deliveries()]
    await source.close()
    return found


async def write(folder: Path, *numbers: int) -> None:
    writer = DirectoryChunkWriter(folder)
    await writer.start()
    for number in numbers:
        await writer.write(a_chunk(sequence=number), ChunkFacts())
    await writer.close()


async def test_a_chunk_brings_key_and_headers(tmp_path: Path) -> None:
    await write(tmp_path, 0)

    (delivery,) = await deliveries(tmp_path)

    assert b"door" == delivery.key
    assert b"run-1" == dict(delivery.headers)["vc_epoch"]
    assert a_chunk().payload == delivery.own_bytes


async def test_a_bad_record_does_so_too(tmp_path: Path) -> None:
    await write(tmp_path, 0)
    (path,) = (tmp_path / "door").glob("*.mp4")
    path.write_bytes(b"not what was sent")

    (delivery,) = await deliveries(tmp_path)

    assert delivery.error is not None
    assert (b"door", b"not what was sent") == (delivery.key, delivery.own_bytes)
    assert b"run-1" == dict(delivery.headers)["vc_epoch"]


async def test_a_broken_sidecar_has_no_headers_to_bring(tmp_path: Path) -> None:
    await write(tmp_path, 0)
    (sidecar,) = (tmp_path / "door").glob("*.json")
    sidecar.write_text("{")

    (delivery,) = await deliveries(tmp_path)

    assert delivery.error is not None
    assert () == delivery.headers
    assert a_chunk().payload == delivery.own_bytes


async def test_what_waits_in_a_folder_is_counted(tmp_path: Path) -> None:
    await write(tmp_path, 0, 1, 2)
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, follow=False))
    await source.start(FromTheStart())

    before = source.n_behind("door")
    behind = [source.n_behind("door") async for _ in source.deliveries()]

    assert (None, [2, 1, 0]) == (before, behind)
    await source.close()


async def test_what_waits_in_a_log_is_counted() -> None:
    log = MemoryLog()
    for number in range(3):
        log.append("p", a_chunk(sequence=number))
    log.finish()
    source = MemoryChunkSource(log)
    await source.start(FromTheStart())

    behind = [source.n_behind("p") async for _ in source.deliveries()]

    assert [2, 1, 0] == behind
    assert 0 == source.n_behind("other")
