"""What it costs to look at less: each economy over annotated videos, through the live session.

Every video is decoded, and every snippet put through the backbone, once. Each economy then chooses
from the same snippets what it would have looked at, and gets only the features of these.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.cas import BackendLocalizer, Localizer
from engine.features import BackendFeatureExtractor, FeatureExtractor
from engine.session import StreamSession
from engine.snippets import SnippetSampler
from engine.spec import EconomySpec, ModelSpec, Rung
from engine.types import ActionEvent, Reason, Snippet, SnippetFeature
from engine.video.frames import read_video
from training.evaluation.streaming import StreamingResult, streaming_metrics
from training.loaders.annotations import AnnotatedVideo, read_annotations
from training.records import VideoRecord

LOOK_EVERY = 31  # snippets: 10 s of the daemon's default, at a stride of 8 frames
ECONOMIES: Mapping[str, EconomySpec] = {
    "full": EconomySpec(),
    "full, motion gate": EconomySpec(is_gated=True, look_every=LOOK_EVERY),
    "half": EconomySpec(Rung.HALF),
    "half, motion gate": EconomySpec(Rung.HALF, is_gated=True, look_every=LOOK_EVERY),
    "quarter": EconomySpec(Rung.QUARTER),
    "gated": EconomySpec(Rung.GATED, look_every=LOOK_EVERY),
}


@dataclass(frozen=True, slots=True)
class EconomyRow:
    """One economy on one subset.

    Attributes:
        economy: Its name.
        subset: The subset's.
        looked: Share of the snippets that the backbone looked at.
        result: How the live system did.
    """

    economy: str
    subset: str
    looked: float
    result: StreamingResult


def measure_economies(
    bundle_path: str,
    scenes: Path,
    subsets: Sequence[str],
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[EconomyRow]:
    """Score every economy on every subset.

    Args:
        bundle_path: A bundle's folder or name.
        scenes: A folder with ``annotations.json`` and ``videos``.
        subsets: Subsets of the annotations; false alarms are counted in ``quiet``, where it is
            one of them.
        threads: CPU threads of the networks.
        on_progress: Told how many videos are done, of how many.

    Raises:
        BundleError: The bundle cannot be used.
        DataError: There is no such subset.
        UnreadableVideoError: A video is not there or cannot be read.
    """
    bundle = ModelBundle.load(resolve_bundle(bundle_path))
    annotations = read_annotations(scenes / "annotations.json", bundle.spec.class_names)
    videos = {name: annotations.of(name, scenes / "annotations.json") for name in subsets}
    backbone = open_backend("openvino", bundle.backbone_path, precision="f32", threads=threads)
    head = open_backend("openvino", bundle.localizer_path, precision="f32", threads=threads)
    extractor = BackendFeatureExtractor(backbone, bundle.spec.feature_dim)
    tally = _Tally(bundle.spec, extractor, BackendLocalizer(head))
    total, done = sum(map(len, videos.values())), 0
    for subset, some in videos.items():
        for video in some:
            tally.add(subset, video, scenes / "videos" / f"{video.name}.mp4")
            done += 1
            on_progress(done, total)
    backbone.close()
    head.close()
    return list(tally.rows(videos))


class _Tally:
    """Collects what each economy gave."""

    def __init__(self, spec: ModelSpec, extractor: FeatureExtractor, localizer: Localizer) -> None:
        self._spec = spec
        self._extractor = extractor
        self._localizer = localizer
        self._events: dict[tuple[str, str], dict[str, list[ActionEvent]]] = {}
        self._looks: dict[tuple[str, str], list[int]] = {}

    def add(self, subset: str, video: AnnotatedVideo, path: Path) -> None:
        """Put a video through every economy."""
        spec = self._spec
        sampler, snippets, features = SnippetSampler(spec.grid, spec.window.max_gap_us), [], []
        for batch in read_video(path, spec.geometry, spec.grid):
            fresh = sampler.push(batch)
            snippets += fresh
            features += self._extractor.extract(fresh)
        known = {one.index: one for one in features}
        for name, economy in ECONOMIES.items():
            key = (name, subset)
            looks = self._looks.setdefault(key, [0, 0])
            session = StreamSession(video.camera, video.name, replace(spec, economy=economy))

            def look(chosen: Sequence[Snippet], looks: list[int] = looks) -> list[SnippetFeature]:
                looks[0] += len(chosen)
                return [known[one.index] for one in chosen]

            looks[1] += len(snippets)
            events = self._tracked(session, session.look(snippets, look))
            self._events.setdefault(key, {})[video.name] = events

    def _tracked(
        self, session: StreamSession, features: Sequence[SnippetFeature]
    ) -> list[ActionEvent]:
        windows = session.buffer(features)
        windows += session.buffer(session.release())
        windows += session.break_segment()
        return session.track(self._localizer.localize(windows)) + session.close(Reason.END)

    def rows(self, videos: Mapping[str, Sequence[AnnotatedVideo]]) -> Iterator[EconomyRow]:
        """A row for each economy and subset."""
        for (name, subset), events in self._events.items():
            records = [_record(video, self._spec) for video in videos[subset]]
            n_looks, n_snippets = self._looks[name, subset]
            result = streaming_metrics(records, events, len(self._spec.class_names))
            yield EconomyRow(name, subset, n_looks / max(n_snippets, 1), result)


def _record(video: AnnotatedVideo, spec: ModelSpec) -> VideoRecord:
    """What is known of a video, without features."""
    return VideoRecord(
        video.name,
        video.camera,
        np.zeros((0, spec.feature_dim), np.float32),
        np.zeros(0, np.int64),
        video.duration_us or 0,
        video.tags,
        video.truth,
    )


def table(rows: Sequence[EconomyRow]) -> str:
    """Write the rows as a Markdown table; shares are in percent."""
    heads = "economy | subset | looked at | mAP | recall | missed | false alarms an hour"
    lines = [
        f"| {heads} | delay to the opening, s | to the last word, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        result = row.result
        cells = [
            row.economy,
            row.subset,
            f"{100 * row.looked:.1f}",
            f"{100 * result.map_last.average:.1f}",
            f"{100 * result.recall:.1f}",
            str(result.n_missed),
            f"{result.false_alarms_per_hour:.1f}",
            f"{result.detection_delay.median:.2f}",
            f"{result.final_delay.median:.2f}",
        ]
        lines.append(f"| {' | '.join('-' if cell == 'nan' else cell for cell in cells)} |")
    return "\n".join(lines)
