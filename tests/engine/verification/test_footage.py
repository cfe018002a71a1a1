import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UnreadableVideoError
from engine.snippets import SnippetSampler
from engine.spec import FrameGeometry
from engine.types import Snippet
from engine.verification.drawn_footage import SCENES, Stage
from engine.verification.footage import GoldenSet, of_videos, procedural
from engine.video.frames import read_video
from tests.support.footage import BUSY, colour_clip
from tests.support.scripted import a_spec

SPEC = replace(a_spec(), geometry=FrameGeometry(resize_px=160, crop_px=160))


def snippets_of(golden: GoldenSet) -> list[Snippet]:
    return [snippet for clip in golden.clips for snippet in clip.snippets()]


def digest(snippets: list[Snippet]) -> str:
    return hashlib.sha256(b"".join(snippet.rgb.tobytes() for snippet in snippets)).hexdigest()


@pytest.mark.numeric
def test_procedural_footage_has_these_bytes_on_every_machine() -> None:
    """Its pictures are made of whole numbers alone: no kernel rounds anything."""
    wanted = "8eb2d25f9e5f3f176bdd4d80a7eef7710ef70dedcfa4cf3be6b6b8cebd194890"

    assert wanted == digest(snippets_of(procedural(SPEC)))


def test_every_run_sees_the_same() -> None:
    golden = procedural(a_spec())

    assert digest(snippets_of(golden)) == digest(snippets_of(golden))
    assert digest(snippets_of(golden)) != digest(snippets_of(procedural(a_spec(), seed=6)))


@settings(deadline=None, max_examples=20)
@given(
    n_snippets=st.integers(1, 9),
    stride_frames=st.integers(1, 4),
    side_px=st.sampled_from([1, 2, 7, 8, 33]),
)
def test_there_are_as_many_snippets_as_asked_for(
    n_snippets: int, stride_frames: int, side_px: int
) -> None:
    spec = replace(a_spec(stride_frames=stride_frames), geometry=FrameGeometry(side_px, side_px))
    golden = procedural(spec, n_snippets)
    snippets = snippets_of(golden)

    assert n_snippets == golden.n_snippets
    assert [(i, 0) for i in range(n_snippets)] == [(s.index, s.segment) for s in snippets]
    assert {(4, side_px, side_px, 3)} == {snippet.rgb.shape for snippet in snippets}


def test_no_snippets_are_no_golden_set() -> None:
    with pytest.raises(ValueError, match="n_snippets is 0, wanted >= 1"):
        procedural(a_spec(), 0)


def test_it_holds_what_upsets_low_precision() -> None:
    stage = Stage(64, seed=5)
    looks = [np.stack([scene(stage, frame) for frame in range(12)]) for scene in SCENES]
    moves = [len({picture.tobytes() for picture in look}) for look in looks]
    motion, people, flicker, black, noise, glare = looks

    assert [12, 12, 2, 1, 12, 12] == moves
    assert black.max() == 0
    assert {0, 255} == set(np.unique(glare).tolist())
    # Of uniform noise; drawn from a seed, so no matter of chance or of a CPU.
    assert noise.std() == pytest.approx(255 / 12**0.5, rel=0.02)
    assert flicker[3].mean() > 4 * flicker[0].mean()
    assert np.array_equal(np.sort(motion[0], axis=None), np.sort(motion[5], axis=None))
    assert (people == people[0]).all(axis=(0, 3)).mean() > 0.5  # the background stands still


def test_own_footage_gives_the_snippets_that_a_camera_would_have_given(tmp_path: Path) -> None:
    paths = [colour_clip(tmp_path / "gate.mp4", BUSY), colour_clip(tmp_path / "b.mp4", BUSY[:2])]
    golden = of_videos(paths, a_spec())
    sampler = SnippetSampler(a_spec().grid, a_spec().window.max_gap_us)
    frames = read_video(paths[0], a_spec().geometry, a_spec().grid)
    wanted = [snippet for batch in frames for snippet in sampler.push(batch)]

    assert "gate.mp4, b.mp4" == golden.about
    assert ["gate", "b"] == [clip.camera for clip in golden.clips]
    assert digest(wanted) == digest(list(golden.clips[0].snippets()))
    assert len(wanted) == golden.clips[0].n_snippets


def test_of_a_long_video_the_beginning_can_be_taken(tmp_path: Path) -> None:
    path = colour_clip(tmp_path / "gate.mp4", BUSY)
    whole, start = of_videos([path], a_spec()), of_videos([path], a_spec(), seconds=2.0)
    n = start.n_snippets

    assert 2.0 // 0.16 == n < whole.n_snippets
    assert digest(snippets_of(whole)[:n]) == digest(snippets_of(start))


def test_footage_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")

    with pytest.raises(UnreadableVideoError, match=r"a\.mp4"):
        of_videos([tmp_path / "a.mp4"], a_spec())
