"""A picture of H.264 that was lost whole is missed; what may be left out is not."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.codec.context import CodecContext
from av.video.frame import VideoFrame

from engine.video.numbering import PictureNumbers, first_number

N_BITS = 4  # of a number: sixteen of them
IDR, KEPT, SPARE = 0x65, 0x41, 0x01  # headers: decoding begins, others refer to it, none does


def ue(value: int) -> str:
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


def unit(header: int, *bits: str) -> bytes:
    text = "".join(bits) + "1"
    text += "0" * (-len(text) % 8)
    content = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    escaped = bytearray()
    for byte in content:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return bytes([header]) + bytes(escaped)


def an_sps(
    *,
    profile: int = 77,
    order: int = 2,
    gaps: bool = False,
    sps_id: int = 0,
    fields: bool = False,
) -> bytes:
    high = {100: ue(1) + ue(0) + ue(0) + "0" + "1" + "1" + "1" * 16 + "0" * 7}
    high[244] = ue(3) + "1" + ue(0) + ue(0) + "00"  # three planes
    orders = {0: ue(0) + ue(4), 1: ue(1) + "0" + ue(2) + ue(4) + ue(2) + ue(1) * 2, 2: ue(2)}
    return unit(
        0x67,
        f"{profile:08b}{0:08b}{30:08b}",
        ue(sps_id),
        high.get(profile, ""),
        ue(N_BITS - 4),
        orders[order],
        ue(1),
        "01"[gaps],
        ue(3) + ue(2),
        "10"[fields],
    )


def a_pps(pps_id: int = 0, sps_id: int = 0) -> bytes:
    return unit(0x68, ue(pps_id), ue(sps_id), "00")


def a_slice(header: int, number: int, *, pps_id: int = 0, planes: bool = False) -> bytes:
    kind = 7 if header == IDR else 5
    return unit(header, ue(0), ue(kind), ue(pps_id), "00" * planes, f"{number % 16:04b}", "1" * 99)


def missing(pictures: str, numbers: PictureNumbers | None = None) -> list[int]:
    """How many are missed before each picture: ``I0 P1 b2`` are IDR, kept and spare ones."""
    if numbers is None:
        numbers = PictureNumbers()
        numbers.learn(an_sps())
        numbers.learn(a_pps())
    headers = {"I": IDR, "P": KEPT, "b": SPARE}
    return [
        numbers.n_missing_before(a_slice(headers[name[0]], int(name[1:])))
        for name in pictures.split()
    ]


@pytest.mark.parametrize(
    ("pictures", "wanted"),
    [
        ("I0 P1 P2 P3", [0, 0, 0, 0]),
        ("I0 P1 P3 P4", [0, 0, 1, 0]),
        ("I0 P4 P5", [0, 3, 0]),
        ("I0 P1 b2 b2 P2 b3 P3", [0] * 7),  # none refers to spare ones
        ("I0 P1 P2 b3 P3", [0] * 5),  # of which some were left out
        ("I0 P1 b3 P3 P4", [0, 0, 1, 0, 0]),  # a kept one before a spare one
        ("I0 P1 b3 b3 P4", [0, 0, 1, 0, 1]),
        ("I0 P14 P15 P16 P17", [0, 13, 0, 0, 0]),  # numbers begin anew after 15
        ("I0 P1 P2 P0 P1", [0, 0, 0, 13, 0]),  # the IDR between them was lost
        ("I0 P1 I0 P1 P2", [0] * 5),
        ("P7 P8 P10", [0, 0, 1]),  # one comes in the middle
        ("I0 I0 I0", [0, 0, 0]),
        ("I0 P1 P1 P2", [0, 0, 1, 0]),  # an IDR before the second one was lost
        ("I0 P1 b1 P2", [0] * 4),
    ],
)
def test_a_picture_that_others_refer_to_is_missed(pictures: str, wanted: list[int]) -> None:
    assert wanted == missing(pictures)


def test_two_fields_of_a_picture_have_one_number() -> None:
    numbers = PictureNumbers()
    numbers.learn(an_sps(fields=True))
    numbers.learn(a_pps())

    assert [0] * 5 == missing("I0 P0 P1 P1 P2", numbers)
    assert [1, 0] == missing("P4 P4", numbers)


def test_a_picture_that_is_repeated_in_its_packet_hides_no_loss() -> None:
    numbers = PictureNumbers()
    numbers.learn(an_sps())
    numbers.learn(a_pps())
    assert [0, 0] == missing("I0 P1", numbers)

    assert 0 == numbers.n_missing_before(a_slice(KEPT, 1), begins_packet=False)
    assert 1 == numbers.n_missing_before(a_slice(KEPT, 1))


def test_a_stream_may_say_that_gaps_are_its_habit() -> None:
    numbers = PictureNumbers()
    numbers.learn(an_sps(gaps=True))
    numbers.learn(a_pps())

    assert [0, 0, 0, 0] == missing("I0 P2 P4 P9", numbers)


@pytest.mark.parametrize("profile", [66, 77, 100, 244])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_numbers_are_found_whatever_else_parameter_sets_say(profile: int, order: int) -> None:
    numbers = PictureNumbers()
    numbers.learn(an_sps(sps_id=3, profile=profile, order=order))
    numbers.learn(a_pps(pps_id=7, sps_id=3))
    slices = [
        a_slice(header, number, pps_id=7, planes=profile == 244)
        for header, number in [(IDR, 0), (KEPT, 1), (KEPT, 4)]
    ]

    assert [0, 0, 2] == [numbers.n_missing_before(one) for one in slices]
    assert (4, 6) == (numbers.newest, numbers.after(18))


def test_what_cannot_be_read_is_not_held_against_a_stream() -> None:
    numbers = PictureNumbers()
    for nonsense in (
        b"",
        b"\x67",
        b"\x67" + bytes(2000),
        b"\x68",
        b"\x68" + bytes(9),
        b"\x67\xff\xff",
    ):
        numbers.learn(nonsense)

    assert [0, 0] == missing("I0 P9", numbers)
    assert 0 == numbers.n_missing_before(b"\x41")
    assert numbers.newest is None
    assert numbers.after(3) is None


@pytest.mark.parametrize(("content", "wanted"), [(b"\x80", 0), (b"\x48", 1), (b"", None)])
def test_a_messages_number(content: bytes, wanted: int | None) -> None:
    assert wanted == first_number(content)


# Headers of slices, up to what they say of the pictures that others may refer to.
FORGET_ALL = "1" + ue(5) + ue(0)
FORGET_ONE = "1" + ue(1) + ue(0) + ue(0)
MOVE_ONE_AND_FORGET_ALL = "1" + ue(3) + ue(2) + ue(1) + ue(4) + ue(1) + ue(5) + ue(0)
KEEP_ALL = "0"


def a_full_pps(
    *, bottom: bool = False, weighted: bool = False, bi_weighting: int = 0, redundant: bool = False
) -> bytes:
    references = ue(0) + ue(0)
    end = ue(0) * 3 + "00" + "01"[redundant]
    return unit(
        0x68,
        ue(0) + ue(0) + "1" + "01"[bottom] + ue(0) + references,
        "01"[weighted] + f"{bi_weighting:02b}" + end,
    )


def a_header(
    number: int,
    marking: str,
    *,
    kind: int = 0,
    order: int = 2,
    bottom: bool = False,
    weighted: bool = False,
    redundant: bool = False,
) -> bytes:
    orders = {0: "1" * 8 + ue(3) * bottom, 1: ue(4) + ue(3) * bottom, 2: ""}
    lists = {0: 1, 1: 2, 2: 0}[kind]
    direct = "1" * (kind == 1)
    override = "1" + ue(1) * lists if lists else ""
    modified = ("1" + ue(0) + ue(2) + ue(3)) * lists
    one_weight = "1" + ue(3) * 2 + "1" + ue(3) * 4
    weights = (ue(5) + ue(5) + (one_weight + "00") * lists) if weighted else ""
    return unit(
        KEPT,
        ue(0) + ue(kind) + ue(0) + f"{number % 16:04b}" + orders[order] + ue(0) * redundant,
        direct + override + modified + weights + marking + "0" * 40,
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("bottom", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("redundant", [False, True])
@pytest.mark.parametrize(
    ("marking", "n_missing"),
    [(FORGET_ALL, 0), (MOVE_ONE_AND_FORGET_ALL, 0), (FORGET_ONE, 9), (KEEP_ALL, 9)],
)
def test_numbers_may_begin_anew_without_an_idr_picture(
    kind, order, bottom, weighted, redundant, marking, n_missing
):
    numbers = PictureNumbers()
    numbers.learn(an_sps(order=order))
    numbers.learn(
        a_full_pps(
            bottom=bottom,
            weighted=weighted,
            bi_weighting=int(weighted),
            redundant=redundant,
        )
    )
    form = {"order": order, "bottom": bottom, "redundant": redundant}
    form |= {"kind": kind, "weighted": weighted and kind < 2}
    numbers.n_missing_before(a_slice(IDR, 0))
    for number in range(1, 7):
        assert 0 == numbers.n_missing_before(a_header(number, KEEP_ALL, **form))
    assert 0 == numbers.n_missing_before(a_header(7, marking, **form))

    assert n_missing == numbers.n_missing_before(a_header(1, KEEP_ALL, **form))
    assert 0 == numbers.n_missing_before(a_header(2, KEEP_ALL, **form))
    assert 1 == numbers.n_missing_before(a_header(4, KEEP_ALL, **form))


def test_after_numbers_began_anew_a_loss_is_still_missed():
    numbers = PictureNumbers()
    numbers.learn(an_sps())
    numbers.learn(a_full_pps())
    slices = [a_slice(IDR, 0), a_header(1, KEEP_ALL), a_header(2, FORGET_ALL)]
    assert [0, 0, 0] == [numbers.n_missing_before(one) for one in slices]

    assert 4 == numbers.n_missing_before(a_header(5, KEEP_ALL))


def real_pictures() -> list[bytes]:
    """Packets of x264: one IDR picture, and each other refers to the one before."""
    encoder = CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    params = "ref=1:weightp=0:slices=1:cabac=1:scenecut=0:keyint=100:no-deblock=1"
    encoder.options = {"tune": "zerolatency", "preset": "fast", "x264-params": params}
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (48, 64, 3), np.uint8)
    packets = []
    for number in range(12):
        picture = VideoFrame.from_ndarray(np.roll(scene, number, axis=1), format="rgb24")
        picture.pts = number
        packets += [bytes(packet) for packet in encoder.encode(picture.reformat(format="yuv420p"))]
    return packets + [bytes(packet) for packet in encoder.encode(None)]


class Reader:
    """A unit's bits as text, and where reading stands."""

    def __init__(self, content: bytes) -> None:
        plain = content.replace(b"\0\0\3", b"\0\0")
        self.text = "".join(f"{byte:08b}" for byte in plain)
        self.at = 0

    def fixed(self, n: int) -> int:
        self.at += n
        return int(self.text[self.at - n : self.at] or "0", 2)

    def ue(self) -> int:
        n_zeros = self.text.index("1", self.at) - self.at
        self.at += n_zeros
        return self.fixed(n_zeros + 1) - 1


