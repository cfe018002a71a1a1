"""Events of the timeline page in words: each in a line, and all of them in a table."""

from daemon.timeline.text import between, clock, count, delay, score, text, wall_clock
from engine.judging.histories import History
from engine.types import ActionEvent, Reason

# A long event may have a revision for each hop; the whole list is in the revisions of events.
_MAX_REVISIONS = 12
_FIRST_REVISIONS = 4

_REASONS = {
    Reason.SCORE: "scores",
    Reason.FROZEN: "end settled",
    Reason.GAP: "footage missing",
    Reason.END: "stream ended",
    Reason.VANISHED: "scores fell",
    Reason.MODEL: "model changed",
    Reason.SILENT: "camera silent",
}
_COLUMNS = ("Action", "Start", "End", "Length", "Score", "State", "First reported", "Decided")


def summary(event: History) -> str:
    """An event in one line, not escaped."""
    last = event.last
    return (
        f"{last.class_name}, {between(last.span.start_us, last.span.end_us)}, "
        f"score {score(last.score)}, {event.state} ({_REASONS[last.reason]}), "
        f"first reported at {clock(event.first.decided_us)}, "
        f"decided {delay(event.wait_us)} its end, "
        f"{count(len(event.revisions), 'revision')}"
    )


def event_table(events: list[History], anchor_us: int | None) -> str:
    """Every event as a row, and its revisions as a row that unfolds."""
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    rows = "".join(_row(i, event, anchor_us) for i, event in enumerate(events))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(number: int, event: History, anchor_us: int | None) -> str:
    last = event.last
    known_us = anchor_us if last.anchor_us is None else last.anchor_us
    when = wall_clock(known_us, last.span.start_us)
    cells = (
        f"<bdi>{text(last.class_name)}</bdi>",
        clock(last.span.start_us) + (f"<small>{when}</small>" if when else ""),
        clock(last.span.end_us),
        f"{last.span.duration_us / 1_000_000:.1f} s",
        score(last.score),
        f"{event.state}<small>{_REASONS[last.reason]}</small>",
        clock(event.first.decided_us),
        f"{clock(last.decided_us)}<small>{delay(event.wait_us)} its end</small>",
    )
    columns = "".join(
        f'<td data-column="{name}"><div>{cell}</div></td>'
        for name, cell in zip(_COLUMNS, cells, strict=True)
    )
    return (
        f'<tr id="event-{number}" class="{event.state}">{columns}</tr>'
        f'<tr class="history"><td colspan="{len(_COLUMNS)}">{_revisions(event)}</td></tr>'
    )


def _revisions(event: History) -> str:
    rows = [_revision(revision) for revision in event.revisions]
    if len(rows) > _MAX_REVISIONS:
        left_out = len(rows) - _MAX_REVISIONS
        rows[_FIRST_REVISIONS : _FIRST_REVISIONS + left_out] = [
            f'<li class="more">{count(left_out, "revision")} left out here</li>'
        ]
    return (
        f"<details><summary>{count(len(event.revisions), 'revision')}</summary>"
        f"<ol>{''.join(rows)}</ol>"
        f'<p class="id">event <code>{text(event.last.event_id)}</code>, '
        f"model <code>{text(event.last.model_id)}</code></p></details>"
    )


def _revision(revision: ActionEvent) -> str:
    span = between(revision.span.start_us, revision.span.end_us)
    return (
        f"<li><b>{revision.phase.value}</b> at {clock(revision.decided_us)}: {span}, "
        f"score {score(revision.score)} ({_REASONS[revision.reason]})</li>"
    )
