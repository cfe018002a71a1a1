"""A daemon over a real Apache Kafka, and then its feature log replayed by real processes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from engine.files.feature_export import exported_cameras, read_export
from tests.support.kafka import MakeTopic
from tests.support.kafka_daemon import (
    EVENT_PARTITIONS,
    a_config,
    produce,
    run_until_all_ended,
)
from tests.support.processes import n_taken_up, read_events, run_and_kill, s2netd
from tests.support.scripted import a_camera_mean
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.openvino]


def words(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What event records say; once, for this reader sees what a kill left uncommitted too."""
    rows = {
        (
            record["event_id"],
            record["revision"],
            record["state"],
            record["reason"],
            record["camera_id"],
            record["epoch"],
            record["label"],
            json.dumps([record["start"], record["end"], record["decided"]]),
            record["score"],
            record["model"]["id"],
        )
        for record in records
    }
    return sorted(rows)


def replay(config: Path, out: Path, *more: object) -> list[dict[str, Any]]:
    done = s2netd("replay", "--from-features", "--config", config, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "difference.json").read_text())


async def test_the_bundle_that_served_gives_equal_events_and_another_a_difference(
    tmp_path: Path, clip: Path, kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", camera_mean=a_camera_mean())
    chunks, events = await make_topic(2), await make_topic(EVENT_PARTITIONS)
    config = a_config(tmp_path, bundle, kafka_bootstrap, chunks, events, f"of-{chunks}")
    log = tmp_path / "log"
    for _ in range(2):  # two runs of each camera, the mean goes on
        produce(clip, ["a", "b"], kafka_bootstrap, chunks, 0.5)
    run_and_kill(config, log, random.Random(4), after=lambda: n_taken_up(log) >= 2)  # noqa: S311
    published = await run_until_all_ended(config, kafka_bootstrap, events, 4, log)

    same = replay(config, tmp_path / "same")

    assert len(published) >= 16
    assert words(published) == words(read_events(tmp_path / "same" / "events.jsonl"))
    assert {"equal"} == {row["kind"] for row in same}
    pages = sorted(page.name for page in (tmp_path / "same").glob("*.html"))
    assert ["a-2.html", "a.html", "b-2.html", "b.html"] == pages

    strict = replay(config, tmp_path / "strict", "--open-score", "1.9")
    inverted = write_tiny_bundle(
        tmp_path / "inverted", camera_mean=a_camera_mean(), is_inverted=True
    )
    other = replay(config, tmp_path / "other", "--bundle", inverted, "--camera", "a")

    assert {"only old"} == {row["kind"] for row in strict}
    assert "only new" in {row["kind"] for row in other}
    assert {"a"} == {row["camera_id"] for row in other}

    exported = s2netd("features", "export", "--config", config, "--out", tmp_path / "exported")
    assert exported.returncode == 0, exported.stderr
    assert ("a", "b") == exported_cameras(tmp_path / "exported")
    assert 2 == len({part.run for part in read_export(tmp_path / "exported", "a")})

    ahead = ("replay", "--from-features", "--config", config, "--out", tmp_path / "ahead")
    none = s2netd(*ahead, "--since", "2100-01-01T00:00")
    unknown = s2netd(*ahead, "--camera", "nobody")

    assert (78, 78) == (none.returncode, unknown.returncode)
    assert "holds no features of " in none.stderr.splitlines()[-1]
    assert "holds no features of camera nobody" in unknown.stderr.splitlines()[-1]
