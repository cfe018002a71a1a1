"""Records of the feature log say what the values say; an end marker is rows without any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from daemon.errors import MalformedRecordError
from daemon.journal.base import FeatureRows
from daemon.journal.kafka.records import features_record, parse_features
from engine.types import Reason

VECTORS = arrays.arrays(
    np.float16,
    st.tuples(st.integers(0, 5), st.integers(1, 4)),
    elements=st.floats(-60_000, 60_000, width=16),
)


@given(
    st.text(max_size=9),
    VECTORS,
    st.none() | st.integers(0, 2**50),
    st.none() | st.sampled_from(Reason),
)
def test_rows_survive_the_journey(run, vectors, anchor_us, closed) -> None:
    rows = FeatureRows("gate", run, 3, 17, vectors, "made-by", anchor_us, closed)

    record = features_record(rows, 7)
    parsed = parse_features(record.key, record.headers, record.value)

    np.testing.assert_array_equal(vectors, parsed.vectors)
    assert (run, 3, 17, "made-by", anchor_us, closed) == (
        parsed.run,
        parsed.segment,
        parsed.first_index,
        parsed.feature_id,
        parsed.anchor_us,
        parsed.closed,
    )


def test_an_end_marker_has_no_rows_and_gives_a_restart_nothing() -> None:
    marker = FeatureRows("gate", "r", 0, 17, np.zeros((0, 3), np.float16), closed=Reason.SILENT)

    record = features_record(marker, 7)

    assert b"" == record.value
    assert [] == parse_features(record.key, record.headers, record.value).features()


def test_an_unknown_reason_is_refused() -> None:
    record = features_record(
        FeatureRows("gate", "r", 0, 17, np.zeros((0, 3), np.float16), closed=Reason.END), 7
    )
    headers = [(name, b"bored" if name == "vf_closed" else v) for name, v in record.headers]

    with pytest.raises(MalformedRecordError, match="vf_closed is 'bored', wanted a reason"):
        parse_features(record.key, headers, record.value)
