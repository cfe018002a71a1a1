"""What the demo says at the end: what was found, missed and false, in words and as JSON. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from daemon.demo.score import Comparison, Found
from daemon.localize import clock_text
from engine.judging.pairing import FOUND_TIOU
from engine.types import Span

_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class SceneResult:
    """One scene's outcome.

    Attributes:
        seed: The seed that the scene was drawn from.
        camera: Name of the camera that saw it.
        duration_us: Its length in microseconds.
        comparison: Its events compared with what happened.
        n_straight_line: How many events the straight line gives for the same clip.
        video: The video file.
        timeline: The timeline page.
    """

    seed: int
    camera: str
    duration_us: int
    comparison: Comparison
    n_straight_line: int
    video: Path
    timeline: Path

    @property
    def n_live(self) -> int:
        """How many events stood at the end, which means that they were not taken back."""
        return len(self.comparison.found) + len(self.comparison.false)


def event_table(comparison: Comparison) -> Table:
    """A table of every action and every false event, in order of time."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("action", overflow="fold")
    for column in ("truth", "event", "tIoU", "opened", "final"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = [(pair.truth.span, _found_row(pair)) for pair in comparison.found]
    rows += [
        (one.span, ("[red]missed[/]", escape(one.class_id), _clock(one.span), *[""] * 4))
        for one in comparison.missed
    ]
    for event in comparison.false:
        span, name = event.last.span, escape(event.last.class_name)
        rows.append((span, ("[yellow]false[/]", name, "", _clock(span), *[""] * 3)))
    for _, row in sorted(rows):
        table.add_row(*row)
    return table


def _found_row(pair: Found) -> tuple[str, ...]:
    final_us = pair.final_delay_us
    return (
        "[green]found[/]",
        escape(pair.truth.class_id),
        _clock(pair.truth.span),
        _clock(pair.event.last.span),
        f"{pair.tiou:.2f}",
        f"{pair.open_delay_us / 1e6:+.1f} s",
        f"{final_us / 1e6:+.1f} s" if final_us is not None else "at its end",
    )


def _clock(span: Span) -> str:
    return f"{clock_text(span.start_us)}-{clock_text(span.end_us)}"


def sentence(comparison: Comparison) -> str:
    """The outcome in one sentence."""
    taken_back = comparison.n_taken_back
    return (
        f"{len(comparison.found)} of {comparison.n_truth} actions found, "
        f"{len(comparison.missed)} missed, {len(comparison.false)} false"
        f"{f', {taken_back} taken back' if taken_back else ''}: "
        f"recall {_number(comparison.recall)}, precision {_number(comparison.precision)} "
        f"at tIoU {FOUND_TIOU}; median delay {_seconds(comparison.open_delay_s)} from start to "
        f"opening, {_seconds(comparison.final_delay_s)} from end to the last word"
    )


def scene_table(results: Sequence[SceneResult], whole: Comparison) -> Table:
    """A table with a row for each scene, and one for all of them together."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    columns = [("seed", "total"), ("camera", "")]
    columns += list(zip(_COLUMNS, _scene_row(whole), strict=True))
    for name, foot in columns:
        table.add_column(name, foot, justify="left" if name == "seed" else "right", no_wrap=True)
    for result in results:
        table.add_row(str(result.seed), result.camera, *_scene_row(result.comparison))
    return table


_COLUMNS = ("found", "missed", "false", "recall", "precision", "opened", "final")


def _scene_row(comparison: Comparison) -> tuple[str, ...]:
    return (
        str(len(comparison.found)),
        str(len(comparison.missed)),
        str(len(comparison.false)),
        _number(comparison.recall),
        _number(comparison.precision),
        _seconds(comparison.open_delay_s),
        _seconds(comparison.final_delay_s),
    )


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1f} s"


def summary(model: str, results: Sequence[SceneResult], whole: Comparison) -> dict[str, Any]:
    """All figures as JSON; a share of nothing is null."""
    return {
        "model": model,
        "match_tiou": FOUND_TIOU,
        "total": _figures(whole),
        "scenes": [_scene(result) for result in results],
    }


def _scene(result: SceneResult) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "seed": result.seed,
        "camera": result.camera,
        "duration_s": result.duration_us / 1e6,
        "live_events": result.n_live,
        "offline_events": result.n_straight_line,
        **_figures(comparison),
        "found_actions": [_found(pair) for pair in comparison.found],
        "missed_actions": [
            {"label": one.class_id, "truth_s": _s(one.span)} for one in comparison.missed
        ],
        "false_events": [
            {"label": one.last.class_name, "event_s": _s(one.last.span), "score": one.last.score}
            for one in comparison.false
        ],
        "video": str(result.video),
        "timeline": str(result.timeline),
    }


def _figures(comparison: Comparison) -> dict[str, Any]:
    return {
        "actions": comparison.n_truth,
        "found": len(comparison.found),
        "missed": len(comparison.missed),
        "false": len(comparison.false),
        "taken_back": comparison.n_taken_back,
        "recall": comparison.recall,
        "precision": comparison.precision,
        "median_open_delay_s": comparison.open_delay_s,
        "median_final_delay_s": comparison.final_delay_s,
    }


def _found(pair: Found) -> dict[str, Any]:
    final_us = pair.final_delay_us
    return {
        "label": pair.truth.class_id,
        "truth_s": _s(pair.truth.span),
        "event_s": _s(pair.event.last.span),
        "tiou": pair.tiou,
        "score": pair.event.last.score,
        "open_delay_s": pair.open_delay_us / 1e6,
        "final_delay_s": None if final_us is None else final_us / 1e6,
    }


def _s(span: Span) -> list[float]:
    return [span.start_us / 1e6, span.end_us / 1e6]
