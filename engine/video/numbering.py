"""How H.264 numbers its pictures, which tells whether one was lost whole.

Each picture that others refer to carries the number after that of the one before it, so one that
is not there leaves a gap (Rec. ITU-T H.264, 7.4.3 ``frame_num``). Pictures to which none refers
count nothing and may be left out at will. A stream can say that gaps are its habit, as where
somebody took temporal layers away: then they mean nothing. A picture may tell that numbers begin
anew after it without being an IDR picture (7.4.3.3, ``memory_management_control_operation`` 5).
"""

from dataclasses import dataclass

from engine.video.bits import Bits

_SLICES, _IDR, _SPS, _PPS = (1, 2, 5), 5, 7, 8
_N_KINDS, _P, _B, _SP = 5, 0, 1, 3  # kinds of slices
_INTRA = (2, 4)  # I and SI
# Profiles whose parameter sets tell more (7.3.2.1.1).
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_N_SMALL_LISTS, _SMALL_LIST, _LARGE_LIST = 6, 16, 64
_YUV_444 = 3
_MOST_SPS_ID, _MOST_PPS_ID, _MOST_NUMBER_BITS = 31, 255, 16
# What is read of a parameter set and of a slice is shorter.
_SET_BYTES, HEAD_BYTES = 1024, 24
MARKING_BYTES = 512  # up to what a slice says of the pictures that others may refer to
_MOST_REFERENCES = 32
# Operations on these: the last one, those with no operand, with two, and the one that forgets all.
_END, _TWO_OPERANDS, _FORGET_ALL = 0, 3, 5


@dataclass(frozen=True, slots=True)
class _Numbering:
    """What an SPS says of numbers."""

    n_bits: int
    has_planes: bool
    may_have_gaps: bool
    has_fields: bool  # two of them may be a picture, and have one number
    chroma: int
    order: int  # how the order of showing is told
    n_order_bits: int
    is_order_implied: bool


@dataclass(frozen=True, slots=True)
class _Coding:
    """What a PPS says of the headers of slices."""

    has_bottom_order: bool
    n_references: tuple[int, int]
    is_weighted: bool
    bi_weighting: int
    has_redundant: bool


