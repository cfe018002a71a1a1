"""What lies beside a picture never costs the picture; damage in a picture still does."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CorruptChunkError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import UInt8Array
from engine.video.cutting import cut_video
from engine.video.frames import PyAvDecoder, read_video
from engine.video.metadata import is_sound_sei
from engine.video.units import Unit
from tests.support.videos import a_chunk, has_encoder, make_video, with_unit

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
N_FRAMES = 24
H264 = {
    "a message that is cut short": "06 05 ff ff 10 61 62 63 80",
    "a message longer than its unit": "06 01 05 01 80",
    "a unit that is a header": "06",
    "an empty user message": "06 04 03 b5 00 31 80",
    "a user message without a name": "06 05 03 01 02 03 80",
    "a message of an unknown kind": "06 ff 30 ff ff 80",
    "nonsense": "06 ff ff ff ff ff",
    "a PPS that is none": "68 07 ff",
    "an empty PPS": "68",
    "half an SPS": "67 42 00 1e 00 00",
    "an access unit delimiter with a tail": "09 ff ff ff",
    "a unit of no known kind": "18 61 62 63",
    "a unit of another layer": "74 61 62 63 64",
}
HEVC = {
    "a message that is cut short": "4e 01 05 ff ff 10 61 62 63 80",
    "a message longer than its unit": "4e 01 01 05 01 80",
    "a unit that is a header": "4e 01",
    "half a mastering display": "4e 01 89 02 00 01 80",
    "half a light level": "4e 01 90 01 00 80",
    "a checksum that is cut short": "50 01 84 ff 01 80",
    "a PPS that is none": "44 01 07",
    "half a PPS": "44 01 01 02",
    "half an SPS": "42 01 01",
    "half a VPS": "40 01 05",
    "a unit of no known kind": "60 01 61 62 63",
    "a unit of another layer": "02 09 61 62 63",
}
FAULTS = [("h264", name) for name in H264] + [("hevc", name) for name in HEVC]


def a_ts(codec: str) -> bytes:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    time_base = Fraction(1, 90_000)
    return make_video(
        codec=codec, container="mpegts", n_frames=N_FRAMES, b_frames=2, time_base=time_base
    )


def faulty(codec: str, name: str) -> bytes:
    return bytes.fromhex((H264 if codec == "h264" else HEVC)[name])


def pictures_of(payload: bytes) -> UInt8Array:
    return PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(payload)).rgb


@pytest.mark.parametrize("container", ["mpegts", "matroska", "mp4"])
@pytest.mark.parametrize(("codec", "name"), FAULTS)
def test_a_fault_beside_the_pictures_costs_none(codec: str, name: str, container: str) -> None:
    whole = a_ts(codec)

    seen = pictures_of(with_unit(whole, faulty(codec, name), container))

    assert np.array_equal(pictures_of(whole), seen)


@pytest.mark.parametrize(("codec", "name"), FAULTS)
def test_nor_does_it_in_a_file_or_in_what_is_cut(codec: str, name: str, tmp_path: Path) -> None:
    whole = a_ts(codec)
    path = tmp_path / "faulty.ts"
    path.write_bytes(with_unit(whole, faulty(codec, name)))
    notes: list[str] = []

    seen = [batch.rgb for batch in read_video(path, SQUARE, EVERY_FRAME, on_note=notes.append)]
    chunks = list(cut_video(path, chunk_s=0.4, on_note=notes.append))

    assert np.array_equal(pictures_of(whole), np.concatenate(seen))
    cut = [pictures_of(chunk.payload) for chunk in chunks]
    assert np.array_equal(pictures_of(whole), np.concatenate(cut))
    assert [] == notes


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_fault_behind_a_picture_costs_none(codec: str) -> None:
    whole = a_ts(codec)
    name = "a message that is cut short"

    seen = pictures_of(with_unit(whole, faulty(codec, name), "matroska", behind=True))

    assert np.array_equal(pictures_of(whole), seen)


def test_messages_alone_in_a_packet_are_no_damage() -> None:
    video = make_video(container="h264", n_frames=5)

    seen = pictures_of(video + bytes.fromhex("00000001 06 05 ff ff 10 80"))

    assert np.array_equal(pictures_of(video), seen)


def test_damage_in_a_picture_is_refused_beside_a_fault_too() -> None:
    video = bytearray(with_unit(a_ts("h264"), faulty("h264", "nonsense"), "matroska"))
    at = video.index(bytes.fromhex(H264["nonsense"])) + 60
    video[at : at + 40] = bytes(byte ^ 0x5A for byte in video[at : at + 40])

    with pytest.raises(CorruptChunkError):
        pictures_of(bytes(video))


@pytest.mark.parametrize(
    ("codec", "unit", "wanted"),
    [
        ("h264", "06 06 01 c4 80", True),
        ("h264", "06 00 01 80 06 01 c4 80", True),
        ("h264", "06 05 10" + "00 11" * 8 + "80", True),
        ("h264", "06 05 10" + "00 00 03" * 8 + "80", True),  # 16 bytes, escaped
        ("h264", "06 04 01 b5 06 01 c4 80", False),
        ("h264", "06 01 01 80 80", False),
        ("hevc", "50 01 84 05 02 00 00 00 01 80", True),
        ("hevc", "4e 01 06 01 c4 80", True),
        ("hevc", "4e 01 01 01 c4 80", False),
    ],
)
def test_messages_that_matter_to_a_picture_stay(codec: str, unit: str, *, wanted: bool) -> None:
    payload = bytes.fromhex(unit)

    assert wanted == is_sound_sei(Unit(codec, payload, 0, len(payload)))


def test_streams_of_other_parameter_sets_stay_bounded() -> None:
    """Of thousands of different sets only some are judged; the pictures are still there."""
    whole = a_ts("h264")
    sets = b"\0\0\0\1".join(b"\x68\x07" + number.to_bytes(3, "big") for number in range(1, 60))

    seen = pictures_of(with_unit(whole, sets))

    assert np.array_equal(pictures_of(whole), seen)
