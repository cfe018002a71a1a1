import numpy as np
import pytest

from engine.camera_mean import CameraMean
from engine.scores import ScoreTrack
from engine.spec import WindowSpec
from engine.types import CasWindow, SnippetFeature
from engine.windows import SnippetBuffer


def a_window_spec(hop: int = 1) -> WindowSpec:
    return WindowSpec(
        window_snippets=4,
        hop_snippets=hop,
        rescore_snippets=3,
        track_snippets=6,
        max_gap_us=500_000,
    )


def a_feature(index: int, segment: int = 0) -> SnippetFeature:
    return SnippetFeature(index, segment, np.full(2, index + 1, np.float32))


def push_all(buffer: SnippetBuffer, features) -> list:
    return [window for feature in features for window in buffer.push(feature)]


def test_the_part_before_the_stream_began_is_not_valid():
    (window,) = SnippetBuffer(a_window_spec(), 2).push(a_feature(5))

    assert 2 == window.first_index
    assert [False, False, False, True] == window.valid.tolist()
    assert [0, 0, 0, 6] == window.features[:, 0].tolist()


def test_windows_end_at_fixed_indices_whatever_the_first_snippet_was():
    from_zero = push_all(SnippetBuffer(a_window_spec(3), 2), [a_feature(i) for i in range(9)])
    from_one = push_all(SnippetBuffer(a_window_spec(3), 2), [a_feature(i) for i in range(1, 9)])

    assert [2, 5, 8] == [w.first_index + 3 for w in from_zero]
    assert [2, 5, 8] == [w.first_index + 3 for w in from_one]


def test_a_gap_gives_out_what_no_window_showed_and_then_forgets():
    buffer = SnippetBuffer(a_window_spec(3), 2)
    windows = push_all(buffer, [a_feature(i) for i in range(4)])
    windows += push_all(buffer, [a_feature(8, segment=1)])

    assert [(2, 0), (3, 0), (8, 1)] == [(w.first_index + 3, w.segment) for w in windows]
    assert [False, False, False, True] == windows[-1].valid.tolist()


def test_flush_gives_nothing_when_all_was_shown():
    buffer = SnippetBuffer(a_window_spec(), 2)
    buffer.push(a_feature(0))

    assert [] == buffer.flush()


def test_a_feature_that_does_not_follow_is_refused():
    buffer = SnippetBuffer(a_window_spec(), 2)
    buffer.push(a_feature(0))

    with pytest.raises(ValueError, match="feature 2 follows 0"):
        buffer.push(a_feature(2))
    with pytest.raises(ValueError, match=r"feature 1 is \(3,\), wanted \(2,\)"):
        buffer.push(SnippetFeature(1, 0, np.zeros(3, np.float32)))


def test_a_model_without_backgrounds_has_a_black_one():
    (window,) = SnippetBuffer(a_window_spec(), 2).push(a_feature(0))

    assert [0, 0] == window.camera_mean.tolist()
    assert np.float32 == window.camera_mean.dtype


def test_a_window_comes_with_the_background_as_its_newest_snippet_left_it():
    black = CameraMean(np.zeros(2, np.float32), 0, 1000)
    buffer = SnippetBuffer(a_window_spec(), 2, black)
    windows = push_all(buffer, [a_feature(i) for i in range(3)])

    assert [[1, 1], [1.5, 1.5], [2, 2]] == [w.camera_mean.tolist() for w in windows]


def test_a_gap_keeps_the_background():
    buffer = SnippetBuffer(a_window_spec(3), 2, CameraMean(np.zeros(2, np.float32), 0, 1000))
    windows = push_all(buffer, [a_feature(0), a_feature(8, segment=1)])

    # What the gap flushed was seen before the snippet after it.
    assert [(0, 1), (8, 5)] == [(w.first_index + 3, w.camera_mean[0]) for w in windows]


def test_a_refused_feature_leaves_the_background_alone():
    camera_mean = CameraMean(np.zeros(2, np.float32), 0, 1000)
    buffer = SnippetBuffer(a_window_spec(), 2, camera_mean)
    buffer.push(a_feature(0))

    with pytest.raises(ValueError, match="feature 2 follows 0"):
        buffer.push(a_feature(2))
    assert 1 == camera_mean.state().n_snippets


def a_cas_window(first_index: int, values, *, n_valid: int = 4, segment: int = 0) -> CasWindow:
    cas = np.array(values, np.float32)[:, None]
    valid = np.arange(4) >= 4 - n_valid
    return CasWindow(first_index, segment, cas, np.ones(4, np.float32), cas.max(0), valid)


def test_a_later_window_replaces_only_the_positions_it_rescores():
    track = ScoreTrack(a_window_spec())
    track.update(a_cas_window(-2, [0, 0, 0.1, 0.2], n_valid=2))
    fresh = track.update(a_cas_window(-1, [0, 0.5, 0.6, 0.7], n_valid=3))
    track.update(a_cas_window(0, [0.9, 0.8, 0.8, 0.8]))

    assert 0 == fresh.first_index
    # Times an attention of 1: exact.
    wanted = np.array([0.5, 0.8, 0.8, 0.8], np.float32)
    assert wanted.tolist() == track.current.scores[:, 0].tolist()


def test_the_track_keeps_its_newest_positions():
    track = ScoreTrack(a_window_spec())
    for first_index in range(6):
        track.update(a_cas_window(first_index, [0.5] * 4))

    assert (3, 9) == (track.current.first_index, track.current.end_index)


def test_attention_multiplies_the_activations():
    window = a_cas_window(0, [0.5] * 4)
    weak = CasWindow(
        0, 0, window.cas, np.full(4, 0.5, np.float32), window.video_scores, window.valid
    )

    assert {0.25} == set(ScoreTrack(a_window_spec()).update(weak).scores.ravel().tolist())


def test_a_new_segment_starts_a_new_track():
    track = ScoreTrack(a_window_spec())
    track.update(a_cas_window(0, [0.5] * 4))
    track.update(a_cas_window(5, [0, 0, 0, 0.7], n_valid=1, segment=1))

    assert (8, 1) == (track.current.first_index, len(track.current.scores))
