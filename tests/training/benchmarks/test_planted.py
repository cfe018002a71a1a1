"""Planted features: reproducible, shaped like the published ones, and really with actions."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DataError
from engine.judging.truth import TruthSpan
from engine.types import FloatArray, Span
from tests.support.checkout import CHECKOUT
from tests.support.error_bounds import gamma
from training.benchmarks.planted import Planter, Strength, coverage, plant, synthetic_timelines
from training.loaders.annotations import AnnotatedVideo, Annotations
from training.loaders.thumos import load_thumos, read_thumos

ACTION = TruthSpan(0, Span(6_400_000, 12_800_000))
VIDEO = AnnotatedVideo("one", "train", "", 40_000_000, (0,), (ACTION,))


def small(seed: int = 0) -> Annotations:
    return synthetic_timelines(seed, n_train=6, n_test=4, n_classes=3)


def everything_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_published_layout_is_written_and_read_again(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []

    target = plant(small(), tmp_path, n_videos=2, on_progress=lambda n, of: done.append((n, of)))

    notes: list[str] = []
    train = load_thumos(target, tmp_path, "train", "joint", on_note=notes.append)
    test = load_thumos(target, tmp_path, "test", "rgb", on_note=notes.append)
    assert [(1, 4), (2, 4), (3, 4), (4, 4)] == done
    assert (2, 2) == (len(train.records), len(test.records))
    assert [f"{tmp_path}: 2 of 2 listed videos have features"] * 2 == notes
    assert (2048, 1024) == (train.feature_dim, test.feature_dim)
    for record in (*train.records, *test.records):
        assert record.features.min() >= 0
        assert record.tags
        assert record.duration_us // 640_000 == len(record.features)


def test_equal_seeds_write_equal_files(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        plant(small(), tmp_path / name, seed=seed, modality="rgb", n_videos=1)

    first = everything_below(tmp_path / "first")
    assert first == everything_below(tmp_path / "again")
    assert first != everything_below(tmp_path / "other")
    assert not [name for name in first if "flow" in name]


def test_few_videos_still_show_every_class(tmp_path: Path) -> None:
    target = plant(small(), tmp_path, modality="rgb", n_videos=3)

    train = load_thumos(target, tmp_path, "train")

    assert {0, 1, 2} == {tag for record in train.records for tag in record.tags or ()}


def contrast(strength: Strength) -> float:
    """Mean squared distance of the action's snippets from the others', per channel."""
    rows: FloatArray = Planter(1, 0, 256, strength).features(VIDEO)
    inside = coverage(ACTION.span, len(rows)) == 1
    return float(np.mean((rows[inside].mean(axis=0) - rows[~inside].mean(axis=0)) ** 2))


def test_actions_are_in_the_features_as_strong_as_asked() -> None:
    quiet = Strength(weak=0, core=0, spread=0, decoys=0, context=0, background=0, noise=0.01)

    # Of 0.01 of (mean + 0.2), squared: the noise, a tenth of which is left in means of 10 rows.
    assert 1e-5 > contrast(quiet)
    assert 100 * contrast(quiet) < contrast(replace(quiet, weak=0.5))
    assert contrast(replace(quiet, weak=0.5)) < contrast(replace(quiet, weak=0.5, core=1.0))


def test_each_camera_has_an_offset_of_its_own() -> None:
    planter = Planter(1, 0, 64, Strength(camera_offset=1.0, noise=0), n_cameras=2)

    first, second = planter.features(VIDEO, 0), planter.features(VIDEO, 1)
    difference = second - first

    # The same rows plus either offset, rounded to float32 when added and when subtracted here.
    off = 2 * gamma(3) * max(float(rows.max()) for rows in (first, second))
    np.testing.assert_allclose(
        difference, np.broadcast_to(difference[0], difference.shape), rtol=0, atol=off
    )
    assert 0.1 < np.abs(difference[0]).mean()


def test_a_snippet_half_in_an_action_has_half_of_it() -> None:
    assert [0.0, 0.5, 1.0, 0.25] == coverage(Span(960_000, 2_080_000), 4).tolist()


def test_a_video_of_unknown_length_ends_after_its_last_action(tmp_path: Path) -> None:
    timelines = Annotations(("wave",), (replace(VIDEO, duration_us=None),))

    target = plant(timelines, tmp_path, modality="rgb")

    assert 17.8 == json.loads(target.read_text())["database"]["one"]["duration"]


def test_timelines_without_videos_and_folders_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to plant"):
        plant(Annotations(("wave",), ()), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        plant(small(), tmp_path / "file", n_videos=1)


def test_invented_timelines_resemble_the_real_ones() -> None:
    videos = synthetic_timelines(seed=3).videos

    spans = [truth.span for video in videos for truth in video.truth or ()]
    total_us = sum(video.duration_us or 0 for video in videos)
    share = sum(span.duration_us for span in spans) / total_us
    assert 412 == len(videos)
    assert 2.9e6 < np.median([span.duration_us for span in spans]) < 3.5e6
    assert 0.25 < share < 0.4
    assert 12 < len(spans) / len(videos) < 22
    for video in videos:
        assert all(truth.span.end_us <= (video.duration_us or 0) for truth in video.truth or ())


@pytest.mark.shared_data
def test_real_timelines_are_planted(tmp_path: Path) -> None:
    data = Path(os.environ.get("S2NETD_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    arrays = data / "thumos14" / "reduced"
    if not arrays.is_dir():
        pytest.skip("no real annotations: set S2NETD_TEST_DATA to a folder that holds thumos14/")

    target = plant(read_thumos(arrays), tmp_path, modality="rgb", n_videos=3)

    test = load_thumos(target, tmp_path, "test")
    assert 3 == len(test.records)
    assert 20 == len(test.class_names)
    gt_json = read_thumos(data / "thumos14" / "gt.json")
    assert plant(gt_json, tmp_path / "no lengths", modality="rgb", n_videos=1).is_file()
