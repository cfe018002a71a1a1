"""`s2netd features export`: the feature log → files, for `s2net extract --from-log`."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rich.console import Console

from daemon.config import load
from daemon.errors import ConfigError
from daemon.journal.base import FeatureRows
from daemon.library_lines import silence_kafka_client
from daemon.models.reading import read_model
from daemon.outputs import writing_to
from daemon.replay.log import FeatureLog, LogOptions
from daemon.replay.period import LoggedRows, Period
from daemon.replay.run import changed_model
from engine.bundle.model_bundle import ModelBundle
from engine.errors import DataError
from engine.files.feature_export import ExportedPart, ExportWriter
from engine.grid import Grid

_PART_ROWS = 8192  # 16 MB of 1024 numbers


@dataclass(slots=True)
class _Run:
    """Rows of one run of a camera that wait to become a part."""

    camera: str
    run: str
    next_index: int = 0
    indices: list[int] = field(default_factory=list)
    starts_us: list[int] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float16]] = field(default_factory=list)


class Exporter:
    """Rows of any cameras, in the order of the log → parts of an export.

    Args:
        writer: Writes the parts.
        grid: The bundle's.
        feature_id: What made the features; others are refused.
        period: Rows outside of it are left out.

    Attributes:
        n_rows: Rows that were exported, by camera.
    """

    def __init__(self, writer: ExportWriter, grid: Grid, feature_id: str, period: Period) -> None:
        self._writer = writer
        self._grid = grid
        self._feature_id = feature_id
        self._period = period
        self._runs: dict[str, _Run] = {}
        self.n_rows: dict[str, int] = {}

    def push(self, logged: LoggedRows) -> None:
        """Take in the next rows.

        Raises:
            ConfigError: Another backbone made rows of the period.
            OSError: A part cannot be written.
        """
        rows = logged.rows
        is_asked_for = self._period.holds(logged.moment_us(self._grid))
        if not is_asked_for or not len(rows.vectors):
            return
        if rows.feature_id != self._feature_id:
            raise ConfigError(
                f"camera {rows.camera}: features of run {rows.run} were made by backbone and grid "
                f"{rows.feature_id[:12] or 'unknown'}, the bundle has {self._feature_id[:12]}: "
                "name the bundle that made them with --bundle, or another period"
            )
        run = self._runs.get(rows.camera)
        if run is None or run.run != rows.run:
            if run is not None:
                self._write(run)
            run = self._runs[rows.camera] = _Run(rows.camera, rows.run)
        self._add(run, rows, logged)

    def finish(self) -> None:
        """Write what waits; without any rows, nothing is written.

        Raises:
            OSError: It cannot be written.
        """
        for run in self._runs.values():
            self._write(run)
        if self.n_rows:
            self._writer.finish()

    def _add(self, run: _Run, rows: FeatureRows, logged: LoggedRows) -> None:
        n_seen = max(run.next_index - rows.first_index, 0)  # without transactions some come twice
        for offset in range(n_seen, len(rows.vectors)):
            index = rows.first_index + offset
            run.indices.append(index)
            run.starts_us.append(_start_us(logged, index, self._grid))
            run.vectors.append(rows.vectors[offset])
        run.next_index = max(run.next_index, rows.end_index)
        if len(run.indices) >= _PART_ROWS:
            self._write(run)

    def _write(self, run: _Run) -> None:
        if not run.indices:
            return
        part = ExportedPart(
            run.camera,
            run.run,
            self._feature_id,
            np.array(run.indices, np.int64),
            np.array(run.starts_us, np.int64),
            np.stack(run.vectors),
        )
        self._writer.add(part)
        self.n_rows[run.camera] = self.n_rows.get(run.camera, 0) + len(run.indices)
        run.indices, run.starts_us, run.vectors = [], [], []


def run_export(options: LogOptions, console: Console) -> None:
    """Write the features of a period to a folder, and say how many there are of each camera.

    Raises:
        ConfigError: There is no feature log, none of this period, another backbone made it, or
            the folder cannot be written.
        TransportError: The broker cannot be reached.
        BundleError: The bundle cannot be used.
    """
    silence_kafka_client()
    config = load(options.config)
    log = FeatureLog(config)
    bundle = read_model(changed_model(config.model, options.model)).bundle
    with writing_to(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        exporter = asyncio.run(_exported(log, bundle, options))
    if not exporter.n_rows:
        raise ConfigError(f"{log.topic} holds no such features of {options.period.text}")
    stride_s = bundle.spec.grid.stride_us / 1e6
    for camera, n_rows in sorted(exporter.n_rows.items()):
        console.print(
            f"{camera}: {n_rows} features, {n_rows * stride_s:.0f} s",
            markup=False,
            highlight=False,
        )


async def _exported(log: FeatureLog, bundle: ModelBundle, options: LogOptions) -> Exporter:
    try:
        writer = ExportWriter(options.out)
    except DataError as error:
        raise ConfigError(str(error)) from error
    exporter = Exporter(writer, bundle.spec.grid, bundle.feature_id, options.period)
    wide = options.period.widened()  # clocks of cameras and daemons differ
    async for logged in log.features(wide, options.cameras, lambda _n, _of: None):
        exporter.push(logged)
    exporter.finish()
    return exporter


def _start_us(logged: LoggedRows, index: int, grid: Grid) -> int:
    """Unix time of a row's first frame, or about that where no producer tells it."""
    rows = logged.rows
    if rows.anchor_us is not None:
        return rows.anchor_us + grid.snippet_start_us(index)
    return logged.logged_us - (rows.end_index - index) * grid.stride_us
