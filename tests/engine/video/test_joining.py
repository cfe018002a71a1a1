"""Chunks joined into one video show every frame, at its time."""

from dataclasses import replace
from pathlib import Path

import av
import pytest

from engine.errors import UnreadableVideoError
from engine.types import VideoChunk
from engine.video.joining import join_chunks
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.videos import make_video


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[VideoChunk]:
    clip = colour_clip(tmp_path_factory.mktemp("clips") / "odd.mp4", BUSY, gop=13)
    return [chunk for chunk in chunks_of(clip, "cam", chunk_s=0.5) if chunk.payload]


def frames_of(video: Path) -> list[tuple[float, tuple[int, ...]]]:
    """Each frame's time, and the colour of its first pixel."""
    with av.open(str(video)) as container:
        return [
            (float(frame.pts * frame.time_base), tuple(frame.to_ndarray(format="rgb24")[0, 0]))
            for frame in container.decode(video=0)
        ]


def test_joined_chunks_show_what_they_show_alone(chunks, tmp_path):
    alone = []
    for number, chunk in enumerate(chunks[2:6]):
        (tmp_path / f"{number}.mp4").write_bytes(chunk.payload)
        begin_s = (chunk.start_us - chunks[2].start_us) / 1e6
        frames = frames_of(tmp_path / f"{number}.mp4")
        alone += [(begin_s + at - frames[0][0], colour) for at, colour in frames]

    seconds = join_chunks(chunks[2:6], tmp_path / "clip.mp4")

    joined = frames_of(tmp_path / "clip.mp4")
    assert [colour for _, colour in alone] == [colour for _, colour in joined]
    assert [at for at, _ in alone] == pytest.approx([at - joined[0][0] for at, _ in joined])
    assert 4 * 13 / 25 == pytest.approx(seconds)


def test_a_gap_between_chunks_stays_a_gap(chunks, tmp_path):
    join_chunks([chunks[0], chunks[3]], tmp_path / "clip.mp4")

    times = [at for at, _ in frames_of(tmp_path / "clip.mp4")]
    assert 3 * 13 / 25 == pytest.approx(times[13] - times[0])


@pytest.mark.parametrize("payload", [b"", b"no video at all", b"\0\0\0\x18ftypisom"])
def test_what_is_no_video_is_named(chunks, tmp_path, payload):
    broken = replace(chunks[1], payload=payload)

    with pytest.raises(UnreadableVideoError, match=r"clip\.mp4: "):
        join_chunks([chunks[0], broken], tmp_path / "clip.mp4")


def test_pictures_of_two_sizes_are_not_one_video(chunks, tmp_path):
    wide = replace(chunks[1], payload=make_video(size=(128, 96), n_frames=13, gop=13))

    with pytest.raises(UnreadableVideoError, match="width changes at chunk 1"):
        join_chunks([chunks[0], wide], tmp_path / "clip.mp4")


def test_no_chunks_are_no_video(tmp_path):
    with pytest.raises(UnreadableVideoError, match="no chunks"):
        join_chunks([], tmp_path / "clip.mp4")
