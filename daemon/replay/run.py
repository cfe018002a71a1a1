"""`s2netd replay`: the feature log through a bundle's localizer, and what that changes."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from daemon.config import Config, ModelConfig, load, parse_model
from daemon.errors import ConfigError
from daemon.library_lines import silence_kafka_client
from daemon.models.reading import ReadModel, open_localizer, read_model
from daemon.outputs import write_whole, writing_to
from daemon.replay.batches import Replay
from daemon.replay.camera import ReplayedRun, ReplayModel
from daemon.replay.difference import Compared, compared, within
from daemon.replay.log import FeatureLog, LogOptions, OnRead
from daemon.replay.period import Period, local_text
from daemon.replay.report import (
    counts_text,
    difference_table,
    gap_lines,
    page_names,
    page_of,
)
from daemon.wire.records import event_line
from engine.grid import US_PER_S
from engine.types import ActionEvent


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay gave.

    Attributes:
        runs: The runs that have footage in the period.
        old: What was published of each.
        new: What the replay gives of each.
        replayed_us: Footage put through, of all cameras together.
        spent_s: Seconds that it took.
    """

    runs: list[ReplayedRun]
    old: list[list[ActionEvent]]
    new: list[list[ActionEvent]]
    replayed_us: int
    spent_s: float

    @property
    def rows(self) -> list[Compared]:
        """Every event of either side."""
        return compared(_flat(self.old), _flat(self.new))

    @property
    def real_time_factor(self) -> float:
        """Seconds of one camera's footage in a second of work."""
        return self.replayed_us / US_PER_S / max(self.spent_s, 1e-9)


def run_replay(options: LogOptions, console: Console, notes: Console) -> None:
    """Replay; write events.jsonl, difference.json and the pages; print tables.

    Args:
        options: What the command line says.
        console: Gets the tables.
        notes: Gets progress and gaps.

    Raises:
        ConfigError: There is no feature log, none of this period, or another backbone made it.
        TransportError: The broker cannot be reached.
        BundleError, DeviceError: The bundle cannot be used.
    """
    silence_kafka_client()
    config = load(options.config)
    log = FeatureLog(config)
    read = read_model(changed_model(config.model, options.model))
    with writing_to(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    done = asyncio.run(replayed(log, read, options.period, options.cameras, notes))
    model = model_of(read)
    _write(done, model, config, options.out)
    console.print(difference_table(done.rows, done.runs))
    for line in gap_lines(done.runs):
        notes.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(counts_text(done.rows), markup=False, highlight=False)
    console.print(
        f"wrote {options.out / 'events.jsonl'}, difference.json and {len(done.runs)} timeline "
        f"page(s) in {options.out}/; {done.replayed_us / US_PER_S:.0f} s of footage at "
        f"{done.real_time_factor:.0f}x real time",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def changed_model(config: ModelConfig, changes: dict[str, object]) -> ModelConfig:
    """The configuration's model section, with what the command line says instead.

    Raises:
        ConfigError: A value cannot be.
    """
    return parse_model({**config.model_dump(exclude_unset=True), **changes})


def model_of(read: ReadModel) -> ReplayModel:
    """What a replay needs to know of a bundle that was read."""
    return ReplayModel(read.spec, read.class_indices, read.feature_id)


async def replayed(
    log: FeatureLog, read: ReadModel, period: Period, cameras: Sequence[str], notes: Console
) -> Replayed:
    """Read the log once, and put it through.

    Raises:
        ConfigError, TransportError, DeviceError: As of ``run_replay``.
    """
    started_s = time.perf_counter()
    # A camera's mean is the mean of all that it saw, so all of the log is needed for it.
    needed = Period() if read.spec.camera_mean is not None else period.widened()
    with open_localizer(read) as localizer, _bar(notes) as bar:
        replay = Replay(model_of(read), localizer, period, read.config.max_batch)
        async for logged in log.features(needed, cameras, bar.of(replay)):
            replay.push(logged)
        replay.settle()
    runs = replay.runs
    _check_found(log, replay, period, cameras)
    spent_s = time.perf_counter() - started_s
    old = await log.events(period.widened(), cameras or replay.cameras)
    return Replayed(
        runs,
        [[one for one in _within(run, old) if one.run == run.run] for run in runs],
        [_within(run, run.revisions) for run in runs],
        replay.replayed_us,
        spent_s,
    )


def _within(run: ReplayedRun, revisions: Sequence[ActionEvent]) -> list[ActionEvent]:
    """Revisions of the run's events that touch the period."""
    mine = [one for one in revisions if (one.camera, one.run) == (run.camera, run.run)]
    return within(mine, run.covered) if run.covered is not None else []


def _check_found(log: FeatureLog, replay: Replay, period: Period, cameras: Sequence[str]) -> None:
    """Refuse to report nothing.

    Raises:
        ConfigError: There are no features of a wanted camera, or none in the period.
    """
    missing = [camera for camera in cameras if camera not in replay.cameras]
    if missing:
        raise ConfigError(f"{log.topic} holds no features of camera {', '.join(missing)}")
    if replay.runs:
        return
    if replay.first_us is None or replay.last_us is None:
        raise ConfigError(f"{log.topic} holds no features of {period.text}")
    raise ConfigError(
        f"{log.topic} holds no features of {period.text}; what was read is from "
        f"{local_text(replay.first_us)} to {local_text(replay.last_us)}"
    )


def _write(done: Replayed, model: ReplayModel, config: Config, out: Path) -> None:
    lines = [event_line(revision, site=config.site) + b"\n" for revision in _flat(done.new)]
    write_whole(out / "events.jsonl", b"".join(lines))
    plain = [row.to_json() for row in done.rows]
    write_whole(out / "difference.json", (json.dumps(plain, indent=1) + "\n").encode())
    for name, run, old, new in zip(
        page_names(done.runs), done.runs, done.old, done.new, strict=True
    ):
        write_whole(out / f"{name}.html", page_of(run, model, old, new).encode())


def _flat(runs: Sequence[Sequence[ActionEvent]]) -> list[ActionEvent]:
    return [one for run in runs for one in run]


class _Bar:
    """How far the log is read, and how fast footage goes through."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("replaying", total=None, speed="")

    def of(self, replay: Replay) -> OnRead:
        """Shows the progress of a replay."""
        started_s = time.perf_counter()

        def on_read(n_read: int, n_records: int) -> None:
            spent_s = max(time.perf_counter() - started_s, 1e-9)
            speed = replay.replayed_us / US_PER_S / spent_s
            self._progress.update(
                self._task, completed=n_read, total=n_records, speed=f"{speed:.0f}x real time"
            )

        return on_read


@contextmanager
def _bar(console: Console) -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)
