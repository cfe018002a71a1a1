"""One reader, two uses: arrays of float32 alone, and arrays of objects that hold arrays."""

import io
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files.safe_arrays import (
    PICKLE_DAMAGE,
    ForeignPickleError,
    PickledArray,
    read_pickled,
)
from tests.support.hostile_pickles import HOSTILE, Runs

Read = Callable[[io.BytesIO], object]
USES = [
    pytest.param(partial(read_pickled, numbers=["f4"]), id="float32 alone"),
    pytest.param(partial(read_pickled, numbers=["f4", "i8"], objects=True), id="objects too"),
]
PROTOCOLS = [2, 3, 4, 5]


def pickled(thing: object, protocol: int = 4) -> io.BytesIO:
    return io.BytesIO(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("read", USES)
@pytest.mark.parametrize("protocol", [3, 4])
def test_an_array_comes_back_as_the_reader_s_own(read: Read, protocol: int) -> None:
    stored = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))

    array = read(pickled(stored, protocol))

    assert isinstance(array, PickledArray)
    np.testing.assert_array_equal(array.values, stored)
    assert array.values.flags.writeable


@pytest.mark.parametrize("read", USES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_what_no_array_needs_is_refused(read: Read, protocol: int, hostile: object) -> None:
    with pytest.raises(ForeignPickleError):
        read(pickled({"a": [hostile]}, protocol))


@pytest.mark.parametrize("read", USES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_command_runs(tmp_path: Path, read: Read, protocol: int) -> None:
    proof = tmp_path / "ran"

    with pytest.raises(ForeignPickleError, match=r"posix\.system"):
        read(pickled([Runs(os.system, f"touch {proof}")], protocol))

    assert not proof.exists()


@pytest.mark.parametrize("read", USES)
def test_a_persistent_reference_is_refused(read: Read) -> None:
    with pytest.raises(ForeignPickleError, match="reference to something outside it"):
        read(io.BytesIO(b"Psecret\n."))


@pytest.mark.parametrize("read", USES)
def test_an_array_that_claims_more_than_it_holds_is_refused(read: Read) -> None:
    blob = pickled(np.zeros((3, 5), np.float32)).getvalue()
    assert 1 == blob.count(b"K\x03K\x05")

    with pytest.raises(ForeignPickleError, match=r"shape \(3, 255\) in 60 bytes"):
        read(io.BytesIO(blob.replace(b"K\x03K\x05", b"K\x03K\xff")))


@pytest.mark.parametrize(
    "not_admitted",
    [np.zeros(2), np.zeros(2, np.int64), np.array([{}], object), b"bytes of Python 2"],
    ids=repr,
)
def test_only_what_the_use_names_is_admitted(not_admitted: object) -> None:
    with pytest.raises(ForeignPickleError, match=r"wanted float32|_codecs\.encode"):
        read_pickled(pickled(not_admitted, 2), ["f4"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_objects_keep_their_order_and_numbers_become_float32(protocol: int) -> None:
    stored = np.empty(3, object)
    stored[:] = ["text", [1.5, b"bytes"], np.array([7], np.int64)]

    array = read_pickled(pickled(stored, protocol), ["i8"], objects=True)

    assert isinstance(array, PickledArray)
    assert array.items is not None
    text, listed, numbers = array.items
    assert ("text", [1.5, b"bytes"]) == (text, listed)
    assert isinstance(numbers, PickledArray)
    assert (np.float32, [7.0]) == (numbers.values.dtype, numbers.values.tolist())


@pytest.mark.parametrize("read", USES)
@given(data=st.data())
def test_damage_is_one_of_the_named_errors(read: Read, data: st.DataObject) -> None:
    tree = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.ones(2, np.float32)}}
    blob = bytearray(pickle.dumps(tree, data.draw(st.sampled_from([2, 3, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(blob[: data.draw(st.integers(1, len(blob)))])

    try:
        read(io.BytesIO(damaged))
    except (ForeignPickleError, *PICKLE_DAMAGE):
        return
