"""What is new in a folder is found at a cost that does not rise with what lies there."""

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.sources import directory
from daemon.sources.chunk_files import NamePattern, identified
from daemon.sources.chunk_folder import ChunkFolder
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings, Watcher
from daemon.wire.facts import ChunkFacts
from tests.support.owner import Owner
from tests.support.records import a_chunk

CAMERAS = ("door", "yard", "gate")
N_SECONDS = 20


def lay(folder: Path, names: Iterator[str] | list[str]) -> None:
    """Empty files, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def own(first: int, end: int) -> Iterator[str]:
    for number in range(first, end):
        yield f"{number:010d}.json"
        yield f"{number:010d}.mp4"


def foreign(first: int, end: int) -> Iterator[str]:
    return (f"clip-{number}.ts" for number in range(first, end))


def timed(first: int, end: int) -> Iterator[str]:
    """Named by the time of day, in steps of 7."""
    return (f"rec_{20260131090000 + 7 * number}.ts" for number in range(first, end))


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the file system is asked: files, listings, and entries that these go through."""
    asked: Counter[str] = Counter()
    stat, scandir = os.stat, os.scandir

    def counting_stat(*args, **kwargs):  # type: ignore[no-untyped-def]
        asked["files"] += 1
        return stat(*args, **kwargs)

    @contextlib.contextmanager
    def counting_scandir(path):  # type: ignore[no-untyped-def]
        asked["listings"] += 1
        with scandir(path) as entries:
            yield _counting(entries, asked)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", counting_stat)
        patched.setattr(os, "scandir", counting_scandir)
        yield asked


def _counting(entries: Iterator[os.DirEntry[str]], asked: Counter[str]) -> Iterator[object]:
    for entry in entries:
        asked["entries"] += 1
        yield entry


async def asked_in_20_s(
    root: Path, n_before: int, names: object, monkeypatch: pytest.MonkeyPatch
) -> Counter[str]:
    """What five looks a second ask for, while each camera gets one more chunk a second."""
    for camera in CAMERAS:
        lay(root / camera, names(0, n_before))  # type: ignore[operator]
        (root / ".positions").mkdir(exist_ok=True)
    # The last one is read again, so that the source has seen how files are named.
    owner = Owner(dict.fromkeys(CAMERAS, _number(next(names(n_before - 1, n_before)))))  # type: ignore[operator]
    source = DirectoryChunkSource(DirectorySourceSettings(root, settle_s=0.0))
    await source.start(owner)
    await source._look(0.0)
    n_found = 0
    with counted(monkeypatch) as asked:
        for second in range(1, N_SECONDS + 1):
            for camera in CAMERAS:
                lay(root / camera, names(n_before + second - 1, n_before + second))  # type: ignore[operator]
            for look in range(5):
                await source._look(second + look / 5)
            n_found += sum(len(source._cameras[camera].pending) for camera in CAMERAS)
            for camera in CAMERAS:
                source._cameras[camera].pending.clear()
    await source.close()
    assert n_found == (N_SECONDS + 1) * len(CAMERAS)
    return asked


def _number(name: str) -> int:
    return int("".join(c for c in name.partition(".")[0] if c.isdigit()))


@pytest.mark.parametrize("names", [own, foreign])
async def test_a_look_costs_the_same_however_many_files_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: object
) -> None:
    few = await asked_in_20_s(tmp_path / "few", 50, names, monkeypatch)
    many = await asked_in_20_s(tmp_path / "many", 2000, names, monkeypatch)

    assert many["files"] <= few["files"] <= 10 * len(CAMERAS) * 5 * N_SECONDS
    # The folder of cameras at every look, and a camera's own now and then: in two passes, after
    # 5 s that so few files need.
    assert many["listings"] <= few["listings"] <= 5 * N_SECONDS + 2 * len(CAMERAS) * N_SECONDS / 5


@pytest.mark.parametrize(("n_files", "every_s"), [(100, 5), (4000, 8), (6000, 12)])
def test_without_a_sign_of_news_a_folder_is_listed_less_often_the_larger_it_is(
    tmp_path: Path, n_files: int, every_s: int
) -> None:
    folder = a_folder(tmp_path, timed(0, n_files))
    listed_s = []
    for now_s in range(40):
        folder.look(now_s, 1, may_list=True)
        if folder.n_listed:
            listed_s.append(now_s)

    *_, before_s, last_s = listed_s
    assert every_s <= last_s - before_s <= every_s + 1


async def test_names_that_cannot_be_foreseen_are_listed_less_often_the_more_there_are(
    tmp_path: Path,
) -> None:
    n_gone_through = []
    for n_before in (2000, 8000):
        folder = a_folder(tmp_path / str(n_before), timed(0, n_before))
        assert n_before == len(folder.look(0.0, 1, may_list=True)) + folder.n_left
        n_entries = 0
        for look in range(1, 101):  # 20 s, with a new file at every look
            lay(folder.path, timed(n_before + look, n_before + look + 1))
            folder.look(look / 5, 1, may_list=True)
            n_entries += folder.n_listed
        n_gone_through.append(n_entries)

    few, many = n_gone_through
    assert 0 < many < 1.5 * few


