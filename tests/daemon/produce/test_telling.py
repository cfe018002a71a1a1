"""What a person at a terminal reads of what `produce` logs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from daemon.produce.telling import console_log

ROUTE = {"camera": "gate", "source": "rtsp://***@h/1"}
STATUS = {
    "camera": "gate",
    "state": "live",
    "fps": 24.96,
    "lag_s": 1.44,
    "spooled_chunks": 2,
    "spooled_bytes": 700_000,
    "dropped_chunks": 3,
    "dropped_s": 3.0,
}


@pytest.mark.parametrize(
    ("event", "fields", "said"),
    [
        ("produce.note", {**ROUTE, "said": "re-encoded"}, "rtsp://***@h/1: re-encoded"),
        ("produce.connected", ROUTE, "rtsp://***@h/1: connected"),
        (
            "produce.away",
            {**ROUTE, "reason": "rtsp://***@h/1: refused", "again_in_s": 4.0},
            "rtsp://***@h/1: refused; connecting again in 4 s",
        ),
        (
            "produce.not_sent",
            {**ROUTE, "chunks": 3, "seconds": 3.2, "bytes": 9, "reason": "the spool was full"},
            "gate: 3 chunks, 3.2 s of video, were not sent: the spool was full",
        ),
        (
            "produce.status",
            STATUS,
            "gate: live, fps 25.0, lag 1.4 s, spooled 2 chunks (0.7 MB), dropped 3 chunks (3.0 s)",
        ),
        (
            "produce.status",
            {**STATUS, "state": "opening", "fps": None, "lag_s": None},
            "gate: opening, fps -, lag -, spooled 2 chunks (0.7 MB), dropped 3 chunks (3.0 s)",
        ),
        (
            "outage.began",
            {"waiting_for": "broker", "what": ["a", "b"], "reason": "[refused]", "for_s": 3},
            "waiting for the broker since 3 s: a, b: [refused]",
        ),
        (
            "outage.over",
            {"waited_for": "disk", "after_s": 61},
            "the disk is there again, after 61 s",
        ),
        ("daemon.cut_short", {"after_s": 1.8}, "s2netd: daemon.cut_short after_s=1.8"),
    ],
)
def test_each_event_is_a_sentence(event: str, fields: dict[str, object], said: str) -> None:
    out = io.StringIO()
    console_log(Console(file=out, width=40)).warning(event, **fields)

    assert f"{said}\n" == out.getvalue()


def test_a_flood_is_counted(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        log = console_log(Console(file=out))
        for _ in range(50):
            log.warning("produce.note", **ROUTE, said="left out up to the next key frame")

    assert 6 == len((tmp_path / "out").read_text().splitlines())