class PictureNumbers:
    """Follows the numbers of one stream's pictures."""

    def __init__(self) -> None:
        self._numberings: dict[int, _Numbering] = {}
        self._sps_of_pps: dict[int, int] = {}
        self._codings: dict[int, _Coding] = {}
        self._before: int | None = None  # number of the newest picture that others refer to
        self._head_before = b""  # the beginning of that one's first slice
        self._n_numbers = 1  # after so many they begin anew
        self.newest: int | None = None  # the newest picture's number, if it could be read

    def learn(self, parameter_set: bytes) -> None:
        """Take in an SPS or PPS, header and all; one that cannot be read says nothing."""
        kind, bits = (parameter_set or b"\0")[0] & 0x1F, Bits(parameter_set[1:_SET_BYTES])
        try:
            if kind == _SPS:
                self._numberings.update([_read_sps(bits)])
            elif kind == _PPS:
                pps_id = bits.exp_golomb(_MOST_PPS_ID)
                self._sps_of_pps[pps_id] = bits.exp_golomb(_MOST_SPS_ID)
                self._codings.pop(pps_id, None)
                self._codings[pps_id] = _read_pps(bits)
        except ValueError:
            return

    def n_missing_before(self, slice_head: bytes, *, begins_packet: bool = True) -> int:
        """How many pictures that others refer to were lost before a picture; 0 if none.

        Args:
            slice_head: The beginning of the picture's first slice, header and all.
            begins_packet: It is the first one in its packet; others may repeat it.
        """
        try:
            is_intra, number, numbering = self._read(slice_head)
        except (KeyError, ValueError):
            self._before = self.newest = None
            return 0
        before, self._before, self.newest = self._before, number, number
        head_before, is_kept = self._head_before, is_referred_to(slice_head)
        self._head_before = slice_head if is_kept else head_before
        self._n_numbers = 1 << numbering.n_bits
        if slice_head[0] & 0x1F == _IDR or before is None:
            return 0
        n_steps = (number - before) % self._n_numbers
        # Looked for only where numbers do not go on, for it takes long.
        if n_steps != 1 and self._begins_anew_after(head_before):
            n_steps = number
        if n_steps and not is_kept:
            self._before = (number - 1) % self._n_numbers  # the next one has this number too
        if numbering.may_have_gaps:
            return 0
        if n_steps or is_intra or numbering.has_fields or not is_kept:
            return max(0, n_steps - 1)
        return 1 if begins_packet else 0  # an IDR with which numbers began anew, say

    def after(self, n_pictures: int) -> int | None:
        """The number so many pictures that others refer to after the newest one."""
        return None if self.newest is None else (self.newest + n_pictures) % self._n_numbers

    def _read(self, slice_head: bytes) -> tuple[bool, int, _Numbering]:
        """Is it intra, its number, and what that means."""
        bits = Bits(slice_head[1:HEAD_BYTES])
        bits.exp_golomb()  # first macroblock
        is_intra = bits.exp_golomb() % _N_KINDS in _INTRA
        numbering = self._numberings[self._sps_of_pps[bits.exp_golomb()]]
        if numbering.has_planes:
            bits.fixed(2)
        return is_intra, bits.fixed(numbering.n_bits), numbering

    def _begins_anew_after(self, slice_head: bytes) -> bool:
        """Does a picture tell that numbers begin anew after it?"""
        if not slice_head or slice_head[0] & 0x1F == _IDR:
            return False
        bits = Bits(slice_head[1:MARKING_BYTES])
        try:
            bits.exp_golomb()
            kind, pps_id = bits.exp_golomb() % _N_KINDS, bits.exp_golomb()
            coding = self._codings[pps_id]
            numbering = self._numberings[self._sps_of_pps[pps_id]]
            return _resets_numbers(bits, kind, numbering, coding)
        except (KeyError, ValueError):
            return False


def first_number(content: bytes) -> int | None:
    """The number with which a message begins, ue(v); None if there is none."""
    try:
        return Bits(content[:HEAD_BYTES]).exp_golomb()
    except ValueError:
        return None


def is_slice(head: bytes) -> bool:
    """Is it the beginning of a part of a picture that tells the picture's number?"""
    return head[:1] != b"" and head[0] & 0x1F in _SLICES


def is_referred_to(slice_head: bytes) -> bool:
    """May other pictures refer to this slice's?"""
    return bool(slice_head[0] & 0x60)


def is_first_slice(slice_head: bytes) -> bool:
    """Does a slice begin with the first macroblock of its picture?"""
    return slice_head[1:2] >= b"\x80"


def _read_sps(bits: "Bits") -> tuple[int, _Numbering]:
    profile = bits.fixed(8)
    bits.fixed(16)  # constraints and level
    sps_id, has_planes, chroma = bits.exp_golomb(_MOST_SPS_ID), False, 1
    if profile in _HIGH_PROFILES:
        chroma = bits.exp_golomb()
        has_planes = chroma == _YUV_444 and bool(bits.fixed(1))
        bits.exp_golomb()  # bits of luma
        bits.exp_golomb()  # bits of chroma
        bits.fixed(1)
        if bits.fixed(1):
            _skip_scaling_lists(bits, 12 if chroma == _YUV_444 else 8)
    n_bits = 4 + bits.exp_golomb(_MOST_NUMBER_BITS - 4)
    order, n_order_bits, is_order_implied = bits.exp_golomb(), 0, False
    if order == 0:
        n_order_bits = 4 + bits.exp_golomb()
    elif order == 1:
        is_order_implied = bool(bits.fixed(1))
        bits.exp_golomb()
        bits.exp_golomb()
        for _ in range(bits.exp_golomb(255)):
            bits.exp_golomb()
    bits.exp_golomb()  # most pictures to refer to
    may_have_gaps = bool(bits.fixed(1))
    bits.exp_golomb()  # width
    bits.exp_golomb()  # height
    return sps_id, _Numbering(
        n_bits,
        has_planes,
        may_have_gaps,
        has_fields=not bits.fixed(1),
        chroma=0 if has_planes else chroma,
        order=order,
        n_order_bits=n_order_bits,
        is_order_implied=is_order_implied,
    )


