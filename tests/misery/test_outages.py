"""What is told of an outage → what does not hold."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from tests.faults.checker import Verdict
from tests.misery.outage_report import DEADLINE_S, MOST_LINES, Outage, Seen, outage_page

AWAY = Outage("broker away", "topic", "broker", lambda _ground: nullcontext(), 600, 30)
FINE = Seen(AWAY, 600, n_looks=500, n_lines=MOST_LINES, stopped_s=DEADLINE_S, result="success")


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        (replace(FINE, untrue=["/readyz says {}"]), "broker away: 1 of 500 looks: /readyz says"),
        (replace(FINE, n_looks=0), "broker away: nobody looked"),
        (replace(FINE, n_lines=MOST_LINES + 1), f"broker away: {MOST_LINES + 1} log lines"),
        (replace(FINE, result="timeout"), "broker away: stopped in 20.0 s with the result 'time"),
        (replace(FINE, stopped_s=59.0), "broker away: stopped in 59.0 s"),
    ],
)
def test_what_does_not_hold_is_a_complaint(seen: Seen, complaint: str) -> None:
    (told,) = seen.complaints()

    assert told.startswith(complaint)
    assert not list(FINE.complaints())


def test_the_page_tells_each_outage() -> None:
    page = "\n".join(outage_page([FINE], {"topic": Verdict(events=7)}, []))

    assert "All rules hold." in page
    assert (
        "| broker away | topic | 600 s | 0.0 s | 500 | 0 | 30 | 0.0 s | 20.0 s | success |" in page
    )
    assert "| topic | 7 |" in page