def a_folder(
    path: Path, names: Iterator[str] | list[str], next_number: int = 0, **other: object
) -> ChunkFolder:
    lay(path, names)
    settings: dict[str, object] = {
        "identity": identified(path),
        "follow": True,
        "settle_s": 0.0,
        "on_too_long": lambda: None,
    }
    return ChunkFolder(path, next_number, **{**settings, **other})  # type: ignore[arg-type]


def numbers(folder: ChunkFolder, now_s: float) -> list[int]:
    return [found.number for found in folder.look(now_s, 100, may_list=True)]


@pytest.mark.parametrize(
    ("there", "new"),
    [
        (["0000000000.json", "0000000000.mp4"], ["0000000001.json", "0000000001.ts"]),
        (["0000000000.json", "0000000000.mp4"], ["0000000001.json", "0000000001.end"]),
        (["0000000000.json", "0000000000.bin"], ["0000000001.json", "0000000001.mjpeg"]),
        (["clip-0.ts"], ["clip-1.ts"]),
        (["00-cam.mp4"], ["01-cam.mp4"]),
        (["0"], ["1"]),
        (["clip-9.ts"], ["clip-10.ts"]),
        (["007.ts"], ["008.ts"]),
    ],
)
def test_the_next_file_is_found_without_a_listing(
    tmp_path: Path, there: list[str], new: list[str]
) -> None:
    folder = a_folder(tmp_path, there)
    first = numbers(folder, 0.0)
    lay(tmp_path, new)

    second = numbers(folder, 0.01)

    assert [first[0] + 1] == second
    assert 0 == folder.n_listed


@pytest.mark.parametrize(
    "new",
    [
        ["0000000007.json", "0000000007.mp4"],  # a gap
        ["b-3.ts"],  # another pattern
        ["2026-01-31-3.ts"],  # several groups of digits
        ["3.mp4"],
    ],
)
def test_what_cannot_be_foreseen_is_found_by_a_listing(tmp_path: Path, new: list[str]) -> None:
    folder = a_folder(tmp_path, own(0, 1))
    assert [0] == numbers(folder, 0.0)
    lay(tmp_path, new)

    assert [_number(new[0])] == numbers(folder, 1.0)


def test_a_foreseen_file_that_grows_is_left_until_it_stands_still(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, ["clip-0.ts"], settle_s=2.0)
    found = [numbers(folder, now_s) for now_s in (0.0, 1.0, 2.0)]
    lay(tmp_path, ["clip-1.ts"])
    found.append(numbers(folder, 3.0))
    (tmp_path / "clip-1.ts").write_bytes(b"more")
    found.append(numbers(folder, 5.0))
    found.append(numbers(folder, 7.0))

    assert [[], [], [0], [], [], [1]] == found


def test_a_foreseen_file_is_whole_once_a_later_one_is_there(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, ["clip-0.ts", "clip-1.ts"], settle_s=1000.0)
    assert [0] == numbers(folder, 0.0)
    lay(tmp_path, ["clip-2.ts"])

    assert [1] == numbers(folder, 1.0)


def test_a_sidecar_alone_is_waited_for_and_passed_if_its_writer_died(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, [*own(0, 1), "0000000001.json"])
    assert [0] == numbers(folder, 0.0)
    assert [] == numbers(folder, 1.0)
    lay(tmp_path, own(2, 3))

    assert [2] == numbers(folder, 2.0)
    assert 0 == folder.n_listed


def test_a_large_backlog_is_taken_in_parts(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, timed(0, 9000))
    now_s, found = 0.0, []
    while folder.n_left or not found:
        part = numbers(folder, now_s)
        assert len(part) <= 8192
        found += part
        now_s += 1.0

    assert [_number(name) for name in timed(0, 9000)] == found


@pytest.mark.parametrize(
    ("there", "late"),
    [(list(own(5, 6)), ["0000000003.mp4"]), (["clip-5.ts"], ["clip-3.ts", "clip-4.ts"])],
)
def test_files_that_come_too_late_are_counted(
    tmp_path: Path, there: list[str], late: list[str]
) -> None:
    folder = a_folder(tmp_path, there)
    assert [5] == numbers(folder, 0.0)
    lay(tmp_path, late)

    assert [] == numbers(folder, 1.0)
    assert len(late) == folder.n_passed_over
    lay(tmp_path, ["6.ts"])
    assert [6] == numbers(folder, 2.0)
    numbers(folder, 60.0)
    assert len(late) == folder.n_passed_over


