"""Networks by supervision by seeds under one protocol: trained, scored, run live, timed.

Every network is trained on the same clips, scored on the same videos by the same code, exported,
and run through the daemon's own session. Nothing is chosen on the videos that are reported; the
one thing that is chosen, at which score a network opens events live, is on the validation videos.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from engine.backends import open_backend
from engine.backends.network_flops import network_flops
from engine.bundle.model_bundle import ModelBundle
from engine.cas import BackendLocalizer
from engine.published.models import MODELS
from engine.spec import ModelSpec
from engine.types import Float64Array
from training.benchmarks.heads import N_CLASSES, HopCost, head_cost, live_hop_cost
from training.benchmarks.heads_peers import Head
from training.benchmarks.scenes import Scenes
from training.benchmarks.supervision import Supervision, train_under
from training.config import training_config
from training.evaluation.average_precision import mean_average_precision
from training.evaluation.matching import Detections, Truth
from training.evaluation.resampling import draws_of_videos, resampled_maps
from training.evaluation.stream_runs import delay_accuracy_curve, stream_video
from training.evaluation.streaming import StreamingResult, streaming_metrics
from training.evaluation.whole_video import propose_whole_video
from training.export.export import export, localizer_onnx
from training.learning.checkpoints import TrainedNetwork
from training.live_defaults import PROPOSALS, live_defaults
from training.networks import NETWORKS
from training.networks.base import Network
from training.records import VideoRecord

RESAMPLES = 1000
OPEN_SCORES = (0.1, 0.15, 0.2, 0.25, 0.33, 0.4, 0.5, 0.6, 0.7)
RESULT = "comparison.json"
_FLOP_LENGTH = 750


@dataclass(frozen=True, slots=True)
class Live:
    """What a live camera gets of a trained network, on the reported videos.

    Attributes:
        open_score: At which score events open: of `OPEN_SCORES` that with the best F1 on the
            validation videos.
        map_last: mAP of the last revisions, in [0, 1].
        precision: In [0, 1].
        recall: In [0, 1].
        open_delay_s: Median seconds from an action's start to its event's opening.
        final_delay_s: Median seconds from an action's end to its event's last revision.
        retraction_rate: In [0, 1].
        false_alarms_per_hour: On videos in which nothing happens.
    """

    open_score: float
    map_last: float
    precision: float
    recall: float
    open_delay_s: float
    final_delay_s: float
    retraction_rate: float
    false_alarms_per_hour: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One trained network, scored on one subset; mAPs are in [0, 1].

    Attributes:
        network: Row of ``NETWORKS``.
        supervision: What it learned from.
        seed: Its seed.
        subset: The subset that was scored.
        per_tiou: The mAP at tIoU .1 to .7.
        per_class: C values, means over the tIoUs; NaN for a class without actions.
        resampled: Its average mAP on each of the same resamples of the videos.
        live: What it is worth live; None on subsets that were not run live.
    """

    network: str
    supervision: str
    seed: int
    subset: str
    per_tiou: tuple[float, ...]
    per_class: tuple[float, ...]
    resampled: tuple[float, ...]
    live: Live | None

    @property
    def average(self) -> float:
        """The mean over the tIoUs."""
        return float(np.mean(self.per_tiou))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs at test time, whatever it learned from.

    Attributes:
        network: Row of ``NETWORKS``.
        n_parameters: Number of its parameters.
        gflop: Arithmetic of a video of 750 snippets, in 1e9 operations.
        torch_ms: Milliseconds of a video in torch, for each of ``LENGTHS``.
        openvino_ms: The same in OpenVINO f32.
        hop_ms: Milliseconds of one hop of a live camera, buffer to tracker.
    """

    network: str
    n_parameters: int
    gflop: float
    torch_ms: tuple[float, ...]
    openvino_ms: tuple[float, ...]
    hop_ms: float


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
        out: ``NETWORK/SUPERVISION/seed-N`` in it are run folders.
        live_subset: The subset that is run live.
        threads: CPU threads of torch and OpenVINO.
        on_trial: Gets the name of every finished training.
    """
    for name, content in contents.items():
        training_config(content, name)  # every mistake is told before the first is trained
    trials: list[Trial] = []
    for (name, content), supervision, seed in product(contents.items(), supervisions, seeds):
        folder = out / name / supervision / f"seed-{seed}"
        run = train_under(
            supervision,
            content,
            seed,
            scenes.tagged,
            scenes.annotated,
            folder,
            manifest=scenes.manifest,
            threads=threads,
        )
        known = _kept(folder / RESULT, run, scenes)
        if known is None:
            live = _live(run, scenes, live_subset, base, folder / "bundle", threads)
            known = [
                _scored(run, name, supervision, subset, records, live=live_of)
                for subset, records in scenes.subsets.items()
                if any(record.truth for record in records)
                for live_of in [live if subset == live_subset else None]
            ]
            content_of = {"identity": run.identity, "trials": [asdict(one) for one in known]}
            (folder / RESULT).write_text(json.dumps(content_of) + "\n", encoding="utf-8")
        trials += known
        on_trial(f"{name}, {supervision}, seed {seed}")
    return trials


