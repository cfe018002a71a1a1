"""`s2netd demo` as a process: a clip or a scene through the whole daemon, without network."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.footage import colour_clip
from tests.support.processes import (
    PATIENCE_S,
    final_state,
    read_events,
    s2netd,
    start_s2netd,
    wait_until,
    without_ids,
)
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.openvino]

# Red twice and green once in six seconds.
SCENES = [(1.0, 0, 0), (1.0, 220, 0), (1.0, 0, 0), (1.2, 0, 230), (0.6, 0, 0), (1.2, 220, 0)]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no way to fill it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.mark.usefixtures("offline")
def test_the_demo_shows_live_what_localize_finds(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    clip = colour_clip(tmp_path / "clip.mp4", SCENES)
    out = tmp_path / "demo"
    done = s2netd("demo", clip, "--bundle", bundle, "--out", out)
    localized = s2netd("localize", clip, "--bundle", bundle, "--out", tmp_path / "offline")

    assert 0 == done.returncode, done.stderr
    assert 0 == localized.returncode, localized.stderr
    records = read_events(out / "events.jsonl")
    wanted = without_ids(read_events(tmp_path / "offline" / "events.jsonl"))
    assert wanted == without_ids(records)
    kept = [r for r in final_state(records).values() if r["state"] == "closed"]
    assert ["green", "red", "red"] == sorted(record["label"] for record in kept)
    summary = json.loads((out / "summary.json").read_text())
    assert {
        "live_events": 3,
        "offline_events": 3,
        "timeline": str(out / "timeline.html"),
    } == summary
    assert 3 == done.stdout.count("started")
    assert 3 == done.stdout.count("ended")
    assert "clip.mp4" in (out / "timeline.html").read_text(encoding="utf-8")
    # nothing was pulled; which precision is fastest here may have been measured
    assert {"precisions"} >= {path.name for path in (tmp_path / "cache" / "s2netd").glob("*")}


@pytest.mark.usefixtures("offline")
def test_the_demo_takes_the_labels_it_is_given(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    clip = colour_clip(tmp_path / "clip.mp4", [(0.6, 0, 0), (1, 220, 0), (1, 0, 230)])
    done = s2netd("demo", clip, "--bundle", bundle, "--labels", "green", "--out", tmp_path / "d")

    assert 0 == done.returncode, done.stderr
    assert {"green"} == {r["label"] for r in read_events(tmp_path / "d" / "events.jsonl")}


@pytest.mark.usefixtures("offline")
def test_without_a_clip_a_scene_is_drawn_and_its_events_are_held_against_it(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")  # knows colours, none of the scene's actions
    out = tmp_path / "demo"
    scene = ("--bundle", bundle, "--seed", 4, "--seconds", 12)
    done = s2netd("demo", *scene, "--pace", "fast", "--out", out)

    assert 0 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    (result,) = summary["scenes"]
    actions = result["missed_actions"]
    assert (4, "cam5", 12.0) == (result["seed"], result["camera"], round(result["duration_s"]))
    assert 0 == summary["total"]["recall"]
    assert len(actions) == summary["total"]["actions"] == summary["total"]["missed"] > 0
    assert result["live_events"] == result["offline_events"] == summary["total"]["false"]
    for action in actions:
        assert f"{action['label']} starts" in done.stdout
        assert f"{action['label']} ends" in done.stdout
    assert f"0 of {len(actions)} actions found, {len(actions)} missed" in done.stdout
    page = (out / "timeline.html").read_text(encoding="utf-8")
    assert len(actions) == page.count('<i class="truth missed" style')
    assert "scene 4 on cam5" in page


@pytest.mark.usefixtures("offline")
def test_several_scenes_end_with_one_row_each_and_their_total(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    out = tmp_path / "demo"
    seeds = ("--seed", 1, "--seed", 2, "--seconds", 10, "--camera", 3)
    done = s2netd("demo", "--bundle", bundle, *seeds, "--pace", "fast", "--out", out)

    assert 0 == done.returncode, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    scenes = summary["scenes"]
    assert [(1, "cam3"), (2, "cam3")] == [(one["seed"], one["camera"]) for one in scenes]
    assert scenes[0]["missed_actions"] != scenes[1]["missed_actions"]
    assert summary["total"]["actions"] == sum(one["actions"] for one in scenes)
    assert (out / "seed-1" / "timeline.html").exists()
    assert (out / "seed-2" / "scene.mp4").exists()
    assert "in all: 0 of " in done.stdout


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("moment", "inherited"),
    [
        pytest.param("[!.]*/*.mp4", signal.default_int_handler, id="streaming"),
        # As a script's background job has it: whoever sends the signal all the same means it.
        pytest.param(".positions/.lock", signal.SIG_IGN, id="opening, begun with SIGINT ignored"),
    ],
)
def test_an_interrupted_demo_ends_soon_and_without_a_word_too_many(tmp_path, moment, inherited):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    out, log = tmp_path / "demo", tmp_path / "log"
    with sigint_as(inherited):
        process = start_s2netd("demo", "--bundle", bundle, "--seconds", 60, "--out", out, log=log)
    wait_until(lambda: bool(list((out / "chunks").glob(moment))), log.read_text)
    process.send_signal(signal.SIGINT)
    code = process.wait(PATIENCE_S)

    told = log.read_text() + (out / "daemon.log").read_text()
    assert 130 == code, told
    assert "Traceback" not in told
    assert not (out / "summary.json").exists()


@contextmanager
def sigint_as(handler: Any) -> Iterator[None]:
    """What processes are begun with meanwhile, however this one was begun."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"clip": "text.mp4"}, 1, "text.mp4: it starts with"),
        ({"--bundle": "nope"}, 78, "s2netd models pull nope"),
        ({"--labels": "gren"}, 78, "did you mean 'green'"),
        ({"--seed": 3}, 78, "--seed and --camera are for a drawn scene"),
        ({"--pace": "slow"}, 78, "--pace is 'slow', wanted real or fast"),
    ],
)
def test_a_mistake_ends_the_demo_with_one_line(tmp_path, changes, code, message):
    colour_clip(tmp_path / "clip.mp4", [(0.4, 0, 0)])
    (tmp_path / "text.mp4").write_text("this is no video")
    bundle = write_tiny_bundle(tmp_path / "tiny")
    said = {"clip": "clip.mp4", "--bundle": bundle, "--out": tmp_path / "demo", **changes}
    clip = tmp_path / said.pop("clip")
    done = s2netd("demo", clip, *(part for option in said.items() for part in option))

    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert code == done.returncode
    assert 1 == len(lines)
    assert lines[0].startswith("s2netd: ")
    assert message in lines[0]


@pytest.mark.usefixtures("offline")
def test_the_demo_deletes_nothing_that_is_not_its_own(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    own = tmp_path / "own"
    own.mkdir()
    clip = colour_clip(own / "clip.mp4", [(1, 220, 0)])
    (own / "notes.txt").write_text("mine")
    (own / "events.jsonl").write_text("from an earlier demo\n")
    done = s2netd("demo", clip, "--bundle", bundle, "--out", own)

    assert 0 == done.returncode, done.stderr
    assert clip.exists()
    assert "mine" == (own / "notes.txt").read_text()
    assert "earlier" not in (own / "events.jsonl").read_text()
