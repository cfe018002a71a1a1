"""``make overhead``: the daemon with 1 to 256 cameras, and no networks → reports/overhead.md.

Each number of cameras has a process of its own, for memory is never given back whole.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.report import commit, cpu
from tests.overhead.measure import Cost, measured

N_CAMERAS = (1, 16, 64, 256)
_WHAT = """\
The whole daemon in one process, with a journal in memory. Each camera has a partition of its own
and sends a chunk of a second each second, each at its own moment; every third second something
happens in it. Decoders and networks are stand-ins that cost next to nothing (2 x 2 pixels, a mean
colour), so what is left is what the daemon itself does: queues, snippets, 6 windows a second,
proposals, events, journal, statuses, metrics. With a single camera, what the daemon does anyway
(health, statuses) falls on its chunks alone.

Idle cameras have sent three chunks and send nothing more.
"""


def main() -> None:
    """Measure each number of cameras in turn, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.overhead", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--report", type=Path, default=Path("reports/overhead.md"))
    parser.add_argument("--only", type=int, help="measure so many cameras, and print JSON")
    asked = parser.parse_args()
    if asked.only is not None:
        sys.stdout.write(json.dumps(asyncio.run(measured(asked.only, asked.seconds)).plain()))
        return
    costs = [_in_a_process(n_cameras, asked.seconds) for n_cameras in N_CAMERAS]
    page = _page(costs, asked.seconds)
    asked.report.write_text(page, encoding="utf-8")
    sys.stdout.write(page)


def _in_a_process(n_cameras: int, seconds: int) -> Cost:
    command = [sys.executable, "-m", "tests.overhead"]
    command += ["--only", str(n_cameras), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(**json.loads(done.stdout))


def _page(costs: list[Cost], seconds: int) -> str:
    first, most = costs[0], costs[-1]
    idle_mb = (most.idle_mb - first.idle_mb) / (most.n_cameras - first.n_cameras)
    lines = [
        "# What a camera costs besides decoding and networks",
        "",
        f"- date: {datetime.now(UTC):%Y-%m-%d}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- command: `python -m tests.overhead --seconds {seconds}`",
        "",
        _WHAT,
        "| cameras | CPU a chunk, ms | loop late by, p50 / p99 / worst, ms | memory, MB, idle |",
        "|---:|---:|---:|---:|",
        *(
            f"| {cost.n_cameras} | {cost.cpu_ms:.2f} | {cost.late_p50_ms:.1f} / "
            f"{cost.late_p99_ms:.1f} / {cost.late_most_ms:.1f} | {cost.idle_mb:.0f} |"
            for cost in costs
        ),
        "",
        f"An idle camera takes {idle_mb:.2f} MB.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
