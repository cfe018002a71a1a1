"""Where a camera's worker begins: its session as its last owner left it, or what can be saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from daemon.journal.base import CameraPast
from daemon.models.slot import OpenModel
from daemon.stream.place import done_of
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import Place, Reason, SnippetFeature


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a worker begins.

    Attributes:
        past: What the camera's last owner has left; None: nothing.
        next_offset: Deliveries below it are done, and only read for frames that are needed again.
        is_over: Its place says nothing any more, for its log was made anew, or others have
            served the camera since: what was open ends.
    """

    past: CameraPast | None = None
    next_offset: int = 0
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What became of a camera's past.

    Attributes:
        session: The camera's session, or the one that succeeds it and owes its last words; None:
            there is none.
        error: What is wrong with what was stored; None: nothing.
    """

    session: StreamSession | None = None
    error: SnapshotError | None = None


def take_up(beginning: Beginning, model: OpenModel) -> TakenUp:
    """Go on with what a camera's last owner has left.

    Args:
        beginning: What that is.
        model: What the camera works with from now on.
    """
    if beginning.past is None:
        return TakenUp()
    try:
        taken = _stored(beginning.past, model, is_over=beginning.is_over)
    except SnapshotError as error:
        return TakenUp(error=error)
    if taken.session is not None:
        taken.session.place = _place_after(taken.session, is_over=beginning.is_over)
    return taken


def _place_after(session: StreamSession, *, is_over: bool) -> Place:
    place = session.place
    if is_over:
        # The producer may go on with the same run; offsets of the old log say nothing.
        return replace(place, partition=None, offset=None, low_offset=None, rival=None, chunks=())
    if session.succeeds is not None:
        # The old session's footage is over; the new one needs no frame of it again.
        return replace(place, low_offset=None)
    return place


def _stored(past: CameraPast, model: OpenModel, *, is_over: bool) -> TakenUp:
    """The session that was stored, or the one that succeeds it where it cannot go on.

    Raises:
        SnapshotError: There is no sense in what was stored.
    """
    if is_over:
        return TakenUp(_succeeding(past, model))
    features = [
        feature
        for rows in past.features
        if rows.run == past.state.run and rows.feature_id == model.feature_id
        for feature in rows.features()
    ]
    try:
        session = _restored(past, model, features)
    except SnapshotError as error:
        return TakenUp(_succeeding(past, model), error)  # its events can be ended, if no more
    return TakenUp(session)


def _restored(past: CameraPast, model: OpenModel, features: list[SnippetFeature]) -> StreamSession:
    with _damage_named():
        session = StreamSession.restore_or_succeed(
            past.state.blob,
            model.spec,
            model.class_indices,
            feature_id=model.feature_id,
            features=features,
        )
        if session.place.offset is not None:
            done_of(session)
        return session


def _succeeding(past: CameraPast, model: OpenModel) -> StreamSession:
    with _damage_named():
        return StreamSession.succeed_stored(
            past.state.blob,
            model.spec,
            model.class_indices,
            reason=Reason.GAP,
            feature_id=model.feature_id,
        )


@contextmanager
def _damage_named() -> Iterator[None]:
    """Whatever a damaged snapshot brings about, it is the snapshot's fault."""
    try:
        yield
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"snapshot is damaged: {type(error).__name__}: {error}") from error
