"""A running daemon is given another bundle by SIGHUP, while cameras keep sending."""

import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_daemon import CAMERAS, Cameras, LiveDaemon
from tests.support.processes import (
    assert_each_once,
    final_state,
    read_events,
    s2netd,
)
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.openvino]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[LiveDaemon]:
    one = LiveDaemon(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def cameras(tmp_path: Path, clip: Path) -> Cameras:
    return Cameras(tmp_path / "chunks", clip)


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("other") / "tiny", version=2)


@pytest.fixture(scope="session")
def nan_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("nan") / "tiny", is_nan=True)


def model_of(record: dict[str, Any]) -> str:
    return str(record["model"]["id"])


def models_of(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Per camera, the model of each record, in their order."""
    seen: dict[str, list[str]] = {camera: [] for camera in CAMERAS}
    for record in records:
        seen[record["camera_id"]].append(model_of(record))
    return seen


def check_grammar(records: list[dict[str, Any]]) -> None:
    """One life an event, of one model, with one last word; and none is left without."""
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        lives[record["event_id"]].append(record)
    for life in lives.values():
        assert list(range(len(life))) == [record["revision"] for record in life]
        assert [False] * (len(life) - 1) + [True] == [record["final"] for record in life]
        assert 1 == len(set(map(model_of, life)))


def check_all_chunks_count_once(daemon: LiveDaemon, cameras: Cameras) -> None:
    n_each = cameras.n_chunks / len(CAMERAS)
    n_ends = n_each / 14  # an end marker is no video
    daemon.wait_for(
        lambda: all(
            daemon.count("chunks_total", camera=camera) >= n_each - n_ends for camera in CAMERAS
        )
    )
    for camera in CAMERAS:
        assert n_each - n_ends == daemon.count("chunks_total", camera=camera)
        assert 0 == daemon.count("gaps_total", camera=camera)
        assert 0 == daemon.count("duplicate_chunks_total", camera=camera)


@pytest.mark.usefixtures("cameras")
def test_health_answers_building_before_the_first_model_is_open(daemon, bundle):
    daemon.configure({"bundle": str(bundle)})
    daemon.start()
    seen = []
    while not seen or seen[-1][0] != 200:
        status, report = daemon.ready()
        seen += [(status, report)] if report else []
        time.sleep(0.01)
        assert daemon.process.poll() is None
    daemon.reload()  # the first of a daemon's life may come at any time
    daemon.stop()

    (status, first), (_status, last) = seen[0], seen[-1]
    assert (503, False, None, "building") == (
        status,
        first["ready"],
        first["model"]["serving"],
        first["model"]["state"],
    )
    assert (True, "serving") == (last["ready"], last["model"]["state"])


@pytest.mark.usefixtures("cameras")
@pytest.mark.parametrize("n_moments", [3, pytest.param(6, marks=pytest.mark.soak)])
def test_signals_before_it_is_ready_are_obeyed(daemon, bundle, n_moments):
    daemon.configure({"bundle": str(bundle)})
    for number in range(n_moments):
        n_logged = len(daemon.logged("daemon.stopped"))
        daemon.start()
        daemon.wait_for(lambda: daemon.ready()[0] != 0)
        daemon.reload()
        time.sleep(number * 0.3 / n_moments)
        daemon.stop()
        assert n_logged + 1 == len(daemon.logged("daemon.stopped"))


def test_the_cpu_serves_while_the_gpu_is_not_there(daemon, cameras, bundle):
    gpu = {"bundle": str(bundle), "backend": "tensorrt", "gpu": 63}
    daemon.configure({**gpu, "while_building": "openvino"})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: len(read_events(daemon.events)) > 5)
    daemon.wait_for(lambda: bool(daemon.logged("model.swap_failed")))
    status, report = daemon.ready()
    check_all_chunks_count_once(daemon, cameras)
    daemon.stop()

    assert 200 == status
    assert "openvino" in report["model"]["serving"]
    assert report["model"]["last_error"]
    check_grammar(read_events(daemon.events))

    daemon.configure({**gpu, "while_building": "wait"})
    daemon.start()
    assert 1 == daemon.process.wait(240)
    assert "DeviceError" == daemon.logged("daemon.failed")[-1]["error"]


def test_another_bundle_takes_over_under_load(daemon, cameras, bundle, other_bundle):
    daemon.configure({"bundle": str(bundle)})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: all(models_of(read_events(daemon.events)).values()))
        daemon.configure({"bundle": str(other_bundle)})
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("model.closed")))
        daemon.wait_for(
            lambda: all(len(set(x)) == 2 for x in models_of(read_events(daemon.events)).values())
        )
    check_all_chunks_count_once(daemon, cameras)
    (swapped,) = daemon.logged("model.swapped")
    status, report = daemon.ready()
    daemon.stop()

    records = read_events(daemon.events)
    check_grammar(records)
    for seen in models_of(records).values():
        old, new = seen[0], seen[-1]
        assert old != new
        assert [old] * seen.count(old) + [new] * seen.count(new) == seen
    assert {"model", "end", "frozen", "score"} >= {r["reason"] for r in records}
    assert model_of(records[0]) in swapped["before"]
    assert (200, model_of(records[-1]), "serving", None) == (
        status,
        report["model"]["serving"].split()[0],
        report["model"]["state"],
        report["model"]["last_error"],
    )
    assert len(CAMERAS) == len(daemon.logged("stream.model_changed"))


@pytest.mark.parametrize("fault", ["nan", "missing", "label", "no gpu"])
def test_a_bundle_that_cannot_serve_leaves_the_old_one_serving(
    daemon, cameras, bundle, nan_bundle, fault
):
    model = {
        "nan": {"bundle": str(nan_bundle)},
        "missing": {"bundle": str(bundle / "nowhere")},
        "label": {"bundle": str(bundle), "labels": ["reed"]},
        "no gpu": {"bundle": str(bundle), "backend": "tensorrt", "gpu": 63},
    }[fault]
    reason = {
        "nan": "hold NaN or infinity",
        "missing": "is no bundle",
        "label": "did you mean 'red'",
        "no gpu": "",
    }[fault]
    daemon.configure({"bundle": str(bundle)})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: len(read_events(daemon.events)) > 5)
        daemon.configure(model)
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("model.swap_failed")))
        n_before = len(read_events(daemon.events))
        daemon.wait_for(lambda: len(read_events(daemon.events)) > n_before + 10)
    check_all_chunks_count_once(daemon, cameras)
    status, report = daemon.ready()
    assert 1 == daemon.count("model_swaps_total", outcome="failed")
    daemon.stop()

    (failed,) = daemon.logged("model.swap_failed")
    assert reason in failed["reason"]
    assert (200, "serving", None) == (
        status,
        report["model"]["state"],
        report["model"]["candidate"],
    )
    assert failed["reason"] in report["model"]["last_error"]
    records = read_events(daemon.events)
    check_grammar(records)
    assert 1 == len(set(map(model_of, records)))
    assert "model" not in {record["reason"] for record in records}


def test_a_bundle_exported_again_into_its_folder_is_taken_at_a_sighup(
    daemon, cameras, bundle, other_bundle, tmp_path
):
    place = tmp_path / "mine"
    shutil.copytree(bundle, place)
    daemon.configure({"bundle": str(place)})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: len(read_events(daemon.events)) > 5)
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("model.unchanged")))
        shutil.rmtree(place)
        shutil.copytree(other_bundle, place)
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("model.closed")))
    check_all_chunks_count_once(daemon, cameras)
    daemon.stop()

    records = read_events(daemon.events)
    check_grammar(records)
    assert 1 == len(daemon.logged("model.swapped"))


def test_only_the_model_and_the_log_level_change_without_a_restart(daemon, cameras, bundle):
    daemon.configure({"bundle": str(bundle)})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: len(read_events(daemon.events)) > 5)
        daemon.config.write_text("model: [")
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("config.refused")))
        daemon.configure(
            {"bundle": str(bundle), "open_score": 1.9, "max_batch": 2},
            site="elsewhere",
            log={"level": "debug"},
            queue_chunks=2,
        )
        daemon.reload()
        daemon.wait_for(lambda: bool(daemon.logged("model.closed")))
        daemon.wait_for(lambda: bool(daemon.logged("partition.paused")))  # told at level debug
    check_all_chunks_count_once(daemon, cameras)
    daemon.stop()

    (refused,) = daemon.logged("config.refused")
    assert "is not YAML" in refused["reason"]
    (needed,) = daemon.logged("config.restart_needed")
    assert ["model.max_batch", "queue_chunks", "site"] == needed["keys"]
    records = read_events(daemon.events)
    check_grammar(records)
    assert {"default"} == {record["site"] for record in records}
    assert 1 == len(set(map(model_of, records)))  # another opening score is no other bundle


def last_outcome(daemon: LiveDaemon) -> str:
    """When a wish was last granted or found to be granted already."""
    outcomes = daemon.logged("model.swapped") + daemon.logged("model.unchanged")
    return max((entry["timestamp"] for entry in outcomes), default="")


def test_a_storm_of_sighups_ends_with_what_was_asked_for_last(
    daemon, cameras, bundle, other_bundle, nan_bundle
):
    rng = random.Random(5)  # noqa: S311 - reproducible moments, no secret
    daemon.configure({"bundle": str(bundle)})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: len(read_events(daemon.events)) > 5)
        for _ in range(60):
            wanted = rng.choice([bundle, other_bundle, nan_bundle])
            daemon.configure({"bundle": str(wanted)})
            daemon.reload()
            time.sleep(rng.choice([0, 0, 0.01, 0.1, 0.4]))
        daemon.configure({"bundle": str(other_bundle)})
        daemon.reload()
        daemon.wait_for(
            lambda: last_outcome(daemon) > daemon.logged("config.reloaded")[-1]["timestamp"]
        )
        time.sleep(1)
    check_all_chunks_count_once(daemon, cameras)
    daemon.stop()

    records = read_events(daemon.events)
    check_grammar(records)
    newest = [r for r in records if r["camera_id"] == "a"][-1]
    swaps = daemon.logged("model.swapped")
    assert model_of(newest) in swaps[-1]["model"]
    # Every model but the last was closed again.
    assert len(swaps) == len(daemon.logged("model.closed"))


@pytest.mark.parametrize("n_moments", [4, pytest.param(8, marks=pytest.mark.soak)])
def test_sigterm_in_the_middle_of_a_swap_drains_at_once(
    daemon, cameras, bundle, other_bundle, n_moments
):
    for number in range(n_moments):
        daemon.configure({"bundle": str([bundle, other_bundle][number % 2])})
        daemon.start()
        with cameras.sending():
            daemon.wait_for(lambda: daemon.ready()[0] == 200)
            daemon.configure({"bundle": str([other_bundle, bundle][number % 2])})
            daemon.reload()
            time.sleep(number * 0.24 / n_moments)
        daemon.stop()

    assert not daemon.logged("daemon.failed")


@pytest.mark.parametrize("n_kills", [6, pytest.param(12, marks=pytest.mark.soak)])
def test_kills_among_swaps_tear_no_event_and_lose_none(
    daemon, cameras, bundle, other_bundle, tmp_path, n_kills
):
    rng = random.Random(9)  # noqa: S311 - reproducible moments, no secret
    with cameras.sending():
        for n_before in range(n_kills):
            first = rng.choice([bundle, other_bundle]) if n_before else other_bundle
            daemon.configure({"bundle": str(first)})
            daemon.start()
            daemon.wait_for(lambda: daemon.ready()[0] == 200)
            if not n_before:  # so that both have told something in the end
                daemon.wait_for(
                    lambda: bool(daemon.events.exists() and read_events(daemon.events))
                )
            for _ in range(rng.randint(0, 3)):
                daemon.configure({"bundle": str(rng.choice([bundle, other_bundle]))})
                daemon.reload()
                time.sleep(rng.uniform(0, 0.4))
            daemon.signal(signal.SIGKILL)
            daemon.process.wait()
    daemon.configure(
        {"bundle": str(bundle)},
        source={"kind": "directory", "path": str(tmp_path / "chunks"), "follow": False},
    )
    assert 0 == s2netd("run", "--config", daemon.config).returncode

    records = read_events(daemon.events)
    assert_each_once(records)
    check_grammar(records)
    assert all(record["final"] for record in final_state(records).values())
    assert 2 == len(set(map(model_of, records)))
