"""What was played → a page with a picture."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tests.clock.play import DatedChunk
from tests.clock.trouble import DAY_US, FPS, HOUR_US, World
from tests.faults.report import commit, cpu

MOST_OFF_MS = 300
_WHAT = """\
A camera is watched in simulated time, and its pictures are dated by the two laws that
`s2netd produce` uses (`engine/video/steps.py`, `engine/video/wall_clock.py`). Its quartz is off by
up to {ppm:g} ppm, which changes with the time of day; each picture is on the way for 60 ms and as
much again by chance, 40 ms on average. Once an hour, on average, something happens: the clock of
host or camera is set, stamps step, the network stands still for up to 6 s and then brings all at
once, or the camera is away for up to 20 s. Twice all clocks are set by an hour, as those that keep
local time are. Otherwise host and camera are never wrong by nearly the same, for then nothing
tells which of them is right. Once, the camera sends its wall clock's time too (RTP sender
reports). Four pictures a second are played.

The error is that of the worst picture of each chunk of {chunk:g} s: the date in the chunk less the
time at which the picture was taken, by the host's clock as it is when the chunk is complete.
"""
_COLUMNS = (
    "camera",
    "pictures",
    "runs",
    "worst error, ms",
    "99.9 % within, ms",
    "half within, ms",
    f"chunks off by more than {MOST_OFF_MS} ms",
)


@dataclass(frozen=True, slots=True)
class Played:
    """A world and how its pictures were dated."""

    world: World
    chunks: tuple[DatedChunk, ...]

    @property
    def name(self) -> str:
        """What is particular to it."""
        return "with sender reports" if self.world.says_when else "without sender reports"


def write(path: Path, played: Sequence[Played]) -> None:
    """Write the page, and the picture beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(path, played), encoding="utf-8")
    draw(path.with_suffix(".png"), played)


def page(path: Path, played: Sequence[Played]) -> str:
    """The page, in Markdown."""
    world = played[0].world
    lines = [
        "# A month of trouble with clocks",
        "",
        f"- date: {datetime.now(UTC):%Y-%m-%d}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- command: `python -m tests.clock --days {world.days:g} --seed {world.seed}`",
        "",
        _WHAT.format(ppm=world.camera_ppm, chunk=2),
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---|---|---|---|---|---|",
        *(_row(one) for one in played),
        "",
        "| what happened | times |",
        "|---|---|",
        *(f"| {kind} | {n} |" for kind, n in sorted(_kinds(world).items())),
        "",
        f"![the error over the days]({path.with_suffix('.png').name})",
        "",
    ]
    return "\n".join(lines)


def _kinds(world: World) -> Counter[str]:
    return Counter(mishap.kind for mishap in world.mishaps)


def _row(played: Played) -> str:
    off_ms = np.abs([chunk.off_us for chunk in played.chunks]) / 1000
    cells = (
        played.name,
        len(off_ms) * 2 * FPS,
        sum(chunk.begins_run for chunk in played.chunks),
        f"{off_ms.max():.0f}",
        f"{np.quantile(off_ms, 0.999):.0f}",
        f"{np.median(off_ms):.0f}",
        int((off_ms > MOST_OFF_MS).sum()),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def draw(path: Path, played: Sequence[Played]) -> None:
    """The least and the largest error of each hour, and what happened in it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        sys.stderr.write("no picture: pip install matplotlib\n")
        return
    figure = Figure(figsize=(11, 2.6 * len(played) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(played), sharex=True, squeeze=False)[:, 0]
    for one, axis in zip(played, axes, strict=True):
        hours = np.array([chunk.at_us // HOUR_US for chunk in one.chunks])
        off_ms = np.array([chunk.off_us for chunk in one.chunks]) / 1000
        starts = np.flatnonzero(np.diff(hours, prepend=-1))
        days = hours[starts] * HOUR_US / DAY_US
        least, most = (f.reduceat(off_ms, starts) for f in (np.minimum, np.maximum))
        axis.fill_between(days, least, most, step="post", color="#1f77b4", linewidth=0.5)
        for limit_ms in (-MOST_OFF_MS, MOST_OFF_MS):
            axis.axhline(limit_ms, color="#d62728", linewidth=0.8)
        for n, kind in enumerate(sorted(_kinds(one.world))):
            at = [m.at_us / DAY_US for m in one.world.mishaps if m.kind == kind]
            axis.plot(at, [-345 - 22 * n] * len(at), "|", markersize=5, label=kind)
        axis.set_ylabel("error, ms")
        axis.set_title(one.name, loc="left", fontsize=10)
    axes[-1].set_xlabel("days")
    axes[0].legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.3))
    figure.savefig(path, dpi=110)
