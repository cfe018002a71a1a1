"""What a live camera gets from a bundle: metrics, and accuracy against delay, with a plot."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cas import Localizer
from engine.spec import ModelSpec
from training.evaluation.average_precision import map_of
from training.evaluation.stream_runs import (
    CurvePoint,
    delay_accuracy_curve,
    stream_video,
    whole_video_detections,
)
from training.evaluation.streaming import StreamingResult, streaming_metrics
from training.records import VideoRecord

# The look-aheads after an event's end, and the opening scores, that are tried.
FREEZES_US = (0, 320_000, 640_000, 1_280_000, 2_560_000)
OPEN_SCORES = (0.3, 0.4, 0.5, 0.6)
_CURVE_HEAD = (
    "look-ahead s  open at  mAP last  mAP closed  precision  recall  open delay  "
    "final delay  false/h  retracted"
)


@dataclass(frozen=True, slots=True)
class StreamingReport:
    """What ``s2net evaluate --streaming`` found.

    Attributes:
        result: What was measured at the bundle's own thresholds.
        whole_video_map: mAP of the same network if it sees whole videos at once, in [0, 1].
        curve: What each pair of look-ahead and opening score gave.
    """

    result: StreamingResult
    whole_video_map: float
    curve: tuple[CurvePoint, ...]

    def table(self) -> str:
        """Write the report for people."""
        online = self.result.map_last.average
        share = online / self.whole_video_map if self.whole_video_map else float("nan")
        lines = [
            self.result.table(),
            "",
            f"whole-video mAP {100 * self.whole_video_map:.1f}; live keeps {100 * share:.1f} %",
            "",
            _CURVE_HEAD,
        ]
        lines += [_curve_row(point) for point in self.curve]
        return "\n".join(lines)

    def write(self, out: Path, note: Callable[[str], None]) -> None:
        """Write ``streaming.txt``, ``curve.json`` and, with matplotlib, ``curve.png``."""
        (out / "streaming.txt").write_text(self.table() + "\n", encoding="utf-8")
        rows = [_plain(point) for point in self.curve]
        content = {"offline_map": self.whole_video_map, "curve": rows}
        (out / "curve.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        try:
            import matplotlib as mpl  # noqa: PLC0415 - an extra
        except ImportError:
            note("no curve.png: matplotlib is not installed (pip install 's2netd[training]')")
            return
        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        _draw(axes[0], self.curve, "final_delay_s", "median delay of the last word, s")
        _draw(axes[1], self.curve, "open_delay_s", "median delay of the opening, s")
        axes[0].axhline(
            100 * self.whole_video_map, color="grey", linestyle=":", label="whole videos"
        )
        axes[0].legend()
        figure.savefig(out / "curve.png", dpi=120)
        plt.close(figure)


def streaming_report(
    records: Sequence[VideoRecord],
    quiet: Sequence[VideoRecord],
    spec: ModelSpec,
    localizer: Localizer,
) -> StreamingReport:
    """Run the daemon's session over stored features.

    Args:
        records: Videos whose actions are known.
        quiet: Videos without actions, for false alarms.
        spec: The model.
        localizer: The model's localizer.
    """
    events = {record.name: stream_video(record, spec, localizer) for record in (*records, *quiet)}
    n_classes = len(spec.class_names)
    result = streaming_metrics(records, events, n_classes, quiet)
    found = {record.name: whole_video_detections(record, spec, localizer) for record in records}
    curve = delay_accuracy_curve(records, spec, localizer, FREEZES_US, OPEN_SCORES, quiet)
    return StreamingReport(result, map_of(records, found, n_classes).average, tuple(curve))


def _plain(point: CurvePoint) -> dict[str, Any]:
    result = point.result
    return {
        "freeze_s": point.freeze_us / 1e6,
        "open_score": point.open_score,
        "map_last": result.map_last.average,
        "map_closed": result.map_closed.average,
        "precision": result.precision,
        "recall": result.recall,
        "open_delay_s": result.detection_delay.median,
        "final_delay_s": result.final_delay.median,
        "false_alarms_per_hour": result.false_alarms_per_hour,
        "retraction_rate": result.retraction_rate,
    }


def _curve_row(point: CurvePoint) -> str:
    row = _plain(point)
    return (
        f"{row['freeze_s']:>12.2f}{row['open_score']:>9.2f}{100 * row['map_last']:>10.1f}"
        f"{100 * row['map_closed']:>12.1f}{row['precision']:>11.2f}{row['recall']:>8.2f}"
        f"{row['open_delay_s']:>12.2f}{row['final_delay_s']:>13.2f}"
        f"{row['false_alarms_per_hour']:>9.0f}{100 * row['retraction_rate']:>10.0f} %"
    )


def _draw(axes: Any, curve: Sequence[CurvePoint], delay: str, label: str) -> None:
    rows = [_plain(point) for point in curve]
    for open_score in sorted({row["open_score"] for row in rows}):
        own = [row for row in rows if row["open_score"] == open_score]
        accuracy = [100 * row["map_last"] for row in own]
        axes.plot([row[delay] for row in own], accuracy, "o-", label=f"open at {open_score}")
    axes.set_xlabel(label)
    axes.set_ylabel("mAP .1:.7 of last revisions, %")
    axes.grid(alpha=0.3)
    axes.legend()
