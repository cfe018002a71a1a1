"""What a replay tells: tables for the terminal, and for each run a page with old and new lanes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from daemon.replay.camera import ReplayedRun, ReplayModel
from daemon.replay.difference import Compared
from daemon.replay.period import local_text
from daemon.timeline.page import CurveSet, render_timeline
from engine.grid import US_PER_S
from engine.judging.histories import History
from engine.types import ActionEvent, Span

_KINDS = ("equal", "matched", "only old", "only new")
_MAX_GAPS = 10
_NO_FILE_CHARACTER = re.compile(r"[^\w.-]+")


def difference_table(rows: Sequence[Compared], runs: Sequence[ReplayedRun]) -> Table:
    """A row for every event, as it was published and as the replay gives it.

    Spans are in seconds after the row's start, with the score behind.
    """
    anchors = {(run.camera, run.run): run.anchor_us for run in runs}
    table = Table(title="Published (old) and replayed (new)", title_justify="left", box=SIMPLE)
    for column in ("camera", "action"):
        table.add_column(column, overflow="fold", min_width=6)
    table.add_column("")
    table.add_column("start", min_width=10)
    for column in ("old", "new"):
        table.add_column(column, justify="right", min_width=12)
    table.add_column("tIoU", justify="right", no_wrap=True)
    for row in rows:
        event = row.any
        anchor_us = anchors.get((event.camera, event.run))
        table.add_row(
            escape(event.camera),
            escape(event.class_name),
            row.kind,
            moment_text(event.span.start_us, anchor_us),
            *(_span_and_score(one, event.span.start_us) for one in (row.old, row.new)),
            "" if row.tiou is None else f"{row.tiou:.2f}",
        )
    return table


def counts_text(rows: Iterable[Compared]) -> str:
    """How many events there are of each kind, in one line."""
    numbers = Counter(row.kind for row in rows)
    return ", ".join(f"{numbers[kind]} {kind}" for kind in _KINDS)


def gap_lines(runs: Sequence[ReplayedRun]) -> list[str]:
    """A line for each hole in a run's features, and one more if there are many."""
    found = [
        f"{run.camera}: no features from {moment_text(before.end_us, run.anchor_us)} to "
        f"{moment_text(after.start_us, run.anchor_us)} "
        f"({max(after.start_us - before.end_us, 0) / US_PER_S:.1f} s)"
        for run in runs
        for before, after in zip(run.pieces, run.pieces[1:], strict=False)
    ]
    if len(found) <= _MAX_GAPS:
        return found
    return [*found[:_MAX_GAPS], f"and {len(found) - _MAX_GAPS} more gaps"]


def moment_text(stream_us: int, anchor_us: int | None) -> str:
    """A moment of a run: by the local clock if it is known, else in stream time."""
    if anchor_us is not None:
        return local_text(anchor_us + stream_us)
    seconds = stream_us // US_PER_S
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def page_names(runs: Sequence[ReplayedRun]) -> list[str]:
    """A file name for each run's page: its camera's name, numbered if the camera has several."""
    names: list[str] = []
    for run in runs:
        stem = _NO_FILE_CHARACTER.sub("_", run.camera)[:100].strip(".") or "camera"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def page_of(
    run: ReplayedRun, model: ReplayModel, old: Sequence[ActionEvent], new: Sequence[ActionEvent]
) -> str:
    """The page of one run: its time axis begins where the period does."""
    covered = run.covered or Span(0, 1)
    zero_us = min([covered.start_us, *(one.span.start_us for one in (*old, *new))])
    anchor_us = None if run.anchor_us is None else run.anchor_us + zero_us
    spec, life = model.spec, model.spec.tracker_of(run.camera)
    scores = {name: life.open_score_of(i) for i, name in enumerate(spec.class_names)}
    return render_timeline(
        title=run.camera,
        subtitle=f"replayed by {spec.model_id}; run {run.run}",
        duration_us=covered.end_us - zero_us,
        events=[_shifted(one, zero_us, "new") for one in new]
        + [_shifted(one, zero_us, "old") for one in old],
        curves=_curves(run, model, zero_us),
        open_score=spec.tracker.open_score,
        class_open_scores={
            _lane(name, side): value for name, value in scores.items() for side in ("new", "old")
        },
        anchor_us=anchor_us,
        notes=(
            "lanes “new” are this replay, lanes “old” what was published",
            f"{len(run.pieces)} stretch(es) of features",
        ),
    )


def _curves(run: ReplayedRun, model: ReplayModel, zero_us: int) -> CurveSet:
    spec = model.spec
    drawn = run.curves.arrays()
    shown = sorted(model.class_indices or range(len(spec.class_names)))
    return CurveSet(
        times_us=drawn.indices * spec.grid.stride_us + spec.grid.snippet_us // 2 - zero_us,
        scores=drawn.scores[:, shown],
        contrasts=drawn.contrasts[:, shown],
        class_names=tuple(_lane(spec.class_names[index], "new") for index in shown),
        breaks=tuple((np.flatnonzero(np.diff(drawn.indices) > 1) + 1).tolist()),
        attention=drawn.attention,
    )


def _shifted(event: ActionEvent, zero_us: int, side: str) -> ActionEvent:
    """The event on a page whose time begins at ``zero_us``, in its side's lane."""
    return replace(
        event,
        event_id=f"{event.event_id} ({side})",  # both sides may have the very same event
        class_name=_lane(event.class_name, side),
        span=Span(event.span.start_us - zero_us, event.span.end_us - zero_us),
        decided_us=event.decided_us - zero_us,
        anchor_us=None if event.anchor_us is None else event.anchor_us + zero_us,
    )


def _lane(class_name: str, side: str) -> str:
    return f"{class_name} · {side}"


def _span_and_score(event: History | None, zero_us: int) -> str:
    """Start and end in seconds after the row's start, and the score."""
    if event is None:
        return "-"
    start_us, end_us = (
        (moment_us - zero_us) / US_PER_S
        for moment_us in (event.last.span.start_us, event.last.span.end_us)
    )
    return f"{start_us:.1f}..{end_us:.1f} s {event.last.score:.2f}"
