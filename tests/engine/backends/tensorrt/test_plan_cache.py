"""A plan from the cache is the very plan that was built for the very same thing, or none."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.tensorrt.gpu_identity import NO_GPU, GpuIdentity
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache, PlanKey, TimingsKey, plans_dir
from engine.backends.tensorrt.plan_file import MAGIC, DamagedFileError
from engine.backends.tensorrt.plan_keys import PlanHeader, read_entry, write_entry
from engine.errors import DeviceError
from tests.support.plan_process import PLAN, a_plan_key
from tests.support.real_parts import missing

KEY = a_plan_key()
TIMINGS = TimingsKey(KEY.tensorrt, KEY.gpu)


@dataclass
class Builder:
    """Builds a plan and counts how often it was asked."""

    plan: bytes = PLAN
    n_builds: int = 0
    notes: list[str] = field(default_factory=list)

    def __call__(self) -> bytes:
        self.n_builds += 1
        return self.plan

    def cache(self, folder: Path) -> PlanCache:
        return PlanCache(folder, on_note=self.notes.append)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "plans"


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.plan")
    return path


def keep_a_plan(folder: Path, key: PlanKey = KEY, plan: bytes = PLAN) -> Path:
    obtained = PlanCache(folder).obtain(key, lambda: plan)
    assert "" == obtained.unsaved
    return folder / key.file_name


def test_a_plan_is_built_once_and_found_again(folder):
    builder = Builder()
    first = builder.cache(folder).obtain(KEY, builder)
    second = builder.cache(folder).obtain(KEY, builder)

    assert Obtained(PLAN, is_from_cache=False, build_s=first.build_s) == first
    assert Obtained(PLAN, is_from_cache=True, build_s=first.build_s) == second
    assert 1 == builder.n_builds
    assert [] == builder.notes


def test_its_folder_and_files_are_its_owners_alone(folder):
    path = keep_a_plan(folder)

    assert 0o700 == folder.stat().st_mode & 0o777
    assert 0o600 == path.stat().st_mode & 0o777
    assert {path.name, f"{path.name}.lock"} == {seen.name for seen in folder.iterdir()}


def test_without_a_folder_plans_lie_in_the_projects_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert tmp_path / "s2netd" / "plans" == plans_dir()
    assert plans_dir() == PlanCache().folder


@pytest.mark.parametrize(
    "other",
    [
        a_plan_key(onnx_sha256="cd" * 32),
        a_plan_key(tensorrt="tensorrt 10.15.1.30"),
        a_plan_key(tensorrt="tensorrt_rtx 10.15.1.29"),
        a_plan_key(gpu=GpuIdentity("NVIDIA L40", "8.9", "13.0")),
        a_plan_key(gpu=GpuIdentity("NVIDIA L4", "9.0", "13.0")),
        a_plan_key(gpu=GpuIdentity("NVIDIA L4", "8.9", "13.1")),
        a_plan_key(gpu=GpuIdentity("NVIDIA L4", "8.9", "13.0, release 580.65.06")),
        a_plan_key(gpu=NO_GPU),
        a_plan_key(precision="f16"),
        a_plan_key(batch_sizes=(1,)),
        a_plan_key(batch_sizes=(1, 4)),
    ],
    ids=lambda key: key.digest()[:6],
)
def test_whatever_differs_it_is_another_plan(folder, other):
    path = keep_a_plan(folder)
    builder = Builder(b"another plan")

    assert b"another plan" == builder.cache(folder).obtain(other, builder).plan
    assert 1 == builder.n_builds

    # nor is it believed under the other's name
    builder = Builder(b"another plan")
    shutil.copyfile(path, folder / other.file_name)
    assert b"another plan" == builder.cache(folder).obtain(other, builder).plan
    assert "it was built for something else" in builder.notes[0]
    assert PLAN == PlanCache(folder).obtain(KEY, Builder()).plan


def write_plan(path: Path, plan: bytes) -> bytes:
    """As the cache would, but the same bytes each time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_entry(path, PlanHeader(KEY, 1000.0, 1.5), plan)
    return path.read_bytes()


@pytest.mark.slow
def test_no_byte_of_a_file_can_change_or_go_without_being_noticed(folder):
    path = folder / KEY.file_name
    whole = write_plan(path, b"a short plan")
    assert b"a short plan" == read_entry(path, PlanHeader)[1]
    flipped = [
        whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :] for at in range(len(whole))
    ]
    cut = [whole[:end] for end in range(len(whole))]

    loaded = []
    for damaged in flipped + cut:
        path.write_bytes(damaged)
        with contextlib.suppress(DamagedFileError):
            loaded.append(read_entry(path, PlanHeader))
    assert [] == loaded


