"""A picture of H.264 that was lost whole is missed; what may be left out is not."""

import pytest

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
