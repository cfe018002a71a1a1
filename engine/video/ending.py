"""All packets of a file, and what is missing where it ends before it should.

A recording that was cut off, by a full disk or a lost connection, is read as far as it goes. Some
containers say how much they hold, and so how much of it is not there.
"""

from collections.abc import Callable, Iterator
from io import SEEK_END
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engine.grid import US_PER_S
from engine.video.containers import boxes_in
from engine.video.losses import Losses
from engine.video.opening import LIBAV_ERRORS, reason

_RIFF_HEADER_BYTES = 8
_SEGMENT, _MOST_BEFORE_SEGMENT = b"\x18\x53\x80\x67", 128  # of Matroska


def demux_to_end(
    path: Path | str,
    container: InputContainer,
    stream: VideoStream,
    on_note: Callable[[str], None],
    losses: Losses,
) -> Iterator["Packet[VideoStream]"]:
    """All packets up to where the container ends or is broken.

    Args:
        path: The file.
        container: It, opened.
        stream: Whose packets.
        on_note: Told if the video ends early.
        losses: What it then lacks is added, as far as that is known.
    """
    began_s, reached_s = None, 0.0
    why = ""
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                at_s = float(packet.pts * packet.time_base)
                began_s = at_s if began_s is None else min(began_s, at_s)
                reached_s = max(reached_s, at_s - began_s)
            yield packet
    except LIBAV_ERRORS as error:
        why = reason(error)
    with Path(path).open("rb") as file:
        n_lacking = n_bytes_cut_off(file, container.format.name)
        n_bytes = file.seek(0, SEEK_END)
    if n_lacking:
        why = "the file was cut off"
    if why:
        lacking_s = max(0.0, _stated_s(container, stream) - reached_s)
        losses.add(f"the video ends early: {why}", lacking_s or reached_s * n_lacking / n_bytes)
        on_note(f"the video ends early: {why}")


def n_bytes_cut_off(file: BinaryIO, format_name: str) -> int:
    """How many bytes of an MP4, Matroska or AVI are not there, by what it says of its size."""
    end = file.seek(0, SEEK_END)
    if "mov" in format_name:
        return max((at - end for _kind, at in boxes_in(file, end) if at > end), default=0)
    if "matroska" in format_name:
        return max(0, _end_of_segment(file) - end)
    return max(0, _end_of_riffs(file, end) - end) if format_name == "avi" else 0


def _stated_s(container: InputContainer, stream: VideoStream) -> float:
    """How long it says to be; 0 if it says nothing."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / US_PER_S


def _end_of_riffs(file: BinaryIO, end: int) -> int:
    at = 0
    while at + _RIFF_HEADER_BYTES <= end:
        file.seek(at)
        header = file.read(_RIFF_HEADER_BYTES)
        if header[:4] != b"RIFF":
            return end
        size = int.from_bytes(header[4:], "little")
        at += _RIFF_HEADER_BYTES + size + size % 2
    return at


def _end_of_segment(file: BinaryIO) -> int:
    file.seek(0)
    head = file.read(_MOST_BEFORE_SEGMENT)
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if not len(_SEGMENT) <= at < len(head):
        return 0
    n_size = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + n_size], "big") & (1 << 7 * n_size) - 1
    return 0 if size == (1 << 7 * n_size) - 1 else at + n_size + size  # all ones: nobody knows
