"""Real processes over folders: produce, run, localize, SIGTERM and SIGKILL."""

import json
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    PATIENCE_S,
    assert_repeats_agree,
    final_state,
    read_events,
    s2netd,
    start_s2netd,
    wait_until,
    without_ids,
    write_config,
)

pytestmark = [pytest.mark.slow, pytest.mark.openvino]

N_KILLS = 20
CHUNKS_OF_THE_CLIP = 24  # of half a second; each loop shows at least four events


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
        state={"path": str(folder / "state.sqlite")},
    )


@pytest.mark.parametrize("chunk_s", [0.5, 1.0, 5.0])
def test_a_folder_of_chunks_gives_what_localize_gives(tmp_path, bundle, clip, chunk_s):
    chunks = tmp_path / "chunks"
    for camera in ("a", "b"):
        done = s2netd(
            "produce",
            clip,
            "--camera",
            camera,
            "--to",
            f"dir:{chunks}",
            "--chunk-seconds",
            chunk_s,
        )
        assert done.returncode == 0, done.stderr
    ran = s2netd("run", "--config", a_config(tmp_path, bundle, follow=False))
    localized = s2netd("localize", clip, "--bundle", bundle, "--out", tmp_path / "out")

    assert ran.returncode == 0, ran.stderr
    assert localized.returncode == 0, localized.stderr
    wanted = without_ids(read_events(tmp_path / "out" / "events.jsonl"))
    records = read_events(tmp_path / "events.jsonl")
    assert len(wanted) >= 4
    for camera in ("a", "b"):
        assert wanted == without_ids([r for r in records if r["camera_id"] == camera])


def test_sigterm_drains_and_exits_with_0(tmp_path, bundle, clip):
    s2netd("produce", clip, "--camera", "a", "--to", f"dir:{tmp_path / 'chunks'}")
    log = tmp_path / "run.log"
    config = a_config(tmp_path, bundle, follow=True)
    daemon = start_s2netd("run", "--config", config, log=log)
    wait_until(lambda: "daemon.ready" in log.read_text(), log.read_text)
    events = tmp_path / "events.jsonl"
    wait_until(lambda: any(r["final"] for r in whole_records(events)), log.read_text)
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(PATIENCE_S) == 0
    assert "daemon.stopped" in log.read_text()


def test_20_kills_lose_nothing_and_contradict_nothing(tmp_path, bundle, clip):
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
    for number in range(N_KILLS):
        n_before = n_restored(log)
        daemon = start_s2netd("run", "--config", config, log=log)
        # Half of them at any moment of a start, half once a camera goes on where it was: the first
        # when an event has ended, so when states of earlier chunks were kept.
        if number == 1:
            wait_until(lambda: any(r["final"] for r in whole_records(events)), log.read_text)
        elif number % 2:
            wait_until(lambda n=n_before: n_restored(log) > n, log.read_text)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(rng.uniform(0.2, 2.2))
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    for camera in ("a", "b"):
        wait_until(lambda camera=camera: n_chunks(chunks, camera) >= 2 * CHUNKS_OF_THE_CLIP)
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

    records = read_events(events)
    assert_repeats_agree(records)
    wanted = final_state(read_events(undisturbed / "events.jsonl"))
    assert len(wanted) >= 10
    assert wanted == final_state(records)
    assert n_restored(log) >= N_KILLS / 2 - 1


def n_restored(log: Path) -> int:
    return log.read_text().count("stream.restored") if log.exists() else 0


def whole_records(path: Path) -> list[dict[str, Any]]:
    """Of a file that is being written, and whose last line may be half a line."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def n_chunks(folder: Path, camera: str) -> int:
    return len(list((folder / camera).glob("*.mp4")))
