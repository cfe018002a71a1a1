"""The pure state of a camera's run: sampler, window, scores, events; it can be kept and succeeded.

The session sees no chunk, codec or device: the worker hands it decoded frames, features and CAS
windows, and it says what follows. Its snapshot holds neither frames nor features. ``resume_us``
tells from which stream time on footage must be read again, and the sampler gives nothing out
twice; ``kept_features`` tells which features must be handed back, by whoever keeps a log of them.

When another model takes over, at a chunk boundary or at a restart, its session succeeds the old
one. It goes on with the same run at the same place in the transport, and with the camera mean if
both models make the same features. What the old model's events end with is owed by the new one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.camera_mean import CameraMean, CameraMeanState
from engine.economy import Economy
from engine.errors import SnapshotError
from engine.events import EventTracker, TrackerState, Watch
from engine.scores import ScoredSnippets, ScoreTrack
from engine.session_blob import SNAPSHOT_VERSION, read_blob, write_blob
from engine.session_parts import (
    camera_mean_state,
    economy_of,
    owed_of,
    stored_features,
    wanted_rows,
)
from engine.snippets import SamplerState, SnippetSampler
from engine.spec import ModelSpec, Rung
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    FrameBatch,
    Place,
    Reason,
    Snippet,
    SnippetFeature,
)
from engine.windows import SnippetBuffer


class StreamSession:
    """Everything between frames and events of one camera's run.

    Args:
        camera: The camera.
        run: The producer's run; a new run needs a new session.
        spec: The model.
        class_indices: Classes to report; None means all.
        camera_mean: Where the camera's last session left its mean, which outlives a run; None:
            it starts from what the model knows of the camera.
        feature_id: Names what makes the features (backbone, grid, picture). A later model goes on
            with the camera mean if it has the same one; empty: none does.

    Attributes:
        anchor_us: Unix time of stream time 0, as the newest chunk told it.
        watermark_us: No event of this run that starts before this stream time will be opened any
            more, as of the last ``settle``. It never goes back.
        place: Where the camera stands in its transport; kept in the snapshot, never read here.
        owed: Revisions that the session before has left to be published; whoever publishes them
            empties this. They are in no snapshot.
        succeeds: The model whose session this one has taken the place of; None where there was
            none, and after a restore.
    """

    def __init__(
        self,
        camera: str,
        run: str,
        spec: ModelSpec,
        class_indices: frozenset[int] | None = None,
        camera_mean: CameraMeanState | None = None,
        feature_id: str = "",
    ) -> None:
        self.camera = camera
        self.run = run
        self.spec = spec
        self.anchor_us: int | None = None
        self.place = Place()
        self.owed: tuple[ActionEvent, ...] = ()
        self.succeeds: str | None = None
        self.watermark_us = 0
        self._feature_id = feature_id
        self._class_indices = class_indices
        self._sampler = SnippetSampler(spec.grid, spec.window.max_gap_us)
        self._economy = Economy(spec.economy.of(camera))
        self._camera_mean = _camera_mean_of(camera, spec, camera_mean)
        self._buffer = SnippetBuffer(spec.window, spec.feature_dim, self._camera_mean)
        self._scores = ScoreTrack(spec.window)
        self._tracker = EventTracker(camera, run, spec, class_indices)

    @property
    def resume_us(self) -> int | None:
        """Footage from this stream time on must be read again after a restore; None: none."""
        return self._sampler.state.resume_us

    @property
    def seen_us(self) -> int | None:
        """Footage up to this stream time was taken in; None if there was none."""
        state = self._sampler.state
        # After a gap the sampler holds no frame, but knows what it has given out.
        given_out_us = self.spec.grid.snippet_start_us(state.next_index) - 1
        if state.next_index == 0:
            return state.seen_us
        return given_out_us if state.seen_us is None else max(state.seen_us, given_out_us)

    @property
    def n_gaps(self) -> int:
        """Gaps seen since the session was made or restored."""
        return self._sampler.n_gaps

    @property
    def n_late_frames(self) -> int:
        """Frames that were not newer than those before, since it was made or restored."""
        return self._sampler.n_late_frames

    @property
    def rung(self) -> Rung:
        """How much of the footage is looked at; a change counts from the next snippet on."""
        return self._economy.rung

    @rung.setter
    def rung(self, rung: Rung) -> None:
        self._economy.rung = rung

    @property
    def n_reused(self) -> int:
        """Snippets not looked at because nothing moved, since it was made or restored."""
        return self._economy.n_reused

    @property
    def n_interpolated(self) -> int:
        """Snippets whose features lie between two looks', since it was made or restored."""
        return self._economy.n_interpolated

    @property
    def open_events(self) -> tuple[ActionEvent, ...]:
        """The last revision of every event that is not final."""
        return tuple(event.last for event in self._tracker.state.live)

    def settle(self) -> None:
        """Move the watermark on; only while nothing that was sampled is still on its way.

        What is on its way, to the backbone or to the localizer, is in no part of the session.
        """
        sampler = self._sampler.state
        indices = [sampler.next_index]
        if self._scores.current is not None:
            indices.append(self._scores.current.first_index)
        if kept := self.kept_features:
            indices.append(kept.start)
        if self._economy.first_waiting is not None:
            indices.append(self._economy.first_waiting)
        at_us = self.spec.grid.snippet_start_us(min(indices))
        is_between_segments = sampler.resume_us is None and len(indices) == 1
        if is_between_segments and self.seen_us is not None:
            at_us = max(at_us, self.seen_us + 1)  # what follows is newer
        self.watermark_us = max(self.watermark_us, at_us)

    @property
    def kept_features(self) -> range:
        """Snippet indices of the features that ``restore`` must be given again; maybe none."""
        first_index, _segment, _n_unseen, features = self._buffer.state()
        return range(first_index, first_index + len(features))

    @property
    def features(self) -> list[SnippetFeature]:
        """Those of ``kept_features``."""
        first_index, segment, _n_unseen, features = self._buffer.state()
        return [SnippetFeature(first_index + n, segment, row) for n, row in enumerate(features)]

    @property
    def camera_mean(self) -> CameraMeanState | None:
        """The camera's mean, for its next session; None where the model has none."""
        return None if self._camera_mean is None else self._camera_mean.state()

    def sample(self, frames: FrameBatch) -> list[Snippet]:
        """Frames → the snippets they complete."""
        return self._sampler.push(frames)

    def parts(self, snippets: Sequence[Snippet]) -> list[list[Snippet]]:
        """Snippets → those that can be chosen from at once, in order."""
        return self._economy.parts(snippets)

    def choose(self, snippets: Sequence[Snippet]) -> list[Snippet]:
        """One of the parts → what the backbone must look at; ``fill`` must follow."""
        return self._economy.choose(snippets)

    def fill(self, looks: Sequence[SnippetFeature]) -> list[SnippetFeature]:
        """Features of what was chosen → features of all snippets up to the newest look."""
        return self._economy.fill(looks)

    def look(
        self,
        snippets: Sequence[Snippet],
        extract: Callable[[Sequence[Snippet]], list[SnippetFeature]],
    ) -> list[SnippetFeature]:
        """Snippets → the features that are known then, for who may wait for the backbone."""
        parts = self.parts(snippets)
        return [one for part in parts for one in self.fill(extract(self.choose(part)))]

    def release(self) -> list[SnippetFeature]:
        """The features of snippets that wait for a look that will not come: the segment ends."""
        return self._economy.flush()

    def buffer(self, features: Sequence[SnippetFeature]) -> list[FeatureWindow]:
        """Snippet features → the windows they complete."""
        return [window for feature in features for window in self._buffer.push(feature)]

    def track(self, windows: Sequence[CasWindow], watch: Watch | None = None) -> list[ActionEvent]:
        """CAS windows, in order → the revisions that follow from them.

        ``watch`` is told of all proposals that were weighed.
        """
        revisions: list[ActionEvent] = []
        for window in windows:
            current = self._scores.current
            if current is not None and current.segment != window.segment:
                revisions.extend(self._tracker.close(Reason.GAP))
            self._scores.update(window)
            revisions.extend(self._tracker.step(self._scores.known, self.anchor_us, watch))
        return revisions

    def break_segment(self) -> list[FeatureWindow]:
        """Footage is missing: drop the unfinished snippet and end the segment.

        What ``release`` has not given before is dropped.

        Returns:
            The segment's last window, if any: localize and ``track`` it, then ``close``.
        """
        self._sampler.break_segment()
        self._economy.broke()
        return self._buffer.flush()

    def close(self, reason: Reason) -> list[ActionEvent]:
        """End every open event."""
        self._scores.current = None
        return self._tracker.close(reason)

    def retune(self, spec: ModelSpec, class_indices: frozenset[int] | None) -> None:
        """Go on with other opening scores, classes or economy of the same model.

        Open events stay open.

        Raises:
            ValueError: It is another model: ask ``succeeded_by`` for its session.
        """
        if spec.model_id != self.spec.model_id:
            raise ValueError(f"{spec.model_id} cannot go on with events of {self.spec.model_id}")
        self.spec, self._class_indices = spec, class_indices
        state = self._tracker.state
        self._tracker = EventTracker(self.camera, self.run, spec, class_indices, state)
        self._economy.retune(spec.economy.of(self.camera))

    def succeeded_by(
        self,
        spec: ModelSpec,
        class_indices: frozenset[int] | None = None,
        *,
        feature_id: str = "",
        revisions: Sequence[ActionEvent] = (),
    ) -> "StreamSession":
        """End every open event; give another model's session, for the chunks that follow.

        Args:
            spec: The model that takes over.
            class_indices: Its classes to report.
            feature_id: What makes its features; see the class.
            revisions: What followed from the last windows, which ``break_segment`` has given.

        Returns:
            A session that owes those revisions and the last ones of all events.
        """
        owed = (*self.owed, *revisions, *self.close(Reason.MODEL))
        return self._successor(
            self._meta(), self.camera_mean, owed, spec, class_indices, feature_id
        )

    def snapshot(self) -> bytes:
        """One versioned blob: all state but frames and features."""
        scored, camera_mean = self._scores.current, self.camera_mean
        arrays: dict[str, npt.NDArray[Any]] = {  # (D,) and (N, C)
            "background": camera_mean.mean if camera_mean else np.zeros(0, np.float64),
            "scores": scored.scores if scored else np.zeros((0, 0), np.float32),
        }
        gate = self._economy.state.gate
        if gate is not None and gate.planes is not None:
            arrays["gate"] = gate.planes  # (3, R, S)
        return write_blob(self._meta(), arrays)

    def _meta(self) -> dict[str, Any]:
        """All that a snapshot holds besides arrays: plain values."""
        sampler = self._sampler.state
        first_index, segment, n_unseen, features = self._buffer.state()
        scored, camera_mean = self._scores.current, self.camera_mean
        return {
            "model_id": self.spec.model_id,
            "feature_id": self._feature_id,
            "stream_id": self.camera,
            "epoch": self.run,
            "anchor_us": self.anchor_us,
            "watermark_us": self.watermark_us,
            "seen_us": self.seen_us,
            "source": self.place.to_json(),
            "sampler": [
                sampler.next_index,
                sampler.segment,
                sampler.seen_us,
                sampler.resume_us,
                sampler.apart_us,
                sampler.apart_until_us,
            ],
            "buffer": [first_index, segment, n_unseen, len(features)],
            "background": camera_mean.n_snippets if camera_mean else None,
            "scores": [scored.first_index, scored.segment] if scored else None,
            "tracker": self._tracker.state.to_json(),
            "economy": self._economy.state.to_json(),
        }

    @classmethod
    def restore(
        cls,
        blob: bytes,
        spec: ModelSpec,
        class_indices: frozenset[int] | None = None,
        *,
        feature_id: str = "",
        features: Iterable[SnippetFeature] = (),
    ) -> "StreamSession":
        """The session as it was; push footage from ``resume_us`` on again.

        Args:
            blob: What ``snapshot`` gave.
            spec: The model, which is the same.
            class_indices: Its classes to report.
            feature_id: What makes its features; see the class.
            features: Features of this run, oldest first, those of ``kept_features`` among them;
                of two with the same index and segment the later one counts.

        Raises:
            SnapshotError: The blob is damaged, of another version, or of another model, or a
                feature is missing.
        """
        meta, arrays = read_blob(blob)
        if meta.get("model_id") != spec.model_id:
            raise SnapshotError(
                f"snapshot model_id is {meta.get('model_id')!r}, wanted {spec.model_id!r}"
            )
        try:
            return cls._of(meta, arrays, spec, class_indices, feature_id, features)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"snapshot is damaged: {error}") from error

    @classmethod
    def restore_or_succeed(
        cls,
        blob: bytes,
        spec: ModelSpec,
        class_indices: frozenset[int] | None = None,
        *,
        feature_id: str = "",
        features: Iterable[SnippetFeature] = (),
    ) -> "StreamSession":
        """As ``restore``; where another model left the snapshot, the session that succeeds it.

        The successor is what ``succeeded_by`` would have given at that chunk boundary, but
        without revisions of the segment's last window, which the other model cannot answer here.

        Raises:
            SnapshotError: The blob is damaged or of another version, or a feature is missing.
        """
        meta, _arrays = read_blob(blob)
        if meta.get("model_id") == spec.model_id:
            return cls.restore(blob, spec, class_indices, feature_id=feature_id, features=features)
        return cls.succeed_stored(
            blob, spec, class_indices, reason=Reason.MODEL, feature_id=feature_id
        )

    @classmethod
    def succeed_stored(
        cls,
        blob: bytes,
        spec: ModelSpec,
        class_indices: frozenset[int] | None = None,
        *,
        reason: Reason,
        feature_id: str = "",
    ) -> "StreamSession":
        """End the events of a stored session, which cannot go on; give the one that follows it.

        It is at the same place of the same run, and owes the last revision of every event.

        Args:
            blob: What ``snapshot`` gave, of whichever model.
            spec: The model that takes over.
            class_indices: Its classes to report.
            reason: Why the events end.
            feature_id: What makes the model's features; see the class.

        Raises:
            SnapshotError: The blob is damaged or of another version.
        """
        meta, arrays = read_blob(blob)
        try:
            tracker = EventTracker("", "", spec, state=TrackerState.from_json(meta["tracker"]))
            owed = (*owed_of(meta), *tracker.close(reason))
            camera_mean = camera_mean_state(meta, arrays)
            return cls._successor(meta, camera_mean, owed, spec, class_indices, feature_id)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"snapshot is damaged: {error}") from error

    @classmethod
    def _successor(
        cls,
        meta: dict[str, Any],
        camera_mean: CameraMeanState | None,
        owed: tuple[ActionEvent, ...],
        spec: ModelSpec,
        class_indices: frozenset[int] | None,
        feature_id: str,
    ) -> "StreamSession":
        """A new session with the old one's place in its run and transport.

        Older snapshots have no ``feature_id``, and no ``seen_us`` besides the sampler's.
        """
        is_comparable = feature_id != "" and meta.get("feature_id") == feature_id
        kept = camera_mean if is_comparable else None
        session = cls(meta["stream_id"], meta["epoch"], spec, class_indices, kept, feature_id)
        session.anchor_us = meta["anchor_us"]
        session.watermark_us = int(meta.get("watermark_us", 0))
        session.place = Place.from_json(meta["source"])
        session.owed = owed
        session.succeeds = str(meta["model_id"])
        _next_index, _segment, sampler_us, *_resume = meta["sampler"]
        seen = SamplerState(0, 0, meta.get("seen_us", sampler_us), None)
        session._sampler = SnippetSampler(spec.grid, spec.window.max_gap_us, seen)
        return session

    @classmethod
    def _of(
        cls,
        meta: dict[str, Any],
        arrays: dict[str, npt.NDArray[Any]],
        spec: ModelSpec,
        class_indices: frozenset[int] | None,
        feature_id: str,
        features: Iterable[SnippetFeature],
    ) -> "StreamSession":
        """The session of a snapshot with scores (N, C) and background (D,)."""
        camera_mean = camera_mean_state(meta, arrays)
        session = cls(
            meta["stream_id"], meta["epoch"], spec, class_indices, camera_mean, feature_id
        )
        session.anchor_us = meta["anchor_us"]
        session.watermark_us = int(meta.get("watermark_us", 0))
        session.place = Place.from_json(meta["source"])
        session.owed = owed_of(meta)
        state = SamplerState(*meta["sampler"])
        session._sampler = SnippetSampler(spec.grid, spec.window.max_gap_us, state)
        if meta["version"] == SNAPSHOT_VERSION:
            first_index, segment, n_unseen, n_kept = meta["buffer"]
        else:
            first_index, segment, n_unseen = meta["buffer"]
            features = stored_features(first_index, segment, arrays["features"])
            n_kept = len(features)
        if not 0 <= n_kept <= spec.window.window_snippets:
            raise ValueError(f"a window of {n_kept} features")
        wanted = range(first_index, first_index + n_kept)
        kept_rows = wanted_rows(wanted, segment, features, spec.feature_dim)
        session._buffer.restore(first_index, segment, n_unseen, kept_rows)
        session._economy = economy_of(
            meta, arrays, spec.economy.of(session.camera), session.features
        )
        kept = None
        if meta["scores"]:
            first_index, segment = meta["scores"]
            kept = ScoredSnippets(first_index, segment, arrays["scores"])
        session._scores = ScoreTrack(spec.window, kept)
        tracker = TrackerState.from_json(meta["tracker"])
        session._tracker = EventTracker(session.camera, session.run, spec, class_indices, tracker)
        return session


def _camera_mean_of(
    camera: str, spec: ModelSpec, state: CameraMeanState | None
) -> CameraMean | None:
    if spec.camera_mean is None:
        return None
    camera_mean = CameraMean.of_camera(spec.camera_mean, camera)
    if state is not None:
        camera_mean.restore(state)
    return camera_mean
