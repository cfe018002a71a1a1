"""Online students beside the windowed reading of their teachers, through the live session.

For each seed a teacher is trained on tags, then a student of it, and a bounded one for each
look-ahead. Every one is run live; teacher and student with each freeze. Nothing is chosen here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.cas import BackendLocalizer
from engine.grid import US_PER_S
from engine.published.models import MODELS
from engine.types import Proposal
from training.benchmarks.draws import Scenes
from training.config import training_config, with_overrides
from training.evaluation.average_precision import map_of
from training.evaluation.stream_runs import CurvePoint, delay_accuracy_curve
from training.evaluation.whole_video import propose_whole_video
from training.export.export import export
from training.learning.checkpoints import TrainedNetwork
from training.learning.distillation import look_ahead_of, student_content
from training.learning.train import train
from training.live_defaults import PROPOSALS, live_defaults
from training.records import VideoRecord

_HEADS = (
    *("read by", "final after, s", "opens at", "live mAP", "of the teacher's offline"),
    *("of that cut at the same score", "own offline", "precision", "recall"),
    *("opening p50, p90, longest, s", "last word, s", "late", "retracted", "false alarms an hour"),
)
TEACHER, STUDENT, BOUNDED = "teacher", "student", "bounded student"


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """One network read live, on one subset; shares are in [0, 1], times in seconds.

    Attributes:
        reader: Teacher or student, both read in windows, or a student whose scores see no more
            hops ahead than fit into ``freeze_s``.
        freeze_s: After so long an event's end is final.
        open_score: At which events open.
        seed: The seed of teacher and student.
        offline_map: The teacher's mAP over whole videos.
        cut_map: The same of those intervals alone that score ``open_score``, as events must.
        own_map: The network's own mAP over whole videos.
        live_map: mAP of the last revisions.
        precision: Of the kept events.
        recall: Of the actions.
        open_p50: Delay to the opening; also its 90th percentile and the longest.
        open_p90: As it says.
        open_max: As it says.
        final_p50: Delay from an action's end to the last word.
        late: Share of the openings that are late; see ``StreamingResult``.
        retracted: Share of the events that were taken back.
        false_per_hour: False alarms on footage in which nothing happens.
    """

    reader: str
    freeze_s: float
    open_score: float
    seed: int
    offline_map: float
    cut_map: float
    own_map: float
    live_map: float
    precision: float
    recall: float
    open_p50: float
    open_p90: float
    open_max: float
    final_p50: float
    late: float
    retracted: float
    false_per_hour: float


@dataclass(frozen=True, slots=True)
class Whole:
    """What a network finds in whole videos: their records, intervals by name, and C."""

    records: Sequence[VideoRecord]
    found: Mapping[str, Sequence[Proposal]]
    n_classes: int

    def map_from(self, least_score: float = 0.0) -> float:
        """The mAP of intervals that score ``least_score``, in [0, 1]; of all by default."""
        kept = {
            name: [one for one in found if one.score >= least_score]
            for name, found in self.found.items()
        }
        return map_of(self.records, kept, self.n_classes).average


def bench_online(
    scenes: Scenes,
    content: Mapping[str, Any],
    look_aheads: Sequence[int],
    seeds: Sequence[int],
    base: ModelBundle,
    out: Path,
    *,
    subset: str = "testing",
    quiet: str = "quiet",
    open_scores: Sequence[float | None] = (None,),
    changes: Mapping[str, Any] | None = None,
    threads: int | None = 1,
    on_run: Callable[[str], None] = lambda _name: None,
) -> list[OnlineRow]:
    """Train and measure everything; finished runs under ``out`` are not trained again.

    Args:
        scenes: One data draw.
        content: YAML values of the teachers' configuration.
        look_aheads: Hops after which events are final, and that bounded students see ahead.
        seeds: Each teacher is trained with each, and so are its students.
        base: The bundle whose backbone made the features.
        out: Folder of the run folders.
        subset: The subset that is run live.
        quiet: The subset in which nothing happens; it gives false alarms, where it is there.
        open_scores: Scores at which events open, each tried on every network; None: the default.
        changes: Dotted keys of the students' configurations and their values.
        threads: CPU threads of torch and OpenVINO.
        on_run: Gets the name of every network that is trained and measured.
    """
    bench = _Bench(scenes, base, subset, quiet, out, threads, tuple(open_scores))
    freezes = [ahead * scenes.tagged.grid.stride_us for ahead in look_aheads]
    rows: list[OnlineRow] = []
    for seed in seeds:
        teacher = bench.trained({**content, "seed": seed}, f"teacher/seed-{seed}", None)
        offline = bench.whole(teacher)
        rows += bench.rows(teacher, TEACHER, freezes, offline, offline)
        on_run(f"teacher, seed {seed}")
        asked = student_content({**content, "seed": seed}, max(look_aheads))
        asked = with_overrides(asked, changes or {}, STUDENT)
        student = bench.trained(asked, f"student/seed-{seed}", teacher)
        rows += bench.rows(student, STUDENT, freezes, offline, bench.whole(student))
        on_run(f"student, seed {seed}")
        for ahead, freeze_us in zip(look_aheads, freezes, strict=True):
            limit = {"network.bounded": True, "network.look_ahead": ahead}
            name = f"bounded-{ahead}/seed-{seed}"
            bounded = bench.trained(with_overrides(asked, limit, name), name, teacher)
            rows += bench.rows(bounded, BOUNDED, [freeze_us], offline, bench.whole(bounded))
            on_run(f"bounded student {ahead}, seed {seed}")
    return rows


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every network is measured on; fields as the arguments of ``bench_online``."""

    scenes: Scenes
    base: ModelBundle
    subset: str
    quiet: str
    out: Path
    threads: int | None
    open_scores: tuple[float | None, ...]

    def trained(
        self, content: Mapping[str, Any], name: str, teacher: TrainedNetwork | None
    ) -> TrainedNetwork:
        """Train a network on the tagged clips, or read what was trained before."""
        return train(
            training_config(content, name),
            self.scenes.tagged,
            self.out / name,
            teacher=teacher,
            manifest=self.scenes.manifest,
            device="cpu",
            threads=self.threads,
        )

    def whole(self, run: TrainedNetwork) -> Whole:
        """What a network finds in whole videos."""
        records = self.scenes.subsets[self.subset]
        found = {one.name: propose_whole_video(run, one, None, PROPOSALS) for one in records}
        return Whole(records, found, len(run.class_names))

    def rows(
        self,
        run: TrainedNetwork,
        reader: str,
        freezes_us: Sequence[int],
        offline: Whole,
        own: Whole,
    ) -> list[OnlineRow]:
        """Run a network live with each freeze; what is found offline is as of ``row_of``."""
        name = f"{reader.replace(' ', '-')}-{len(freezes_us)}-{freezes_us[0]}"
        folder = self.out / "bundles" / f"{name}-{run.config.seed}"
        export(
            run,
            self.base,
            folder,
            name="online",
            source="a benchmark",
            changes=live_defaults(run.grid, look_ahead_of([run])),
            without_backbone=self.base.name in MODELS,
        )
        bundle = ModelBundle.load(folder)
        backend = open_backend(
            "openvino", bundle.localizer_path, precision="f32", threads=self.threads
        )
        try:
            curve = delay_accuracy_curve(
                self.scenes.subsets[self.subset],
                bundle.spec,
                BackendLocalizer(backend),
                freezes_us,
                self.open_scores,
                quiet=self.scenes.subsets.get(self.quiet, ()),
            )
        finally:
            backend.close()
        return [
            row_of(reader, run.config.seed, offline, own, point, bundle.spec.tracker.open_score)
            for point in curve
        ]


