"""Which shapes plans are built for, and what is said of networks that fit none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.base import Signature, TensorSpec
from engine.backends.profiles import (
    InputShapes,
    ShapeProfile,
    batch_sizes_up_to,
    profiles_for,
    smallest_profile,
)
from engine.errors import BundleError

LOCALIZER = Signature(
    (
        TensorSpec("features", (None, None, 3), "float32"),
        TensorSpec("valid", (None, None), "float32"),
        TensorSpec("background", (None, 3), "float32"),
    ),
    (TensorSpec("cas", (None, None, 2), "float32"),),
)
BACKBONE = Signature(
    (TensorSpec("snippets", (None, 16, 8, 8, 3), "uint8"),),
    (TensorSpec("features", (None, 3), "float32"),),
)


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_batch_sizes_are_powers_of_two_and_the_largest(max_batch, sizes):
    assert sizes == batch_sizes_up_to(max_batch)


@given(st.integers(1, 300), st.integers(1, 300))
def test_padding_at_most_doubles_a_call(max_batch, n_rows):
    profiles = profiles_for(BACKBONE, batch_sizes=batch_sizes_up_to(max_batch), length=None)

    seen = profiles[smallest_profile(profiles, n_rows)].batch_size

    if n_rows > max_batch:
        assert max_batch == seen  # the caller splits it
    else:
        assert n_rows <= seen < 2 * n_rows


def test_a_profile_fixes_the_batch_and_gives_every_window_its_length():
    one, four = profiles_for(LOCALIZER, batch_sizes=(1, 4), length=(16, 64, 96))

    assert InputShapes("features", (1, 16, 3), (1, 64, 3), (1, 96, 3)) == one["features"]
    assert InputShapes("features", (4, 16, 3), (4, 64, 3), (4, 96, 3)) == four["features"]
    assert InputShapes("valid", (4, 16), (4, 64), (4, 96)) == four["valid"]
    assert InputShapes("background", (4, 3), (4, 3), (4, 3)) == four["background"]
    assert [1, 4] == [one.batch_size, four.batch_size]
    with pytest.raises(KeyError):
        one["snippets"]


def test_a_network_without_a_free_length_takes_no_notice_of_one():
    (with_length,) = profiles_for(BACKBONE, batch_sizes=(2,), length=(5, 5, 5))
    (without,) = profiles_for(BACKBONE, batch_sizes=(2,), length=None)

    assert without == with_length
    assert (2, 16, 8, 8, 3) == without["snippets"].max


def test_a_profile_admits_what_lies_between_its_bounds_and_nothing_else():
    (profile,) = profiles_for(LOCALIZER, batch_sizes=(4,), length=(16, 64, 96))
    shapes = {"features": (4, 20, 3), "valid": (4, 20), "background": (4, 3)}

    assert profile.admits(shapes)
    assert not profile.admits({**shapes, "features": (3, 20, 3)})
    assert not profile.admits({**shapes, "valid": (4, 15)})
    assert not profile.admits({**shapes, "valid": (4, 97)})
    assert not profile.admits({**shapes, "valid": (4, 20, 1)})
    assert not profile.admits({**shapes, "sound": (4, 3)})
    assert not profile.admits({"features": (4, 20, 3)})


@pytest.mark.parametrize(
    ("shape", "length", "complaint"),
    [
        ((None, None, 3), None, "dimension 1 is free, wanted a length"),
        ((None, 3, None), (5, 5, 5), "dimension 2 is free, wanted a fixed one"),
        ((1, 3), None, "wanted a free first dimension to run batches of 2"),
        ((), None, "wanted a free first dimension"),
    ],
)
def test_a_network_that_fits_no_profile_is_refused_by_name(shape, length, complaint):
    signature = Signature((TensorSpec("odd", shape, "float32"),), ())

    with pytest.raises(BundleError, match=f'input "odd" is .*{complaint}'):
        profiles_for(signature, batch_sizes=(2,), length=length)


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 1), (1, 1), (-1,)])
def test_batch_sizes_that_do_not_rise_from_one_are_refused(sizes):
    with pytest.raises(ValueError, match="batch_sizes"):
        profiles_for(BACKBONE, batch_sizes=sizes, length=None)


@pytest.mark.parametrize(
    ("low", "best", "high"),
    [
        ((1, 2), (1, 2), (1,)),
        ((2,), (1,), (3,)),
        ((1,), (4,), (3,)),
        ((0,), (1,), (1,)),
        ((), (), ()),
    ],
)
def test_bounds_out_of_order_are_refused(low, best, high):
    with pytest.raises(ValueError, match="odd"):
        InputShapes("odd", low, best, high)


def test_a_profile_names_every_input_once():
    shapes = InputShapes("features", (1,), (1,), (1,))

    with pytest.raises(ValueError, match="each once"):
        ShapeProfile((shapes, shapes))
    with pytest.raises(ValueError, match="at least one"):
        ShapeProfile(())
    with pytest.raises(ValueError, match="max_batch is 0"):
        batch_sizes_up_to(0)
