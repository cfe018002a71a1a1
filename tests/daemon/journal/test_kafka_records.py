"""Records of the journal's own topics: read back as they were written, refused if they are not."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import MalformedRecordError
from daemon.journal.base import CameraState, FeatureRows
from daemon.journal.kafka.committed import Committed
from daemon.journal.kafka.past import Left
from daemon.journal.kafka.records import (
    StoredState,
    features_record,
    parse_features,
    parse_state,
    state_record,
    step_of,
)
from daemon.journal.kafka.seat import FeatureOffsets
from daemon.kafka.stable_offset import GroupOffset
from tests.support.records import names

numbers = st.integers(0, 2**50)


@st.composite
def some_rows(draw: st.DrawFn) -> FeatureRows:
    n_rows, dim = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    values = st.floats(-65504, 65504, width=16)
    flat = draw(st.lists(values, min_size=n_rows * dim, max_size=n_rows * dim))
    return FeatureRows(
        camera=draw(names()),
        run=draw(names()),
        segment=draw(numbers),
        first_index=draw(numbers),
        vectors=np.array(flat, np.float16).reshape(n_rows, dim),
        feature_id=draw(st.text("0123456789abcdef", max_size=64)),
        anchor_us=draw(st.none() | st.integers(-(2**50), 2**50)),
    )


@given(some_rows())
def test_features_come_back_bit_for_bit(rows: FeatureRows) -> None:
    record = features_record(rows, 7)

    again = parse_features(record.key, record.headers, record.value)

    assert rows.vectors.tobytes() == again.vectors.tobytes()
    fields = ("camera", "run", "segment", "first_index", "feature_id", "anchor_us")
    assert [getattr(rows, name) for name in fields] == [getattr(again, name) for name in fields]
    assert [row.tolist() for row in rows.vectors] == [f.vector.tolist() for f in again.features()]


states = st.builds(
    CameraState,
    blob=st.binary(min_size=1),
    low_offset=st.none() | numbers,
    run=names(),
    first_feature=st.none() | numbers,
    silent_since_us=st.none() | numbers,
)


@given(names(), st.builds(StoredState, states, numbers, st.text("abcXYZ019_-", max_size=22)))
def test_a_state_comes_back(camera: str, stored: StoredState) -> None:
    record = state_record(camera, stored)

    assert stored == parse_state(record.headers, record.value)
    assert camera.encode() == record.key


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vf_version": b"2"}, "vf_version is '2', wanted '1'"),
        ({"vf_rows": b"3"}, "features of 3 x 2 in 8 bytes"),
        ({"vf_rows": b"-2", "vf_dim": b"-2"}, "vf_rows is '-2', wanted a number of at least 0"),
        ({"vf_rows": b"two"}, "vf_rows is 'two', wanted a number"),
        ({"vf_segment": None}, "without vf_segment"),
        ({"vf_epoch": b"\xff"}, "a header is no text"),
    ],
)
def test_damaged_features_are_refused(change: dict[str, bytes | None], why: str) -> None:
    rows = FeatureRows("cam", "run", 0, 0, np.zeros((2, 2), np.float16))
    record = features_record(rows, 7)
    headers = {**dict(record.headers), **change}
    given_headers = [(name, value) for name, value in headers.items() if value is not None]

    with pytest.raises(MalformedRecordError, match=re.escape(why)):
        parse_features(record.key, given_headers, record.value)


@given(numbers, st.none() | numbers, st.text("abc019_-", max_size=22), st.text(max_size=40))
def test_what_stands_beside_an_offset_is_one_line(
    number: int, next_offset: int | None, log_id: str, served_by: str
) -> None:
    committed = Committed(number, next_offset, log_id, served_by)

    assert committed == Committed.of(GroupOffset(next_offset, committed.metadata))


def test_features_name_their_step_and_those_of_older_releases_do_not() -> None:
    rows = FeatureRows("cam", "run", 0, 0, np.zeros((2, 2), np.float16))

    assert 7 == step_of(features_record(rows, 7).headers)
    for odd in (None, b"", b"x", b"-1", b"9" * 5000):
        assert 0 == step_of([("vf_step", odd)])  # type: ignore[list-item] # as Kafka allows
    assert 0 == step_of([])


@pytest.mark.parametrize("metadata", ["", "by hand", "s2netd:x:y:z", "s2netd:1"])
def test_an_offset_that_an_operator_has_moved_names_no_step(metadata: str) -> None:
    assert Committed(0, 7) == Committed.of(GroupOffset(7, metadata))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=30),
    st.integers(1, 8),
)
def test_the_log_is_read_from_where_it_is_needed(
    steps: Sequence[tuple[bool, int]], window: int
) -> None:
    """Rows of two runs; after each a state that needs the newest ``window`` of its run."""
    offsets, runs = FeatureOffsets(), 0
    written: list[tuple[int, str, int, int]] = []  # offset, run, first index, end index
    end = 0
    for number, (is_new_run, n_rows) in enumerate(steps):
        if is_new_run:
            runs, end = runs + 1, 0
        offset, run = 3 * number, str(runs)
        offsets.add("cam", offset, run, end + n_rows)
        written.append((offset, run, end, end + n_rows))
        end += n_rows
        first = max(end - window, 0)

        needed = offsets.needed_from("cam", CameraState(b"", run=run, first_feature=first))

        holding = [at for at, name, _first, last in written if name == run and last > first]
        assert min(holding) == needed
        # What is read after a restart leads to the same answer.
        rows = [(at, name, last) for at, name, _first, last in written if at >= needed]
        again = FeatureOffsets.of(Left(rows_at={"cam": rows}, features_end=3 * number + 1))
        assert needed == again.needed_from("cam", CameraState(b"", run=run, first_feature=first))
