"""What is done goes in time; what is not, and what a restart may need, stays."""

import asyncio
import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from daemon.sources.chunk_folder import Found
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings, Watcher
from daemon.sources.retention import KEPT_ANYWAY, Removed, Retention, RetentionLimits
from tests.support.owner import Owner

NOW_S = 1_800_000_000.0
N = KEPT_ANYWAY + 10


class Clock:
    """Stands still."""

    def monotonic_s(self) -> float:
        return 0.0

    def unix_us(self) -> int:
        return int(NOW_S * 1e6)


def lay(folder: Path, numbers: range, *, n_bytes: int = 10, age_s: float = 0.0) -> None:
    """Chunks with sidecars, each pair of ``n_bytes`` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for suffix, size in ((".json", 2), (".mp4", n_bytes - 2)):
            path = folder / f"{number:010d}{suffix}"
            path.write_bytes(b"{}" + bytes(size - 2))
            os.utime(path, (NOW_S - age_s, NOW_S - age_s))


def left(folder: Path) -> list[int]:
    """The numbers of whole pairs; a file without the other is an error."""
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    stems = [name.partition(".")[0] for name in names]
    assert stems[::2] == stems[1::2]
    return [int(stem) for stem in stems[::2]]


def sweep(retention: Retention, done_below: int, now_s: float = 0.0) -> Removed:
    return retention.sweep(done_below, now_s=now_s, unix_s=NOW_S)


def test_done_chunks_that_are_old_go_and_the_newest_stay(tmp_path: Path) -> None:
    lay(tmp_path, range(N), age_s=1000)
    retention = Retention(tmp_path, RetentionLimits(most_s=900))

    removed = sweep(retention, N)

    assert Removed(10, 100) == removed
    assert list(range(10, N)) == left(tmp_path)


def test_what_is_young_stays(tmp_path: Path) -> None:
    lay(tmp_path, range(5), age_s=1000)
    lay(tmp_path, range(5, N), age_s=800)

    assert Removed(5, 50) == sweep(Retention(tmp_path, RetentionLimits(most_s=900)), N)


@pytest.mark.parametrize(("done_below", "n_removed"), [(0, 0), (KEPT_ANYWAY, 0), (N - 4, 6)])
def test_what_is_not_done_stays_however_old_and_large(
    tmp_path: Path, done_below: int, n_removed: int
) -> None:
    lay(tmp_path, range(N), age_s=10**6)
    retention = Retention(tmp_path, RetentionLimits(most_s=60, most_bytes=1))

    assert n_removed == sweep(retention, done_below).n_chunks
    assert list(range(n_removed, N)) == left(tmp_path)


def test_a_camera_keeps_the_newest_bytes_that_are_done(tmp_path: Path) -> None:
    lay(tmp_path, range(2 * N))
    retention = Retention(tmp_path, RetentionLimits(most_bytes=10 * (N + 3)))

    assert N - 3 == sweep(retention, 2 * N).n_chunks
    assert list(range(N - 3, 2 * N)) == left(tmp_path)


def test_bytes_of_what_gets_done_are_counted_once_without_a_listing(tmp_path: Path) -> None:
    lay(tmp_path, range(N))
    retention = Retention(tmp_path, RetentionLimits(most_bytes=10 * N))
    assert 0 == sweep(retention, N).n_chunks
    for number in range(N, N + 5):
        lay(tmp_path, range(number, number + 1))
        retention.deliver(Found(number, f"{number:010d}.mp4"))

        assert 0 == sweep(retention, number).n_chunks - (number > N)
    assert 1 == sweep(retention, N + 5).n_chunks
    assert list(range(5, N + 5)) == left(tmp_path)


def test_more_files_than_a_listing_notes_go_in_several(tmp_path: Path) -> None:
    n_chunks = 4096 + 20
    lay(tmp_path, range(n_chunks + KEPT_ANYWAY), n_bytes=4, age_s=1000)
    retention = Retention(tmp_path, RetentionLimits(most_s=900))

    removed = [
        sweep(retention, n_chunks + KEPT_ANYWAY, now_s).n_chunks for now_s in (0.0, 1.0, 100.0)
    ]

    assert [4096, 0, 20] == removed


def test_foreign_files_go_too_and_nothing_else(tmp_path: Path) -> None:
    for number in range(N):
        path = tmp_path / f"clip-{number}.ts"
        path.touch()
        os.utime(path, (0, 0))
    for other in ("notes.txt", ".identity"):
        (tmp_path / other).touch()

    sweep(Retention(tmp_path, RetentionLimits(most_s=900)), N)

    names = {path.name for path in tmp_path.iterdir()}
    assert {"notes.txt", ".identity", *(f"clip-{n}.ts" for n in range(10, N))} == names


def test_a_file_that_somebody_else_removed_stops_nothing(tmp_path: Path) -> None:
    lay(tmp_path, range(N), age_s=1000)
    retention = Retention(tmp_path, RetentionLimits(most_s=1100))
    sweep(retention, N)
    for path in tmp_path.glob("000000000[0-4].*"):
        path.unlink()

    late = retention.sweep(N, now_s=1.0, unix_s=NOW_S + 200)

    assert Removed(5, 50) == late


def test_a_file_that_cannot_be_removed_is_named_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay(tmp_path, range(N), age_s=1000)
    (tmp_path / "0000000003.mp4").unlink()
    (tmp_path / "0000000003.mp4").mkdir()
    os.utime(tmp_path / "0000000003.mp4", (0, 0))
    retention = Retention(tmp_path, RetentionLimits(most_s=900))

    assert [3, 0] == [sweep(retention, N, now_s).n_chunks for now_s in (0.0, 1.0)]
    (tmp_path / "0000000003.mp4").rmdir()
    assert 6 == sweep(retention, N, 2.0).n_chunks
    assert 1 == caplog.text.count("cannot remove old chunks")


def test_without_limits_a_folder_is_not_even_looked_at(tmp_path: Path) -> None:
    assert Removed() == sweep(Retention(tmp_path / "nowhere", RetentionLimits()), 10**6)


async def test_a_source_removes_what_it_was_told_is_done_and_tells_of_it(tmp_path: Path) -> None:
    told: list[Mapping[str, Removed]] = []
    for camera in ("door", "yard"):
        lay(tmp_path / camera, range(N), age_s=1000)
    settings = DirectorySourceSettings(tmp_path, poll_interval_s=0.01, retention_s=900)
    source = DirectoryChunkSource(settings, watcher=Watcher(on_removed=told.append), clock=Clock())
    await source.start(Owner())
    source._sweep_at_s = math.inf
    stream = source.deliveries()
    for _ in range(2 * N):
        await anext(stream)
    source.reached("door", N)

    source._sweep(asyncio.get_running_loop().time())
    assert not told
    source._sweep_at_s = 0.0
    source._sweep(asyncio.get_running_loop().time())
    await source.close()

    assert [{"door": Removed(10, 100)}] == told
    assert list(range(10, N)) == left(tmp_path / "door")
    assert list(range(N)) == left(tmp_path / "yard")


async def test_a_restart_removes_what_was_done_before_it(tmp_path: Path) -> None:
    told: list[Mapping[str, Removed]] = []
    lay(tmp_path / "door", range(N), age_s=1000)
    source = DirectoryChunkSource(
        DirectorySourceSettings(tmp_path, retention_s=900),
        watcher=Watcher(on_removed=told.append),
        clock=Clock(),
    )
    await source.start(Owner({"door": N}))
    await source._look(0.0)
    source._sweep(0.0)
    await source.close()

    assert [{"door": Removed(10, 100)}] == told
