"""Networks by supervision by seeds under one protocol: trained, scored, run live, timed.

Every network is trained on the same clips, scored on the same videos by the same code, exported,
and run through the daemon's own session. Nothing is chosen on the videos that are reported; the
one thing that is chosen, at which score a network opens events live, is on the validation videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.cas import BackendLocalizer
from engine.published.models import MODELS
from engine.spec import ModelSpec
from training.benchmarks.compare_trials import RESULT, Live, Trial, keep, kept
from training.benchmarks.draws import Scenes
from training.benchmarks.supervision import Supervision, train_under
from training.config import training_config
from training.evaluation.average_precision import mean_average_precision
from training.evaluation.matching import Detections, Truth
from training.evaluation.resampling import draws_of_videos, resampled_maps
from training.evaluation.stream_runs import delay_accuracy_curve, stream_video
from training.evaluation.streaming import StreamingResult, streaming_metrics
from training.evaluation.whole_video import propose_whole_video
from training.export.ensemble import ensemble_of
from training.export.export import export
from training.learning.checkpoints import TrainedNetwork
from training.live_defaults import PROPOSALS, live_defaults
from training.records import VideoRecord

RESAMPLES = 4000  # Holm multiplies p by the number of pairs: no fewer could call one of 60 real
OPEN_SCORES = (0.1, 0.15, 0.2, 0.25, 0.33, 0.4, 0.5, 0.6, 0.7)
ENSEMBLE = "ensemble"  # of all networks, of the same supervision and seed


def compare(
    scenes: Scenes,
    contents: Mapping[str, Mapping[str, Any]],
    supervisions: Sequence[Supervision],
    seeds: Sequence[int],
    base: ModelBundle,
    out: Path,
    *,
    live_subset: str = "testing",
    threads: int | None = 1,
    on_trial: Callable[[str], None] = lambda _name: None,
) -> list[Trial]:
    """Train and measure everything; what is finished under ``out`` is not done again.

    Args:
        scenes: One data draw. Its subset ``validation`` chooses opening scores and is scored like
            the others; ``quiet``, where it is there, gives false alarms and no mAP.
        contents: Network → YAML values of its configuration.
        supervisions: What each learns from.
        seeds: Each is trained with each seed.
        base: The bundle whose backbone made the features.
        out: ``NETWORK/SUPERVISION/seed-N`` in it are run folders. Several networks have an
            ensemble beside them.
        live_subset: The subset that is run live.
        threads: CPU threads of torch and OpenVINO.
        on_trial: Gets the name of every contender that is trained and measured.
    """
    for name, content in contents.items():
        training_config(content, name)  # every mistake is told before the first is trained
    bench = _Bench(scenes, base, live_subset, threads)
    found: dict[str, list[Trial]] = {name: [] for name in contenders(list(contents))}
    for supervision, seed in product(supervisions, seeds):
        members: list[TrainedNetwork] = []
        for name in found:
            folder = out / name / supervision / f"seed-{seed}"
            if name == ENSEMBLE:
                folder.mkdir(parents=True, exist_ok=True)
                run = ensemble_of(members)
            else:
                run = train_under(
                    supervision,
                    contents[name],
                    seed,
                    scenes.tagged,
                    scenes.annotated,
                    folder,
                    manifest=scenes.manifest,
                    threads=threads,
                )
                members.append(run)
            found[name] += bench.measured(run, name, supervision, folder)
            on_trial(f"{name}, {supervision}, seed {seed}")
    return [trial for trials in found.values() for trial in trials]


def contenders(networks: Sequence[str]) -> list[str]:
    """Who is compared: the networks, and of several the ensemble too."""
    return [*networks, ENSEMBLE] if len(networks) > 1 else list(networks)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every trained network is measured on; fields as the arguments of ``compare``."""

    scenes: Scenes
    base: ModelBundle
    live_subset: str
    threads: int | None

    def measured(
        self, run: TrainedNetwork, network: str, supervision: str, folder: Path
    ) -> list[Trial]:
        """Score a run on every subset, or read what was measured of it before."""
        known = {
            subset: records
            for subset, records in self.scenes.subsets.items()
            if any(record.truth for record in records)
        }
        before = kept(folder / RESULT, run.identity, set(known))
        if before is not None:
            return before
        live = self._live(run, network, folder / "bundle")
        trials = [
            _scored(
                run,
                network,
                supervision,
                subset,
                records,
                live if subset == self.live_subset else None,
            )
            for subset, records in known.items()
        ]
        keep(folder / RESULT, run.identity, trials)
        return trials

    def _live(self, run: TrainedNetwork, network: str, folder: Path) -> Live | None:
        """Export, choose an opening score on the validation videos, and run the others live."""
        subsets = self.scenes.subsets
        if self.live_subset not in subsets or "validation" not in subsets:
            return None
        export(
            run,
            self.base,
            folder,
            name=network,
            source="a comparison",
            changes=live_defaults(run.grid),
            without_backbone=self.base.name in MODELS,
        )
        bundle = ModelBundle.load(folder)
        path = bundle.localizer_path
        backend = open_backend("openvino", path, precision="f32", threads=self.threads)
        try:
            localizer = BackendLocalizer(backend)
            spec = _opened(bundle.spec, subsets["validation"], localizer)
            records, quiet = subsets[self.live_subset], subsets.get("quiet", ())
            events = {
                record.name: stream_video(record, spec, localizer) for record in (*records, *quiet)
            }
        finally:
            backend.close()
        result = streaming_metrics(records, events, len(spec.class_names), quiet)
        return Live(
            open_score=spec.tracker.open_score,
            map_last=result.map_last.average,
            precision=result.precision,
            recall=result.recall,
            open_delay_s=result.detection_delay.median,
            final_delay_s=result.final_delay.median,
            retraction_rate=result.retraction_rate,
            false_alarms_per_hour=result.false_alarms_per_hour,
        )


def _scored(
    run: TrainedNetwork,
    network: str,
    supervision: str,
    subset: str,
    records: Sequence[VideoRecord],
    live: Live | None,
) -> Trial:
    """Score whole videos, as they are and resampled."""
    n_classes = len(run.class_names)
    truth = Truth.of(records)
    found = {record.name: propose_whole_video(run, record, None, PROPOSALS) for record in records}
    detections = Detections.of(found, truth.videos)
    result = mean_average_precision(truth, detections, n_classes)
    draws = draws_of_videos(len(truth.videos), RESAMPLES, seed=0)
    return Trial(
        network,
        supervision,
        run.config.seed,
        subset,
        tuple(result.per_tiou.tolist()),
        tuple(result.class_ap.mean(axis=1).tolist()),
        tuple(np.round(resampled_maps(truth, detections, n_classes, draws), 6).tolist()),
        live,
    )


def _opened(
    spec: ModelSpec, validation: Sequence[VideoRecord], localizer: BackendLocalizer
) -> ModelSpec:
    """Choose the opening score with the best F1 of events, live, on the validation videos."""
    freeze_us = spec.tracker.freeze_us
    curve = delay_accuracy_curve(validation, spec, localizer, (freeze_us,), OPEN_SCORES)
    best = max(curve, key=lambda point: f1_of(point.result))
    return spec.with_open_score(best.open_score or spec.tracker.open_score)


def f1_of(result: StreamingResult) -> float:
    """The harmonic mean of precision and recall; 0 if nothing was right."""
    both = np.nan_to_num([result.precision, result.recall])
    return float(2 * both.prod() / both.sum()) if both.sum() else 0.0
