"""The one seam of delivery: what follows from a partition's chunks is kept whole or not at all.

A *step* is everything that follows from the deliveries of one partition up to an offset: revisions
of events, new features, and what its cameras know. A journal keeps a step in one transaction, and
the offset with it, so no crash can tear one from another. Whoever takes a partition first puts any
other owner out, and then reads what that one has left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.spec import Rung
from engine.types import ActionEvent, Reason, SnippetFeature


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRows:
    """Features of consecutive snippets of one camera's segment, as the feature log keeps them.

    Rows without any feature are an *end marker*: the segment was ended here, whatever follows,
    and not by a hole in the features themselves. A replay of the log needs to know; a restart
    does not.

    Attributes:
        camera: The camera.
        run: The producer's run.
        segment: The segment, as in ``Snippet``.
        first_index: Snippet index of row 0.
        vectors: float16 (N, D).
        feature_id: Names what made them; only features of the same name can be compared.
        anchor_us: Unix time of stream time 0, if it is known.
        closed: Of an end marker: why the segment was ended, END, GAP, SILENT or MODEL.
    """

    camera: str
    run: str
    segment: int
    first_index: int
    vectors: npt.NDArray[np.float16]
    feature_id: str = ""
    anchor_us: int | None = None
    closed: Reason | None = None

    @property
    def end_index(self) -> int:
        """One more than the snippet index of the last row."""
        return self.first_index + len(self.vectors)

    def features(self) -> list[SnippetFeature]:
        """One feature a row, as float32."""
        rows = self.vectors.astype(np.float32)
        return [
            SnippetFeature(self.first_index + offset, self.segment, row)
            for offset, row in enumerate(rows)
        ]


@dataclass(frozen=True, slots=True)
class CameraState:
    """What one camera knows after a delivery.

    Attributes:
        blob: Its session's snapshot.
        low_offset: The first offset that a restart must read again; None: none, because its run
            ended, say.
        run: The producer's run that ``first_feature`` counts in.
        first_feature: Index of the oldest feature that a restart needs; None: it needs none.
        silent_since_us: When it stopped to send, Unix microseconds; None: it is not silent.
    """

    blob: bytes
    low_offset: int | None = None
    run: str = ""
    first_feature: int | None = None
    silent_since_us: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used.

    Attributes:
        camera: Its camera, as far as it can be told.
        partition: Where it lay.
        offset: Its offset there.
        error: The kind of error.
        reason: What is wrong with it.
        payload: Its bytes.
        key: Its key as it came; None: it had none.
        headers: Its headers as they came; Kafka allows one without a value.
    """

    camera: str
    partition: str
    offset: int
    error: str
    reason: str
    payload: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Presence(StrEnum):
    """What a camera does, as far as its chunks tell."""

    ONLINE = "online"
    SILENT = "silent"  # it sends nothing
    REFUSED = "refused"  # its newest chunk could not be used
    FORGOTTEN = "forgotten"  # nothing is known of it any more


