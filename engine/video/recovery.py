"""Pictures of a damaged stream: none that is not whole, and as soon as possible the next ones.

After damage, all that refers to it is left out, up to where decoding may begin: at an IDR or
another key frame, or where a recovery point message says that the picture is right again. For a
stream that sends neither, that would be for good: after ``LONGEST_WAIT_S`` its pictures are shown
as they are. What is left out is told, with its reason and its length.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import av.error
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from engine.errors import RefusedChunkError
from engine.video.losses import Losses
from engine.video.metadata import MetadataFilter, Seen
from engine.video.opening import reason
from engine.video.times import nominal_rate
from engine.video.units import codec_name

LONGEST_WAIT_S = 10
_MOST_REORDERED = 16  # pictures that may be shown before one that is decoded earlier
_LONGEST_JUMP_S = 60  # beyond, between two pictures, the clock jumped
_NO_BEGINNING = "decoding cannot begin there"

Note = Callable[[str], None]


def decode_leniently(
    packets: Iterable["Packet[VideoStream]"],
    stream: VideoStream,
    on_note: Note,
    losses: Losses | None = None,
) -> Iterator[VideoFrame]:
    """All frames but damaged ones and those that refer to them.

    Args:
        packets: In the order of decoding.
        stream: Theirs.
        on_note: Told when pictures begin to be left out, and when they are shown again.
        losses: What is left out is added to it.
    """
    account = _Account(float(1 / nominal_rate(stream)), on_note, losses or Losses())
    decoder = _LenientDecoder(stream, account, on_note)
    for packet in packets:
        yield from decoder.decode(packet)
    account.close()


@dataclass(slots=True)
class _Picture:
    """What is known of a picture when its packet is decoded; it comes back with the frame."""

    index: int
    at_s: float
    n_damages: int  # so many may show in it
    n_heals: int = 0  # once it is shown, so many show no more
    is_reference: bool = True
    is_bad: bool = False


class _Account:
    """Measures what is left out, in the order of showing."""

    def __init__(self, step_s: float, on_note: Note, losses: Losses) -> None:
        self._step_s = step_s  # from a picture to the next one
        self._is_step_seen = False
        self._on_note, self._losses = on_note, losses
        # Of the part that is being left out; and the picture with which it began.
        self._why: str | None = _NO_BEGINNING
        self._began = _Picture(0, 0, 0)
        self._shown_s: float | None = None  # when the last one was shown
        self._first_s: float | None = None
        self._newest = _Picture(0, 0, 0)

    @property
    def has_shown(self) -> bool:
        """Was there a picture?"""
        return self._shown_s is not None

    @property
    def newest_s(self) -> float:
        """When the newest picture is shown."""
        return self._newest.at_s

    @property
    def next_s(self) -> float:
        """When the next picture is due."""
        return self._newest.at_s + self._step_s

    def came(self, picture: _Picture) -> None:
        """The packet of a picture that is to be shown was read."""
        if self._first_s is None:
            self._first_s = picture.at_s
        elif not self._is_step_seen and picture.at_s != self._newest.at_s:
            # Closer than any two so far: what a stream says of its rate may be wrong.
            self._step_s = min(self._step_s, abs(picture.at_s - self._newest.at_s))
        self._newest = picture

    def lost(self, why: str) -> None:
        """From the newest picture on something is left out."""
        if self._why in (None, _NO_BEGINNING):
            self._why, self._began = why, self._newest
            self._on_note(f"left out up to the next recovery point or key frame: {why}")

    def shown(self, picture: _Picture) -> None:
        """A picture is shown; what was left out before it is over."""
        step_s = 0.0 if self._shown_s is None else picture.at_s - self._shown_s
        if self._why is None:
            if 0 < step_s < _LONGEST_JUMP_S:
                self._step_s, self._is_step_seen = step_s, True
        else:
            self._tell(self._why, lost_s := self._lost_s(picture.at_s))
            n_later = picture.index - self._began.index  # below 0, it was decoded before
            is_over = n_later >= (0 if lost_s else _MOST_REORDERED)
            if is_over or self._why == _NO_BEGINNING:
                self._why = None
        self._losses.shown_s += self._step_s
        self._shown_s = picture.at_s

    def close(self) -> None:
        """There are no more pictures."""
        if self._why is not None:
            self._tell(self._why, self._lost_s(self.next_s))

    @property
    def _until_s(self) -> float:
        """Up to when pictures were shown."""
        if self._shown_s is None:
            return self._first_s or 0
        return self._shown_s + self._step_s

    def _lost_s(self, now_s: float) -> float:
        """How long nothing was shown; by the pictures' number, where the clock jumped."""
        counted_s = (self._newest.index - self._began.index) * self._step_s
        by_clock_s = now_s - self._until_s
        is_jump = not -_LONGEST_JUMP_S < by_clock_s < counted_s + _LONGEST_JUMP_S
        lost_s = counted_s if is_jump else by_clock_s
        return lost_s if lost_s > self._step_s / 2 else 0  # times are rounded

    def _tell(self, why: str, lost_s: float) -> None:
        if lost_s:
            self._losses.add(why, lost_s)
            self._on_note(f"{lost_s:.2f} s were left out: {why}")