@pytest.mark.slow
@given(st.data())
def test_a_damaged_plan_is_built_again_and_its_damage_told(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("plans")
    path = folder / KEY.file_name
    whole = write_plan(path, PLAN)
    damaged = bytearray(whole)
    if data.draw(st.booleans(), label="cut off"):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(whole) - 1), label="at")
        damaged[at] ^= data.draw(st.integers(1, 255), label="flipped bits")
    path.write_bytes(damaged)
    (entry,) = PlanCache(folder).entries()
    builder = Builder(b"built again")

    assert b"built again" == builder.cache(folder).obtain(KEY, builder).plan
    assert [f"{path} is built again"] == [note.partition(":")[0] for note in builder.notes]
    # what a listing reads is proven too: all but the plan itself
    assert entry.damage or (entry.key == KEY and len(damaged) == len(whole))


def _header(**changes: object) -> Callable[[bytes], bytes]:
    """Rewrite the header, and its digest with it."""

    def tampered(whole: bytes) -> bytes:
        n_header = int.from_bytes(whole[8:12], "little")
        header = json.loads(whole[44 : 44 + n_header])
        return sealed(json.dumps({**header, **changes}).encode(), whole[44 + n_header :])

    return tampered


def _padded(whole: bytes) -> bytes:
    n_header = int.from_bytes(whole[8:12], "little")
    return sealed(whole[44 : 44 + n_header] + b" " * 70_000, whole[44 + n_header :])


def sealed(text: bytes, payload: bytes = PLAN) -> bytes:
    length = len(text).to_bytes(4, "little")
    return MAGIC + length + hashlib.sha256(text).digest() + text + payload


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda _whole: b"", id="empty"),
        pytest.param(lambda whole: whole + b"\0", id="longer"),
        pytest.param(lambda whole: b"S2NPLAN0" + whole[8:], id="of-an-earlier-format"),
        pytest.param(lambda whole: whole[:8] + b"\xff" * 4 + whole[12:], id="endless-header"),
        pytest.param(_padded, id="huge-header"),
        pytest.param(_header(payload_sha256="00" * 32), id="other-digest"),
        pytest.param(_header(payload_sha256=None), id="no-digest"),
        pytest.param(_header(payload_bytes="many"), id="wordy-length"),
        pytest.param(_header(payload_bytes=-1), id="negative-length"),
        pytest.param(_header(plan=None), id="no-key"),
        pytest.param(_header(plan={"gpu": 1}), id="odd-key"),
        pytest.param(_header(built_at_s="noon"), id="odd-time"),
        pytest.param(_header(more=1), id="unknown-field"),
        pytest.param(lambda _whole: sealed(b"[]"), id="list"),
        pytest.param(lambda _whole: sealed(b"{}"), id="no-fields"),
        pytest.param(lambda _whole: sealed(b"\xff\xfe"), id="no-text"),
        pytest.param(lambda _whole: sealed(b"[" * 60_000), id="deep"),
        pytest.param(lambda _whole: os.urandom(70_000), id="noise"),
    ],
)
def test_a_file_that_was_tampered_with_is_built_again(folder, tamper):
    path = keep_a_plan(folder)
    path.write_bytes(tamper(path.read_bytes()))
    builder = Builder()

    assert PLAN == builder.cache(folder).obtain(KEY, builder).plan
    assert 1 == builder.n_builds
    assert [f"{path} is built again"] == [note.partition(":")[0] for note in builder.notes]
    assert builder.cache(folder).obtain(KEY, builder).is_from_cache


def _writable_by_group(path: Path) -> None:
    path.chmod(0o660)


def _of_another_user(path: Path) -> None:
    os.chown(path, 12345, 12345)


def _a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [_writable_by_group, _of_another_user, _a_link, _a_pipe])
def test_a_file_that_others_could_have_written_is_not_believed(folder, spoil):
    path = keep_a_plan(folder, plan=b"planted")
    try:
        spoil(path)
    except PermissionError:
        missing("files of another user: only root can make them")
    builder = Builder()

    (entry,) = builder.cache(folder).entries()
    assert entry.damage
    assert PLAN == builder.cache(folder).obtain(KEY, builder).plan
    assert "is built again" in builder.notes[0]
    assert builder.cache(folder).obtain(KEY, builder).is_from_cache  # its place was taken


