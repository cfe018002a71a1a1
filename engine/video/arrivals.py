"""Packets of a live source → when each arrived, told to the law that dates pictures."""

import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from av.packet import Packet
from av.video.stream import VideoStream

from engine.grid import US_PER_S, ticks_to_us
from engine.video.wall_clock import WallClock

# What FFmpeg makes of RTP sender reports: Unix microseconds (AVProducerReferenceTime).
_CAMERA_TIME: Final = "prft"


@dataclass(frozen=True, slots=True)
class HostClocks:
    """The clocks of the machine; tests give others.

    Attributes:
        steady_s: Seconds of a clock that never goes back.
        unix_us: Unix microseconds, of a clock that may be set.
    """

    steady_s: Callable[[], float] = time.monotonic
    unix_us: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)


def dated_on_arrival(
    packets: Iterable["Packet[VideoStream]"],
    time_base: Fraction,
    law: WallClock,
    clocks: HostClocks,
    *,
    apart_us: Fraction,
    are_stamped_on_arrival: bool = False,
) -> Iterator["Packet[VideoStream]"]:
    """The same packets, of which the law has taken note, and whose stamps it may have mended.

    Args:
        packets: With the times at which their pictures are shown, from a clock that does not step;
            or without, as of a raw stream.
        time_base: Seconds in a tick.
        law: Of this connection.
        clocks: Read as each packet comes.
        apart_us: Microseconds from picture to picture of a stream that gives no times.
        are_stamped_on_arrival: Their times are those of ``clocks.steady_s`` already.
    """
    n_pictures = 0
    for packet in packets:
        if packet.size:
            source_us = round(n_pictures * apart_us)
            if packet.pts is not None:
                source_us = ticks_to_us(packet.pts, time_base)
            n_pictures += 1
            now_us = source_us if are_stamped_on_arrival else round(clocks.steady_s() * US_PER_S)
            law.saw(
                source_us,
                now_us=now_us,
                unix_us=clocks.unix_us(),
                camera_us=_camera_us(packet),
            )
            later_us = law.mended_us(source_us) - source_us
            if later_us and packet.pts is not None:
                packet.pts += round(Fraction(later_us, US_PER_S) / time_base)
        yield packet


def _camera_us(packet: "Packet[VideoStream]") -> int | None:
    """When the camera says that it took a picture, Unix microseconds."""
    if not packet.has_sidedata(_CAMERA_TIME):
        return None
    (unix_us,) = struct.unpack_from("=q", bytes(packet.get_sidedata(_CAMERA_TIME)))
    return int(unix_us)
