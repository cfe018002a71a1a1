"""Tagged clips of real fights: split by source, rewritten, joined; and the measures on them."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.errors import BundleError, DataError
from engine.types import Span
from engine.video.encoding import encode_video
from engine.video.frames import probe_video
from tests.support.checkout import CHECKOUT
from tests.support.real_parts import missing, torch_imports
from training.benchmarks.fights import (
    CompositedStream,
    FightClip,
    StreamPart,
    build_fights,
    grid_pictures,
    interleaved,
    read_fight_clips,
    split_by_source,
)
from training.benchmarks.fights_baselines import (
    area_under_roc,
    average_precision,
    cuts_of,
    segments_of,
)
from training.loaders.annotations import read_annotations
from training.loaders.tags import read_tags

with torch_imports():
    from training.benchmarks.fights_report import METRICS, fight_report

CONFIG = CHECKOUT / "configs/training/s2net-clips.yaml"


def a_clip(name: str, source: str, *, is_fight: bool = False) -> FightClip:
    return FightClip(name, Path(f"{name}.mp4"), is_fight, source, 320, 240)


def some_clips(n_sources: int = 12) -> list[FightClip]:
    return [
        a_clip(f"{source}-{i}", f"source {source}", is_fight=i % 2 == 0)
        for source in range(n_sources)
        for i in range(2 + source % 3)
    ]


def write_clips(folder: Path, n_sources: int = 5) -> Path:
    """Two tiny clips a source, red fights and blue others, of several sizes and rates."""
    rows = []
    for source in range(n_sources):
        for is_fight in (True, False):
            name = f"{'f' if is_fight else 'n'}{source}"
            width, height, fps = [(64, 48, 25), (48, 48, 20), (96, 54, 30)][source % 3]
            colour = (200, 20, 20) if is_fight else (20, 20, 200)
            pictures = [np.full((height, width, 3), colour, np.uint8)] * fps
            folder.mkdir(exist_ok=True)
            encode_video(pictures, folder / f"{name}.mp4", fps=fps, key_frame_every=fps)
            rows.append(
                {
                    "id": name,
                    "file": f"{name}.mp4",
                    "label": "fight" if is_fight else "background",
                    "w": width,
                    "h": height,
                    "source": f"source {source}" if source else None,
                }
            )
    (folder / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_no_source_is_on_both_sides_and_both_have_their_share() -> None:
    clips = some_clips()
    train, test = split_by_source(clips)

    assert not {clip.source for clip in train} & {clip.source for clip in test}
    assert {clip.name for clip in clips} == {clip.name for clip in [*train, *test]}
    assert 0.3 < len(test) / len(clips) < 0.5
    assert 0.3 < sum(clip.is_fight for clip in test) / sum(clip.is_fight for clip in clips) < 0.5


def test_the_split_depends_on_the_clips_alone() -> None:
    clips = some_clips()

    assert split_by_source(clips) == split_by_source(clips[::-1])


def test_fights_are_kept_apart_while_there_is_enough_else() -> None:
    clips = some_clips()
    apart = [a_clip("x", ""), a_clip("y", ""), *clips, a_clip("z", "")]
    order = interleaved(apart, np.random.default_rng(0))

    assert sorted(clip.name for clip in apart) == sorted(clip.name for clip in order)
    n_fights = sum(clip.is_fight for clip in apart)
    assert n_fights <= len(apart) - n_fights + 1
    assert not any(a.is_fight and b.is_fight for a, b in itertools.pairwise(order))
    assert order == interleaved(apart, np.random.default_rng(0))


def test_more_fights_than_gaps_are_all_kept() -> None:
    clips = [a_clip(f"f{i}", "", is_fight=True) for i in range(7)] + [a_clip("n", "")]

    order = interleaved(clips, np.random.default_rng(0))

    assert sorted(clip.name for clip in clips) == sorted(clip.name for clip in order)


def test_fights_that_follow_at_once_are_one_in_the_truth() -> None:
    kinds = [True, True, False, True]
    parts = tuple(
        StreamPart(a_clip(str(i), "", is_fight=kind), Span(i * 100, i * 100 + 100))
        for i, kind in enumerate(kinds)
    )
    stream = CompositedStream("s", Path("s.mp4"), parts)

    assert [Span(0, 200), Span(300, 400)] == [one.span for one in stream.truth]
    assert 400 == stream.duration_us


def test_clips_become_one_size_and_rate_and_streams_know_their_boundaries(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    found = build_fights(folder, tmp_path / "out", clips_a_stream=3)

    facts = [probe_video(path) for path in found.videos]
    assert {(240, 240)} == {(seen.width, seen.height) for seen in facts}
    sources = {part.clip.source for stream in found.streams for part in stream.parts}
    assert not sources & {clip.source for clip in found.train}
    joined = [part.clip.name for stream in found.streams for part in stream.parts]
    assert sorted(joined) == sorted(clip.name for clip in found.test)
    assert {tmp_path / "out/videos"} == {clip.path.parent for clip in found.clips}
    for stream in found.streams:
        pictures = grid_pictures(stream.path)
        assert stream.duration_us == len(pictures) * 40_000
        for part in stream.parts:  # no picture of a clip lies outside its interval
            shown = pictures[part.span.start_us // 40_000 : part.span.end_us // 40_000]
            assert {part.clip.is_fight} == {bool(one[..., 0].mean() > 100) for one in shown}


def test_the_tables_are_those_of_any_tagged_folder(tmp_path: Path) -> None:
    found = build_fights(write_clips(tmp_path / "clips"), tmp_path / "out", clips_a_stream=3)

    tags = read_tags(tmp_path / "out/tags.csv")
    annotations = read_annotations(tmp_path / "out/annotations.json")
    assert {clip.name: ("fight",) * clip.is_fight for clip in found.train} == {
        name: row.tags for name, row in tags.items()
    }
    assert {stream.name: stream.truth for stream in found.streams} == {
        video.name: video.truth for video in annotations.of("testing", tmp_path)
    }


def test_building_again_keeps_what_is_there_and_refuses_other_clips(tmp_path: Path) -> None:
    folder, out = write_clips(tmp_path / "clips"), tmp_path / "out"
    first = build_fights(folder, out, clips_a_stream=3)
    times = [path.stat().st_mtime_ns for path in first.videos]

    assert first == build_fights(folder, out, clips_a_stream=3)
    assert times == [path.stat().st_mtime_ns for path in first.videos]
    with pytest.raises(DataError, match=r"stream_00\.json: lists other clips: choose another"):
        build_fights(folder, out, clips_a_stream=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "is damaged"), ('[{"id": 1}]', "is damaged")],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=rf"manifest\.json: {message}.*: fetch the clips") as seen:
        read_fight_clips(tmp_path)
    assert "\n" not in str(seen.value)


def test_areas_and_precisions_by_hand() -> None:
    wanted = np.array([True, False, True, False])

    assert 1.0 == area_under_roc(np.array([4.0, 1, 3, 2]), wanted)
    assert 0.5 == area_under_roc(np.zeros(4), wanted)
    assert 0.75 == area_under_roc(np.array([4.0, 3, 2, 1]), wanted)
    assert pytest.approx((1 + 2 / 3) / 2) == average_precision(np.array([4.0, 3, 2, 1]), wanted)
    assert 0.5 == average_precision(np.zeros(4), wanted)


def test_a_cut_stands_out_from_the_motion_around_it() -> None:
    motion = np.full(100, 6.0)
    motion[[0, 40]] = 0, 60
    motion[70:] = 20  # much moves, but nothing is cut

    assert [40] == cuts_of(motion).tolist()
    assert [Span(0, 1_600_000), Span(1_600_000, 4_000_000)] == segments_of(motion)


@pytest.mark.torch
@pytest.mark.openvino
@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.slow
def test_real_fights_are_found_in_composited_streams(tmp_path: Path) -> None:
    from training.extract import extract_in_parallel  # noqa: PLC0415 - after the check for torch

    data = Path(os.environ.get("S2NETD_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not (data / "fight_surv").is_dir():
        pytest.skip("no real clips: set S2NETD_TEST_DATA to a folder that holds fight_surv/")
    try:
        bundle = resolve_bundle("kinetics400-160")
    except BundleError as error:
        missing(f"no real weights: {error}")
    # A dozen clips a side are too few to rank reliably: all of them, for minutes, on demand only.
    is_whole = os.environ.get("S2NETD_TEST_ALL_FIGHTS") == "1"
    found = build_fights(
        data / "fight_surv",
        tmp_path / "data",
        n_clips=None if is_whole else 6,
        clips_a_stream=6,
    )
    failed = extract_in_parallel(
        found.videos,
        ModelBundle.load(bundle).path,
        tmp_path / "features",
        processes=2,
        precision="f32",
    )

    report = fight_report(
        found,
        tmp_path / "data",
        tmp_path / "features",
        CONFIG,
        tmp_path / "runs",
        seeds=(0,),
        threads=1,
    )

    assert {} == failed
    assert report.table().startswith(f"composited: {len(found.train)} training clips (")
    assert all(metric in report.table() for metric in METRICS)
    assert all(
        0 <= value <= 100
        for row in report.rows
        for value in row.values.ravel()
        if not np.isnan(value)
    )
    assert report.n_cuts_found > 0.8 * report.n_cuts
    if is_whole:
        assert report.value("S2Net from tags", "clip AUC") > 65
        by_chance = report.value("cut detector + chance", "frame AP")
        assert report.value("S2Net from tags", "frame AP") > by_chance + 5
        return
    assert (12, 2, 10) == (len(found.train), len(found.streams), report.n_cuts)