def test_a_folder_at_the_files_place_does_not_stop_the_plan(folder):
    path = keep_a_plan(folder)
    path.unlink()
    path.mkdir()
    (path / "thing").touch()
    builder = Builder()

    obtained = builder.cache(folder).obtain(KEY, builder)

    assert PLAN == obtained.plan
    assert "Is a directory" in obtained.unsaved


def test_what_a_killed_build_left_and_cannot_go_does_not_stop_the_next(folder):
    keep_a_plan(folder).unlink()
    (folder / f".{KEY.file_name}.0abc.unfinished").mkdir()
    builder = Builder()

    assert PLAN == builder.cache(folder).obtain(KEY, builder).plan
    assert builder.cache(folder).obtain(KEY, builder).is_from_cache


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_in_a_folder_that_others_may_write_nothing_is_read_or_kept(folder, mode):
    keep_a_plan(folder, plan=b"planted")
    folder.chmod(mode)
    builder = Builder()

    obtained = builder.cache(folder).obtain(KEY, builder)

    assert (PLAN, 1) == (obtained.plan, builder.n_builds)
    assert f"other users may write it (mode 0{mode:o})" in obtained.unsaved
    assert [f"plans are not kept: {obtained.unsaved}"] == builder.notes
    assert builder.cache(folder).timings(TIMINGS) is None


