"""After damage nothing that is not whole is shown, and soon the next pictures are."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CorruptChunkError, UnreadableVideoError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import UInt8Array
from engine.video.cutting import cut_video
from engine.video.frames import PyAvDecoder, read_video
from engine.video.losses import Losses
from engine.video.recovery import LONGEST_WAIT_S
from tests.support.videos import a_chunk, has_encoder, make_video, with_changed_packets

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
FRAME_US = 40_000
GOP = 25
CODECS = ["h264", "hevc"]
TIME_BASE = Fraction(1, 90_000)
# That all is right again 49 pictures later, as H.265 says it; x265 says nothing.
RECOVERY_POINT = bytes.fromhex("00 00 00 01 4e 01 06 02 03 15 80")
REFRESH = 50

Damage = Callable[[int, bytes], bytes | None]


def a_ts(
    codec: str,
    n_frames: int = 100,
    *,
    gop: int = GOP,
    b_frames: int = 0,
    refreshes: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """An MPEG-TS of moving pictures.

    Args:
        codec: ``h264`` or ``hevc``.
        n_frames: Pictures.
        gop: From IDR to IDR.
        b_frames: Between others.
        refreshes: Instead of IDR pictures after the first, columns of each picture are renewed.
        options: More options of the encoder.
    """
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    more = dict(options or {})
    if codec == "hevc":
        parts = ["log-level=none", "open-gop=0", "scenecut=0", f"keyint={gop}"]
        parts += ["intra-refresh=1"] if refreshes else []
        parts += [more.pop("x265", "")]
        more["x265-params"] = ":".join(part for part in parts if part)
    elif refreshes:
        more["intra-refresh"] = "1"
    return make_video(
        codec=codec,
        container="mpegts",
        n_frames=n_frames,
        size=(128, 96),
        gop=gop,
        b_frames=b_frames,
        time_base=TIME_BASE,
        options=more,
    )


def lost(*numbers: int) -> Damage:
    """Those packets are not there."""
    return lambda number, payload: None if number in numbers else payload


def cut_short(*numbers: int) -> Damage:
    """Of those packets half is there."""
    return lambda number, payload: payload[: len(payload) // 2] if number in numbers else payload


class Seen:
    """What a file gives."""

    def __init__(self, video: bytes, path: Path) -> None:
        path.write_bytes(video)
        self.notes: list[str] = []
        self.losses = Losses()
        self.pictures: dict[int, UInt8Array] = {}
        for batch in read_video(
            path, SQUARE, EVERY_FRAME, on_note=self.notes.append, losses=self.losses
        ):
            for at_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
                self.pictures[round(at_us / FRAME_US)] = rgb

    def missing_of(self, whole: "Seen") -> list[int]:
        """Numbers of pictures that are not there; all others must be as they were."""
        for number, rgb in self.pictures.items():
            assert np.array_equal(whole.pictures[number], rgb), number
        return sorted(set(whole.pictures) - set(self.pictures))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", [lost, cut_short])
def test_up_to_the_next_key_frame_all_is_left_out_that_refers_to_damage(
    codec: str, damage: Callable[..., Damage], tmp_path: Path
) -> None:
    video = a_ts(codec)
    whole = Seen(video, tmp_path / "whole.ts")

    seen = Seen(with_changed_packets(video, damage(35)), tmp_path / "damaged.ts")

    assert [*range(35, 50)] == seen.missing_of(whole)
    assert 1 == seen.losses.n_parts
    assert pytest.approx(15 * 0.04, abs=0.001) == seen.losses.lost_s
    assert pytest.approx(0.15, abs=0.01) == seen.losses.share
    assert any("0.60 s were left out" in note for note in seen.notes)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("container", ["mpegts", "matroska", "mp4"])
def test_a_chunk_that_lacks_a_picture_to_which_others_refer_is_refused(
    codec: str, container: str
) -> None:
    video = with_changed_packets(a_ts(codec, gop=100), lost(35), container)

    with pytest.raises(CorruptChunkError, match=r"missing|FFmpeg"):
        PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(video))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_nor_does_it_pass_where_parameter_sets_are_in_the_header_alone(container: str) -> None:
    whole = make_video(container=container, n_frames=40, gop=40)

    with pytest.raises(CorruptChunkError, match="1 pictures are missing"):
        PyAvDecoder(SQUARE, EVERY_FRAME).decode(
            a_chunk(with_changed_packets(whole, lost(25), container))
        )


@pytest.mark.parametrize("codec", CODECS)
def test_pictures_to_which_none_refers_may_be_left_out(codec: str, tmp_path: Path) -> None:
    """As a player or a network does that has no time for them."""
    video = a_ts(codec, b_frames=2, options={"b-pyramid": "none"} if codec == "h264" else None)
    whole = Seen(video, tmp_path / "whole.ts")
    spare = spare_packets(video, codec)
    assert len(spare) > 20
    thinned = with_changed_packets(video, lost(*spare[::2]))

    seen = Seen(thinned, tmp_path / "thinned.ts")

    assert len(spare[::2]) == len(seen.missing_of(whole))
    assert 0 == seen.losses.n_parts
    assert (
        len(seen.pictures) == PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(thinned)).n_decoded
    )


def test_a_temporal_layer_may_be_left_out(tmp_path: Path) -> None:
    video = a_ts("hevc", b_frames=3, options={"x265": "temporal-layers=2:b-adapt=0"})
    whole = Seen(video, tmp_path / "whole.ts")
    upper = [number for number in spare_packets(video, "hevc") if number % GOP]
    assert len(upper) > 40

    seen = Seen(with_changed_packets(video, lost(*upper)), tmp_path / "thinned.ts")

    assert len(upper) == len(seen.missing_of(whole))
    assert ([], "") == (seen.notes, seen.losses.told)


@pytest.mark.parametrize("codec", ["h264"])
def test_damage_in_a_picture_to_which_none_refers_costs_only_that(
    codec: str, tmp_path: Path
) -> None:
    video = a_ts(codec, b_frames=2, options={"b-pyramid": "none"})
    whole = Seen(video, tmp_path / "whole.ts")
    number = spare_packets(video, codec)[10]

    seen = Seen(with_changed_packets(video, cut_short(number)), tmp_path / "damaged.ts")

    assert 1 == len(seen.missing_of(whole))
    assert (1, pytest.approx(0.04, abs=0.001)) == (seen.losses.n_parts, seen.losses.lost_s)


def spare_packets(video: bytes, codec: str) -> list[int]:
    """Numbers of the packets whose pictures none refers to."""
    found: list[int] = []

    def look(number: int, payload: bytes) -> bytes:
        for match in re.finditer(rb"\x00\x00\x01", payload):
            header = payload[match.end()]
            kind = header & 0x1F if codec == "h264" else header >> 1 & 0x3F
            is_slice = 1 <= kind <= 5 if codec == "h264" else kind < 32
            is_spare = not header & 0x60 if codec == "h264" else kind in (0, 2, 4, 6, 8)
            if is_slice:
                found.extend([number] if is_spare else [])
                break
        return payload

    with_changed_packets(video, look)
    return found


def refreshed(codec: str, n_frames: int) -> bytes:
    """Columns of each picture are renewed instead of key frames, with recovery points."""
    video = a_ts(codec, n_frames, gop=REFRESH if codec == "h264" else GOP, refreshes=True)
    return with_changed_packets(video, with_recovery_points) if codec == "hevc" else video


def with_recovery_points(number: int, payload: bytes) -> bytes:
    if not number or number % REFRESH:
        return payload
    at = payload.index(b"\x00\x00\x01\x02\x01")  # the slice
    return payload[:at] + RECOVERY_POINT[1:] + payload[at:]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", [lost, cut_short])
def test_a_stream_of_refreshed_columns_recovers_at_its_recovery_points(
    codec: str, damage: Callable[..., Damage], tmp_path: Path
) -> None:
    video = refreshed(codec, 220)
    whole = Seen(video, tmp_path / "whole.ts")
    assert 220 == len(whole.pictures)

    seen = Seen(with_changed_packets(video, damage(35)), tmp_path / "damaged.ts")

    missing = seen.missing_of(whole)
    assert missing == [*range(35, missing[-1] + 1)]
    assert missing[-1] <= 2 * REFRESH + 5  # the refresh that was going on, and a whole one
    assert pytest.approx(len(missing) * 0.04, abs=0.001) == seen.losses.lost_s


@pytest.mark.parametrize(("codec", "again"), [("h264", 48), ("hevc", 85)])
def test_damage_before_a_refresh_is_done_waits_for_the_next_one(
    codec: str, again: int, tmp_path: Path
) -> None:
    video = refreshed(codec, 260)
    whole = Seen(video, tmp_path / "whole.ts")
    once = Seen(with_changed_packets(video, cut_short(35)), tmp_path / "once.ts")

    seen = Seen(with_changed_packets(video, cut_short(35, again)), tmp_path / "damaged.ts")

    missing = seen.missing_of(whole)
    assert missing == [*range(35, missing[-1] + 1)]
    assert once.missing_of(whole)[-1] < missing[-1] <= again + 2 * REFRESH


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", [lost, cut_short])
def test_a_stream_that_never_recovers_is_shown_as_it_is_after_a_while(
    codec: str, damage: Callable[..., Damage], tmp_path: Path
) -> None:
    video = a_ts(codec, 340, gop=10_000)
    whole = Seen(video, tmp_path / "whole.ts")

    seen = Seen(with_changed_packets(video, damage(35)), tmp_path / "damaged.ts")

    missing = sorted(set(whole.pictures) - set(seen.pictures))
    assert missing == [*range(35, missing[-1] + 1)]
    assert pytest.approx(LONGEST_WAIT_S, abs=0.1) == len(missing) * 0.04
    assert any(note.startswith("10 s after damage neither") for note in seen.notes)
    assert pytest.approx(LONGEST_WAIT_S, abs=0.1) == seen.losses.lost_s


@pytest.mark.parametrize("codec", CODECS)
def test_damage_before_anything_is_shown_is_told_too(codec: str, tmp_path: Path) -> None:
    """A decoder that reorders has not given the first picture yet."""
    video = a_ts(codec, b_frames=2)
    whole = Seen(video, tmp_path / "whole.ts")

    seen = Seen(with_changed_packets(video, cut_short(1)), tmp_path / "damaged.ts")

    missing = seen.missing_of(whole)
    assert missing
    assert pytest.approx(len(missing) * 0.04, abs=0.001) == seen.losses.lost_s


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_that_begins_in_the_middle_is_shown_from_where_decoding_may_begin(
    codec: str, tmp_path: Path
) -> None:
    video = a_ts(codec)
    whole = Seen(video, tmp_path / "whole.ts")

    seen = Seen(with_changed_packets(video, lost(*range(10))), tmp_path / "late.ts")

    assert 100 - GOP == len(seen.pictures)
    assert all(
        np.array_equal(rgb, whole.pictures[number + GOP]) for number, rgb in seen.pictures.items()
    )
    assert pytest.approx((GOP - 10) * 0.04, abs=0.05) == seen.losses.lost_s


def test_a_picture_of_which_a_slice_is_lost_is_not_shown(tmp_path: Path) -> None:
    """As where a camera sends each slice in packets of its own."""
    video = a_ts("h264", options={"slices": "4"})
    whole = Seen(video, tmp_path / "whole.ts")

    def without_slice(number: int, payload: bytes) -> bytes:
        if number != 35:
            return payload
        second, third = [match.start() for match in re.finditer(rb"\x00\x00\x01", payload)][-3:-1]
        return payload[:second] + payload[third:]

    seen = Seen(with_changed_packets(video, without_slice), tmp_path / "damaged.ts")

    assert [*range(35, 50)] == seen.missing_of(whole)
    with pytest.raises(CorruptChunkError):
        PyAvDecoder(SQUARE, EVERY_FRAME).decode(
            a_chunk(with_changed_packets(a_ts("h264", 40, options={"slices": "4"}), without_slice))
        )


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_cut_recovers_as_a_file_does(codec: str, tmp_path: Path) -> None:
    """A source without IDR pictures is encoded again, and is not silent for ever after damage."""
    path = tmp_path / "camera.ts"
    path.write_bytes(with_changed_packets(refreshed(codec, 220), lost(35)))
    of_file = Seen(path.read_bytes(), tmp_path / "file.ts")
    decoder, notes, times = PyAvDecoder(SQUARE, EVERY_FRAME), list[str](), list[int]()

    for number, chunk in enumerate(cut_video(path, chunk_s=1, on_note=notes.append)):
        times += decoder.decode(chunk.to_chunk("cam", "run", number)).pts_us.tolist()

    assert sorted(of_file.pictures) == [round(at_us / FRAME_US) for at_us in times]
    assert any("were left out" in note for note in notes)


@pytest.mark.parametrize("codec", CODECS)
def test_a_source_that_is_joined_in_the_middle_is_cut_from_a_recovery_point_on(
    codec: str, tmp_path: Path
) -> None:
    path = tmp_path / "camera.ts"
    path.write_bytes(with_changed_packets(refreshed(codec, 220), lost(*range(10))))
    decoder, notes, n_frames = PyAvDecoder(SQUARE, EVERY_FRAME), list[str](), 0

    for number, chunk in enumerate(cut_video(path, chunk_s=1, on_note=notes.append)):
        n_frames += decoder.decode(chunk.to_chunk("cam", "run", number)).n_decoded

    assert 220 - 2 * REFRESH <= n_frames < 210
    assert any("before the first key frame were left out" in note for note in notes)


@pytest.mark.parametrize("codec", CODECS)
def test_it_is_said_that_a_source_sends_nothing_from_which_decoding_may_begin(
    codec: str, tmp_path: Path
) -> None:
    path, notes = tmp_path / "camera.ts", list[str]()
    path.write_bytes(with_changed_packets(a_ts(codec, 600, gop=10_000), lost(0)))

    with pytest.raises(UnreadableVideoError, match="no key frame"):
        list(cut_video(path, chunk_s=1, on_note=notes.append))

    assert ["252 packets have come", "503 packets have come"] == [
        note.partition(",")[0] for note in notes
    ]


def test_losses_take_the_same_room_however_many_they_are() -> None:
    losses = Losses(shown_s=90)
    for number in range(1000):
        losses.add(f"reason {number}", 0.01)

    assert pytest.approx(0.1) == losses.share
    assert len(losses.reasons) < 100
    assert len(losses.told) < 300
    assert losses.told.startswith("10.0 s (10.0%) in 1000 parts were left out: other reasons (")
