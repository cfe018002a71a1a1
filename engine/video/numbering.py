"""How H.264 numbers its pictures, which tells whether one was lost whole.

Each picture that others refer to carries the number after that of the one before it, so one that
is not there leaves a gap (Rec. ITU-T H.264, 7.4.3 ``frame_num``). Pictures to which none refers
count nothing and may be left out at will. A stream can say that gaps are its habit, as where
somebody took temporal layers away: then they mean nothing.
"""

from dataclasses import dataclass

_SLICES, _IDR, _SPS, _PPS = (1, 2, 5), 5, 7, 8
_INTRA = (2, 4)  # kinds of slices: I and SI
# Profiles whose parameter sets tell more (7.3.2.1.1).
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_N_SMALL_LISTS, _SMALL_LIST, _LARGE_LIST = 6, 16, 64
_YUV_444 = 3
_MOST_SPS_ID, _MOST_PPS_ID, _MOST_NUMBER_BITS = 31, 255, 16
# What is read of a parameter set and of a slice is shorter.
_SET_BYTES, HEAD_BYTES = 1024, 24
_MOST_ZEROS = 32


@dataclass(frozen=True, slots=True)
class _Numbering:
    """What an SPS says of numbers."""

    n_bits: int
    has_planes: bool
    may_have_gaps: bool
    has_fields: bool  # two of them may be a picture, and have one number


class PictureNumbers:
    """Follows the numbers of one stream's pictures."""

    def __init__(self) -> None:
        self._numberings: dict[int, _Numbering] = {}
        self._sps_of_pps: dict[int, int] = {}
        self._before: int | None = None  # number of the newest picture that others refer to
        self._n_numbers = 1  # after so many they begin anew
        self.newest: int | None = None  # the newest picture's number, if it could be read

    def learn(self, parameter_set: bytes) -> None:
        """Take in an SPS or PPS, header and all; one that cannot be read says nothing."""
        kind, bits = (parameter_set or b"\0")[0] & 0x1F, _Bits(parameter_set[1:_SET_BYTES])
        try:
            if kind == _SPS:
                self._numberings.update([_read_sps(bits)])
            elif kind == _PPS:
                pps_id = bits.exp_golomb(_MOST_PPS_ID)
                self._sps_of_pps[pps_id] = bits.exp_golomb(_MOST_SPS_ID)
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
        self._n_numbers = 1 << numbering.n_bits
        if slice_head[0] & 0x1F == _IDR or before is None:
            return 0
        n_steps = (number - before) % self._n_numbers
        if n_steps and not is_referred_to(slice_head):
            self._before = (number - 1) % self._n_numbers  # the next one has this number too
        if numbering.may_have_gaps:
            return 0
        if n_steps or is_intra or numbering.has_fields or not is_referred_to(slice_head):
            return max(0, n_steps - 1)
        return 1 if begins_packet else 0  # an IDR with which numbers began anew, say

    def after(self, n_pictures: int) -> int | None:
        """The number so many pictures that others refer to after the newest one."""
        return None if self.newest is None else (self.newest + n_pictures) % self._n_numbers

    def _read(self, slice_head: bytes) -> tuple[bool, int, _Numbering]:
        """Is it intra, its number, and what that means."""
        bits = _Bits(slice_head[1:HEAD_BYTES])
        bits.exp_golomb()  # first macroblock
        is_intra = bits.exp_golomb() % 5 in _INTRA
        numbering = self._numberings[self._sps_of_pps[bits.exp_golomb()]]
        if numbering.has_planes:
            bits.fixed(2)
        return is_intra, bits.fixed(numbering.n_bits), numbering


def first_number(content: bytes) -> int | None:
    """The number with which a message begins, ue(v); None if there is none."""
    try:
        return _Bits(content[:HEAD_BYTES]).exp_golomb()
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


def _read_sps(bits: "_Bits") -> tuple[int, _Numbering]:
    profile = bits.fixed(8)
    bits.fixed(16)  # constraints and level
    sps_id, has_planes = bits.exp_golomb(_MOST_SPS_ID), False
    if profile in _HIGH_PROFILES:
        chroma = bits.exp_golomb()
        has_planes = chroma == _YUV_444 and bool(bits.fixed(1))
        bits.exp_golomb()  # bits of luma
        bits.exp_golomb()  # bits of chroma
        bits.fixed(1)
        if bits.fixed(1):
            _skip_scaling_lists(bits, 12 if chroma == _YUV_444 else 8)
    n_bits = 4 + bits.exp_golomb(_MOST_NUMBER_BITS - 4)
    order = bits.exp_golomb()
    if order == 0:
        bits.exp_golomb()
    elif order == 1:
        bits.fixed(1)
        bits.exp_golomb()
        bits.exp_golomb()
        for _ in range(bits.exp_golomb(255)):
            bits.exp_golomb()
    bits.exp_golomb()  # most pictures to refer to
    may_have_gaps = bool(bits.fixed(1))
    bits.exp_golomb()  # width
    bits.exp_golomb()  # height
    return sps_id, _Numbering(n_bits, has_planes, may_have_gaps, not bits.fixed(1))


def _skip_scaling_lists(bits: "_Bits", n_lists: int) -> None:
    for index in range(n_lists):
        if not bits.fixed(1):
            continue
        last = following = 8
        for _ in range(_SMALL_LIST if index < _N_SMALL_LISTS else _LARGE_LIST):
            if following:
                code = bits.exp_golomb()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
                last = following or last


class _Bits:
    """Reads a unit's payload from its front; past its end, all is ``ValueError``."""

    def __init__(self, escaped: bytes) -> None:
        content = escaped.replace(b"\x00\x00\x03", b"\x00\x00")
        self._rest = int.from_bytes(content, "big")
        self._n_rest = 8 * len(content)

    def fixed(self, n_bits: int) -> int:
        """A number of so many bits."""
        if n_bits > self._n_rest:
            raise ValueError(n_bits)
        self._n_rest -= n_bits
        value = self._rest >> self._n_rest
        self._rest &= (1 << self._n_rest) - 1
        return value

    def exp_golomb(self, most: int = 1 << _MOST_ZEROS) -> int:
        """A number in the standard's code of changing length, ue(v); more is ``ValueError``."""
        n_zeros = self._n_rest - self._rest.bit_length()
        value = self.fixed(2 * n_zeros + 1) - 1
        if value > most:
            raise ValueError(value)
        return value
