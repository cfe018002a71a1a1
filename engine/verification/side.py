"""One side of a verification: a bundle's networks on one backend, run as in service."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.backends.base import EngineBackend
from engine.cas import BackendLocalizer
from engine.features import BackendFeatureExtractor
from engine.judging.histories import histories
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    FloatArray,
    Reason,
    Snippet,
    SnippetFeature,
)

Side = Literal["reference", "candidate"]
_RUN = "golden"


@dataclass(frozen=True, slots=True)
class Networks:
    """Both networks of a bundle, open on some backend; the caller closes them."""

    backbone: EngineBackend
    localizer: EngineBackend


class SideRun:
    """One side at work: its networks, its session of the clip, and what it gave since ``take``.

    Args:
        side: Which side it is.
        networks: Open networks.
        spec: Its model.
        class_indices: Classes whose events count; None means all.

    Attributes:
        description: Model and backend.
        not_finite: The first answer that held NaN or infinity, as a sentence; None: none did.
        n_runs: Calls of ``run``.

    Raises:
        BundleError: A network does not keep the contract.
    """

    def __init__(
        self, side: Side, networks: Networks, spec: ModelSpec, class_indices: frozenset[int] | None
    ) -> None:
        self.side: Side = side
        self.description = f"{spec.model_id} on {networks.backbone.description}"
        self.not_finite: str | None = None
        self.n_runs = 0
        self._extractor = BackendFeatureExtractor(networks.backbone, spec.feature_dim)
        self._localizer = BackendLocalizer(networks.localizer)
        self._spec = spec
        self._class_indices = class_indices
        self._features: list[SnippetFeature] = []
        self._windows: list[CasWindow] = []
        self.begin("")

    @property
    def events(self) -> tuple[ActionEvent, ...]:
        """The clip's events that were not retracted, each as it ended."""
        return tuple(one.last for one in histories(self._revisions) if one.is_kept)

    def begin(self, camera: str) -> None:
        """Begin a new clip."""
        self._camera = camera
        self._session = StreamSession(camera, _RUN, self._spec, self._class_indices)
        self._revisions: list[ActionEvent] = []

    def take(self) -> tuple[list[SnippetFeature], list[CasWindow]]:
        """What it gave since the last call; it is given once."""
        taken = self._features, self._windows
        self._features, self._windows = [], []
        return taken

    def run(self, snippets: Sequence[Snippet] | None) -> None:
        """Answer snippets, as the daemon would; None ends the clip."""
        self.n_runs += 1
        if self.not_finite is not None:
            return
        if snippets is None:
            self._follow(self._session.break_segment())
            self._revisions.extend(self._session.close(Reason.END))
            return
        features = self._extractor.extract(snippets)
        self._features.extend(features)
        for feature in features:
            self._hold_finite("features", feature.index, feature.vector)
        if self.not_finite is None:
            self._follow(self._session.buffer(features))

    def _follow(self, windows: Sequence[FeatureWindow]) -> None:
        answers = self._localizer.localize(windows)
        for answer in answers:
            for name in ("cas", "attention", "video_scores"):
                newest = answer.first_index + len(answer.valid) - 1
                self._hold_finite(name, newest, getattr(answer, name))
        # A tracker must not be shown NaN: every comparison with one is false.
        if self.not_finite is None:
            self._windows.extend(answers)
            self._revisions.extend(self._session.track(answers))

    def _hold_finite(self, output: str, index: int, array: FloatArray) -> None:
        """Remember the first array, of any shape, that holds NaN or infinity."""
        if self.not_finite is None and not np.isfinite(array).all():
            self.not_finite = (
                f"{self.side}: {output} of snippet {index} of {self._camera!r} hold NaN or "
                "infinity, wanted finite numbers"
            )