class Condition(StrEnum):
    """What an operator looks at first; of several that hold, the one that is named first here."""

    SILENT = "silent"  # it sends nothing
    REFUSED = "refused"  # its newest chunk could not be used
    LATE = "late"  # what is finished lies too far behind what was captured
    DEGRADED = "degraded"  # it is served worse than it could be
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Owner:
    """A daemon that serves cameras: its host, and its name in the consumer group, if any."""

    host: str
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How a camera is; moments are Unix microseconds.

    Attributes:
        camera: The camera.
        state: What it does.
        at_us: When this was so.
        partition: Where its chunks lie.
        owner: The daemon that serves it.
        model_id: The model that serves it.
        run: The producer's run; empty if none is known.
        silent_since_us: When it stopped to send; None: it is not silent.
        n_queued: Its chunks in memory.
        n_behind: Records of its partition, of all cameras, that were not read yet; None: that is
            not known.
        n_gaps: Places where footage was missing, since this owner has it.
        n_refused: Its chunks that could not be used, since this owner has it.
        degraded: In which ways it is served worse than configured.
        watermark_us: No event of the run that starts before this stream time will open any more.
        anchor_us: When stream time 0 was, if that is known.
        last_offset: That of the newest chunk that was finished; None before this owner's first.
        last_chunk_us: When it was.
        condition: What an operator looks at first.
        last_frame_us: When its newest finished frame was captured; None: that is not known.
        lag_s: Seconds from then until it was finished, or until now if chunks wait; negative if
            it was captured in the future of our clock; None: not known.
        fps: Frames in a second of its footage; None: not known yet.
        snippets_per_minute: Snippets in the last minute.
        rung: How much of its footage is looked at.
    """

    camera: str
    state: Presence
    at_us: int
    partition: str
    owner: Owner
    model_id: str
    run: str = ""
    silent_since_us: int | None = None
    n_queued: int = 0
    n_behind: int | None = None
    n_gaps: int = 0
    n_refused: int = 0
    degraded: tuple[str, ...] = ()
    watermark_us: int | None = None
    anchor_us: int | None = None
    last_offset: int | None = None
    last_chunk_us: int | None = None
    condition: Condition = Condition.LIVE
    last_frame_us: int | None = None
    lag_s: float | None = None
    fps: float | None = None
    snippets_per_minute: int = 0
    rung: Rung = Rung.FULL


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a partition's deliveries since the last step.

    Attributes:
        number: Rises by one from step to step; tells whether a step was taken, where an error
            leaves that open.
        next_offset: The first delivery that is not in it for all cameras. A camera that is ahead
            of it says so in its own state.
        log_id: Names the log that ``next_offset`` counts in; empty where a log has no name.
        served_by: Which model and host it is of.
        revisions: Of all the partition's cameras, in order.
        features: New ones, in order.
        states: Camera → what it knows; None: it is forgotten.
        dead: Records that could not be used.
        statuses: How cameras are, of which that is worth telling; one a camera.
    """

    number: int
    next_offset: int
    log_id: str = ""
    served_by: str = ""
    revisions: tuple[ActionEvent, ...] = ()
    features: tuple[FeatureRows, ...] = ()
    states: Mapping[str, CameraState | None] = field(default_factory=dict)
    dead: tuple[DeadLetter, ...] = ()
    statuses: tuple[CameraStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraPast:
    """What a camera's last owner has left: its state, and the features that this one needs."""

    state: CameraState
    features: tuple[FeatureRows, ...] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What a partition's last owner has left.

    Attributes:
        number: That of the last step; 0: there was none.
        next_offset: That of the last step; None: there was none.
        log_id: That of the last step.
        served_by: That of the last step.
        cameras: The partition's cameras.
    """

    number: int = 0
    next_offset: int | None = None
    log_id: str = ""
    served_by: str = ""
    cameras: Mapping[str, CameraPast] = field(default_factory=dict)

    def first_offset(self, next_offset: int) -> int:
        """The first offset to read if everything below ``next_offset`` is done."""
        lows = (camera.state.low_offset for camera in self.cameras.values())
        return min(
            (low for low in lows if low is not None and low < next_offset), default=next_offset
        )


class Journal(Protocol):
    """Keeps steps, partition by partition. One process owns a partition at a time."""

    async def start(self) -> None:
        """Connect or open.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    async def take(self, partition: str) -> Past:
        """Put any other owner of the partition out, wait its last step out, then read.

        Raises:
            StaleOwnerError: Another owner has taken the partition meanwhile.
            TransportError: It could not be read before the deadline.
        """

    async def commit(self, partition: str, step: Step) -> None:
        """Keep all of a step, durably; when this returns, readers see it.

        Raises:
            StaleOwnerError: Another owner has taken the partition; nothing of the step is kept.
            TransportError: It could not be kept before the deadline; nobody sees any of it.
        """

    async def give_back(self, partition: str) -> None:
        """Let a partition go; its last step is kept. Safe to repeat."""

    async def close(self) -> None:
        """Let everything go. Safe to repeat."""


def features_from(rows: FeatureRows, state: CameraState | None) -> bool:
    """True if a restart from ``state`` needs some of ``rows``."""
    return (
        state is not None
        and state.first_feature is not None
        and rows.run == state.run
        and rows.end_index > state.first_feature
    )
