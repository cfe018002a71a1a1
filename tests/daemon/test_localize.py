"""`s2netd localize`: the records a daemon would have published, and a page a video."""

import json
import os
import shutil
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.progress import Progress, TextColumn

from daemon.config import ModelConfig
from daemon.localize import (
    ProgressBar,
    camera_names,
    clock_text,
    ended_by_sigterm,
    files_of,
    localize_videos,
    lost_footage,
    not_localized,
    summary_table,
)
from daemon.models.choosing import open_model
from daemon.models.slot import OpenModel
from daemon.wire.records import event_schema
from engine.errors import LostFootageError, UnreadableVideoError
from engine.video.losses import check_losses
from tests.support.footage import BUSY, colour_clip
from tests.support.processes import final_state, read_events
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.videos import with_changed_packets

pytestmark = pytest.mark.openvino

SHORTER_THAN_A_SNIPPET = [(0.12, 220, 0)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[OpenModel]:
    opened = _opened(bundle)
    yield opened
    opened.close()


def _opened(bundle: Path, **changes: object) -> OpenModel:
    plain = {"bundle": str(bundle), "precision": "f32", "threads": 1, **changes}
    return open_model(ModelConfig.model_validate(plain))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


def localize(paths: list[Path], model: OpenModel, out: Path) -> str:
    """Localize; gives the table as a person sees it."""
    done = localize_videos(paths, model, out, "lab", Console(quiet=True))
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as table:
        console.quiet = False
        console.print(summary_table(done))
    return table.get()


def heading(page: Path) -> str:
    """The page's h1; reading it as XML proves that nothing in it went unescaped."""
    tree = ET.fromstring(page.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own page
    title = tree.find(".//h1")
    assert title is not None
    return "".join(title.itertext())


def test_every_record_is_valid_and_every_event_is_finished(tmp_path, model, clip):
    table = localize([clip], model, tmp_path)

    records = read_events(tmp_path / "events.jsonl")
    validator = Draft202012Validator(event_schema())
    for record in records:
        validator.validate(record)
    last = final_state(records)
    assert {("busy", "lab", "file")} == {
        (record["camera_id"], record["site"], record["epoch"]) for record in records
    }
    assert all(record["final"] for record in last.values())
    assert {"red": 3, "green": 1} == {
        label: sum(r["label"] == label and r["state"] == "closed" for r in last.values())
        for label in ("red", "green")
    }
    assert 4 == table.count("busy.mp4")


def test_events_lie_where_the_colours_are(tmp_path, model, clip):
    localize([clip], model, tmp_path)

    last = final_state(read_events(tmp_path / "events.jsonl")).values()
    seen = sorted(
        (record["label"], record["start"]["stream_us"], record["end"]["stream_us"])
        for record in last
        if record["state"] == "closed"
    )
    wanted = [
        ("green", 4_800_000, 7_300_000),
        ("red", 1_200_000, 3_200_000),
        ("red", 6_300_000, 7_300_000),
        ("red", 9_700_000, 11_000_000),
    ]
    for (label, start_us, end_us), (want_label, want_start_us, want_end_us) in zip(
        seen, wanted, strict=True
    ):
        assert want_label == label
        assert abs(start_us - want_start_us) <= 160_000  # a snippet
        assert abs(end_us - want_end_us) <= 160_000


def test_the_page_is_the_videos_own(tmp_path, model, clip):
    localize([clip], model, tmp_path)

    page = (tmp_path / "busy.html").read_text(encoding="utf-8")
    assert "busy.mp4" == heading(tmp_path / "busy.html")
    assert model.description in page
    assert 6 <= page.count("data:image/jpeg;base64,") <= 14


def test_two_videos_of_one_name_are_two_cameras(tmp_path, model, clip):
    twins = [tmp_path / side / "door.mp4" for side in ("left", "right")]
    for twin in twins:
        twin.parent.mkdir()
        shutil.copy(clip, twin)
    localize(twins, model, tmp_path / "out")

    written = {path.name for path in (tmp_path / "out").iterdir()}
    cameras = [record["camera_id"] for record in read_events(tmp_path / "out" / "events.jsonl")]
    assert {"door.html", "door-2.html", "events.jsonl"} == written
    assert cameras.count("door") == cameras.count("door-2") > 0


def test_cameras_are_named_for_their_files():
    paths = [Path("x/a.mp4"), Path("b.mp4"), Path("y/a.mkv"), Path("a.avi")]

    assert ["a", "b", "a-2", "a-3"] == camera_names(paths)


def test_a_video_shorter_than_a_snippet_is_said_to_be_so(tmp_path, model):
    short = colour_clip(tmp_path / "short.mp4", SHORTER_THAN_A_SNIPPET)
    table = localize([short], model, tmp_path / "out")

    assert [] == read_events(tmp_path / "out" / "events.jsonl")
    assert "shorter than one snippet" in table
    assert "short.mp4" == heading(tmp_path / "out" / "short.html")


def test_a_video_in_which_nothing_happens_tells_what_came_nearest(tmp_path, model):
    dull = colour_clip(tmp_path / "dull.mp4", [(2, 120, 0)])
    table = localize([dull], model, tmp_path / "out")

    assert [] == read_events(tmp_path / "out" / "events.jsonl")
    assert "no event; nearest: red" in table
    assert "0.24 < 0.40" in table


@pytest.mark.parametrize(
    ("name", "camera", "title"),
    [
        ("<script>&amp;\"'.mp4", "<script>&amp;\"'", "<script>&amp;\"'.mp4"),
        ("-rf.mp4", "-rf", "-rf.mp4"),
        ("two\nlines.mp4", "two?lines", "two lines.mp4"),
        # would turn the text after it around
        ("日本\u202eabc.mp4", "日本?abc", "日本\ufffdabc.mp4"),
        ("file:etc.mp4", "file:etc", "file:etc.mp4"),
        ("%s{0}.mp4", "%s{0}", "%s{0}.mp4"),
        ("..mp4", ".", "..mp4"),
        (".mp4", ".mp4", ".mp4"),
        ("$(id).mp4", "$(id)", "$(id).mp4"),
        ("n" * 251 + ".mp4", "n" * 100, "n" * 200 + "…"),
    ],
)
def test_a_hostile_file_name_stays_a_name(tmp_path, model, name, camera, title):
    video = colour_clip(tmp_path / name, [(0.4, 0, 0), (1, 220, 0), (0.4, 0, 0)])
    localize([video], model, tmp_path / "out")

    pages = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".html"]
    records = read_events(tmp_path / "out" / "events.jsonl")
    assert [f"{camera}.html"] == [page.name for page in pages]
    assert title == heading(pages[0])
    assert {camera} == {record["camera_id"] for record in records}
    assert {name, "out"} == {path.name for path in tmp_path.iterdir()}


def test_an_unreadable_video_does_not_keep_the_others_back(tmp_path, model, clip):
    broken, gone = tmp_path / "broken.mp4", tmp_path / "gone.mp4"
    broken.write_text("no video")
    other = shutil.copy(clip, tmp_path / "other.mp4")
    outcome = localize_videos(
        [clip, broken, gone, other], model, tmp_path / "out", "lab", Console(quiet=True)
    )

    assert ["busy.mp4", "other.mp4"] == [video.name for video in outcome.done]
    assert {"busy.html", "other.html", "events.jsonl"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    last = final_state(read_events(tmp_path / "out" / "events.jsonl"))
    assert {"busy", "other"} == {record["camera_id"] for record in last.values()}
    assert all(record["final"] for record in last.values())
    complaint = str(not_localized(outcome)).splitlines()
    assert "2 of 4 videos were not localized:" == complaint[0]
    assert ["broken.mp4", "gone.mp4"] == [
        Path(line.strip().partition(":")[0]).name for line in complaint[1:]
    ]


def test_what_was_left_out_of_a_video_is_told(tmp_path, model, clip):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(with_changed_packets(clip.read_bytes(), without(30), "mp4"))
    outcome = localize_videos([clip, damaged], model, tmp_path / "out", "lab", Console(quiet=True))

    (name, losses), *others = lost_footage(outcome).items()
    assert ("damaged.mp4", []) == (name, others)
    assert "were left out: pictures are missing that others refer to" in losses.told
    assert losses.told in (tmp_path / "out" / "damaged.html").read_text()
    check_losses({name: losses}, losses.share)
    with pytest.raises(LostFootageError, match=r"(?s)damaged\.mp4: .* s \(.*%\) in 1 parts"):
        check_losses({name: losses}, losses.share / 2)


def without(lost: int) -> Callable[[int, bytes], bytes | None]:
    return lambda number, payload: None if number == lost else payload


def test_a_run_that_is_interrupted_leaves_whole_files_of_what_was_done(tmp_path, model, clip):
    """By Ctrl-C, in the middle of the second video."""
    out, seen = tmp_path / "out", []

    def on_time(bar: ProgressBar, time_us: int) -> None:
        seen.append(time_us)
        if seen.count(seen[0]) == 2:
            raise KeyboardInterrupt
        original(bar, time_us)

    original = ProgressBar.at
    other = shutil.copy(clip, tmp_path / "other.mp4")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ProgressBar, "at", on_time)
        with pytest.raises(KeyboardInterrupt):
            localize_videos([clip, other], model, out, "lab", Console(quiet=True))

    assert {"busy.html", "events.jsonl"} == {path.name for path in out.iterdir()}
    assert {"busy"} == {r["camera_id"] for r in read_events(out / "events.jsonl")}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path, model):
    os.mkfifo(tmp_path / "pipe.mp4")
    outcome = localize_videos(
        [tmp_path / "pipe.mp4"], model, tmp_path / "out", "lab", Console(quiet=True)
    )

    assert "pipe.mp4: is no regular file" in str(not_localized(outcome))


