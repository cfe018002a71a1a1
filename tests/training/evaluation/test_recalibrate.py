"""Opening scores of cameras, fitted on footage in which nothing happens."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle.model_bundle import ModelBundle
from engine.spec import ModelSpec
from tests.support.scripted import SmoothingLocalizer, a_spec
from tests.support.tiny_bundle import write_tiny_bundle
from training.evaluation.recalibrate import (
    LEAST_CAMERA_HOURS,
    Fit,
    fit_on_quiet,
    with_opening_scores,
)
from training.evaluation.stream_runs import stream_video
from training.records import VideoRecord

LONG_US = round(3.6e9 * LEAST_CAMERA_HOURS)
SPEC = a_spec()


def footage(camera: str, red: float, duration_us: int = LONG_US) -> VideoRecord:
    """Some black, some of a red, some black; few snippets stand for its whole length."""
    rows = np.zeros((40, 3), np.float32)
    rows[14:26, 0] = red
    name = f"{camera}-{red}"
    return VideoRecord(name, camera, rows, np.arange(40), duration_us, None, None)


def fitted(*records: VideoRecord, spec: ModelSpec = SPEC, per_day: float = 0.0) -> Fit:
    return fit_on_quiet(records, spec, SmoothingLocalizer(), per_day)


def opened(record: VideoRecord, spec: ModelSpec) -> bool:
    return bool(stream_video(record, spec, SmoothingLocalizer()))


def test_what_one_camera_shows_costs_another_nothing():
    trees, wall = footage("trees", 0.8), footage("wall", 0.1)
    fit = fitted(trees, wall)
    spec = replace(
        SPEC,
        tracker=replace(SPEC.tracker, class_open_scores=fit.scores),
        camera_open_scores=fit.cameras,
    )

    assert opened(trees, SPEC)
    assert not opened(trees, spec)
    assert opened(replace(trees, camera="wall"), spec)
    assert not opened(replace(trees, camera="never seen"), spec)


def test_a_camera_with_little_footage_or_no_name_has_no_scores_of_its_own():
    fit = fitted(footage("short", 0.8, LONG_US - 1), footage("", 0.7), footage("long", 0.6))

    assert {"long"} == set(fit.cameras)
    assert fit.scores[0] > fit.cameras["long"][0]


def test_a_cameras_scores_are_raised_only_and_those_of_others_kept():
    spec = replace(SPEC, camera_open_scores={"gate": (0.85, 0.85), "yard": (0.6, 0.6)})

    fit = fitted(footage("gate", 0.7), spec=spec)

    assert {"gate": (0.85, 0.85), "yard": (0.6, 0.6)} == fit.cameras


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 0.7), min_size=1),
    st.sampled_from([0.0, 24.0]),
)
def test_each_camera_keeps_to_the_rate_with_its_own_scores(reds, per_day):
    records = [footage(camera, red) for camera, red in reds.items()]
    fit = fitted(*records, per_day=per_day)
    spec = replace(SPEC, camera_open_scores=fit.cameras)

    for record in records:
        n_opened = sum(e.revision == 0 for e in stream_video(record, spec, SmoothingLocalizer()))
        assert n_opened <= per_day / 24 * LEAST_CAMERA_HOURS


def test_a_bundle_keeps_the_scores_of_cameras_and_one_without_keeps_its_bytes(tmp_path):
    base = ModelBundle.load(write_tiny_bundle(tmp_path / "tiny"))
    assert "camera_open_scores" not in (base.path / "bundle.yaml").read_text()
    scores = base.spec.tracker.open_score
    fit = Fit((scores, scores), (0.0, 0.0), 1.0, {"gate": (0.61, 0.7)})

    written = ModelBundle.load(with_opening_scores(base, fit, tmp_path / "own"))

    assert {"gate": (0.61, 0.7)} == written.spec.camera_open_scores
    assert pytest.approx(0.61) == written.spec.tracker_of("gate").open_score_of(0)
    assert written.model_id != base.model_id
