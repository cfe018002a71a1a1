"""One stream's pure state: sampler, window, scores, events; snapshot and restore.

The session sees no chunk, codec or device: the worker hands it decoded frames, features and CAS
windows, and it says what follows. Its snapshot holds no frames. Instead ``resume_us`` tells from
which stream time on footage must be read again; the sampler gives nothing out twice.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.background import BackgroundState, CameraBackground
from engine.errors import SnapshotError
from engine.events import EventTracker, TrackerState
from engine.scores import ScoredSnippets, ScoreTrack
from engine.snippets import SamplerState, SnippetSampler
from engine.spec import ModelSpec
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    FrameBatch,
    Reason,
    Snippet,
    SnippetFeature,
)
from engine.windows import SnippetBuffer

SNAPSHOT_VERSION = 2


class StreamSession:
    """Everything between frames and events of one stream's epoch.

    Args:
        stream_id: The camera.
        epoch: The producer run; a new epoch is a new session.
        spec: The model.
        labels: Classes to report; None means all.
        background: Where the camera's last session left its background, which outlives an
            epoch; None: what the model knows of the camera.

    Attributes:
        anchor_us: Unix time of stream time 0, as the newest chunk told it.
        source: Where in its transport the stream stands; kept in the snapshot, never read here.
    """

    def __init__(
        self,
        stream_id: str,
        epoch: str,
        spec: ModelSpec,
        labels: frozenset[int] | None = None,
        background: BackgroundState | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.epoch = epoch
        self.spec = spec
        self.anchor_us: int | None = None
        self.source: dict[str, int | str] = {}
        self._labels = labels
        self._sampler = SnippetSampler(spec.timeline, spec.window.max_gap_us)
        self._background = _background_of(stream_id, spec, background)
        self._buffer = SnippetBuffer(spec.window, spec.feature_dim, self._background)
        self._scores = ScoreTrack(spec.window)
        self._tracker = EventTracker(stream_id, epoch, spec, labels)

    @property
    def resume_us(self) -> int | None:
        """Footage from this stream time on must be read again after a restore; None: none."""
        return self._sampler.state.resume_us

    @property
    def seen_us(self) -> int | None:
        """Footage up to this stream time was taken in; None if there was none."""
        state = self._sampler.state
        # After a gap the sampler holds no frame, but its snippets are still given out.
        given_out_us = self.spec.timeline.snippet_start_us(state.next_index) - 1
        if state.next_index == 0:
            return state.seen_us
        return given_out_us if state.seen_us is None else max(state.seen_us, given_out_us)

    @property
    def n_gaps(self) -> int:
        """Gaps seen since the session was made or restored."""
        return self._sampler.n_gaps

    @property
    def open_events(self) -> tuple[ActionEvent, ...]:
        """The last record of every event that is not final."""
        return tuple(event.last for event in self._tracker.state.live)

    @property
    def background(self) -> BackgroundState | None:
        """The camera's background, for its next session; None where the model has none."""
        return None if self._background is None else self._background.state()

    def sample(self, frames: FrameBatch) -> list[Snippet]:
        """Frames → the snippets they complete."""
        return self._sampler.push(frames)

    def buffer(self, features: Sequence[SnippetFeature]) -> list[FeatureWindow]:
        """Snippet features → the windows they complete."""
        return [window for feature in features for window in self._buffer.push(feature)]

    def track(self, windows: Sequence[CasWindow]) -> list[ActionEvent]:
        """CAS windows, in order → the event records that follow from them."""
        records: list[ActionEvent] = []
        for window in windows:
            current = self._scores.current
            if current is not None and current.segment != window.segment:
                records.extend(self._tracker.close(Reason.GAP))
            self._scores.update(window)
            records.extend(self._tracker.step(self._scores.known, self.anchor_us))
        return records

    def break_segment(self) -> list[FeatureWindow]:
        """Footage is missing: drop what is unfinished; localize what this gives, then `close`."""
        self._sampler.break_segment()
        return self._buffer.flush()

    def close(self, reason: Reason) -> list[ActionEvent]:
        """End every open event."""
        self._scores.current = None
        return self._tracker.close(reason)

    def snapshot(self) -> bytes:
        """One versioned blob: all state but frames."""
        sampler = self._sampler.state
        first_index, segment, n_unseen, features = self._buffer.state()
        scored = self._scores.current
        background = self.background
        meta = {
            "version": SNAPSHOT_VERSION,
            "model_id": self.spec.model_id,
            "stream_id": self.stream_id,
            "epoch": self.epoch,
            "anchor_us": self.anchor_us,
            "source": self.source,
            "sampler": [
                sampler.next_index,
                sampler.segment,
                sampler.seen_us,
                sampler.resume_us,
            ],
            "buffer": [first_index, segment, n_unseen],
            "background": background.n_snippets if background else None,
            "scores": [scored.first_index, scored.segment] if scored else None,
            "tracker": self._tracker.state.to_json(),
        }
        scores = scored.scores if scored else np.zeros((0, 0), np.float32)
        blob = io.BytesIO()
        np.savez(
            blob,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            features=features,
            background=background.mean if background else np.zeros(0, np.float64),
            scores=scores,
        )
        return blob.getvalue()

    @classmethod
    def restore(
        cls, blob: bytes, spec: ModelSpec, labels: frozenset[int] | None = None
    ) -> "StreamSession":
        """The session as it was; push footage from ``resume_us`` on again.

        Raises:
            SnapshotError: The blob is damaged, of another version, or of another model.
        """
        meta, arrays = _read_blob(blob)
        for name, wanted in (("version", SNAPSHOT_VERSION), ("model_id", spec.model_id)):
            if meta.get(name) != wanted:
                raise SnapshotError(f"snapshot {name} is {meta.get(name)!r}, wanted {wanted!r}")
        try:
            return cls._of(meta, arrays, spec, labels)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"snapshot is damaged: {error}") from error

    @classmethod
    def _of(
        cls,
        meta: dict[str, Any],
        arrays: dict[str, npt.NDArray[Any]],
        spec: ModelSpec,
        labels: frozenset[int] | None,
    ) -> "StreamSession":
        background = None
        if meta["background"] is not None:
            background = BackgroundState(arrays["background"], meta["background"])
        session = cls(meta["stream_id"], meta["epoch"], spec, labels, background)
        session.anchor_us = meta["anchor_us"]
        session.source = dict(meta["source"])
        state = SamplerState(*meta["sampler"])
        session._sampler = SnippetSampler(spec.timeline, spec.window.max_gap_us, state)
        first_index, segment, n_unseen = meta["buffer"]
        session._buffer.restore(first_index, segment, n_unseen, arrays["features"])
        kept = None
        if meta["scores"]:
            first_index, segment = meta["scores"]
            kept = ScoredSnippets(first_index, segment, arrays["scores"])
        session._scores = ScoreTrack(spec.window, kept)
        tracker = TrackerState.from_json(meta["tracker"])
        session._tracker = EventTracker(session.stream_id, session.epoch, spec, labels, tracker)
        return session


def _background_of(
    camera: str, spec: ModelSpec, state: BackgroundState | None
) -> CameraBackground | None:
    if spec.background is None:
        return None
    background = CameraBackground.of_camera(spec.background, camera)
    if state is not None:
        background.restore(state)
    return background


def _read_blob(blob: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
            return dict(json.loads(arrays.pop("meta").tobytes())), arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotError(f"snapshot is unreadable: {error}") from error
