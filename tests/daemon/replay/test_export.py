"""Logged rows become the parts of an export, in order, once, and by the wall clock."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.errors import ConfigError
from daemon.replay.export import Exporter
from daemon.replay.period import LoggedRows, Period
from engine.errors import DataError
from engine.files.feature_export import ExportWriter, exported_cameras, read_export
from tests.support.logged_features import FEATURE_ID, LoggedLife
from tests.support.scripted import SmoothingLocalizer, a_spec

SPEC = a_spec()
ANCHOR_US = 1_780_000_000_000_000


def a_life(camera: str = "gate") -> LoggedLife:
    """Two runs; in the first, seven snippets are lost."""
    life = LoggedLife(SPEC, SmoothingLocalizer(), camera=camera)
    for n_lost in (0, 7):
        life.see(np.full((5, 3), 0.25, np.float32), n_lost)
    life.begin_run()
    life.see(np.full((4, 3), 0.75, np.float32))
    return life


def export(folder: Path, logged: list[LoggedRows], period: Period | None = None) -> Exporter:
    exporter = Exporter(ExportWriter(folder), SPEC.grid, FEATURE_ID, period or Period())
    for one in logged:
        exporter.push(one)
    exporter.finish()
    return exporter


def test_an_export_holds_the_rows_of_each_run(tmp_path: Path) -> None:
    done = export(tmp_path, a_life().logged + a_life("door").logged)

    first, second = read_export(tmp_path, "gate")

    assert ("door", "gate") == exported_cameras(tmp_path)
    assert {"gate": 14, "door": 14} == done.n_rows
    assert ("run-1", "run-2") == (first.run, second.run)
    assert [*range(5), *range(12, 17)] == first.indices.tolist()
    assert ANCHOR_US + 12 * SPEC.grid.stride_us == first.starts_us[5]
    np.testing.assert_array_equal(np.full((4, 3), 0.75, np.float16), second.vectors)


def test_rows_that_come_twice_are_exported_once(tmp_path: Path) -> None:
    logged = a_life().logged

    export(tmp_path, logged[:2] + logged)

    first, _ = read_export(tmp_path)
    assert [*range(5), *range(12, 17)] == first.indices.tolist()


def test_without_a_producers_clock_rows_are_placed_by_when_they_were_logged(tmp_path) -> None:
    (first, *_) = a_life().logged
    unknown = replace(first, rows=replace(first.rows, anchor_us=None))

    export(tmp_path, [unknown])

    (part,) = read_export(tmp_path)
    assert first.logged_us == part.starts_us[-1] + SPEC.grid.stride_us


def test_only_the_period_is_exported_and_nothing_is_no_export(tmp_path: Path) -> None:
    export(tmp_path, a_life().logged, Period(since_us=2 * ANCHOR_US))

    with pytest.raises(DataError, match=r"has no export\.json"):
        list(read_export(tmp_path))


def test_another_backbones_features_and_a_second_export_are_refused(tmp_path: Path) -> None:
    (first, *_) = a_life().logged
    foreign = replace(first, rows=replace(first.rows, feature_id="other"))

    with pytest.raises(ConfigError, match=r"made by backbone and grid other, the bundle has"):
        export(tmp_path, [foreign])
    export(tmp_path, [first])
    with pytest.raises(DataError, match="holds an export already"):
        ExportWriter(tmp_path)


@pytest.mark.parametrize("what", ["listing", "version", "archive", "rows"])
def test_a_damaged_export_is_refused_in_a_line(tmp_path: Path, what: str) -> None:
    export(tmp_path, a_life().logged)
    listing, archive = tmp_path / "export.json", tmp_path / "00000.npz"
    match what:
        case "listing":
            listing.write_text("{")
        case "version":
            listing.write_text(json.dumps({"version": 2, "parts": []}))
        case "archive":
            archive.write_bytes(archive.read_bytes()[:99])
        case "rows":
            np.savez(
                archive,
                indices=np.arange(3),
                starts_us=np.arange(3),
                vectors=np.zeros((2, 3), np.float16),
            )

    with pytest.raises(DataError):
        list(read_export(tmp_path))
