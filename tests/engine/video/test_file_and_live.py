"""A file gives what a daemon gets of it: the same pictures at the same times, or a word on it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import CorruptChunkError, UnreadableVideoError
from engine.grid import US_PER_S, Grid
from engine.spec import FrameGeometry
from engine.types import UInt8Array
from engine.video.cutting import cut_video
from engine.video.frames import PyAvDecoder, read_video
from engine.video.losses import Losses
from tests.support.videos import (
    has_encoder,
    make_video,
    trimmed,
    with_changed_packets,
    without_times,
)

EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
SIDE_PX = 64
SQUARE = FrameGeometry(resize_px=SIDE_PX, crop_px=SIDE_PX)
TICKS = 90_000
CODECS = [codec for codec in ("h264", "hevc") if has_encoder(codec)]


@dataclass(frozen=True)
class Footage:
    """An MPEG-TS as a camera might send it.

    Attributes:
        codec: ``h264`` or ``hevc``.
        fps: Pictures a second.
        n_frames: Pictures of each part.
        gop: From IDR to IDR.
        b_frames: Between others.
        times: Which pictures tell their time.
        step_s: By how much the clock steps before a second part; None: there is none.
        grows: The second part's pictures are twice as wide and high.
        damaged: A picture by number, and whether it is lost, or a packet of MPEG-TS in its middle.
    """

    codec: str = "h264"
    fps: int = 25
    n_frames: int = 40
    gop: int = 10
    b_frames: int = 0
    times: Literal["all", "key frames", "every third"] = "all"
    step_s: float | None = None
    grows: bool = False
    damaged: tuple[int, Literal["lost", "torn"]] | None = None

    def video(self) -> bytes:
        """It, encoded."""
        first, second = self.part(0, 0), b""
        if self.step_s is not None:
            begins_s = max(0, self.n_frames / self.fps + 20 + self.step_s)
            second = self.part(self.n_frames, round(begins_s * TICKS))
        return first + second

    def part(self, first_number: int, begin: int) -> bytes:
        """Pictures from that number on, and from that tick on."""
        step = Fraction(TICKS, self.fps)
        offset = round(20 * TICKS) if first_number == 0 and self.step_s is not None else 0
        side = 2 * SIDE_PX if self.grows and first_number else SIDE_PX
        ts = make_video(
            codec=self.codec,
            container="mpegts",
            pictures=[numbered(first_number + index, side) for index in range(self.n_frames)],
            pts=[offset + begin + round(index * step) for index in range(self.n_frames)],
            size=(side, side),
            fps=self.fps,
            gop=self.gop,
            b_frames=self.b_frames,
            time_base=Fraction(1, TICKS),
        )
        keeps: dict[str, Callable[[int], bool]] = {
            "all": lambda _number: True,
            "key frames": lambda number: number % self.gop == 0,
            "every third": lambda number: number % 3 == 0,
        }
        if self.damaged is not None and first_number == 0:
            ts = self._damaged(ts)
        return without_times(ts, keep=keeps[self.times])

    def _damaged(self, ts: bytes) -> bytes:
        assert self.damaged is not None
        wanted, how = self.damaged
        if how == "lost":
            return with_changed_packets(
                ts, lambda number, payload: None if number == wanted % self.n_frames else payload
            )
        packets = [ts[at : at + 188] for at in range(0, len(ts), 188)]
        of_video = [
            index
            for index, packet in enumerate(packets)
            if int.from_bytes(packet[1:3], "big") & 0x1FFF == 0x100
        ]
        del packets[of_video[wanted % len(of_video)]]
        return b"".join(packets)


def numbered(number: int, side_px: int = SIDE_PX) -> UInt8Array:
    """A picture of 4 x 4 fields, black or white, that tell its number."""
    bits = np.array([number >> bit & 1 for bit in range(16)], np.uint8).reshape(4, 4)
    grey = np.kron(bits * 220 + 16, np.ones((side_px // 4, side_px // 4), np.uint8))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def number_of(rgb: UInt8Array) -> int:
    fields = rgb.mean(axis=2).reshape(4, 16, 4, 16)[:, 4:12, :, 4:12].mean(axis=(1, 3)).ravel()
    return sum(1 << bit for bit in range(16) if fields[bit] > 126)


@dataclass
class Shown:
    """What was seen, and what was said of the rest."""

    at_us: dict[int, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def of_file(path: Path) -> Shown:
    shown, losses = Shown(), Losses()
    try:
        for batch in read_video(path, SQUARE, EVERY_FRAME, losses=losses):
            for at_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
                shown.at_us[number_of(rgb)] = at_us
    except UnreadableVideoError as error:
        shown.said.append(str(error))
    if losses.told:
        shown.said.append(losses.told)
    return shown


def of_daemon(path: Path) -> Shown:
    shown, decoder = Shown(), PyAvDecoder(SQUARE, EVERY_FRAME)
    notes: list[str] = []
    try:
        for number, chunk in enumerate(cut_video(path, chunk_s=1, on_note=notes.append)):
            try:
                batch = decoder.decode(chunk.to_chunk("cam", "run", number))
            except CorruptChunkError as error:
                shown.said.append(str(error))
                continue
            for at_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
                shown.at_us[number_of(rgb)] = at_us
    except UnreadableVideoError as error:
        shown.said.append(str(error))
    shown.said += [note for note in notes if "left out" in note or "shown as they are" in note]
    return shown


footages = st.builds(
    Footage,
    codec=st.sampled_from(CODECS),
    fps=st.sampled_from([1, 2, 5, 10, 15, 24, 25, 30, 50, 60, 100, 120]),
    n_frames=st.integers(12, 60),
    gop=st.integers(2, 30),
    b_frames=st.sampled_from([0, 2]),
    times=st.sampled_from(["all", "key frames", "every third"]),
    step_s=st.none() | st.sampled_from([-15.011, -2.013, 0.0, 3.017, 300.019]),
    grows=st.booleans(),
    damaged=st.none() | st.tuples(st.integers(0, 59), st.sampled_from(["lost", "torn"])),
)


@given(footage=footages)
@settings(max_examples=25)
@example(footage=Footage())
@example(footage=Footage(damaged=(17, "lost")))
@example(footage=Footage(codec="hevc" if "hevc" in CODECS else "h264", damaged=(17, "torn")))
@example(footage=Footage(times="key frames", step_s=-15.011))
@example(footage=Footage(step_s=0.0, grows=True))
@example(footage=Footage(fps=1, n_frames=12, gop=4))
@example(footage=Footage(fps=120, b_frames=2, times="every third"))
def test_both_show_the_same_at_the_same_times_or_say_what_they_left_out(
    footage: Footage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("footage") / "camera.ts"
    path.write_bytes(footage.video())

    file, daemon = of_file(path), of_daemon(path)

    n_all = footage.n_frames * (1 if footage.step_s is None else 2)
    if not any("shown as they are" in said for said in daemon.said):
        assert set(file.at_us) | set(daemon.at_us) <= set(range(n_all))
    # A picture that was lost before another key frame is missed by nobody.
    n_unnoticed = 0 if footage.damaged is None else 1
    assert file.said or len(file.at_us) >= n_all - n_unnoticed
    assert daemon.said or len(daemon.at_us) >= n_all - n_unnoticed
    both = set(file.at_us) & set(daemon.at_us) & set(range(n_all))
    if footage.damaged is None:
        assert len(both) >= n_all - footage.b_frames
    # Stream time 0 is the first picture that is shown, which damage may make another one.
    shifts_us = [file.at_us[one] - daemon.at_us[one] for one in sorted(both)]
    apart_us = max((abs(shift_us - shifts_us[0]) for shift_us in shifts_us), default=0)
    assert apart_us <= US_PER_S / footage.fps / 2 + 1


@given(
    codec=st.sampled_from(CODECS),
    fps=st.sampled_from([1, 5, 25, 60, 120]),
    gop=st.integers(2, 30),
    b_frames=st.integers(1, 3),  # FFmpeg writes an edit list where frames are reordered
    shown=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=25)
@example(codec="h264", fps=25, gop=12, b_frames=2, shown=(0.3, 0.7))
@example(codec="h264", fps=25, gop=12, b_frames=2, shown=(1.0, 1.0))
def test_of_a_trimmed_file_both_show_what_its_edit_list_shows(
    codec: str,
    fps: int,
    gop: int,
    b_frames: int,
    shown: tuple[float, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    n_frames = 60
    mp4 = make_video(
        codec=codec,
        pictures=[numbered(index) for index in range(n_frames)],
        pts=[round(index * 12_800 / fps) for index in range(n_frames)],
        size=(SIDE_PX, SIDE_PX),
        fps=fps,
        gop=gop,
        b_frames=b_frames,
    )
    first, last = sorted(share * n_frames for share in shown)
    last = max(last, first + 2)
    path = tmp_path_factory.mktemp("footage") / "phone.mp4"
    path.write_bytes(trimmed(mp4, from_s=first / fps, until_s=last / fps))

    file, daemon = of_file(path), of_daemon(path)

    assert file.at_us == daemon.at_us
    # One that begins behind the last picture shows none, and that is said.
    assert bool(file.at_us) is not bool(file.said)
    assert bool(daemon.at_us) is not bool(daemon.said)
    # What is shown in part may be shown or not.
    assert set(file.at_us) >= set(range(round(first + 1), min(round(last - 1), n_frames)))
    assert set(file.at_us) <= set(range(int(first), min(int(last) + 2, n_frames)))


@pytest.mark.skipif(len(CODECS) < 2, reason="FFmpeg has no encoder of H.265 here")
@pytest.mark.parametrize(("before", "after"), [("h264", "hevc"), ("hevc", "h264")])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_where_the_codec_changes_both_say_so_and_show_what_came_before(
    before: str, after: str, b_frames: int, tmp_path: Path
) -> None:
    first = Footage(codec=before, b_frames=b_frames)
    second = replace(first, codec=after)
    path = tmp_path / "camera.ts"
    path.write_bytes(first.part(0, 0) + second.part(40, 40 * TICKS // 25))

    file, daemon = of_file(path), of_daemon(path)

    assert any(f"changes from {before} to {after}" in said for said in daemon.said)
    assert any("left out" in said for said in file.said)
    # FFmpeg renames the stream as soon as it reads on, and with it the chunk in hand.
    assert set(range(30)) <= set(daemon.at_us) <= set(range(40))
    assert set(range(30)) <= set(file.at_us) <= set(range(40))
    assert all(file.at_us[one] == at_us for one, at_us in daemon.at_us.items())
