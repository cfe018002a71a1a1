"""The law by which a precision is chosen: the fastest admitted, but for what is noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.models.choice import EXACTNESS, LEAST_GAIN_MS, MARGIN, Choice, choose


@pytest.mark.parametrize(
    ("milliseconds", "refused", "chosen"),
    [
        ({"f32": 110, "bf16": 61, "int8": 33}, (), "int8"),
        ({"f32": 110, "bf16": 61, "int8": 33}, ("int8",), "bf16"),
        ({"f32": 110, "bf16": 61, "int8": 33}, ("int8", "bf16"), "f32"),
        ({"f32": 110, "bf16": 61}, ("int8",), "bf16"),
        ({"f32": 100, "bf16": 140, "int8": 120}, (), "f32"),
        ({"f32": 100, "bf16": 100, "int8": 100}, (), "f32"),
        ({"f32": 109, "bf16": 150, "int8": 100}, (), "f32"),  # a tenth is noise
        ({"f32": 112, "bf16": 109, "int8": 100}, (), "bf16"),
        ({"f32": 1.4, "bf16": 0.9, "int8": 0.5}, (), "f32"),  # and so is a millisecond
        ({"f32": 1.6, "bf16": 1.2, "int8": 0.5}, (), "bf16"),
        ({"f32": 1}, ("f32",), None),
    ],
)
def test_the_fastest_that_is_admitted_unless_a_more_exact_one_is_about_as_fast(
    milliseconds: dict[str, float], refused: tuple[str, ...], chosen: str | None
) -> None:
    assert chosen == choose(milliseconds, dict.fromkeys(refused, "strays"))


@given(
    st.lists(st.floats(0.01, 1e5), min_size=3, max_size=3),
    st.sets(st.sampled_from(EXACTNESS), max_size=2),
)
def test_nobody_waits_much_longer_than_needed_or_gives_up_exactness_for_little(
    times: list[float], refused: set[str]
) -> None:
    milliseconds = dict(zip(EXACTNESS, times, strict=True))
    chosen = choose(milliseconds, dict.fromkeys(refused, "strays"))
    assert chosen is not None
    admitted = [name for name in EXACTNESS if name not in refused]
    fastest = min(milliseconds[name] for name in admitted)
    more_exact = admitted[: admitted.index(chosen)]

    assert milliseconds[chosen] <= max(fastest * (1 + MARGIN), fastest + LEAST_GAIN_MS)
    assert all(milliseconds[name] > fastest * (1 + MARGIN) for name in more_exact)
    assert all(milliseconds[name] > fastest + LEAST_GAIN_MS for name in more_exact)


def test_it_says_what_was_measured_of_each_and_who_is_left_out() -> None:
    times = {"f32": 110.94, "bf16": 61.6, "int8": 33.1}
    now = Choice("bf16", times, {"int8": "features: a snippet's cosine is .8"}, is_kept=False)
    kept = Choice("f32", {"f32": 100, "int8": 95}, {}, is_kept=True)
    alone = Choice("f32", {}, {"int8": "it is damaged"}, is_kept=False)

    assert now.text == (
        "bf16, the fastest: f32 110.9, bf16 61.6, int8 33.1 ms a snippet, measured now; "
        "int8 is left out: features: a snippet's cosine is .8"
    )
    assert kept.text == (
        "f32, as int8, which is less exact, gains too little: f32 100.0, int8 95.0 ms a snippet, "
        "measured before"
    )
    assert alone.text == "f32, the only one here; int8 is left out: it is damaged"
