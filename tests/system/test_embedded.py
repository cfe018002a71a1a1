"""Real processes over folders: produce, run, localize, SIGTERM and SIGKILL."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.processes import (
    PATIENCE_S,
    assert_each_once,
    final_state,
    n_taken_up,
    read_events,
    run_and_kill,
    s2netd,
    start_s2netd,
    wait_until,
    without_ids,
    write_config,
)

pytestmark = [pytest.mark.slow, pytest.mark.openvino]


def a_config(folder: Path, bundle: Path, *, follow: bool, chunks: Path | None = None) -> Path:
    return write_config(
        folder / "config.yaml",
        model={"bundle": str(bundle), "precision": "f32"},
        source={
            "kind": "directory",
            "path": str(chunks or folder / "chunks"),
            "follow": follow,
            "poll_interval_s": 0.05,
        },
        sink={"kind": "jsonl", "path": str(folder / "events.jsonl")},
        journal={"path": str(folder / "journal.sqlite")},
    )


@pytest.mark.parametrize("chunk_s", [0.5, 5.0])
def test_a_folder_of_chunks_gives_what_localize_gives(tmp_path, bundle, clip, localized, chunk_s):
    chunks, log = tmp_path / "chunks", tmp_path / "log"
    chunks.mkdir()
    producers = [
        start_s2netd(
            *("produce", clip, "--camera", camera, "--to", f"dir:{chunks}"),
            *("--chunk-seconds", chunk_s),
            log=log,
        )
        for camera in ("a", "b")
    ]
    assert [0, 0] == [producer.wait(PATIENCE_S) for producer in producers], log.read_text()
    ran = s2netd("run", "--config", a_config(tmp_path, bundle, follow=False))

    assert ran.returncode == 0, ran.stderr
    records = read_events(tmp_path / "events.jsonl")
    for camera in ("a", "b"):
        assert localized == without_ids([r for r in records if r["camera_id"] == camera])


def test_sigterm_drains_and_exits_with_0(tmp_path, bundle, clip):
    s2netd("produce", clip, "--camera", "a", "--to", f"dir:{tmp_path / 'chunks'}")
    log = tmp_path / "run.log"
    config = a_config(tmp_path, bundle, follow=True)
    daemon = start_s2netd("run", "--config", config, log=log)
    wait_until(lambda: "daemon.ready" in log.read_text(), log.read_text)
    wait_until(lambda: has_final(tmp_path / "events.jsonl"), log.read_text)
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(PATIENCE_S) == 0
    assert "daemon.stopped" in log.read_text()


@pytest.mark.parametrize("n_kills", [8, pytest.param(20, marks=pytest.mark.soak)])
def test_kills_lose_nothing_and_repeat_nothing(tmp_path, bundle, clip, n_kills):
    rng = random.Random(20)  # noqa: S311 - reproducible moments, no secret
    chunks, log, events = tmp_path / "chunks", tmp_path / "log", tmp_path / "events.jsonl"
    chunks.mkdir()
    config = a_config(tmp_path, bundle, follow=True)
    to = f"dir:{chunks}"
    producers = [
        start_s2netd(
            *("produce", clip, "--camera", camera, "--to", to),
            *("--chunk-seconds", 0.5, "--realtime", "--loop"),
            log=tmp_path / f"{camera}.log",
        )
        for camera in ("a", "b")
    ]
    for number in range(n_kills):
        # A quarter at any moment of a start; the others once a camera goes on where it was, the
        # first of them when an event has ended, so when states of earlier chunks were kept.
        n_before = n_taken_up(log)
        after = None if number % 4 == 0 else lambda n=n_before: n_taken_up(log) > n
        if number == 1:
            after = lambda: has_final(events)  # noqa: E731
        run_and_kill(config, log, rng, after=after)
    for camera in ("a", "b"):
        wait_until(lambda camera=camera: n_chunks(chunks, camera) >= 3 * n_kills)
    for producer in producers:
        producer.send_signal(signal.SIGTERM)
        assert producer.wait(PATIENCE_S) == 0
    last = s2netd("run", "--config", a_config(tmp_path, bundle, follow=False))
    assert last.returncode == 0, last.stderr

    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    shutil.copytree(chunks, undisturbed / "chunks", ignore=shutil.ignore_patterns(".positions"))
    again = s2netd("run", "--config", a_config(undisturbed, bundle, follow=False))
    assert again.returncode == 0, again.stderr

    records = read_events(tmp_path / "events.jsonl")
    assert_each_once(records)
    wanted = final_state(read_events(undisturbed / "events.jsonl"))
    assert len(wanted) >= n_kills / 2
    assert wanted == final_state(records)
    assert log.read_text().count("stream.restored") >= n_kills / 2


def has_final(path: Path) -> bool:
    """Of a file that is being written, and whose last line may be half a line."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return any(json.loads(line)["final"] for line in lines if line.endswith("\n"))


def n_chunks(folder: Path, camera: str) -> int:
    return len(list((folder / camera).glob("*.mp4")))