def _kept(path: Path, run: TrainedNetwork, scenes: Scenes) -> list[Trial] | None:
    """What was measured of this very run on these subsets before; None if it was not."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["identity"] != run.identity:
        return None
    trials = [
        Trial(
            **{
                **one,
                "per_tiou": tuple(one["per_tiou"]),
                "per_class": tuple(one["per_class"]),
                "resampled": tuple(one["resampled"]),
                "live": None if one["live"] is None else Live(**one["live"]),
            }
        )
        for one in content["trials"]
    ]
    wanted = {subset for subset, some in scenes.subsets.items() if any(r.truth for r in some)}
    return trials if {trial.subset for trial in trials} == wanted else None


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


def _live(
    run: TrainedNetwork,
    scenes: Scenes,
    subset: str,
    base: ModelBundle,
    folder: Path,
    threads: int | None,
) -> Live | None:
    """Export, choose an opening score on the validation videos, and run the others live."""
    if subset not in scenes.subsets or "validation" not in scenes.subsets:
        return None
    changes = live_defaults(run.grid)
    export(
        run,
        base,
        folder,
        name=run.config.network.kind,
        source="a comparison",
        changes=changes,
        without_backbone=base.name in MODELS,
    )
    bundle = ModelBundle.load(folder)
    backend = open_backend("openvino", bundle.localizer_path, precision="f32", threads=threads)
    try:
        localizer = BackendLocalizer(backend)
        spec = _opened(bundle.spec, scenes.subsets["validation"], localizer)
        records, quiet = scenes.subsets[subset], scenes.subsets.get("quiet", ())
        events = {
            record.name: stream_video(record, spec, localizer) for record in (*records, *quiet)
        }
        result = streaming_metrics(records, events, len(spec.class_names), quiet)
    finally:
        backend.close()
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


def costs(
    contents: Mapping[str, Mapping[str, Any]], feature_dim: int, *, passes: int, threads: int
) -> list[Cost]:
    """Time every network in turn, in one run, on videos of ``LENGTHS`` snippets, and live.

    Args:
        contents: Network → YAML values of its configuration.
        feature_dim: D.
        passes: Timed passes of each.
        threads: CPU threads of both runtimes.
    """
    heads = [Head(name, feature_dim, _builder(content)) for name, content in contents.items()]
    timed = head_cost(heads=heads, passes=passes, threads=threads, hops=1, live=heads[0])
    rows = []
    with TemporaryDirectory() as folder:
        for head, timing in zip(heads, timed.heads, strict=True):
            hop: HopCost = live_hop_cost(head, Path(folder), 200, threads)
            rows.append(
                Cost(
                    head.name,
                    timing.n_parameters,
                    _gflop(head),
                    timing.torch_ms,
                    timing.openvino_ms,
                    hop.total_ms,
                )
            )
    return rows


def _builder(content: Mapping[str, Any]) -> Callable[[int, int], Network]:
    choice = training_config(content, "comparison").network

    def build(feature_dim: int, n_classes: int) -> Network:
        entry = NETWORKS[choice.kind]
        return entry.build(choice.config, feature_dim=feature_dim, n_classes=n_classes)

    return build


def _gflop(head: Head) -> float:
    import onnx  # noqa: PLC0415 - heavy

    network = head.build(head.feature_dim, N_CLASSES).eval()
    model = onnx.load_from_string(localizer_onnx(network, head.feature_dim))
    shapes = {
        "features": (1, _FLOP_LENGTH, head.feature_dim),
        "valid": (1, _FLOP_LENGTH),
        "background": (1, head.feature_dim),
    }
    return network_flops(model, shapes) / 1e9


def resampled_of(trials: Sequence[Trial]) -> Float64Array:
    """Stack the resampled mAPs of trials of one kind, float64 (S, W)."""
    return np.array([trial.resampled for trial in trials], np.float64)
