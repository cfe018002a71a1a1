"""`s2netd engine`: plans built, listed and cleared away; what goes wrong is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from daemon.plans.kept import run_gc, run_list
from daemon.plans.machine import Machine, this_machine
from engine.backends.tensorrt.gpu_identity import NO_GPU, GpuIdentity
from engine.backends.tensorrt.library import TensorRt, find_tensorrt
from engine.backends.tensorrt.plan_cache import PlanCache, PlanEntry, PlanKey, TimingsKey
from engine.errors import DeviceError
from tests.support.cli import Cli, in_process
from tests.support.plan_process import a_plan_key
from tests.support.processes import S2NETD
from tests.support.real_parts import missing
from tests.support.tiny_bundle import write_fixed_bundle

KEY = a_plan_key()
GPU = KEY.gpu
NOW_S = 2_000_000_000.0
DAY_S = 86400


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """The command's own entry point, in a folder with a bundle, with an empty cache."""
    write_fixed_bundle(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    try:
        return find_tensorrt("tensorrt_rtx")
    except DeviceError as error:
        missing(f"{error}; or make setup-training")


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_a_bundles_plans_are_built_once_and_listed(cli):
    first = cli("engine", "build", "--bundle", "tiny", "--runtime", "tensorrt_rtx")
    again = cli("engine", "build", "--bundle", "tiny", "--runtime", "tensorrt_rtx")
    listed = cli("engine", "list")

    assert [0, 0, 0] == [first.code, again.code, listed.code], first.err
    rows = [line for line in first.out.splitlines() if "1, 2, 4, 8" in line]
    assert ["backbone", "localizer"] == [row.split("│")[1].strip() for row in rows]
    assert ["no", "no"] == [row.split("│")[6].strip() for row in rows]
    assert 2 == again.out.count("│ yes ")
    assert 2 == listed.out.count("built without a GPU")
    assert "2 files, " in listed.out


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_without_a_gpu_it_is_said_what_a_plan_proves(cli):
    if this_machine().gpus:
        pytest.skip("there is a GPU")
    built = cli("engine", "build", "--bundle", "tiny")

    assert 0 == built.code
    assert "GPU none" in built.out
    assert "nothing was run" in built.out


@pytest.mark.tensorrt_rtx
def test_the_machine_readable_answer_says_what_was_built_where(cli, rtx, tmp_path):
    built = cli("engine", "build", "--bundle", "tiny", "--max-batch", 3, "--json")
    answer = json.loads(built.out)
    listed = json.loads(cli("engine", "list", "--json").out)
    if this_machine().gpus:
        pytest.skip("there is a GPU")

    assert {"kind": "tensorrt_rtx", "version": rtx.version} == answer["tensorrt"]
    assert str(tmp_path / "cache" / "s2netd" / "plans") == answer["folder"]
    assert ["backbone", "localizer"] == [network["network"] for network in answer["networks"]]
    for network in answer["networks"]:
        assert ("f32", [1, 2, 3]) == (network["precision"], network["batch_sizes"])
        assert network["plan_bytes"] < Path(network["file"]).stat().st_size
        assert not network["from_cache"]
    assert {network["file"] for network in answer["networks"]} == {e["file"] for e in listed}
    assert ["built_without_gpu"] * 2 == [entry["use"] for entry in listed]  # no daemon can
    assert {"tiny backbone", "tiny localizer"} == {entry["network"] for entry in listed}


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_plans_for_one_batch_size_are_plans_of_their_own(cli):
    cli("engine", "build", "--bundle", "tiny", "--max-batch", 3)
    built = cli(
        "engine", "build", "--bundle", "tiny", "--max-batch", 3, "--one-batch-size", "--json"
    )
    answer = json.loads(built.out)
    seen = [(network["batch_sizes"], network["from_cache"]) for network in answer["networks"]]
    assert [([3], False), ([3], False)] == seen


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_a_damaged_plan_is_built_again_and_the_operator_told(cli, tmp_path):
    cli("engine", "build", "--bundle", "tiny", "--max-batch", 1)
    for path in (tmp_path / "cache" / "s2netd" / "plans").glob("*.plan"):
        path.write_bytes(path.read_bytes()[:-1])
    again = cli("engine", "build", "--bundle", "tiny", "--max-batch", 1)

    assert 0 == again.code
    assert 2 == again.err.count("is built again: it has ")
    assert 2 == again.out.count("│ no ")


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_a_plan_that_cannot_be_kept_is_a_failure_here(cli, tmp_path):
    (tmp_path / "cache" / "s2netd").mkdir(parents=True)
    (tmp_path / "cache" / "s2netd" / "plans").write_text("a file where a folder should be")
    built = cli("engine", "build", "--bundle", "tiny", "--max-batch", 1)

    assert 1 == built.code
    last = built.err.splitlines()[-1]
    assert last.startswith("s2netd: backbone: plan not kept: ")
    assert "XDG_CACHE_HOME" in last


@pytest.mark.tensorrt_rtx
@pytest.mark.usefixtures("rtx")
def test_all_that_tensorrt_says_is_told_on_demand(cli):
    quiet = cli("engine", "build", "--bundle", "tiny", "--max-batch", 1)
    loud = cli("engine", "build", "--bundle", "tiny", "--max-batch", 2, "--verbose")

    assert "verbose: " not in quiet.err
    assert "backbone: verbose: " in loud.err


@pytest.mark.tensorrt_rtx
@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
def test_ctrl_c_ends_a_build_and_leaves_nothing_half_done(tmp_path):
    write_fixed_bundle(tmp_path / "tiny")
    plans = tmp_path / "cache" / "s2netd" / "plans"
    process = subprocess.Popen(
        [*S2NETD, "engine", "build", "--bundle", tmp_path / "tiny", "--max-batch", "256"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 240
    while not list(plans.glob("*.lock")):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=240)

    assert (130, "") == (process.returncode, complaint.strip())
    assert not [path for path in plans.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("command", "code", "parts"),
    [
        ("build --bundle nope", 78, ["no bundle nope", "s2netd models pull nope"]),
        ("verify --bundle nope", 78, ["no bundle nope", "s2netd models pull nope"]),
        ("build --bundle tiny --runtime cuda", 78, ["--runtime is 'cuda'", "'tensorrt_rtx'"]),
    ],
)
def test_what_the_operator_must_change_is_one_line(cli, command, code, parts):
    answer = cli("engine", *command.split())

    assert code == answer.code
    for part in parts:
        assert part in answer.complaint


@pytest.mark.parametrize(("runtime", "extra"), [("tensorrt", "gpu"), ("tensorrt_rtx", "rtx")])
def test_without_tensorrt_one_line_says_what_to_install(
    cli, tmp_path, monkeypatch, runtime, extra
):
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
    monkeypatch.syspath_prepend(tmp_path)
    answer = cli("engine", "build", "--bundle", "tiny", "--runtime", runtime)
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx"):
        sys.modules.pop(name, None)

    assert 1 == answer.code
    assert "cannot be imported (not installed)" in answer.complaint
    assert answer.complaint.endswith(f"pip install 's2netd[{extra}]'")


def test_every_command_shows_an_example(cli):
    for command in ("build", "verify", "list", "gc"):
        helped = cli("engine", command, "--help")
        assert f"s2netd engine {command}" in helped.out.replace("Usage: s2netd engine", "")


def test_an_empty_cache_lists_and_clears_nothing(cli):
    assert "no plans in " in cli("engine", "list").out
    assert "deleted 0 files, 0.0 MB in " in cli("engine", "gc").out


# Plans of GPUs that are not here: what is kept of them does not depend on what is installed.

MACHINE = Machine((TensorRt(None, "tensorrt", "10.15.1.29"),), (GPU,))
FOREIGN: dict[str, PlanKey] = {
    "another version": a_plan_key(tensorrt="tensorrt 10.6.0"),
    "another GPU": a_plan_key(gpu=replace(GPU, name="NVIDIA H200")),
    "another driver": a_plan_key(gpu=replace(GPU, driver="12.8")),
    "no GPU": a_plan_key(gpu=NO_GPU),
}
ABSENT = FOREIGN.pop("another GPU")  # it may only have failed, and be there at the next start


RTX = a_plan_key(tensorrt="tensorrt_rtx 1.7")
TIMINGS = TimingsKey(KEY.tensorrt, GPU)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    """With plans for this machine, foreign ones, one of RTX, timings, and a damaged file."""
    cache = PlanCache(tmp_path / "plans", now_s=lambda: NOW_S - 3 * DAY_S)
    for key in (KEY, ABSENT, *FOREIGN.values(), RTX):
        path = cache.folder / key.file_name
        cache.obtain(key, lambda: bytes(500_000))
        os.utime(path, (NOW_S - 3 * DAY_S, NOW_S - 3 * DAY_S))
    cache.keep_timings(TimingsKey(KEY.tensorrt, GPU), b"timings")
    os.utime(cache.folder / TimingsKey(KEY.tensorrt, GPU).file_name, (NOW_S, NOW_S))
    (cache.folder / "damaged.plan").write_bytes(b"?")
    return cache


def said(command: Callable[..., None], *arguments: Any, **options: Any) -> str:
    console = Console(width=250)
    with console.capture() as capture:
        command(*arguments, NOW_S, console, **options)
    return capture.get()


def entry_of(cache: PlanCache, key: PlanKey) -> PlanEntry:
    (entry,) = [entry for entry in cache.entries() if entry.key == key]
    return entry


def kept(cache: PlanCache) -> set[object]:
    return {entry.key for entry in cache.entries()}


def test_a_listing_says_of_each_plan_whether_it_can_be_used_here(cache):
    listing = said(run_list, cache, MACHINE)

    assert 2 == listing.count("│ usable")
    assert "here is driver 13.0" in listing
    assert "its GPU is not seen here" in listing
    assert "here is tensorrt 10.15.1.29" in listing
    assert "built without a GPU" in listing
    assert "tensorrt_rtx is not installed here" in listing
    assert "damaged: it is empty, cut short, or of another format" in listing
    assert 7 == listing.count(" 3 d │")
    assert "8 files, 3.0 MB in " in listing


def test_clearing_deletes_what_is_foreign_or_damaged_and_says_why(cache):
    dry = said(run_gc, cache, MACHINE, dry_run=True)
    assert 8 == len(cache.entries())
    done = said(run_gc, cache, MACHINE)

    assert {KEY, ABSENT, RTX, TIMINGS} == kept(cache)
    assert "would delete 4 files, 1.5 MB in " in dry
    assert "deleted 4 files, 1.5 MB in " in done
    assert "damaged.plan: damaged: " in done
    assert "kept 2 files, 1.0 MB, that nothing seen here now can use" in done


def test_clearing_spares_plans_of_gpus_while_no_gpu_is_seen(cache):
    said(run_gc, cache, replace(MACHINE, gpus=(), no_gpu="the driver fails"))

    assert {KEY, ABSENT, RTX, TIMINGS, *FOREIGN.values()} - kept(cache) == {
        FOREIGN["another version"]
    }


def test_clearing_spares_plans_of_one_gpu_while_only_another_is_seen(cache):
    both = replace(MACHINE, gpus=(GPU, ABSENT.gpu))
    assert ("usable", "") == both.use(entry_of(cache, ABSENT))
    assert ("unknown", "its GPU is not seen here") == MACHINE.use(entry_of(cache, ABSENT))
    said(run_gc, cache, MACHINE)

    assert ABSENT in kept(cache)


def test_what_was_built_without_a_gpu_is_not_called_usable(cache):
    entry = entry_of(cache, FOREIGN["no GPU"])
    use, why = replace(MACHINE, gpus=()).use(entry)

    assert ("built_without_gpu", "built without a GPU") == (use, why)
    assert "foreign" == MACHINE.use(entry)[0]


def test_clearing_can_take_what_was_not_used_for_long_too(cache):
    assert "not used for 3 days" in said(run_gc, cache, MACHINE, older_than_days=2)
    assert {TIMINGS} == kept(cache)


def test_clearing_keeps_what_was_used_since(cache):
    said(run_gc, cache, MACHINE, older_than_days=4)

    assert {KEY, ABSENT, RTX, TIMINGS} == kept(cache)


def test_clearing_can_take_everything(cache):
    assert "deleted 8 files" in said(run_gc, cache, MACHINE, everything=True)
    assert [] == list(cache.folder.iterdir())


def test_several_gpus_are_all_of_this_machine(cache):
    both = replace(MACHINE, gpus=(GpuIdentity("NVIDIA H200", "8.9", "13.0"), GPU))
    listing = said(run_list, cache, both)

    assert 3 == listing.count("│ usable")


def test_on_80_columns_a_listing_tells_network_and_runtime_in_full(tmp_path):
    cache = PlanCache(tmp_path / "plans", now_s=lambda: NOW_S)
    gpu = GpuIdentity("NVIDIA RTX PRO 6000 Blackwell", "12.0", "13.0, release 580.65.06")
    key = a_plan_key(
        tensorrt="tensorrt_rtx 1.17.1.116", gpu=gpu, batch_sizes=(1, 2, 4, 8, 16, 32, 64)
    )
    cache.obtain(key, lambda: bytes(51_200_000), network="kinetics400-160 backbone")
    console = Console(width=80)
    with console.capture() as capture:
        run_list(cache, MACHINE, NOW_S, console)
    listing = capture.get()
    table = [line for line in listing.splitlines() if line[:1] in "│├┏┡└"]
    cells = [line.split("│")[1:6] for line in table if line.startswith("│")]
    network, built_for, size, age, here = (
        " ".join(" ".join(parts).split()) for parts in zip(*cells, strict=True)
    )

    assert {80} == {len(line) for line in table}
    assert f"kinetics400-160 backbone {'ab' * 6} f32, batches 1, 2, 4, 8, 16, 32, 64" == network
    assert f"{key.tensorrt} {gpu}" == built_for
    assert any(cell[1].strip() == key.tensorrt for cell in cells)  # in one line
    assert ("51.2", "new", "tensorrt_rtx is not installed here") == (size, age, here)
