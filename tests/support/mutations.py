"""Chunks that a broken camera, a broken network or an enemy might send, each with its name."""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.stream import VideoStream

from tests.support.videos import has_encoder, make_video, with_changed_packets

PLAYLIST = (
    b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n"
    b"file:///etc/passwd\n#EXTINF:10.0,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"
)
CONCAT_SCRIPT = b"ffconcat version 1.0\nfile /etc/passwd\nfile 'http://127.0.0.1:9/x.mp4'\n"
SDP = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
)
DASH_MANIFEST = (
    b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    b"<AdaptationSet><Representation><BaseURL>http://127.0.0.1:9/a.mp4</BaseURL>"
    b"</Representation></AdaptationSet></Period></MPD>"
)


def mutated_chunks(seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """``n`` named payloads: every hand-made one first, then random damage to good ones.

    The same ``seed`` gives the same payloads. A damaged payload may still be decodable: a flipped
    bit can hit padding.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible damage, no secret
    made = list(hand_made_chunks())[:n]
    yield from made
    good = list(good_chunks())
    for index in range(len(made), n):
        damage = _DAMAGES[index % len(_DAMAGES)]
        name, payload = good[index // len(_DAMAGES) % len(good)]
        yield f"{damage.__name__.strip('_')}-{name}-{index}", damage(rng, payload, good)


def good_chunks() -> Iterator[tuple[str, bytes]]:
    """Sound closed-GOP chunks of every kind this build can encode."""
    for codec, container in (
        ("h264", "mp4"),
        ("h264", "mpegts"),
        ("h264", "h264"),
        ("hevc", "mpegts"),
        ("vp9", "matroska"),
        ("av1", "mp4"),
        ("mjpeg", "avi"),
        ("mjpeg", "mjpeg"),
    ):
        if has_encoder(codec):
            video = make_video(codec=codec, container=container, n_frames=12)
            yield f"{codec}.{container}", video


def hand_made_chunks() -> Iterator[tuple[str, bytes]]:
    """Payloads made to be refused, or to be found damaged."""
    video = make_video(n_frames=12)
    yield "empty", b""
    yield "one-byte", b"\x00"
    yield "zeros", bytes(4096)
    yield "m3u8-playlist", PLAYLIST
    yield "ffconcat-script", CONCAT_SCRIPT
    yield "sdp", SDP
    yield "dash-manifest", DASH_MANIFEST
    yield "text", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20
    yield "letters-g", b"G" * 1880
    yield "zip", zipped(video)
    yield "mp4-header-only", video[: video.index(b"mdat") - 4]
    yield "mp4-external-data", external_data_mp4(video)
    yield "mp4-claims-100-million-samples", claiming_mp4(video, 100_000_000)
    yield "mp4-claims-4-billion-samples", claiming_mp4(video, 0xFFFF_FFFF)
    yield "mp4-fragment-claims-50-million-samples", claiming_fragment(50_000_000)
    yield "mp4-box-of-4-gigabytes", video[:40] + b"\xff\xff\xff\xffmoov"
    yield "mp4-compressed-header", _box(b"ftyp", b"isom") + _box(b"moov", _box(b"cmov", bytes(64)))
    yield "mp4-deeply-nested", _box(b"ftyp", b"isom") + nested_boxes(5000)
    yield "matroska-endless-sizes", b"\x1a\x45\xdf\xa3" + b"\x01\xff\xff\xff\xff\xff\xff\xff" * 64
    yield "avi-without-streams", b"RIFF\xff\xff\xff\x7fAVI LIST\x10\x00\x00\x00hdrl" + bytes(64)
    yield "wrong-codec-mpeg4", make_video(codec="mpeg4", container="avi", n_frames=5)
    yield "no-key-frame", without_key_frame()
    yield "size-bomb-mp4", size_bomb(16_000)
    yield "size-bomb-jpeg", jpeg_size_bomb(16_000)
    yield "size-bomb-annex-b", make_video(container="h264", n_frames=1, size=(8192, 4320))
    yield "sliver", make_video(codec="mjpeg", container="mjpeg", n_frames=1, size=(8, 4096))
    yield "frame-bomb", frame_bomb(5000)
    yield "two-hours-in-two-frames", make_video(pts=[0, 12800 * 7200])


def crowded_chunks(n_units: int) -> Iterator[tuple[str, bytes]]:
    """Chunks of very many units, for each of which FFmpeg would take 4 KiB."""
    crowd = b"\x00\x00\x01\x09" * n_units  # access unit delimiters

    def crowded(_number: int, payload: bytes) -> bytes:
        return payload + crowd

    containers = ["mpegts", "matroska", "mp4"]
    for codec in filter(has_encoder, ("h264", "hevc")):
        yield f"{codec}", make_video(codec=codec, container=codec, n_frames=2) + crowd
        ts = make_video(codec=codec, container="mpegts", n_frames=12)
        for container in [*containers, "avi"] if codec == "h264" else containers:
            yield f"{codec}-{container}", with_changed_packets(ts, crowded, container)
        # Without its parameters in the header, FFmpeg looks for them in the units.
        matroska = with_changed_packets(ts, crowded, "matroska")
        yield f"{codec}-matroska-without-parameters", _without_codec_private(matroska)
        mp4 = with_changed_packets(ts, crowded, "mp4")
        bare = mp4.replace(b"avcC", b"free").replace(b"hvcC", b"free")
        yield f"{codec}-mp4-without-parameters", bare


def _without_codec_private(matroska: bytes) -> bytes:
    """The element is called void, whose name is a byte shorter, and so its size one longer."""
    at = matroska.index(b"\x63\xa2")
    n_size = 9 - matroska[at + 2].bit_length()
    size = int.from_bytes(matroska[at + 2 : at + 2 + n_size], "big") & (1 << 7 * n_size) - 1
    void = b"\xec" + (1 << 7 * (n_size + 1) | size).to_bytes(n_size + 1, "big")
    return matroska[:at] + void + matroska[at + len(void) :]


def zipped(payload: bytes) -> bytes:
    """A zip archive of a sound video."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("video.mp4"), payload)  # of fixed date
    return buffer.getvalue()


def external_data_mp4(video: bytes) -> bytes:
    """An MP4 whose samples lie in another file, as its data reference (an alias) says."""
    at = video.index(b"dref") - 4
    size = int.from_bytes(video[at : at + 4], "big")
    path = b"/etc/passwd\x00"
    names = b"\x04disk".ljust(28, b"\x00") + bytes(12) + b"\x06passwd".ljust(64, b"\x00")
    absolute_path = struct.pack(">HH", 2, len(path)) + path
    alias = bytes(10) + names + bytes(16) + b"\x00\x01\x00\x01" + bytes(16) + absolute_path
    entry = _box(b"alis", bytes(4) + alias + b"\xff\xff\x00\x00")  # flags 0: not in this file
    dref = _box(b"dref", bytes(4) + b"\x00\x00\x00\x01" + entry)
    grown = bytearray(video[:at] + dref + video[at + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        where = grown.index(parent) - 4
        old = int.from_bytes(grown[where : where + 4], "big")
        grown[where : where + 4] = (old + len(dref) - size).to_bytes(4, "big")
    return bytes(grown)


def claiming_mp4(video: bytes, n_samples: int) -> bytes:
    """An MP4 whose tables say: ``n_samples`` of one byte each, all in the first place."""
    sizes, places = video.index(b"stsz") + 8, video.index(b"stsc") + 16
    claimed = bytearray(video)
    claimed[sizes : sizes + 8] = struct.pack(">II", 1, n_samples)
    claimed[places : places + 4] = struct.pack(">I", n_samples)
    return bytes(claimed)


def claiming_fragment(n_samples: int) -> bytes:
    """A fragmented MP4 whose run says: ``n_samples``, all alike."""
    video = bytearray(make_video(n_frames=12, movflags="empty_moov+default_base_moof"))
    run = video.index(b"trun") + 4
    video[run : run + 8] = struct.pack(">II", 0, n_samples)
    return bytes(video)


def nested_boxes(depth: int) -> bytes:
    """Boxes in boxes in boxes."""
    size = 8 * depth
    return b"".join((size - 8 * level).to_bytes(4, "big") + b"moov" for level in range(depth))


def size_bomb(side: int) -> bytes:
    """An MP4 that says 64x48 outside, and holds one sound JPEG of ``side`` x ``side``."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mjpeg", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(jpeg_size_bomb(side))
        packet.stream, packet.pts, packet.dts, packet.duration = stream, 0, 0, 1
        packet.time_base, packet.is_keyframe = Fraction(1, 25), True
        output.mux(packet)
    return buffer.getvalue()


def jpeg_size_bomb(side: int) -> bytes:
    """A sound JPEG of ``side`` x ``side``, grey all over: 4 bytes for every 16 x 16 pixels.

    In the standard tables a block like its neighbour is 001010 in luma and 0000 in chroma.
    """
    grey = np.full((16, 16, 3), 128, np.uint8)
    jpeg = make_video(
        codec="mjpeg",
        container="mjpeg",
        pictures=[grey],
        size=(16, 16),
        options={"huffman": "default"},
    )
    frame_header, scan_header = jpeg.index(b"\xff\xc0") + 5, jpeg.index(b"\xff\xda")
    scan = scan_header + 2 + int.from_bytes(jpeg[scan_header + 2 : scan_header + 4], "big")
    size = struct.pack(">HH", side, side)
    head = jpeg[:frame_header] + size + jpeg[frame_header + 4 : scan]
    return head + b"\x28\xa2\x8a\x00" * (side // 16) ** 2 + b"\xff\xd9"


def frame_bomb(n_frames: int) -> bytes:
    """Very many very small pictures in a few seconds."""
    return make_video(
        codec="mjpeg",
        container="avi",
        size=(16, 16),
        fps=1000,
        time_base=Fraction(1, 1000),
        pictures=[np.zeros((16, 16, 3), np.uint8)] * n_frames,
    )


def without_key_frame() -> bytes:
    """An Annex-B stream from its second picture on, behind sound parameter sets."""
    units = make_video(container="h264", n_frames=12).split(b"\x00\x00\x01")[1:]
    kept = [unit for unit in units if unit[0] & 0x1F not in (5, 6)]
    return b"".join(b"\x00\x00\x01" + unit for unit in kept)


def _box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


_Good = list[tuple[str, bytes]]


def _flipped_bit(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    at = rng.randrange(len(payload))
    return payload[:at] + bytes([payload[at] ^ 1 << rng.randrange(8)]) + payload[at + 1 :]


def _flipped_bits(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    damaged = bytearray(payload)
    for _ in range(rng.randrange(2, 200)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncated(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    return payload[: rng.randrange(len(payload))]


def _beheaded(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    return payload[rng.randrange(1, len(payload)) :]


def _hole(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    start, end = sorted(rng.sample(range(len(payload)), 2))
    return payload[:start] + payload[end:]


def _zeroed(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    start = rng.randrange(len(payload))
    end = min(len(payload), start + rng.randrange(1, 400))
    return payload[:start] + bytes(end - start) + payload[end:]


def _noise(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    start = rng.randrange(len(payload))
    length = min(len(payload) - start, rng.randrange(1, 400))
    return payload[:start] + rng.randbytes(length) + payload[start + length :]


def _splice(rng: random.Random, payload: bytes, good: _Good) -> bytes:
    other = rng.choice(good)[1]
    return payload[: rng.randrange(len(payload))] + other[rng.randrange(len(other)) :]


def _noisy_head(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    at = rng.randrange(4, 600)
    return payload[:at] + rng.randbytes(8) + payload[at + 8 :]


def _random_bytes(rng: random.Random, payload: bytes, _good: _Good) -> bytes:
    return payload[:12] + rng.randbytes(rng.randrange(1, 5000))


_DAMAGES: tuple[Callable[[random.Random, bytes, _Good], bytes], ...] = (
    _flipped_bit,
    _flipped_bits,
    _truncated,
    _beheaded,
    _hole,
    _zeroed,
    _noise,
    _splice,
    _noisy_head,
    _random_bytes,
)
