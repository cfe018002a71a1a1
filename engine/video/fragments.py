"""Encoded packets → one fragmented MP4, which is a chunk.

The chunks of a run, one after the other, are one fragmented MP4: each has its own header, which a
reader skips after the first, and one fragment, whose times count from the start of the run.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

# One fragment, whose header is written last, when the codec's parameters are certainly known. It
# begins at the time that it is given (frag_discont). No edit list, because a reader that honours
# one may drop frames; no index at the end, because another chunk may follow.
_OPTIONS = {
    "movflags": "delay_moov+default_base_moof+frag_custom+frag_discont+skip_trailer",
    "use_editlist": "0",
    "avoid_negative_ts": "disabled",
}
_LEAST_TICKS_PER_S = 10_000  # FFmpeg's muxer wants as many
_MOST_REORDERED = 16  # in no codec does a frame wait for more others


class Fragment:
    """One chunk's MP4, which is filled and then finished.

    Args:
        time_base: Seconds in a tick of the source; all times but the lead are in these ticks.
        number: Chunks of the run before this one.
        lead: How much later frames are shown than the run's clock says, in ticks of the MP4: the
            same for all chunks of a run, because nothing can be decoded before time 0.
    """

    def __init__(self, time_base: Fraction, number: int, lead: int) -> None:
        self._lead = lead
        self._tick, self._scale = _clock(time_base)
        self._buffer = io.BytesIO()
        self.container: OutputContainer = av.open(
            self._buffer,
            "w",
            format="mp4",
            options={
                **_OPTIONS,
                "video_track_timescale": str(self._tick.denominator),
                "fragment_index": str(number + 1),
            },
        )

    def add_in_order(self, packet: "Packet[VideoStream]", pts: int, duration: int) -> None:
        """Take a packet of a stream of this container, where no frame waits for another.

        Args:
            packet: The encoded frame.
            pts: When it is shown, since the run's first frame.
            duration: How long.
        """
        at = pts * self._scale + self._lead
        self._mux(packet, at, at, duration * self._scale)

    def copy(
        self,
        stream: VideoStream,
        packets: Sequence["Packet[VideoStream]"],
        pts: Sequence[int],
        end: int,
        pixel_shape: Fraction,
    ) -> None:
        """Take packets of a source as they are, with times made anew.

        Args:
            stream: Theirs.
            packets: In the order of decoding.
            pts: When each is shown, since the run's first frame.
            end: When the last frame ends.
            pixel_shape: Width of a pixel by its height, which the source's container may say.
        """
        out = self.container.add_stream_from_template(stream, opaque=True)
        out.codec_context.sample_aspect_ratio = pixel_shape
        if stream.codec_context.extradata:  # without parameter sets that no decoder takes
            out.codec_context.extradata = stream.codec_context.extradata
        ticks = [shown * self._scale for shown in pts]
        # A source whose times make no sense may ask for more than its first chunk did.
        lead = max(self._lead, *(n_before - shown for n_before, shown in enumerate(ticks)))
        dts = decoding_times(ticks, lead)
        until = [*dts[1:], max(end * self._scale, dts[-1] + 1)]
        for packet, shown, at, after in zip(packets, ticks, dts, until, strict=True):
            packet.stream = out
            self._mux(packet, shown + lead, at, after - at)

    def finish(self) -> bytes:
        """The whole MP4."""
        self.container.close()
        return self._buffer.getvalue()

    def _mux(self, packet: "Packet[VideoStream]", pts: int, dts: int, duration: int) -> None:
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        packet.time_base = self._tick
        self.container.mux_one(packet)


def lead_for(pts: Sequence[int], time_base: Fraction) -> int:
    """The lead of a run, in ticks of the MP4, that its first chunk asks for.

    Args:
        pts: When each frame is shown, in the order of decoding.
        time_base: Seconds in a tick of ``pts``.
    """
    _, scale = _clock(time_base)
    ticks = [shown * scale for shown in pts]
    waits = (at - shown for at, shown in zip(_rising(ticks), ticks, strict=True))
    return max(_MOST_REORDERED, *waits)


def decoding_times(pts: Sequence[int], lead: int) -> list[int]:
    """Rising times at which to decode frames, none later than it is shown.

    They are made anew, because sources leave them out, repeat them or start below zero. The n-th
    frame is decoded at the n-th time of ``pts``, or earlier, where frames wait for each other
    longer than the lead. So a chunk's times end before those of the next chunk begin.

    Args:
        pts: When each frame is shown, less the lead, in the order of decoding.
        lead: At least 16 ticks, the most that frames can be out of order.
    """
    latest: list[int] = []
    for shown in reversed(pts):
        latest.append(min(shown + lead, latest[-1] - 1 if latest else shown + lead))
    return [min(at, most) for at, most in zip(_rising(pts), reversed(latest), strict=True)]


def _clock(time_base: Fraction) -> tuple[Fraction, int]:
    """Seconds in a tick of the MP4, and how many of them are a tick of the source."""
    per_s = time_base.denominator
    while per_s < _LEAST_TICKS_PER_S:
        per_s *= 2
    return Fraction(1, per_s), time_base.numerator * per_s // time_base.denominator


def _rising(pts: Sequence[int]) -> list[int]:
    """In order; what is no later than the one before it follows that by a tick."""
    rising: list[int] = []
    for ticks in sorted(pts):
        rising.append(max(ticks, rising[-1] + 1) if rising else ticks)
    return rising