def renumbered(slice_unit: bytes, n_bits: int, number: int, *, forgets_all: bool) -> bytes:
    """A P slice of x264 in CABAC with another number; its data begins at a byte, as before."""
    reader = Reader(slice_unit[1:])
    for _ in range(3):
        reader.ue()
    at_number = reader.at
    reader.at += n_bits
    if reader.fixed(1):
        reader.ue()  # how many pictures it refers to
    assert not reader.fixed(1), "it changes the order of its references"
    at_marking = reader.at
    assert not reader.fixed(1), "it marks pictures"
    at_rest = reader.at
    reader.ue()  # CABAC's tables
    reader.ue()  # the quantizer
    reader.ue()  # deblocking: none
    header = (
        reader.text[:at_number]
        + f"{number:0{n_bits}b}"
        + reader.text[at_number + n_bits : at_marking]
        + (FORGET_ALL if forgets_all else KEEP_ALL)
        + reader.text[at_rest : reader.at]
    )
    header += "1" * (-len(header) % 8)
    return with_escapes(slice_unit[:1], header + reader.text[-(-reader.at // 8) * 8 :])


def with_escapes(head: bytes, text: str) -> bytes:
    escaped = bytearray()
    for at in range(0, len(text), 8):
        byte = int(text[at : at + 8], 2)
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return head + bytes(escaped)


def test_a_real_stream_whose_numbers_begin_anew_is_whole():
    """What FFmpeg decodes without a complaint, and to the same pictures, lacks nothing."""
    packets, start = real_pictures(), b"\0\0\1"
    numbers, changed = PictureNumbers(), []
    resets_at = 5
    for index, packet in enumerate(packets):
        units = [one.rstrip(b"\0") for one in packet.split(start) if one.strip(b"\0")]
        for one in units:
            if one[0] & 0x1F in {7, 8}:
                numbers.learn(one)
        n_bits = next(iter(numbers._numberings.values())).n_bits
        if index > 0:
            number = index if index <= resets_at else index - resets_at
            units[-1] = renumbered(
                units[-1], n_bits, number % (1 << n_bits), forgets_all=index == resets_at
            )
        changed.append(units)
    missed = [numbers.n_missing_before(units[-1][:512]) for units in changed]

    def decoded(stream: bytes) -> list[np.ndarray]:
        options = {"err_detect": "crccheck+explode"}
        with av.open(io.BytesIO(stream), "r", format="h264") as container:
            container.streams.video[0].codec_context.options = options
            frames = list(container.decode(video=0))
        assert not any(frame.is_corrupt for frame in frames)
        return [frame.to_ndarray(format="rgb24") for frame in frames]

    rewritten = b"".join(start + one for units in changed for one in units)
    assert [0] * len(packets) == missed
    np.testing.assert_array_equal(decoded(b"".join(packets)), decoded(rewritten))
