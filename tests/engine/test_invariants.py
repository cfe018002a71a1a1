"""The invariants the pure core owes everybody, over generated footage."""

import itertools
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.events import TRANSITIONS
from engine.session import StreamSession
from engine.spec import EconomySpec, Rung
from engine.straight_line import localize_frames
from engine.tiou import overlap_us
from engine.types import ActionEvent, FrameBatch, Phase, Reason
from tests.support.scripted import (
    MeanColourExtractor,
    SmoothingLocalizer,
    a_camera_mean,
    a_spec,
)
from tests.support.strategies import Cutting, cuttings, videos

economies = st.builds(
    EconomySpec,
    rung=st.sampled_from(Rung),
    is_gated=st.booleans(),
    look_every=st.sampled_from([None, 1, 5]),
)
specs = st.builds(
    a_spec,
    stride_frames=st.sampled_from([2, 4]),
    hop_snippets=st.sampled_from([1, 3]),
    freeze_us=st.sampled_from([0, 320_000]),
    class_open_scores=st.sampled_from([(), (0.25, 0.6)]),
    camera_mean=st.sampled_from([None, a_camera_mean()]),
    economy=economies,
)


def run(pieces: list[FrameBatch], spec) -> list[ActionEvent]:
    session = StreamSession("cam", "e", spec)
    result = localize_frames(pieces, session, MeanColourExtractor(), SmoothingLocalizer())
    return list(result.revisions)


def advance(session: StreamSession, piece: FrameBatch) -> list[ActionEvent]:
    features = session.look(session.sample(piece), MeanColourExtractor().extract)
    revisions = session.track(SmoothingLocalizer().localize(session.buffer(features)))
    session.settle()
    return revisions


def finish(session: StreamSession) -> list[ActionEvent]:
    windows = [*session.buffer(session.release()), *session.break_segment()]
    last = session.track(SmoothingLocalizer().localize(windows))
    return last + session.close(Reason.END)


@given(videos(), cuttings(), specs)
def test_any_cutting_gives_the_same_events(video, cutting, spec):
    whole = run([video], spec)

    assert whole == run(cutting.cut(video), spec)


@given(videos(), cuttings(), specs, st.data())
def test_snapshot_and_restore_at_any_boundary_change_nothing(video, cutting, spec, data):
    pieces = cutting.cut(video)
    stop = data.draw(st.integers(0, len(pieces)), label="pieces before the pause")
    session = StreamSession("cam", "e", spec)
    records = [record for piece in pieces[:stop] for record in advance(session, piece)]

    blob, watermark_us = session.snapshot(), session.watermark_us
    restored = StreamSession.restore(blob, spec, features=session.features)
    resume_us = session.resume_us
    needed = [p for p in pieces[:stop] if resume_us is not None and p.pts_us[-1] >= resume_us]
    replayed = []
    for piece in needed:
        # It may be asked, or stopped again, before all is read again.
        assert (watermark_us, blob) == (restored.watermark_us, restored.snapshot())
        replayed += advance(restored, piece)
    assert (watermark_us, blob) == (restored.watermark_us, restored.snapshot())
    records += [record for piece in pieces[stop:] for record in advance(restored, piece)]

    assert [] == replayed
    assert run([video], spec) == records + finish(restored)


@given(videos(), cuttings(), specs, st.data())
def test_any_rungs_give_the_same_events_with_and_without_a_restart(video, cutting, spec, data):
    pieces = cutting.cut(video)
    rungs = [data.draw(st.sampled_from(Rung), label="rung") for _ in pieces]
    alone, restarted = StreamSession("cam", "e", spec), StreamSession("cam", "e", spec)

    for n, (rung, piece) in enumerate(zip(rungs, pieces, strict=True)):
        alone.rung = restarted.rung = rung
        assert advance(alone, piece) == advance(restarted, piece)
        assert alone.watermark_us == restarted.watermark_us
        resume_us = restarted.resume_us
        needed = [
            p for p in pieces[: n + 1] if resume_us is not None and p.pts_us[-1] >= resume_us
        ]
        features = restarted.features
        restarted = StreamSession.restore(restarted.snapshot(), spec, features=features)
        for piece_again in needed:
            restarted.sample(piece_again)

    assert finish(alone) == finish(restarted)


