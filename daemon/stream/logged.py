"""What goes to the feature log: a session's features, and where their segments end. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from daemon.journal.base import FeatureRows
from engine.session import StreamSession
from engine.types import Reason, SnippetFeature


def rows_of(
    session: StreamSession, features: Sequence[SnippetFeature], feature_id: str
) -> Iterator[FeatureRows]:
    """Features as the log keeps them: consecutive ones of a segment together.

    Args:
        session: The camera's.
        features: Each a float32 (D,) vector; kept as float16.
        feature_id: What made them.
    """
    for (segment, _), run in groupby(
        enumerate(features), lambda pair: (pair[1].segment, pair[1].index - pair[0])
    ):
        rows = [feature for _, feature in run]
        yield FeatureRows(
            camera=session.camera,
            run=session.run,
            segment=segment,
            first_index=rows[0].index,
            vectors=np.stack([row.vector for row in rows]).astype(np.float16),
            feature_id=feature_id,
            anchor_us=session.anchor_us,
        )


def end_of(
    session: StreamSession, next_index: int, reason: Reason, *, feature_dim: int, feature_id: str
) -> FeatureRows:
    """The mark that a segment is over.

    Args:
        session: The camera's.
        next_index: The snippet after the segment's last one.
        reason: Why it is over.
        feature_dim: Numbers in a feature (D).
        feature_id: What made the segment's features.
    """
    return FeatureRows(
        camera=session.camera,
        run=session.run,
        segment=0,
        first_index=next_index,
        vectors=np.zeros((0, feature_dim), np.float16),
        feature_id=feature_id,
        anchor_us=session.anchor_us,
        closed=reason,
    )
