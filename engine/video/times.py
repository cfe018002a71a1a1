"""When each picture is shown: one law for files, for chunks and for what is cut.

A time that the source gives is kept. A picture without one lies evenly between its neighbours that
have one, in the order in which pictures are shown; where there is no neighbour on one side, or the
clock jumps between them, pictures follow each other as before. So a picture is never lost because
its packet lacks a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import cast

import av.error
from av.codec.context import CodecContext, Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from engine.video.steps import SteadyClock
from engine.video.units import codec_name, is_crowded, is_cut_point, with_payload

DEFAULT_FPS = Fraction(25)  # of raw streams that say nothing; FFmpeg assumes the same
_SLOWEST, _FASTEST = Fraction(1, 10), 480
# Clocks of these start anew, and run over: by libav's word, and RTP's stamps have 32 bits.
_MAY_STEP = 0x0200  # AVFMT_TS_DISCONT
_STEPPING_FORMATS = ("rtsp",)
# These do not say when a packet is decoded; FFmpeg guesses it, as it does where times are missing.
_WITHOUT_DTS = ("matroska", "webm", "rtsp")
_MOST_AHEAD_S = 60  # no chunk lasts longer

# Packets of these carry no presentation times; their pictures are timed when they are decoded.
_UNTIMED_FORMATS = ("h264", "hevc", "avi")
# Live, these say nothing of time: FFmpeg calls them 25 pictures a second.
ARRIVAL_FORMATS = ("mjpeg", "mpjpeg")
ARRIVAL_TICK = Fraction(1, 90_000)
# In these a picture may be shown before one that is decoded earlier.
_REORDERING_CODECS = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1")
# Pictures that wait for each other's times; a GOP that is longer is taken in parts.
_MOST_WAITING = 1500
_MOST_WAITING_BYTES = 64 * 2**20
_FULL_AT_CUT = 0.5  # better a cut between GOPs than one inside
# Between two known times pictures further apart on average are no slow camera: the clock jumped.
_MOST_APART_S = 10
_MARKED_BEFORE_JOIN = 2  # packets that may be marked where another part begins
_NEVER = 2**63  # later than any time, and no even step after one


def is_untimed(stream: VideoStream) -> bool:
    """Do packets lack presentation times? Motion JPEG reorders nothing, so its dts will do."""
    return stream.container.format.name in _UNTIMED_FORMATS and codec_name(stream) != "mjpeg"


def nominal_rate(stream: VideoStream) -> Fraction:
    """Pictures a second, as the codec's parameters say, or else the container.

    A raw stream has no container, and FFmpeg would call it 25 a second whatever it says. A rate
    that makes no sense does not count.
    """
    said = (stream.codec_context.framerate, stream.average_rate)
    return next((rate for rate in said if rate and _SLOWEST <= rate <= _FASTEST), DEFAULT_FPS)


def timed_packets(
    packets: Iterable["Packet[VideoStream]"],
    stream: VideoStream,
    max_pixels: int,
    on_note: Callable[[str], None] = lambda _note: None,
) -> Iterator["Packet[VideoStream]"]:
    """The same packets in the same order, each with the time at which its picture is shown.

    Where the source's clock steps, time goes on (see ``engine.video.steps``). Those of a stream
    that gives no time at all pass as they are; see ``presentation_ticks``.

    Args:
        packets: In the order of decoding.
        stream: Theirs.
        max_pixels: Pixels of one frame; a larger one is not decoded to find its place.
        on_note: Told once, if times are missing, and of each step.
    """
    if is_untimed(stream):
        return iter(packets)
    timer = _Timer(stream, max_pixels)
    return _steady(_with_all_times(packets, stream, timer, on_note), stream, timer, on_note)


def _steady(
    packets: Iterable["Packet[VideoStream]"],
    stream: VideoStream,
    timer: "_Timer",
    on_note: Callable[[str], None],
) -> Iterator["Packet[VideoStream]"]:
    """The same packets, of a clock that does not step."""
    time_base = stream.time_base or Fraction(1, 90_000)
    file_format = stream.container.format
    may_step = file_format.flags & _MAY_STEP or file_format.name in _STEPPING_FORMATS
    clock = SteadyClock(
        time_base,
        1 / (nominal_rate(stream) * time_base),
        most_ahead=round(_MOST_AHEAD_S / time_base) if may_step else None,
        may_reorder=codec_name(stream) in _REORDERING_CODECS,
        on_note=on_note,
    )
    tells_order = not any(name in _WITHOUT_DTS for name in file_format.name.split(","))
    for packet in _whole_at_joins(packets, stream):
        if packet.size and packet.pts is not None:
            decoded = packet.dts if tells_order and not timer.n_missing else None
            shift = clock.shift_for(packet.pts, decoded, is_cut=is_cut_point(packet, stream))
            packet.pts += shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet


def _whole_at_joins(
    packets: Iterable["Packet[VideoStream]"], stream: VideoStream
) -> Iterator["Packet[VideoStream]"]:
    """The same packets; those at the end of a part are whole where another part follows.

    There MPEG-TS counts anew, which FFmpeg takes for a loss in the last packet, or marks the one
    before. If it is one, the picture cannot be decoded, and that decides.
    """
    held: list[Packet[VideoStream]] = []
    for packet in packets:
        is_join = packet.size and is_cut_point(packet, stream)
        if held and (is_join or len(held) == _MARKED_BEFORE_JOIN):
            for one in held:
                yield with_payload(one, bytes(one)) if is_join and one.is_corrupt else one
            held = []
        if held or packet.is_corrupt:
            held.append(packet)
        else:
            yield packet
    yield from held


def _with_all_times(
    packets: Iterable["Packet[VideoStream]"],
    stream: VideoStream,
    timer: "_Timer",
    on_note: Callable[[str], None],
) -> Iterator["Packet[VideoStream]"]:
    for packet in packets:
        if not packet.size:  # the empty packet at the end
            yield from timer.release(None)
            yield packet
            continue
        at = timer.known(packet)
        if is_cut_point(packet, stream):
            yield from timer.release_before_cut(at)
        elif timer.is_full():
            yield from timer.release(at)
        if at is None and not timer.n_missing:
            on_note("some pictures carry no time: theirs lie evenly between those that do")
        if timer.take(packet, at):
            yield packet
    yield from timer.release(None)


def timed_on_arrival(
    packets: Iterable["Packet[VideoStream]"], clock_s: Callable[[], float]
) -> Iterator["Packet[VideoStream]"]:
    """The same packets, each with the time at which it arrived, in ``ARRIVAL_TICK``.

    Args:
        packets: Of a live source in which pictures are shown in the order of decoding.
        clock_s: Seconds of a clock that never goes back.
    """
    latest: int | None = None
    for packet in packets:
        if packet.size:
            ticks = int(clock_s() / ARRIVAL_TICK)
            latest = ticks if latest is None else max(ticks, latest + 1)
            packet.pts = packet.dts = latest
        yield packet


class _Timer:
    """Gives times to the packets from one cut point to another, once it is known when both are."""

    def __init__(self, stream: VideoStream, max_pixels: int) -> None:
        self.n_missing = 0
        self._stream = stream
        self._reorders = codec_name(stream) in _REORDERING_CODECS
        self._max_pixels = max_pixels
        self._most_apart = _MOST_APART_S / (stream.time_base or Fraction(1, 90_000))
        self._step = max(
            Fraction(1), 1 / (nominal_rate(stream) * (stream.time_base or Fraction(1, 90_000)))
        )
        self._gop: list[Packet[VideoStream]] = []
        self._times: list[int | None] = []
        self._n_bytes = 0
        self._n_given = 0
        self._newest_cut = 0  # index of the newest cut point
        self._said: int | None = None  # the newest packet's time
        self._latest: int | None = None  # when the last picture before the GOP is shown

    def known(self, packet: "Packet[VideoStream]") -> int | None:
        """The time that the source gives to a packet's picture; said twice, it is the first's."""
        ticks = self._said_by(packet)
        return None if ticks == self._said else ticks

    def _said_by(self, packet: "Packet[VideoStream]") -> int | None:
        return packet.dts if packet.pts is None and not self._reorders else packet.pts

    def is_full(self, share: float = 1) -> bool:
        """Does so much wait, or a share of it, that the next packet begins anew?"""
        return (
            len(self._gop) >= share * _MOST_WAITING or self._n_bytes >= share * _MOST_WAITING_BYTES
        )

    def take(self, packet: "Packet[VideoStream]", at: int | None) -> bool:
        """Keep a packet with its time; True if that and all before it are known: give it."""
        is_given = at is not None and self._n_given == len(self._gop)
        self._gop.append(packet)
        self._times.append(at)
        self._said = self._said_by(packet)
        self._n_bytes += packet.size
        self.n_missing += at is None
        self._n_given += is_given
        return is_given

    def release_before_cut(self, next_time: int | None) -> Iterator["Packet[VideoStream]"]:
        """Give what can be given before a cut point, whose time may be unknown too."""
        if next_time is not None or self.is_full(_FULL_AT_CUT):
            yield from self.release(next_time)
        elif any(at is not None for at in self._times[self._newest_cut :]):
            yield from self.release(None, self._newest_cut)
        self._newest_cut = len(self._gop)

    def release(
        self, next_time: int | None, n_packets: int | None = None
    ) -> Iterator["Packet[VideoStream]"]:
        """Give what waits for times, or the first of it.

        Args:
            next_time: Of the picture after all that waits.
            n_packets: How many packets to let go.
        """
        n_packets = len(self._gop) if n_packets is None else n_packets
        times = self._times
        if self._n_given < n_packets:
            order = display_order(self._gop, self._stream, self._max_pixels)
            spread = self._spread([times[index] for index in order], next_time)
            for index, ticks in zip(order, spread, strict=True):
                if times[index] is None and index < n_packets:
                    self._gop[index].pts = times[index] = ticks
        yield from self._gop[self._n_given : n_packets]
        # Not the latest of all: the clock may have stepped back since.
        given = [at for at in times[:n_packets] if at is not None]
        self._latest = max(given, default=self._latest)
        self._gop, self._times = self._gop[n_packets:], times[n_packets:]
        self._n_bytes = sum(packet.size for packet in self._gop)
        self._n_given = max(0, self._n_given - n_packets)

    def _spread(self, shown: Sequence[int | None], next_time: int | None) -> list[int]:
        """Times in the order of showing, where those that are known stand."""
        known = [(place, at) for place, at in enumerate(shown) if at is not None]
        # Where the clock steps before a GOP, its first pictures go with those that follow.
        if self._latest is not None and (
            not known or self._is_even(known[0][0] + 1, known[0][1] - self._latest)
        ):
            known.insert(0, (-1, self._latest))
        if next_time is not None:
            known.append((len(shown), next_time))
        for (place, at), (after, until) in pairwise(known):
            if self._is_even(after - place, until - at):
                self._step = Fraction(until - at, after - place)
                break  # what lies before the first known time is spaced like what follows
        first_place, first = known[0] if known else (0, 0)
        spread = [round(first + (n - first_place) * self._step) for n in range(len(shown))]
        for (place, at), (after, until) in pairwise([*known, (len(shown), _NEVER)]):
            if self._is_even(after - place, until - at):
                self._step = Fraction(until - at, after - place)
            for between in range(max(place, 0), after):
                spread[between] = round(at + (between - place) * self._step)
        return spread

    def _is_even(self, n_pictures: int, ticks: int) -> bool:
        return n_pictures <= ticks <= n_pictures * self._most_apart


def display_order(
    packets: Sequence["Packet[VideoStream]"], stream: VideoStream, max_pixels: int
) -> list[int]:
    """Indices of packets in the order in which their pictures are shown.

    Only a decoder knows it. A packet that shows nothing by itself follows the one before it.
    """
    if codec_name(stream) not in _REORDERING_CODECS:
        return list(range(len(packets)))
    decoder = _scout(stream, max_pixels)
    codec, extradata = codec_name(stream), stream.codec_context.extradata or b""
    order: list[int] = []
    for index, packet in enumerate(packets):
        payload = bytes(packet)
        if is_crowded(payload, codec, extradata):
            continue  # nor will anybody else decode it
        copy = cast("Packet[VideoStream]", Packet(payload))
        copy.pts = index
        order += _shown_by(decoder, copy)
    order += _shown_by(decoder, None)
    placed = set(order)
    for index in range(len(packets)):
        if index not in placed:
            order.insert(order.index(index - 1) + 1 if index else 0, index)
    return order


def _scout(stream: VideoStream, max_pixels: int) -> VideoCodecContext:
    """A decoder whose pictures nobody looks at; it waits for order as long as a stream may ask."""
    name = stream.codec_context.codec.name
    decoder = cast(VideoCodecContext, CodecContext.create(name, "r"))
    decoder.extradata = stream.codec_context.extradata
    decoder.options = {
        "max_pixels": str(max_pixels),
        "strict": "1",
        "skip_loop_filter": "all",
        "skip_idct": "all",
    }
    decoder.thread_count = 1
    decoder.flags |= Flags.output_corrupt  # damaged pictures have their place, too
    return decoder


def _shown_by(decoder: VideoCodecContext, packet: "Packet[VideoStream] | None") -> list[int]:
    try:
        frames = decoder.decode(packet)
    except av.error.FFmpegError:
        return []
    return [frame.pts for frame in frames if frame.pts is not None]


def presentation_ticks(
    frames: Iterable[VideoFrame], stream: VideoStream, time_base: Fraction
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with their pts in ticks of ``time_base``, whatever the container left out."""
    # AVI stores no presentation times; FFmpeg's guesses at them are out of order with B-frames,
    # while a frame's dts is then the time at which the decoder gave it out.
    is_avi = stream.container.format.name == "avi"
    step = max(1, round(1 / (nominal_rate(stream) * time_base)))
    previous: int | None = None
    for frame in frames:
        known = frame.dts if is_avi else frame.pts
        if known is None:  # a raw stream has no times at all: its frames are evenly spaced
            known = 0 if previous is None else previous + step
        elif previous is not None:
            step = known - previous
        previous = known
        yield known, frame
