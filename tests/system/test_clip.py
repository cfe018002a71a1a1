"""`s2netd clip`: from a daemon's event back to the video that shows it."""

import json
import os
from pathlib import Path

import av
import pytest

from tests.support.kafka import MakeTopic
from tests.support.kafka_daemon import a_config, produce, run_until_all_ended
from tests.support.processes import read_events, s2netd, write_config

pytestmark = [pytest.mark.slow, pytest.mark.openvino]


def seconds_of(video: Path) -> float:
    with av.open(str(video)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return float(max(times) - min(times))


def test_an_event_of_a_folder(tmp_path: Path, bundle: Path, clip: Path) -> None:
    produced = s2netd(
        *("produce", clip, "--camera", "door", "--to", f"dir:{tmp_path / 'chunks'}"),
        *("--chunk-seconds", "0.5", "--transcode", "never"),
    )
    assert produced.returncode == 0, produced.stderr
    config = write_config(
        tmp_path / "config.yaml",
        model={"bundle": str(bundle), "precision": "f32"},
        source={"kind": "directory", "path": str(tmp_path / "chunks"), "follow": False},
        sink={"kind": "jsonl", "path": str(tmp_path / "events.jsonl")},
        journal={"path": str(tmp_path / "journal.sqlite")},
    )
    assert s2netd("run", "--config", config).returncode == 0
    event = read_events(tmp_path / "events.jsonl")[-1]

    cut = s2netd("clip", event["event_id"][:8], "--config", config, "--out", tmp_path / "a.mp4")

    assert cut.returncode == 0, cut.stderr
    assert event["duration_s"] <= seconds_of(tmp_path / "a.mp4") <= event["duration_s"] + 2
    missing = s2netd("clip", "no-such-event", "--config", config)
    assert (78, 1) == (missing.returncode, len(missing.stderr.splitlines()))
    for file in (tmp_path / "chunks" / "door").iterdir():
        file.unlink()
    gone = s2netd("clip", event["event_id"], "--config", config)
    assert (1, True) == (gone.returncode, "is kept any more" in gone.stderr)


def test_an_event_of_a_camera_without_headers_whose_clock_was_set(
    tmp_path: Path, bundle: Path, clip: Path
) -> None:
    """All but the first of its files are of a run that is not the first of its name."""
    to = ("--camera", "door", "--to", f"dir:{tmp_path / 'chunks'}", "--chunk-seconds", "0.5")
    assert s2netd("produce", clip, *to, "--transcode", "never").returncode == 0
    folder = tmp_path / "chunks" / "door"
    for file in [*folder.glob("*.json"), *folder.glob("*.end")]:
        file.unlink()
    for number, file in enumerate(sorted(folder.glob("*.mp4"))):
        at_s = 1_800_000_000 + number / 2 + 3600 * (number == 0)
        os.utime(file, (at_s, at_s))
    config = write_config(
        tmp_path / "config.yaml",
        model={"bundle": str(bundle), "precision": "f32"},
        source={"kind": "directory", "path": str(tmp_path / "chunks"), "follow": False},
        sink={"kind": "jsonl", "path": str(tmp_path / "events.jsonl")},
        journal={"path": str(tmp_path / "journal.sqlite")},
    )
    assert s2netd("run", "--config", config).returncode == 0
    event = read_events(tmp_path / "events.jsonl")[-1]

    cut = s2netd("clip", event["event_id"], "--config", config, "--out", tmp_path / "a.mp4")

    assert "@" in event["epoch"]
    assert cut.returncode == 0, cut.stderr
    assert event["duration_s"] <= seconds_of(tmp_path / "a.mp4") <= event["duration_s"] + 2


@pytest.mark.kafka
async def test_an_event_of_a_topic(
    tmp_path: Path, bundle: Path, clip: Path, kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    chunks, events = await make_topic(2), await make_topic(2)
    produce(clip, ["a", "b", "c"], kafka_bootstrap, chunks, 0.5)
    config = a_config(tmp_path, bundle, kafka_bootstrap, chunks, events, f"clip-{chunks}")
    told = await run_until_all_ended(config, kafka_bootstrap, events, 3, tmp_path / "log")
    event = next(one for one in reversed(told) if one["camera_id"] == "b")

    cut = s2netd("clip", event["event_id"], "--config", config, "--out", tmp_path / "b.mp4")

    assert cut.returncode == 0, cut.stderr
    assert event["evidence"]["topic"] == chunks, json.dumps(event)
    assert event["duration_s"] <= seconds_of(tmp_path / "b.mp4") <= event["duration_s"] + 2