def test_where_nothing_can_be_written_the_plan_is_used_all_the_same(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    builder = Builder()
    cache = builder.cache(tmp_path / "cache" / "plans")

    obtained = cache.obtain(KEY, builder)

    assert (PLAN, 1) == (obtained.plan, builder.n_builds)
    assert "Not a directory; XDG_CACHE_HOME chooses another cache" in obtained.unsaved
    assert [f"plans are not kept: {obtained.unsaved}"] == builder.notes
    with pytest.raises(DeviceError, match="Not a directory"):
        cache.entries()


def test_in_a_folder_that_may_not_be_written_the_plan_is_used_all_the_same():
    builder = Builder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "plans"
        keep_a_plan(folder).chmod(0)
        folder.chmod(0o555)
        folder.parent.chmod(0o755)
        with without_privileges():
            obtained = builder.cache(folder).obtain(KEY, builder)
        folder.chmod(0o755)

    assert (PLAN, 1) == (obtained.plan, builder.n_builds)
    reason = f"{folder} cannot be used: Permission denied; XDG_CACHE_HOME chooses another cache"
    assert reason == obtained.unsaved
    assert [f"plans are not kept: {reason}"] == builder.notes


def test_what_cannot_be_kept_is_built_once_in_a_process_and_kept_when_that_works(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    folder, builder = tmp_path / "cache" / "plans", Builder()
    for _ in range(2):
        obtained = builder.cache(folder).obtain(KEY, builder)
        assert (PLAN, True) == (obtained.plan, bool(obtained.unsaved))
    (tmp_path / "cache").unlink()

    assert "" == builder.cache(folder).obtain(KEY, builder).unsaved
    assert 1 == builder.n_builds
    assert builder.cache(folder).obtain(KEY, builder).is_from_cache


def test_a_wait_for_another_process_can_be_given_up(folder, processes):
    process = processes.start_and_hold()

    def give_up() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        PlanCache(folder).obtain(KEY, lambda: PLAN, give_up)
    processes.gate.unlink()
    process.communicate()
    assert PlanCache(folder).obtain(KEY, lambda: b"not built").is_from_cache


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere; be somebody else for a moment."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_on_a_full_disk_the_plan_is_used_and_no_torn_file_is_left(folder):
    keep_a_plan(folder).unlink()
    builder = Builder()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        obtained = builder.cache(folder).obtain(KEY, builder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert PLAN == obtained.plan
    assert "File too large" in obtained.unsaved
    assert [] == [path.name for path in folder.iterdir() if path.suffix != ".lock"]
    assert not builder.cache(folder).obtain(KEY, builder).unsaved


def test_what_building_raises_is_raised_and_the_next_one_builds(folder):
    def fail() -> bytes:
        raise DeviceError("no GPU")

    with pytest.raises(DeviceError, match="no GPU"):
        PlanCache(folder).obtain(KEY, fail)

    builder = Builder()
    assert PLAN == builder.cache(folder).obtain(KEY, builder).plan
    assert [] == builder.notes


def test_a_plan_that_turns_out_useless_is_forgotten(folder):
    path = keep_a_plan(folder)
    builder = Builder(b"better")
    cache = builder.cache(folder)

    cache.invalidate(KEY, "it does not deserialize")
    cache.invalidate(KEY, "twice is no harm")

    assert f"{path} is built again: it does not deserialize" == builder.notes[0]
    assert b"better" == cache.obtain(KEY, builder).plan


@dataclass
class Processes:
    """Processes that want the same plan of one cache."""

    folder: Path
    log: Path
    gate: Path

    def start(self, end: str = "whole") -> subprocess.Popen[str]:
        arguments = ["-m", "tests.support.plan_process", self.folder, self.log, self.gate, end]
        return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)

    def start_and_hold(self, end: str = "whole") -> subprocess.Popen[str]:
        """Until ``gate.unlink()``, it is building."""
        self.gate.touch()
        process = self.start(end)
        deadline_s = time.monotonic() + 240
        while not self.log.exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        return process

    @property
    def n_builds(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def processes(folder: Path, tmp_path: Path) -> Processes:
    return Processes(folder, tmp_path / "log", tmp_path / "gate")


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.slow
def test_processes_that_want_the_same_plan_at_once_build_it_once(folder, processes):
    first = processes.start_and_hold()
    others = [processes.start() for _ in range(3)]
    notes = [first_line(process) for process in others]
    processes.gate.unlink()
    rest = [process.communicate(timeout=240)[0] for process in (first, *others)]

    assert [f"waiting for another process that builds {KEY.file_name}\n"] * 3 == notes
    assert [""] * 4 == rest
    assert [0] * 4 == [process.returncode for process in (first, *others)]
    assert 1 == processes.n_builds
    assert {KEY.file_name, f"{KEY.file_name}.lock"} == {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(("end", "n_left"), [("killed", 0), ("torn", 1)])
def test_a_killed_builder_leaves_no_lock_and_nothing_that_is_loaded(
    folder, processes, end, n_left
):
    first = processes.start_and_hold(end)
    second = processes.start()
    waiting = first_line(second)
    processes.gate.unlink()
    for process in (first, second):
        process.communicate(timeout=240)

    assert waiting.startswith("waiting for another process")
    assert [-signal.SIGKILL, 0] == [first.returncode, second.returncode]
    assert 2 == processes.n_builds
    assert {KEY.file_name, f"{KEY.file_name}.lock"} == {path.name for path in folder.iterdir()}

    # nobody comes after: the next clearing takes what is left
    PlanCache(folder).invalidate(KEY, "to build once more")
    processes.start(end).communicate(timeout=240)
    assert n_left == len(list(folder.glob(".*.unfinished")))
    assert [] == PlanCache(folder).collect(lambda _entry: False)
    assert [] == list(folder.iterdir())


def test_threads_that_want_the_same_plan_at_once_build_it_once(folder):
    builder = Builder()
    seen: list[bytes] = []

    def slowly() -> bytes:
        time.sleep(0.2)
        return builder()

    threads = [
        threading.Thread(target=lambda: seen.append(PlanCache(folder).obtain(KEY, slowly).plan))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [PLAN] * 5 == seen
    assert 1 == builder.n_builds


@pytest.mark.slow
def test_clearing_leaves_alone_what_another_process_builds(folder, processes):
    keep_a_plan(folder, plan=b"damaged").write_bytes(b"")
    builder = processes.start_and_hold()

    assert [] == PlanCache(folder).collect(lambda _entry: True)
    processes.gate.unlink()
    builder.communicate(timeout=240)

    assert 0 == builder.returncode
    assert PlanCache(folder).obtain(KEY, Builder()).is_from_cache


@pytest.mark.slow
def test_processes_that_clear_and_build_at_once_disturb_nobody(folder, processes):
    builders = [processes.start() for _ in range(4)]
    while any(process.poll() is None for process in builders):
        PlanCache(folder).collect(lambda _entry: True)
    notes = [process.communicate(timeout=240)[0] for process in builders]

    assert [0] * 4 == [process.returncode for process in builders], notes


def test_a_listing_says_what_each_file_is_for(folder):
    other = replace(KEY, gpu=NO_GPU)
    keep_a_plan(folder)
    PlanCache(folder, now_s=lambda: 1000.0).obtain(other, lambda: b"plan")
    PlanCache(folder).keep_timings(TIMINGS, b"timings")
    (folder / "damaged.plan").write_bytes(b"")
    (folder / "notes.txt").write_text("of nobody")
    entries = {entry.path.name: entry for entry in PlanCache(folder).entries()}

    assert {KEY.file_name, other.file_name, TIMINGS.file_name, "damaged.plan"} == set(entries)
    assert KEY == entries[KEY.file_name].key
    assert TIMINGS == entries[TIMINGS.file_name].key
    assert 1000.0 == entries[other.file_name].built_at_s
    assert entries[KEY.file_name].n_bytes == (folder / KEY.file_name).stat().st_size
    assert entries["damaged.plan"].key is None
    assert "empty" in entries["damaged.plan"].damage


def test_a_plan_of_before_networks_were_named_is_good(folder):
    path = keep_a_plan(folder)
    whole = path.read_bytes()
    n_header = int.from_bytes(whole[8:12], "little")
    header = json.loads(whole[44 : 44 + n_header])
    assert "" == header.pop("network")
    path.write_bytes(sealed(json.dumps(header).encode()))

    (entry,) = PlanCache(folder).entries()
    assert (KEY, "", "") == (entry.key, entry.network, entry.damage)
    assert PlanCache(folder).obtain(KEY, Builder()).is_from_cache


def test_what_a_network_is_called_is_listed_and_makes_no_other_plan(folder):
    PlanCache(folder).obtain(KEY, lambda: PLAN, network="scenes localizer")

    (entry,) = PlanCache(folder).entries()
    assert "scenes localizer" == entry.network
    assert PlanCache(folder).obtain(KEY, Builder(), network="another name").is_from_cache


def test_an_empty_cache_lists_nothing(folder):
    assert [] == PlanCache(folder).entries()
    assert [] == PlanCache(folder).collect(lambda _entry: True)


def test_clearing_deletes_what_is_unwanted_or_damaged_and_nothing_else(folder):
    other = replace(KEY, precision="f16")
    keep_a_plan(folder)
    keep_a_plan(folder, other)
    (folder / "damaged.plan").write_bytes(b"")
    (folder / "notes.txt").write_text("of nobody")
    cache = PlanCache(folder)
    would_go = cache.collect(lambda entry: entry.key == other, dry_run=True)
    assert 3 == len(cache.entries())
    gone = cache.collect(lambda entry: entry.key == other)

    assert {"damaged.plan", other.file_name} == {entry.path.name for entry in gone}
    assert would_go == gone
    assert {KEY.file_name, f"{KEY.file_name}.lock", "notes.txt"} == {
        path.name for path in folder.iterdir()
    }


def test_loading_a_plan_counts_as_using_it(folder):
    path = keep_a_plan(folder)
    os.utime(path, (1000, 1000))
    (before,) = PlanCache(folder).entries()
    PlanCache(folder).obtain(KEY, Builder())
    (after,) = PlanCache(folder).entries()

    assert 1000 == before.used_at_s
    assert time.time() - after.used_at_s < 60
    assert after.built_at_s == before.built_at_s


def test_timings_are_kept_for_one_tensorrt_on_one_gpu(folder):
    cache = PlanCache(folder)
    cache.keep_timings(TIMINGS, b"timings")
    cache.keep_timings(TIMINGS, b"newer timings")

    assert b"newer timings" == cache.timings(TIMINGS)
    assert cache.timings(replace(TIMINGS, tensorrt="tensorrt 11.0")) is None
    assert cache.timings(replace(TIMINGS, gpu=NO_GPU)) is None


def test_timings_that_cannot_be_reached_are_told_and_none(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    builder = Builder()
    cache = builder.cache(tmp_path / "cache" / "plans")

    assert cache.timings(TIMINGS) is None
    cache.keep_timings(TIMINGS, b"timings")
    path = cache.folder / TIMINGS.file_name
    reason = f"{cache.folder} cannot be used: Not a directory"
    assert [
        f"{path} is not used: Not a directory",
        f"plans are not kept: {reason}; XDG_CACHE_HOME chooses another cache",
    ] == builder.notes


def test_timings_in_a_folder_that_may_not_be_entered_are_told_and_none():
    builder = Builder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "closed" / "plans"
        PlanCache(folder).keep_timings(TIMINGS, b"timings")
        folder.parent.chmod(0)
        Path(name).chmod(0o755)
        with without_privileges():
            assert builder.cache(folder).timings(TIMINGS) is None
        folder.parent.chmod(0o700)

    assert [f"{folder / TIMINGS.file_name} is not used: Permission denied"] == builder.notes


def test_damaged_and_foreign_timings_are_not_used(folder):
    builder = Builder()
    cache = builder.cache(folder)
    cache.keep_timings(TIMINGS, b"timings")
    path = folder / TIMINGS.file_name
    other = replace(TIMINGS, gpu=NO_GPU)
    shutil.copyfile(path, folder / other.file_name)
    (folder / other.file_name).chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])

    assert cache.timings(TIMINGS) is None
    assert f"{path} is not used" in builder.notes[0]
    assert cache.timings(other) is None
    shutil.copyfile(keep_a_plan(folder), path)  # a plan in their place
    assert cache.timings(TIMINGS) is None