def _read_pps(bits: Bits) -> _Coding:
    """The rest of a PPS, behind its own number and its SPS's (7.3.2.2)."""
    bits.fixed(1)  # how the rest is coded
    has_bottom_order = bool(bits.fixed(1))
    if bits.exp_golomb():
        raise ValueError("slice groups, which no camera has")
    n_references = 1 + bits.exp_golomb(_MOST_REFERENCES), 1 + bits.exp_golomb(_MOST_REFERENCES)
    is_weighted, bi_weighting = bool(bits.fixed(1)), bits.fixed(2)
    for _ in range(3):  # quantizers
        bits.exp_golomb()
    bits.fixed(2)
    return _Coding(has_bottom_order, n_references, is_weighted, bi_weighting, bool(bits.fixed(1)))


def _resets_numbers(bits: Bits, kind: int, numbering: _Numbering, coding: _Coding) -> bool:
    """The rest of a slice's header, behind its PPS's number (7.3.3); not of an IDR picture."""
    if numbering.has_planes:
        bits.fixed(2)
    bits.fixed(numbering.n_bits)
    _skip_order(bits, numbering, coding)
    if coding.has_redundant:
        bits.exp_golomb()
    n_references = _skip_references(bits, kind, coding)
    is_weighted = coding.is_weighted and kind in {_P, _SP}
    if is_weighted or (coding.bi_weighting == 1 and kind == _B):
        _skip_weights(bits, n_references, numbering.chroma)
    return bool(bits.fixed(1)) and _forgets_all(bits)


def _forgets_all(bits: Bits) -> bool:
    while (operation := bits.exp_golomb()) not in {_END, _FORGET_ALL}:
        bits.exp_golomb()
        if operation == _TWO_OPERANDS:
            bits.exp_golomb()
    return operation == _FORGET_ALL


def _skip_order(bits: Bits, numbering: _Numbering, coding: _Coding) -> None:
    """When a picture is shown."""
    is_field = numbering.has_fields and bool(bits.fixed(1))
    if is_field:
        bits.fixed(1)
    n_deltas = int(coding.has_bottom_order and not is_field)
    if numbering.order == 0:
        bits.fixed(numbering.n_order_bits)
    elif numbering.order == 1 and not numbering.is_order_implied:
        n_deltas += 1
    else:
        n_deltas = 0
    for _ in range(n_deltas):
        bits.exp_golomb()


def _skip_references(bits: Bits, kind: int, coding: _Coding) -> list[int]:
    """Which pictures a slice refers to; gives how many there are in each list."""
    n_lists = {_P: 1, _SP: 1, _B: 2}.get(kind, 0)
    n_references = list(coding.n_references[:n_lists])
    if kind == _B:
        bits.fixed(1)
    if n_lists and bits.fixed(1):
        n_references = [1 + bits.exp_golomb(_MOST_REFERENCES) for _ in range(n_lists)]
    for _ in range(n_lists):
        if bits.fixed(1):
            while bits.exp_golomb() != 3:  # noqa: PLR2004 - of orders of a list, the last
                bits.exp_golomb()
    return n_references


def _skip_weights(bits: Bits, n_references: list[int], chroma: int) -> None:
    for _ in range(2 if chroma else 1):
        bits.exp_golomb()
    for _ in range(sum(n_references)):
        for n_numbers in (2, 4)[: 2 if chroma else 1]:
            if bits.fixed(1):
                for _ in range(n_numbers):
                    bits.exp_golomb()


def _skip_scaling_lists(bits: "Bits", n_lists: int) -> None:
    for index in range(n_lists):
        if not bits.fixed(1):
            continue
        last = following = 8
        for _ in range(_SMALL_LIST if index < _N_SMALL_LISTS else _LARGE_LIST):
            if following:
                code = bits.exp_golomb()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
                last = following or last
