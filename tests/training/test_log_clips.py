"""Ranges of a daemon's feature log become clips that training reads as any other."""

import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, DataError
from engine.files.feature_export import ExportedPart, ExportWriter
from tests.support.tiny_bundle import write_tiny_bundle
from training.loaders.clips import load_clips
from training.loaders.tags import read_tags
from training.log_clips import extract_from_log, parse_range


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return ModelBundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def us(text: str) -> int:
    """Unix microseconds of a moment of the local clock."""
    return round(datetime.fromisoformat(text).astimezone().timestamp() * 1_000_000)


def a_part(bundle: ModelBundle, start: str, n_rows: int, run: str = "r", first: int = 7):
    stride_us = bundle.spec.grid.stride_us
    return ExportedPart(
        camera="gate 3",
        run=run,
        feature_id=bundle.feature_id,
        indices=np.arange(first, first + n_rows),
        starts_us=us(start) + stride_us * np.arange(n_rows),
        vectors=np.arange(n_rows * 3).reshape(n_rows, 3).astype(np.float16),
    )


def an_export(folder: Path, *parts: ExportedPart) -> Path:
    folder.mkdir(exist_ok=True)
    writer = ExportWriter(folder)
    for part in parts:
        writer.add(part)
    writer.finish()
    return folder


def extract(folder: Path, out: Path, bundle: ModelBundle, *ranges: str, tags=("fall",)):
    wanted = [parse_range(text) for text in ranges]
    return extract_from_log(folder, "gate 3", wanted, bundle, out, tags)


def test_a_range_is_a_clip_that_training_reads(tmp_path: Path, bundle: ModelBundle) -> None:
    log = an_export(tmp_path / "log", a_part(bundle, "2026-03-05T14:00:00", 100))
    out = tmp_path / "features"

    found = extract(log, out, bundle, "14:00:01..14:00:05")
    extract(log, out, bundle, "2026-03-05T14:00:06..14:00:08", tags=())
    extract(log, out, bundle, "14:00:09..14:00:10", tags=None)

    name = "gate_3-20260305T140001-140005"
    assert name == found[0][0]
    clips = load_clips(out, out / "tags.csv")
    records = {record.name: record for record in clips.records}
    assert ("fall",) == clips.class_names
    record = records[name]
    assert ((0,), "gate 3") == (record.tags, record.camera)
    assert 0 == record.indices[0]
    assert 3_500_000 < record.duration_us <= 4_000_000
    # Of 0.16 s snippets, the first that begins in the range is number 7, at 1.12 s.
    assert [21.0, 22.0, 23.0] == record.features[0].tolist()
    assert [(), None] == [
        records[f"gate_3-20260305T{end}"].tags for end in ("140006-140008", "140009-140010")
    ]


def test_extracting_a_range_again_keeps_one_row_and_the_rows_of_others(tmp_path, bundle) -> None:
    log = an_export(tmp_path / "log", a_part(bundle, "2026-03-05T14:00:00", 100))
    out = tmp_path / "features"
    out.mkdir()
    (out / "tags.csv").write_text("video,tags\ndoor_1.mp4,open@1.25;shut\n")

    for tag in ("fall", "push"):
        extract(log, out, bundle, "14:00:01..14:00:05", tags=(tag,))

    tags = read_tags(out / "tags.csv")
    assert {"door_1": {"open", "shut"}, "gate_3-20260305T140001-140005": {"push"}} == {
        name: set(row.tags) for name, row in tags.items()
    }
    assert (("open", 1.25),) == tags["door_1"].clicks


def test_runs_of_a_range_lie_beside_each_other_by_the_wall_clock(tmp_path, bundle) -> None:
    log = an_export(
        tmp_path / "log",
        a_part(bundle, "2026-03-05T14:00:00", 10),
        a_part(bundle, "2026-03-05T14:00:03.2", 10, run="later", first=0),
    )

    extract(log, tmp_path / "out", bundle, "14:00..14:01")

    (clip,) = load_clips(tmp_path / "out", tmp_path / "out" / "tags.csv").records
    assert [*range(10), *range(20, 30)] == clip.indices.tolist()


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("14:00..14:05", "2026-03-05T14:00", "2026-03-05T14:05"),
        ("23:59:30..00:01", "2026-03-05T23:59:30", "2026-03-06T00:01"),
        ("2026-03-05T14:00..2026-03-06T09:00", "2026-03-05T14:00", "2026-03-06T09:00"),
        ("2026-03-05T14:00..14:00:01", "2026-03-05T14:00", "2026-03-05T14:00:01"),
    ],
)
def test_ranges_are_of_the_local_clock(text: str, start: str, end: str) -> None:
    found = parse_range(text)

    assert (us(start), us(end)) == found.on(datetime.fromisoformat(start).date())


@pytest.mark.parametrize(
    "text",
    [
        *("", "14:00", "14:00..", "..14:00", "2pm..3pm", "14:00Z..15:00Z"),
        *("14:00..2026-03-05T15:00", "2026-03-05T14:00..2026-03-05T13:00"),
    ],
)
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DataError, match=r"is no range of time .*, wanted 14:00\.\.14:05"):
        parse_range(text)


def test_a_time_of_day_on_two_days_needs_its_date(tmp_path: Path, bundle: ModelBundle) -> None:
    days = ("2026-03-05T14:00:00", "2026-03-06T14:00:00")
    log = an_export(tmp_path / "log", *(a_part(bundle, day, 50, run=day) for day in days))

    with pytest.raises(DataError, match=r"on 2 days, 2026-03-05 to 2026-03-06: write the date"):
        extract(log, tmp_path / "out", bundle, "14:00..14:05")
    ((name, _),) = extract(log, tmp_path / "out", bundle, "2026-03-06T14:00..14:05")
    assert name.startswith("gate_3-20260306T")


def test_mistakes_are_told_in_a_line(tmp_path: Path, bundle: ModelBundle) -> None:
    log = an_export(tmp_path / "log", a_part(bundle, "2026-03-05T14:00:00", 50))
    out = tmp_path / "out"

    with pytest.raises(DataError, match=r"no features from 15:00:00 on .* 2026-03-05 14:00:00 to"):
        extract(log, out, bundle, "15:00..15:05")
    with pytest.raises(DataError, match="holds no camera gate 4, only gate 3"):
        extract_from_log(log, "gate 4", [], bundle, out, None)
    with pytest.raises(DataError, match="--tag 'a;b': wanted a class name without ';'"):
        extract(log, out, bundle, "14:00..14:05", tags=("a;b",))


def test_another_bundles_features_do_not_mix(tmp_path: Path, bundle: ModelBundle) -> None:
    log = an_export(tmp_path / "log", a_part(bundle, "2026-03-05T14:00:00", 50))
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"extractor_sha256": "of another"}')

    with pytest.raises(BundleError, match="features of two extractors do not mix"):
        extract(log, out, bundle, "14:00..14:05")