def row_of(
    reader: str, seed: int, offline: Whole, own: Whole, point: CurvePoint, open_score: float
) -> OnlineRow:
    """A row of what was measured, beside what teacher and network find in whole videos."""
    result = point.result
    opening = result.detection_delay
    open_score = open_score if point.open_score is None else point.open_score
    return OnlineRow(
        reader=reader,
        freeze_s=point.freeze_us / US_PER_S,
        open_score=open_score,
        seed=seed,
        offline_map=offline.map_from(),
        cut_map=offline.map_from(open_score),
        own_map=own.map_from(),
        live_map=result.map_last.average,
        precision=result.precision,
        recall=result.recall,
        open_p50=opening.median,
        open_p90=opening.p90,
        open_max=opening.longest,
        final_p50=result.final_delay.median,
        late=result.late_openings,
        retracted=result.retraction_rate,
        false_per_hour=result.false_alarms_per_hour,
    )


def table(rows: Sequence[OnlineRow]) -> str:
    """Write means over seeds as a Markdown table; shares are in percent."""
    lines = [f"| {' | '.join(_HEADS)} |", f"|---|{'---:|' * (len(_HEADS) - 1)}"]
    for key in dict.fromkeys(map(_key, rows)):
        reader, freeze_s, open_score = key
        cells = _cells([row for row in rows if _key(row) == key])
        lines.append(f"| {reader} | {freeze_s:.2f} | {open_score:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _key(row: OnlineRow) -> tuple[str, float, float]:
    return row.reader, row.freeze_s, row.open_score


def _cells(rows: Sequence[OnlineRow]) -> list[str]:
    def mean(name: str, scale: float = 100.0) -> float:
        return float(np.mean([scale * getattr(row, name) for row in rows]))

    kept = [100 * row.live_map / max(row.offline_map, 1e-9) for row in rows]
    kept_of_cut = [100 * row.live_map / max(row.cut_map, 1e-9) for row in rows]
    spread = float(np.std([100 * row.live_map for row in rows]))
    delays = ", ".join(f"{mean(f'open_{name}', 1):.2f}" for name in ("p50", "p90", "max"))
    return [
        f"{mean('live_map'):.1f} ± {spread:.1f}",
        f"{np.mean(kept):.1f} %",
        f"{np.mean(kept_of_cut):.1f} %",
        f"{mean('own_map'):.1f}",
        f"{mean('precision'):.0f}",
        f"{mean('recall'):.0f}",
        delays,
        f"{mean('final_p50', 1):.2f}",
        f"{mean('late'):.1f}",
        f"{mean('retracted'):.1f}",
        f"{mean('false_per_hour', 1):.0f}",
    ]