class _LenientDecoder:
    """Knows in which pictures damage may show, and from which on it does no more."""

    def __init__(self, stream: VideoStream, account: _Account, on_note: Note) -> None:
        self._context = stream.codec_context
        self._context.flags |= Flags.copy_opaque
        self._is_hevc = codec_name(stream) == "hevc"
        self._metadata = MetadataFilter(stream)
        self._account, self._on_note = account, on_note
        self._n_pictures = 0
        self._n_damages = 0
        self._n_healed = 0
        self._n_reopened = 0  # damages before the decoder was opened anew
        self._damaged_s = 0.0  # when the oldest damage began that is not healed
        self._recovery: tuple[int, int] | None = None  # at which number, and what it heals
        self._decoded = deque[_Picture](maxlen=_MOST_REORDERED)  # lately

    def decode(self, packet: "Packet[VideoStream]") -> Iterator[VideoFrame]:
        """The frames that a packet gives and that may be shown."""
        if not packet.size:
            yield from self._sound(_decoded(packet)[0])
            return
        try:
            seen, why = self._metadata.mend(packet), None
        except RefusedChunkError as error:
            seen, why = Seen(), str(error)
        if not seen.has_picture:
            return
        picture = self._came(packet, seen)
        may_begin = packet.is_keyframe or seen.is_recovery_point
        if self._is_hevc and may_begin and self._n_reopened < self._n_damages:
            if not packet.is_keyframe:  # if pictures were taken as they are, it lasts
                self._account.lost("decoding begins anew at a recovery point")
            yield from self._sound(self._opened_anew(picture))
        frames: list[VideoFrame] = []
        if why is None:
            packet.opaque = picture
            frames, why = _decoded(packet)
        if why is not None:
            picture.is_bad = True
            self._damage(why, spreads=seen.is_reference)
        yield from self._sound(frames)

    def _came(self, packet: "Packet[VideoStream]", seen: Seen) -> _Picture:
        ticks = packet.dts if packet.pts is None else packet.pts
        at_s = self._account.next_s
        if ticks is not None and packet.time_base is not None:
            at_s = float(ticks * packet.time_base)
        picture = _Picture(self._n_pictures, at_s, self._n_damages, is_reference=seen.is_reference)
        self._n_pictures += 1
        self._decoded.append(picture)
        if not packet.is_discard:  # an edit list hides it
            self._account.came(picture)
        if seen.n_missing:
            self._damage("pictures are missing that others refer to", spreads=True)
        elif picture.index == 0 and not packet.is_keyframe:
            self._damage(_NO_BEGINNING, spreads=True)
        self._settle_if_late(at_s)
        picture.n_damages = self._n_damages
        picture.n_heals = self._healed_by(seen)
        return picture

    def _healed_by(self, seen: Seen) -> int:
        """How many damages show no more once the picture that was seen is shown."""
        if self._is_hevc:
            return self._n_reopened
        if seen.recovers_at is not None and (
            self._recovery is None or self._recovery[1] < self._n_damages
        ):
            self._recovery = seen.recovers_at, self._n_damages
        if self._recovery is None or not seen.is_reference or seen.number != self._recovery[0]:
            return 0
        (_, n_healed), self._recovery = self._recovery, None
        return n_healed

    @property
    def _is_damaged(self) -> bool:
        return self._n_healed < self._n_damages

    def _damage(self, why: str, *, spreads: bool) -> None:
        """Something is wrong from here on.

        Args:
            why: What.
            spreads: Others may refer to what is damaged.
        """
        self._account.lost(why)
        if not spreads:
            return
        if not self._is_damaged:
            self._damaged_s = self._account.newest_s
        self._n_damages += 1
        # Else FFmpeg forgets each picture of H.265 that refers to one which is missing.
        self._takes_all = self._is_hevc

    def _opened_anew(self, picture: _Picture) -> list[VideoFrame]:
        """Begin anew with a picture, which makes FFmpeg heed recovery points of H.265.

        It then gives nothing that is not whole. Returns the frames from before.
        """
        before = self._context.decode(None)
        self._context.flush_buffers()
        self._takes_all = False
        self._n_reopened = picture.n_heals = self._n_damages
        return before

    def _settle_if_late(self, now_s: float) -> None:
        """Take pictures as they are where none comes from which decoding may begin."""
        self._damaged_s = min(self._damaged_s, now_s)  # the clock may have jumped back
        is_late = self._is_damaged and now_s - self._damaged_s >= LONGEST_WAIT_S
        if not is_late or not self._account.has_shown:  # before any key frame all would be grey
            return
        self._n_healed = self._n_damages
        self._on_note(
            f"{LONGEST_WAIT_S} s after damage neither a key frame nor a recovery point has come: "
            "pictures are shown as they are; let the encoder send one every few seconds"
        )

    def _sound(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            picture = cast("_Picture", frame.opaque)
            if frame.is_corrupt and not picture.is_bad and not self._takes_all:
                self._conceals(picture)
            if picture.is_bad:
                continue
            if frame.key_frame:
                self._takes_all = False
            n_heals = picture.n_damages if frame.key_frame else picture.n_heals
            self._n_healed = max(self._n_healed, n_heals)
            if picture.n_damages <= self._n_healed:
                self._account.shown(picture)
                yield frame

    def _conceals(self, picture: _Picture) -> None:
        """A part of a picture is missing, and those that were decoded after it may show that."""
        picture.is_bad = True
        self._damage("a part of a picture is missing", spreads=picture.is_reference)
        for later in self._decoded:
            if picture.is_reference and later.index > picture.index:
                later.n_damages = self._n_damages

    @property
    def _takes_all(self) -> bool:
        """Does the decoder give pictures too that it knows not to be whole?"""
        return bool(self._context.flags & Flags.output_corrupt)

    @_takes_all.setter
    def _takes_all(self, wanted: bool) -> None:
        self._context.flags &= ~Flags.output_corrupt
        if wanted:
            self._context.flags |= Flags.output_corrupt


def _decoded(packet: "Packet[VideoStream]") -> tuple[list[VideoFrame], str | None]:
    """The frames that a packet gives, and what is wrong with it."""
    try:
        return packet.decode(), "a packet is incomplete" if packet.is_corrupt else None
    except av.error.FFmpegError as error:
        return [], reason(error)
