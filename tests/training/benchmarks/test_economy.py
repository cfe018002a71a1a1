"""What economies cost, measured on a few videos: the same events as a daemon on that rung."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.cas import BackendLocalizer
from engine.errors import DataError
from engine.features import BackendFeatureExtractor
from engine.session import StreamSession
from engine.straight_line import localize_frames
from engine.video.frames import read_video
from tests.support.footage import BUSY, colour_clip
from tests.support.tiny_bundle import write_tiny_bundle
from training.benchmarks.economy import ECONOMIES, measure_economies, table

pytestmark = pytest.mark.openvino


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    colour_clip(tmp_path / "videos" / "busy.mp4", BUSY)
    colour_clip(tmp_path / "videos" / "empty.mp4", [(6, 0, 0)])
    acted = [{"segment": [1.2, 3.2], "label": "red"}]
    database = {
        "busy": {"subset": "testing", "camera": "door", "annotations": acted},
        "empty": {"subset": "quiet", "camera": "door", "duration": 6, "annotations": []},
    }
    content = {"classes": ["red", "green"], "database": database}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


def test_each_economy_is_scored_on_each_subset(tmp_path: Path, scenes: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    told: list[tuple[int, int]] = []
    subsets = ("testing", "quiet")
    rows = measure_economies(str(bundle), scenes, subsets, 1, lambda *n: told.append(n))

    looked = {(row.economy, row.subset): row.looked for row in rows}
    assert {(name, subset) for name in ECONOMIES for subset in subsets} == set(looked)
    assert [(1, 2), (2, 2)] == told
    assert 1 == looked["full", "testing"] == looked["full", "quiet"]
    assert looked["half", "testing"] == pytest.approx(0.5, abs=0.02)
    assert looked["quarter", "testing"] == pytest.approx(0.25, abs=0.02)
    assert looked["gated", "quiet"] < looked["full, motion gate", "quiet"] + 0.01 < 0.2
    assert table(rows).count("\n") == 1 + len(rows)


@pytest.mark.parametrize("economy", ECONOMIES)
def test_events_are_those_of_a_daemon_with_that_economy(
    tmp_path: Path, scenes: Path, economy: str
) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    rows = measure_economies(str(path), scenes, ("testing",), 1)

    bundle = ModelBundle.load(path)
    spec = replace(bundle.spec, economy=ECONOMIES[economy])
    batches = read_video(scenes / "videos" / "busy.mp4", spec.geometry, spec.grid)
    backbone, head = (
        open_backend("openvino", network, precision="f32", threads=1)
        for network in (bundle.backbone_path, bundle.localizer_path)
    )
    found = localize_frames(
        batches,
        StreamSession("door", "busy", spec),
        BackendFeatureExtractor(backbone, spec.feature_dim),
        BackendLocalizer(head),
    )

    (row,) = (row for row in rows if row.economy == economy)
    opened = {event.event_id for event in found.revisions}
    assert len(opened) == row.result.n_events > 0


def test_a_subset_that_is_not_there_is_named(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        measure_economies(str(write_tiny_bundle(tmp_path / "tiny")), scenes, ("nothing",), 1)
