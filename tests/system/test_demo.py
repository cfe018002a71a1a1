"""`s2netd demo` as a process: a clip at its own pace through the whole daemon, without network."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from daemon.demo_clip import demo_clip
from engine.errors import WeightsError
from tests.support.footage import colour_clip
from tests.support.processes import final_state, read_events, s2netd, without_ids
from tests.support.real_parts import missing
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
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("offline")
def test_the_demo_takes_the_labels_it_is_given(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    clip = colour_clip(tmp_path / "clip.mp4", [(0.6, 0, 0), (1, 220, 0), (1, 0, 230)])
    done = s2netd("demo", clip, "--bundle", bundle, "--labels", "green", "--out", tmp_path / "d")

    assert 0 == done.returncode, done.stderr
    assert {"green"} == {r["label"] for r in read_events(tmp_path / "d" / "events.jsonl")}


@pytest.mark.usefixtures("offline")
def test_without_network_the_demo_asks_for_a_clip_of_ones_own(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    done = s2netd("demo", "--bundle", bundle, "--out", tmp_path / "demo")

    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert 78 == done.returncode
    assert lines[-1].startswith("s2netd: the demo's clip cannot be fetched: ")
    assert lines[-1].endswith("give one of your own: s2netd demo my.mp4")
    assert 1 == len(lines)
    assert not any((tmp_path / "cache").rglob("*.mp4"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"clip": "text.mp4"}, 1, "text.mp4: the payload starts with"),
        ({"--bundle": "nope"}, 78, "s2netd models pull nope"),
        ({"--labels": "gren"}, 78, "did you mean 'green'"),
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


@pytest.mark.weights
@pytest.mark.usefixtures("kinetics400")
def test_the_demo_without_a_clip_ends_with_a_timeline_of_its_own_one(tmp_path):
    try:
        demo_clip(Console(quiet=True))
    except WeightsError as error:
        missing(str(error))
    out = tmp_path / "demo"
    done = s2netd("demo", "--out", out, timeout_s=400)

    assert 0 == done.returncode, done.stderr
    said = " ".join(done.stdout.split())  # a console breaks lines
    assert "bikes.mp4 as camera demo" in said
    assert "bikes.mp4" in (out / "timeline.html").read_text(encoding="utf-8")
    summary = json.loads((out / "summary.json").read_text())
    records = read_events(out / "events.jsonl")
    kept = [r for r in final_state(records).values() if r["state"] == "closed"]
    assert summary["live_events"] == summary["offline_events"] == len(kept)
    assert ("That is the right answer" in said) == (not kept)


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