def test_a_run_that_is_told_to_stop_ends_as_by_ctrl_c():
    with pytest.raises(SystemExit) as caught, ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)

    assert 128 + signal.SIGTERM == caught.value.code
    assert signal.SIG_DFL == signal.getsignal(signal.SIGTERM)


def test_if_no_video_was_done_what_was_there_stays(tmp_path, model):
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.jsonl").write_text("of before\n")
    outcome = localize_videos([tmp_path / "gone.mp4"], model, out, "lab", Console(quiet=True))

    assert 1 == len(outcome.failed)
    assert "of before\n" == (out / "events.jsonl").read_text()


def test_folders_are_all_their_videos_and_each_once(tmp_path):
    for name in ("b/2.MP4", "b/1.mkv", "b/deep/3.avi", "b/.hidden.mp4", "b/notes.txt", "a.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.mkfifo(tmp_path / "b" / "4.mp4")
    files = files_of([tmp_path / "a.mp4", tmp_path / "b", tmp_path / "b" / "1.mkv"])

    assert ["a.mp4", "b/1.mkv", "b/2.MP4", "b/deep/3.avi"] == [
        str(path.relative_to(tmp_path)) for path in files
    ]


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(UnreadableVideoError, match=r"without video files; looked for \.264"):
        files_of([tmp_path])


def test_one_bar_runs_over_all_videos_and_never_beyond_its_end():
    progress = Progress(TextColumn("{task.description}"), console=Console(quiet=True))
    bar = ProgressBar(progress, [10, 0, 20])  # of the second the length is not known
    shown = []
    for name, times_us in (("a", [4, 8]), ("b", [50]), ("c", [])):
        bar.begin(name)
        for time_us in times_us:
            bar.at(time_us)
            shown.append((progress.tasks[0].completed, progress.tasks[0].total))
        bar.end()
    task = progress.tasks[0]

    assert [(4, 30), (8, 30), (58, 78)] == shown
    assert (58, 58, "3/3 c") == (task.completed, task.total, task.description)


def test_only_the_wanted_labels_are_reported_and_drawn(tmp_path, bundle, clip):
    model = _opened(bundle, labels=["green"])
    try:
        localize([clip], model, tmp_path)
    finally:
        model.close()

    page = (tmp_path / "busy.html").read_text(encoding="utf-8")
    assert {"green"} == {r["label"] for r in read_events(tmp_path / "events.jsonl")}
    assert "<bdi>green</bdi>" in page
    assert "<bdi>red</bdi>" not in page


def test_a_higher_opening_score_opens_less(tmp_path, bundle, clip):
    model = _opened(bundle, open_score=1.9)
    try:
        localize([clip], model, tmp_path)
    finally:
        model.close()

    assert [] == read_events(tmp_path / "events.jsonl")


def test_a_second_run_replaces_the_first(tmp_path, model, clip):
    localize([clip], model, tmp_path)
    first = (tmp_path / "events.jsonl").read_bytes()
    localize([clip], model, tmp_path)

    assert first == (tmp_path / "events.jsonl").read_bytes()
    assert first.endswith(b"\n")
    assert json.loads(first.splitlines()[0])["revision"] == 0


@pytest.mark.parametrize(
    ("time_us", "text"),
    [(0, "0:00.0"), (9_949_999, "0:09.9"), (59_960_000, "1:00.0"), (3_600_000_000, "60:00.0")],
)
def test_a_clock_reads_as_on_a_player(time_us, text):
    assert text == clock_text(time_us)


def test_every_video_has_a_name_of_its_own(tmp_path, model):
    paths = [tmp_path / "x" / "a.mp4", tmp_path / "y" / "a.mp4", tmp_path / "z" / "a-2.mp4"]
    for path in paths:
        path.parent.mkdir()
        colour_clip(path, [(1, 220, 0)])
    localize(paths, model, tmp_path / "out")

    pages = {path.stem for path in (tmp_path / "out").glob("*.html")}
    assert {"a", "a-3", "a-2"} == pages


def test_a_name_in_brackets_is_no_markup(tmp_path, model):
    video = colour_clip(tmp_path / "[bold]x.mp4", [(2, 220, 0)])

    assert "[bold]x.mp4" in localize([video], model, tmp_path / "out")
