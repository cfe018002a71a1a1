"""A video source → closed-GOP chunks, byte for byte what the camera encoded.

A chunk starts at an IDR picture, so it can be decoded without anything before it, and keeps the
source's own ticks, so its frames have the same stream times as in the whole video. The chunks of
a run, one after the other, are again one video. Re-encoding costs time and quality: it is done
only where a source cannot be cut, and never silently.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, cast

from av.packet import Packet
from av.video.stream import VideoStream

from engine.errors import UnreadableVideoError
from engine.grid import US_PER_S, ticks_to_us
from engine.types import VideoChunk
from engine.video.addresses import Access, open_source
from engine.video.arrivals import HostClocks, dated_on_arrival
from engine.video.containers import CONTENT_TYPES
from engine.video.encoding import ChunkEncoder
from engine.video.fragments import Fragment, lead_for
from engine.video.frames import CHUNK_CODECS, FILE_LIMITS, prepare
from engine.video.gops import GopLength
from engine.video.metadata import is_recovery_point, mend_header
from engine.video.opening import (
    LIBAV_ERRORS,
    pixel_shape,
    reason,
    unreadable_if_libav_fails,
    video_stream,
)
from engine.video.passwords import without_password
from engine.video.recovery import LONGEST_WAIT_S, decode_leniently
from engine.video.times import (
    ARRIVAL_FORMATS,
    ARRIVAL_TICK,
    is_untimed,
    nominal_rate,
    presentation_ticks,
    timed_on_arrival,
    timed_packets,
)
from engine.video.units import (
    changed_codec,
    codec_name,
    is_cut_point,
    lacks_parameters,
    needs_hidden,
    with_parameters,
)
from engine.video.wall_clock import Dating, TrustedClock, WallClock

Transcode = Literal["auto", "never", "always"]
Note = Callable[[str], None]

_LONG_GOP_CHUNKS = 2
_SHORT_AGAIN = 5  # GOPs in a row, after which copying is tried again
_FULL = 0.5  # of what a reader takes; then another GOP as large still fits
_LONGEST_SHOWN_S = 60  # beyond, the clock jumped, which is no frame that lasts


@dataclass(frozen=True, slots=True)
class CutChunk:
    """A closed-GOP piece of a video, decodable by itself.

    Attributes:
        payload: A fragmented MP4, whose times count from the start of the run.
        content_type: Its media type.
        start_ticks: First frame's pts since the first frame of the run, in ``time_base``.
        time_base: Seconds in a tick, the source's own.
        start_us: ``start_ticks`` in microseconds.
        duration_us: Up to the next chunk's first frame.
        n_frames: Frames inside.
        width: Coded width in pixels, before rotation.
        height: Coded height in pixels, before rotation.
        codec: FFmpeg's name.
        keyframe: It starts with a key frame. Always true here, but the wire format tells it.
        begins_run: It is the first of a run: of the video, or of what follows where a live
            source's dates were too far off.
        anchor_us: Unix time of the run's first frame, as far as it is known now; None: not live.
        clock: Whose clock says so.
    """

    payload: bytes
    content_type: str
    start_ticks: int
    time_base: Fraction
    start_us: int
    duration_us: int
    n_frames: int
    width: int
    height: int
    codec: str
    keyframe: bool = True
    begins_run: bool = False
    anchor_us: int | None = None
    clock: TrustedClock = TrustedClock.ARRIVAL

    def to_chunk(
        self, camera: str, run: str, sequence: int, anchor_us: int | None = None
    ) -> VideoChunk:
        """The chunk as a transport would deliver it."""
        return VideoChunk(
            camera=camera,
            run=run,
            sequence=sequence,
            start_us=self.start_us,
            payload=self.payload,
            start_ticks=self.start_ticks,
            time_base=self.time_base,
            anchor_us=anchor_us,
        )


def cut_video(
    source: str | Path,
    *,
    chunk_s: float,
    on_note: Note,
    transcode: Transcode = "auto",
    live: bool = False,
    read_timeout_s: float = 10,
    clocks: HostClocks | None = None,
    access: Access | None = None,
    most_bytes: Callable[[], int | None] = lambda: None,
) -> Iterator[CutChunk]:
    """Cut a video at key frames into closed GOPs of at least ``chunk_s`` seconds.

    Args:
        source: A local file, or an rtsp://, rtsps://, http:// or https:// URL.
        chunk_s: Shortest chunk; only the last may be shorter. Transcoded chunks have this length.
        on_note: Told in a sentence about everything that is not a plain copy.
        transcode: ``auto`` re-encodes what cannot be cut: a codec that chunks may not have, GOPs
            longer than twice ``chunk_s``, a container without frame times. ``never`` lets a long
            GOP be one chunk, and fails on the rest. ``always`` re-encodes everything.
        live: Start after a second of analysis; FFmpeg would take up to five to be sure.
        read_timeout_s: A URL that gives nothing for so long has failed.
        clocks: Say when pictures of a live source arrive, which dates them (see
            ``engine.video.wall_clock``); None: the machine's.
        access: How a URL is reached.
        most_bytes: The largest chunk that its reader takes, if there is such and it is known by
            now. Chunks that would come near it are cut shorter, as far as key frames allow.

    Raises:
        UnreadableVideoError: The source cannot be opened or cut, or failed while it was read. What
            it gave before has been yielded.
    """
    shown = without_password(str(source))
    failure: list[BaseException] = []  # at most one
    with (
        unreadable_if_libav_fails(shown),
        open_source(source, live=live, timeout_s=read_timeout_s, access=access) as container,
    ):
        stream = video_stream(container)
        prepare(stream, FILE_LIMITS, threads=1)
        mend_header(stream)  # FFmpeg's muxer would make a header of sets that nobody takes
        packets = _until_failure(container.demux(stream), failure)
        time_base = stream.time_base or Fraction(1, 90_000)
        clocks = clocks or HostClocks()
        is_untold = live and container.format.name in ARRIVAL_FORMATS
        if is_untold:
            packets, time_base = timed_on_arrival(packets, clocks.steady_s), ARRIVAL_TICK
        else:
            packets = timed_packets(packets, stream, FILE_LIMITS.max_pixels, on_note)
        law = WallClock() if live else None
        if law is not None:
            packets = dated_on_arrival(
                packets,
                time_base,
                law,
                clocks,
                apart_us=US_PER_S / nominal_rate(stream),
                are_stamped_on_arrival=is_untold,
            )
        cutter = _Cutter(stream, time_base, chunk_s, transcode, on_note, failure, law, most_bytes)
        yield from cutter.cut(packets)
    if failure:
        raise UnreadableVideoError(f"{shown}: {reason(failure[0])}") from failure[0]


class _Cutter:
    """The packets of one run → chunks."""

    def __init__(
        self,
        stream: VideoStream,
        time_base: Fraction,
        chunk_s: float,
        transcode: Transcode,
        on_note: Note,
        failure: list[BaseException],
        law: WallClock | None,
        most_bytes: Callable[[], int | None],
    ) -> None:
        self._most_bytes = most_bytes
        self._is_cut_short = False
        self._law = law
        self._dating: Dating | None = None  # of the newest chunk
        self._stream = stream
        self._time_base = time_base
        self._chunk_ticks = max(1, round(Fraction(chunk_s) / self._time_base))
        self._transcode = transcode
        self._on_note = on_note
        self._failure = failure
        self._origin: int | None = None  # pts that is stream time 0
        self._next_free = 0  # start ticks below this were given out
        self._n_chunks = 0
        self._gop = GopLength(self._time_base)
        self._held_back: list[list[Packet[VideoStream]]] = []  # taken from a source too early
        self._lead: int | None = None  # of the run; known with its first chunk
        self._needs_parameters = False  # a player of the whole run has others by now
        self._changes_to: str | None = None  # another codec, which ends what can be cut

    def cut(self, packets: Iterator["Packet[VideoStream]"]) -> Iterator[CutChunk]:
        yield from self._cut(self._of_one_codec(packets))
        if self._changes_to is not None:
            raise UnreadableVideoError(
                f"its codec changes from {codec_name(self._stream)} to {self._changes_to}, and "
                "what follows was left out: send each part as a source of its own"
            )
        if not self._n_chunks and not self._failure:
            raise UnreadableVideoError("it shows no picture: does its edit list hide them all?")

    def _of_one_codec(
        self, packets: Iterator["Packet[VideoStream]"]
    ) -> Iterator["Packet[VideoStream]"]:
        for packet in packets:
            self._changes_to = changed_codec(packet, self._stream)
            if self._changes_to is not None:
                return
            yield packet

    def _cut(self, packets: Iterator["Packet[VideoStream]"]) -> Iterator[CutChunk]:
        why = self._why_not_copied()
        if why and self._transcode == "never":
            raise UnreadableVideoError(
                f"it cannot be cut without re-encoding, for {why}: allow transcoding"
            )
        if self._transcode == "always":
            why = "transcoding was asked for"
        if not is_untimed(self._stream):
            first = self._first_key(packets)
            if lacks_parameters(first, self._stream):
                raise UnreadableVideoError(
                    "it says nowhere how its pictures are to be decoded (SPS, PPS): let the "
                    "camera send that with every key frame, or tell it in its description (SDP)"
                )
            packets = chain([first], packets)
            if why is None and not is_cut_point(first, self._stream):
                why = "its key frames are no IDR pictures"
        yield from self._encode(packets, why) if why else self._copy(packets)

    def _why_not_copied(self) -> str | None:
        codec = codec_name(self._stream)
        if codec not in CHUNK_CODECS:
            return f"its codec is {codec}, wanted one of {', '.join(CHUNK_CODECS)}"
        if is_untimed(self._stream):
            return f"{codec} in {self._stream.container.format.name} has no frame times"
        return None

    def _first_key(self, packets: Iterator["Packet[VideoStream]"]) -> "Packet[VideoStream]":
        """The first packet with which decoding can start; a live source rarely begins with one."""
        longest = LONGEST_WAIT_S / self._time_base
        told: int | None = None  # when it was last said that it waits
        for n_skipped, packet in enumerate(packets):
            if self._may_begin_with(packet):
                if n_skipped:
                    self._on_note(f"{n_skipped} packets before the first key frame were left out")
                return packet
            at = _pts(packet)
            told = at if told is None else told
            if at is not None and told is not None and at - told > longest:
                told = at
                self._on_note(
                    f"{n_skipped + 1} packets have come, and no key frame from which they could "
                    "be decoded: let the encoder send one every few seconds"
                )
        raise UnreadableVideoError("there is no key frame at which it could be cut")

    def _may_begin_with(self, packet: "Packet[VideoStream]") -> bool:
        if is_cut_point(packet, self._stream):
            return True
        may_encode = self._transcode != "never"
        return may_encode and (packet.is_keyframe or is_recovery_point(packet, self._stream))

    def _copy(self, packets: Iterator["Packet[VideoStream]"]) -> Iterator[CutChunk]:
        """Gather whole GOPs; change over to encoding when one is too long."""
        gops = self._gops(packets)
        gathered: list[Packet[VideoStream]] = []
        for gop in self._with_held_back(gops):
            if self._is_too_long:
                yield from self._encode_long([*gathered, *gop], gops)
                gathered = []
                continue
            if needs_hidden(gop):
                yield from self._finished(gathered)
                gathered = []
                yield from self._partly_hidden(gop, gops)
                continue
            if is_cut_point(gop[0], self._stream):
                start = _pts(gop[0]) or 0
                n_bytes = sum(packet.size for packet in gathered)
                if gathered and (self._is_due(gathered, start) or self._is_full(n_bytes)):
                    yield self._copied(gathered, start)
                    gathered = []
            gathered += (packet for packet in gop if not packet.is_discard)
        if self._failure and len(gathered) > 1:
            gathered.pop()  # what the source was sending when it failed may be half a packet
        yield from self._finished(gathered)

    def _with_held_back(
        self, gops: Iterator[list["Packet[VideoStream]"]]
    ) -> Iterator[list["Packet[VideoStream]"]]:
        for gop in gops:
            yield gop
            while self._held_back:
                yield self._held_back.pop()

    def _encode_long(
        self,
        packets: list["Packet[VideoStream]"],
        gops: Iterator[list["Packet[VideoStream]"]],
    ) -> Iterator[CutChunk]:
        """Encode until GOPs are short again."""
        self._settle_lead(packets)
        why = f"its key frames are more than {_LONG_GOP_CHUNKS} chunks apart"
        yield from self._encode(self._until_short(packets, gops), why)
        if self._held_back:
            self._on_note("copied again, for its key frames come as often as they should")
        self._begin_copying()

    def _until_short(
        self,
        packets: list["Packet[VideoStream]"],
        gops: Iterator[list["Packet[VideoStream]"]],
    ) -> Iterator["Packet[VideoStream]"]:
        """Packets, those that follow until some GOPs were short, and a decoder's rest."""
        yield from packets
        n_short, is_long = 0, True
        for gop in gops:
            if is_cut_point(gop[0], self._stream):
                n_short, is_long = 0 if is_long else n_short + 1, False
                if n_short == _SHORT_AGAIN and codec_name(self._stream) == "h264":
                    self._held_back.append(gop)
                    break
            is_long = is_long or self._is_too_long
            yield from gop
        yield _flush(self._stream)

    def _settle_lead(self, packets: list["Packet[VideoStream]"]) -> None:
        """Chunks that are copied later will need it, and it is one for the whole run."""
        if self._lead is None:
            shown = [_pts(packet) or 0 for packet in packets]
            self._lead = lead_for([at - min(shown) for at in shown], self._time_base)

    def _begin_copying(self) -> None:
        self._stream.codec_context.flush_buffers()
        self._needs_parameters = True

    def _finished(self, gathered: list["Packet[VideoStream]"]) -> Iterator[CutChunk]:
        if gathered:
            yield self._copied(gathered, None)

    def _with_rest(
        self,
        packets: list["Packet[VideoStream]"],
        gops: Iterator[list["Packet[VideoStream]"]],
    ) -> Iterator["Packet[VideoStream]"]:
        """Packets, those that follow, and what makes a decoder give all it holds."""
        yield from packets
        yield from chain.from_iterable(gops)
        yield _flush(self._stream)

    def _gops(
        self, packets: Iterator["Packet[VideoStream]"]
    ) -> Iterator[list["Packet[VideoStream]"]]:
        """Packets from cut point to cut point where an edit list may hide some; else one by one.

        A GOP that is too long to be copied is not waited for.
        """
        may_hide = "mov" in self._stream.container.format.name
        gop: list[Packet[VideoStream]] = []
        for packet in packets:
            if not packet.size:  # the empty packet at the end
                continue
            is_first = is_cut_point(packet, self._stream)
            if gop and is_first:
                yield gop
                gop = []
            self._gop.take(_pts(packet) or 0, is_first=is_first)
            gop.append(packet)
            if not may_hide or self._is_too_long:
                yield gop
                gop = []
        if gop:
            yield gop

    def _partly_hidden(
        self,
        gop: list["Packet[VideoStream]"],
        gops: Iterator[list["Packet[VideoStream]"]],
    ) -> Iterator[CutChunk]:
        """A GOP whose hidden pictures are needed for others: only encoding leaves them out."""
        if self._transcode == "never":
            n_shown = sum(not packet.is_discard for packet in gop)
            self._on_note(
                f"{n_shown} pictures were left out, for the file's edit list hides pictures that "
                "they refer to: allow transcoding"
            )
            return
        why = "its edit list hides pictures that others refer to"
        if codec_name(self._stream) != "h264":  # one run, one codec
            yield from self._encode(self._with_rest(gop, gops), why)
            return
        self._settle_lead(gop)
        yield from self._encode(self._with_rest(gop, iter(())), why)
        self._begin_copying()

    def _is_due(self, gathered: list["Packet[VideoStream]"], next_pts: int) -> bool:
        ordered = _sorted_pts(gathered)
        has_jumped_back = next_pts <= ordered[-1]
        return has_jumped_back or next_pts - ordered[0] >= self._chunk_ticks

    def _is_full(self, n_bytes: int) -> bool:
        """Is a chunk so large that its reader might not take what comes on top?"""
        most = self._most_bytes()
        is_full = most is not None and n_bytes > most * _FULL
        if is_full and not self._is_cut_short:
            self._is_cut_short = True
            self._on_note(f"chunks are cut shorter, for their reader takes {most} bytes")
        return is_full

    @property
    def _is_too_long(self) -> bool:
        """Does the newest GOP, as far as it is known, last longer than a copy may delay it?"""
        most = _LONG_GOP_CHUNKS * self._chunk_ticks
        return self._transcode == "auto" and self._gop.is_longer_than(most)

    def _copied(self, packets: list["Packet[VideoStream]"], next_pts: int | None) -> CutChunk:
        ordered = _sorted_pts(packets)
        self._begin()
        start, end = self._start(ordered[0]), self._end(ordered, next_pts)
        shown = [start + (_pts(packet) or 0) - ordered[0] for packet in packets]
        if self._lead is None:
            self._lead = lead_for(shown, self._time_base)
        mp4 = Fragment(self._time_base, self._n_chunks, self._lead)
        if self._needs_parameters:
            packets = [with_parameters(packets[0], self._stream), *packets[1:]]
        shape = pixel_shape(self._stream)
        mp4.copy(self._stream, packets, shown, start + end - ordered[0], shape)
        size = self._stream.codec_context.width, self._stream.codec_context.height
        return self._chunk(mp4.finish(), start, ordered, end, size, codec_name(self._stream))

    def _encode(self, packets: Iterable["Packet[VideoStream]"], why: str) -> Iterator[CutChunk]:
        self._on_note(f"re-encoded with H.264, for {why}")
        encoder: ChunkEncoder | None = None
        frames = decode_leniently(packets, self._stream, self._on_note)
        for pts, frame in presentation_ticks(frames, self._stream, self._time_base):
            if encoder is not None and (
                encoder.is_finished_by(pts, frame, self._chunk_ticks)
                or self._is_full(encoder.n_bytes)
            ):
                yield self._encoded(encoder, pts)
                encoder = None
            if encoder is None:
                self._begin()
                mp4 = Fragment(self._time_base, self._n_chunks, self._lead or 0)
                encoder = ChunkEncoder(mp4, self._stream, self._time_base, self._start(pts), frame)
            encoder.add(pts, frame)
        if encoder is not None:
            yield self._encoded(encoder, None)

    def _encoded(self, encoder: "ChunkEncoder", next_pts: int | None) -> CutChunk:
        end = self._end(encoder.pts, next_pts)
        payload = encoder.finish()
        if self._law is not None:
            self._dating = self._law.date(may_begin_anew=False)
        return self._chunk(payload, encoder.start, encoder.pts, end, encoder.size, "h264")

    def _begin(self) -> None:
        """Date a chunk; begin a new run with it, if dates before were too far off."""
        if self._law is None:
            return
        self._dating = self._law.date()
        if self._dating.is_anew and self._n_chunks:
            off_s = self._dating.off_us / US_PER_S
            self._on_note(f"pictures were dated {-off_s:+.1f} s wrong; a new run begins")
            self._origin, self._next_free, self._n_chunks, self._lead = None, 0, 0, None

    def _start(self, pts: int) -> int:
        """A new chunk's first pts → ticks since the run's first frame."""
        if self._origin is None:
            self._origin = pts
        start = pts - self._origin
        if start < self._next_free:  # the last picture's time trembled
            self._origin -= self._next_free - start
            start = self._next_free
        return start

    def _chunk(
        self,
        payload: bytes,
        start: int,
        pts: list[int],
        end: int,
        size: tuple[int, int],
        codec: str,
    ) -> CutChunk:
        dating, origin_us = self._dating, ticks_to_us(self._origin or 0, self._time_base)
        self._n_chunks += 1
        self._next_free = start + pts[-1] - pts[0] + 1
        start_us = ticks_to_us(start, self._time_base)
        return CutChunk(
            payload=payload,
            content_type=CONTENT_TYPES["mov"],
            start_ticks=start,
            time_base=self._time_base,
            start_us=start_us,
            duration_us=ticks_to_us(start + end - pts[0], self._time_base) - start_us,
            n_frames=len(pts),
            width=size[0],
            height=size[1],
            codec=codec,
            begins_run=self._n_chunks == 1,
            anchor_us=None if dating is None else dating.base_us + origin_us,
            clock=TrustedClock.ARRIVAL if dating is None else dating.clock,
        )

    def _end(self, pts: list[int], next_pts: int | None) -> int:
        """Ticks when the last frame ends; if none follows, it lasts as long as the one before."""
        if next_pts is not None and 0 < next_pts - pts[-1] <= _LONGEST_SHOWN_S / self._time_base:
            return next_pts
        if len(pts) > 1 and pts[-1] > pts[-2]:
            return 2 * pts[-1] - pts[-2]
        rate = nominal_rate(self._stream)
        return pts[-1] + max(1, round(1 / (rate * self._time_base)))


def _until_failure(
    packets: Iterator["Packet[VideoStream]"], failure: list[BaseException]
) -> Iterator["Packet[VideoStream]"]:
    """Packets up to the end or the first error, which is kept in ``failure`` for later."""
    try:
        yield from packets
    except LIBAV_ERRORS as error:
        failure.append(error)


def _flush(stream: VideoStream) -> "Packet[VideoStream]":
    """The packet with which a decoder gives what it still holds."""
    end = cast("Packet[VideoStream]", Packet())
    end.stream = stream
    return end


def _pts(packet: "Packet[VideoStream]") -> int | None:
    if not packet.size:
        return None
    return packet.dts if packet.pts is None else packet.pts


def _sorted_pts(packets: list["Packet[VideoStream]"]) -> list[int]:
    return sorted(pts for packet in packets if (pts := _pts(packet)) is not None)