@given(videos(), cuttings(), specs, st.data())
def test_a_restore_whose_footage_is_gone_is_a_gap_and_no_crash(video, cutting, spec, data):
    pieces = cutting.cut(video)
    stop = data.draw(st.integers(0, len(pieces)), label="pieces before the pause")
    lost = data.draw(st.integers(0, 3), label="pieces lost after it")
    session = StreamSession("cam", "e", spec)
    records = [record for piece in pieces[:stop] for record in advance(session, piece)]

    restored = StreamSession.restore(session.snapshot(), spec, features=session.features)
    records += [record for piece in pieces[stop + lost :] for record in advance(restored, piece)]
    records += finish(restored)

    last = {record.event_id: record for record in records}
    assert all(record.final for record in last.values())


@given(videos(), specs, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_changing_later_frames_changes_nothing_already_emitted(video, spec, seed, share):
    split = int(share * len(video.pts_us))
    changed = video.rgb.copy()
    changed[split:] = np.random.default_rng(seed).integers(0, 255, changed[split:].shape)
    other = FrameBatch(video.pts_us, changed, video.n_decoded)
    first, second = StreamSession("cam", "e", spec), StreamSession("cam", "e", spec)

    for frame in Cutting(tuple(np.linspace(0, 1, 40))).cut(video):
        if frame.pts_us[-1] >= video.pts_us[min(split, len(video.pts_us) - 1)]:
            break
        same = np.isin(other.pts_us, frame.pts_us)
        twin = FrameBatch(other.pts_us[same], other.rgb[same], len(frame.pts_us))

        assert advance(first, frame) == advance(second, twin)


@given(videos(), specs)
def test_no_record_is_decided_before_its_footage_was_seen(video, spec):
    for record in run([video], spec):
        assert record.span.end_us <= record.decided_us
        assert record.decided_us <= int(video.pts_us[-1]) + spec.grid.frame_us


@given(videos(), specs)
def test_every_event_keeps_the_grammar(video, spec):
    lives = defaultdict(list)
    for record in run([video], spec):
        lives[record.event_id].append(record)

    for life in lives.values():
        phases = [None, *(record.phase for record in life)]
        assert list(range(len(life))) == [record.revision for record in life]
        assert all(b in TRANSITIONS[a] for a, b in itertools.pairwise(phases))
        assert life[-1].final
        assert 1 == len({(r.class_index, r.camera, r.run, r.model_id) for r in life})


@given(videos(), specs)
def test_final_spans_of_one_label_do_not_overlap(video, spec):
    closed = [r for r in run([video], spec) if r.phase is Phase.CLOSED]

    for i, first in enumerate(closed):
        for second in closed[i + 1 :]:
            if first.class_index == second.class_index:
                assert 0 == overlap_us(first.span, second.span)


@given(videos(), specs)
def test_narrowing_the_labels_leaves_the_others_untouched(video, spec):
    session = StreamSession("cam", "e", spec, class_indices=frozenset({1}))
    only = localize_frames([video], session, MeanColourExtractor(), SmoothingLocalizer())

    assert [r for r in run([video], spec) if r.class_index == 1] == list(only.revisions)


@given(videos(), specs)
def test_a_class_has_events_if_and_only_if_its_contrast_reached_what_it_needs(video, spec):
    """So whoever draws contrasts draws what decided."""
    session = StreamSession("cam", "e", spec)
    result = localize_frames([video], session, MeanColourExtractor(), SmoothingLocalizer())
    opened = {r.class_index for r in result.revisions if r.phase is Phase.OPENED}
    most = result.contrasts.max(axis=0, initial=0.0)
    needed = [np.float32(spec.tracker.open_score_of(c)) for c in range(len(spec.class_names))]

    assert result.scores.shape == result.contrasts.shape
    assert opened == {c for c, least in enumerate(needed) if most[c] >= least}


@given(videos(), specs)
def test_being_watched_changes_no_event(video, spec):
    watched, alone = StreamSession("cam", "e", spec), StreamSession("cam", "e", spec)
    weighed = []
    features = MeanColourExtractor().extract(watched.sample(video))
    alone.sample(video)
    with_watch = watched.track(
        SmoothingLocalizer().localize(watched.buffer(features)), weighed.extend
    )

    assert with_watch == alone.track(SmoothingLocalizer().localize(alone.buffer(features)))
    scores = {proposal.score for proposal in weighed}
    assert {r.score for r in with_watch if r.phase is Phase.OPENED} <= scores


@given(videos(), cuttings(), specs)
def test_no_event_opens_that_starts_before_a_watermark(video, cutting, spec):
    session = StreamSession("cam", "e", spec)
    for piece in cutting.cut(video):
        watermark_us = session.watermark_us
        opened = [r for r in advance(session, piece) if r.phase is Phase.OPENED]

        assert all(record.span.start_us >= watermark_us for record in opened)
        assert session.watermark_us >= watermark_us