async def test_what_is_passed_over_is_told_once(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    watcher = Watcher(on_passed_over=lambda camera, n_files: told.append((camera, n_files)))
    lay(tmp_path / "door", ["clip-5.ts"])
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, settle_s=0.0), watcher=watcher)
    await source.start(Owner())
    await source._look(0.0)
    lay(tmp_path / "door", ["clip-3.ts"])
    for now_s in (1.0, 2.0, 3.0):
        await source._look(now_s)
    await source.close()

    assert [("door", 1)] == told


async def test_a_folder_of_many_files_does_not_make_the_others_wait_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LONG_LISTING_ENTRIES", 2000)
    for camera in CAMERAS:
        lay(tmp_path / camera, timed(0, 1001))
    source = DirectoryChunkSource(DirectorySourceSettings(tmp_path, settle_s=0.0))
    await source.start(Owner())
    listed = []
    for now_s in (0.0, 0.1, 0.2):
        await source._look(now_s)
        listed += [name for name in CAMERAS if source._cameras[name].folder.n_listed]
        for name in CAMERAS:
            source._cameras[name].pending.clear()
    await source.close()

    assert sorted(CAMERAS) == sorted(listed)


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_folder_made_anew_is_taken_by_another_name_and_read_from_its_oldest(
    tmp_path: Path, *, is_running: bool
) -> None:
    lay(tmp_path / "door", own(0, 5))
    owner = Owner()
    source = await a_source(tmp_path, owner)
    before = owner.taken["door"][1]
    assert 5 == len(source._cameras["door"].pending)
    source.reached("door", 5)
    if not is_running:
        await source.close()
    shutil.rmtree(tmp_path / "door")
    lay(tmp_path / "door", own(0, 2))
    if not is_running:
        shutil.rmtree(tmp_path / ".positions")
        source = await a_source(tmp_path, owner)
    await source._look(1.0)

    first, after = owner.taken["door"]
    assert 0 == first
    assert before != after
    assert [0, 1] == [found.number for found in source._cameras["door"].pending]
    await source.close()


async def a_source(root: Path, owner: Owner) -> DirectoryChunkSource:
    source = DirectoryChunkSource(DirectorySourceSettings(root))
    await source.start(owner)
    await source._look(0.0)
    return source


async def test_a_folder_keeps_its_identity_when_it_moves(tmp_path: Path) -> None:
    lay(tmp_path / "one" / "door", own(0, 1))
    owners = Owner(), Owner()
    await (await a_source(tmp_path / "one", owners[0])).close()
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    await (await a_source(tmp_path / "other", owners[1])).close()

    before, after = (owner.taken["door"][1] for owner in owners)
    assert before == after != ""


async def test_a_folder_that_cannot_be_marked_is_read_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay(tmp_path / "door", own(0, 1))
    (tmp_path / "door" / ".identity").mkdir()
    owner = Owner()

    source = await a_source(tmp_path, owner)
    await source.close()

    assert (0, "") == owner.taken["door"]
    assert 1 == len(source._cameras["door"].pending)
    assert "/'door' cannot be marked" in caplog.text


def test_an_identity_that_cannot_be_read_now_makes_no_folder_anew(tmp_path: Path) -> None:
    """As on a file server that fails for a moment."""
    folder = a_folder(tmp_path, own(0, 1))
    assert [0] == numbers(folder, 0.0)
    marked = (tmp_path / ".identity").rename(tmp_path / ".elsewhere")
    (tmp_path / ".identity").mkdir()
    with pytest.raises(IsADirectoryError):
        folder.look(1.0, 1, may_list=True)
    (tmp_path / ".identity").rmdir()
    marked.rename(tmp_path / ".identity")
    lay(tmp_path, own(1, 2))

    assert [1] == numbers(folder, 2.0)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("clip-09.ts", NamePattern("clip-", 2, ".ts")),
        ("7", NamePattern("", 1, "")),
        ("cam 12 b.mp4", NamePattern("cam ", 2, " b.mp4")),
        ("2026-01-31.mp4", None),
        ("clip.mp4", None),
    ],
)
def test_a_pattern_is_what_stands_around_one_number(
    name: str, pattern: NamePattern | None
) -> None:
    assert pattern == NamePattern.of(name)
    assert pattern is None or name == pattern.name(_number(name))


async def test_a_writer_goes_on_by_names_that_are_foreseen(tmp_path: Path) -> None:
    writer = DirectoryChunkWriter(tmp_path)
    await writer.start()
    await writer.write(a_chunk("door", 0), ChunkFacts("video/mp4"))
    source = await a_source(tmp_path, Owner())
    for content_type in ("video/mp2t", "image/jpeg", "unheard/of"):
        await writer.write(a_chunk("door", 1), ChunkFacts(content_type))
        await source._look(0.0)
        assert 0 == source._cameras["door"].folder.n_listed
    await source.close()

    assert 4 == len(source._cameras["door"].pending)
