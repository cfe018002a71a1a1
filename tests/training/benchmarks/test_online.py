"""Online students beside their teachers: all measured, nothing trained twice."""

from dataclasses import replace

import numpy as np
import pytest

from engine.bundle.model_bundle import ModelBundle
from engine.grid import Grid
from engine.judging.truth import TruthSpan
from engine.types import Proposal, Span
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import a_record, small_content
from training.records import FeatureSet

with torch_imports():
    from training.benchmarks.draws import Scenes
    from training.benchmarks.online import (
        BOUNDED,
        STUDENT,
        TEACHER,
        Whole,
        bench_online,
        table,
    )
    from training.feature_files import manifest_of

pytestmark = [pytest.mark.torch, pytest.mark.openvino]

HOP_US = 160_000
SMALL = {
    "network.whitening_dims": 3,
    "network.width": 8,
    "network.key_dims": 4,
    "network.live_windows": 8,
    "schedule.length": 2,
}


def videos(n_videos, seed):
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n_videos):
        rows = rng.normal(0, 0.1, (60, 3))
        rows[10 + i : 24 + i, 0] += 1
        truth = (TruthSpan(0, Span((10 + i) * HOP_US, (24 + i) * HOP_US)),)
        records.append(a_record(f"{seed}-{i}", rows, tags=(0,), truth=truth))
    return tuple(records)


@pytest.mark.slow
def test_teachers_and_students_are_measured_and_not_trained_again(tmp_path):
    base = ModelBundle.load(write_tiny_bundle(tmp_path / "base"))
    annotated = FeatureSet(("a", "b"), videos(6, 0), Grid(25, 4, 4), 3)
    tagged = replace(annotated, records=tuple(replace(r, truth=None) for r in annotated.records))
    silent = a_record("silent", np.zeros((30, 3)), tags=(), truth=())
    subsets = {"validation": videos(3, 1), "quiet": (silent,)}
    scenes = Scenes("draw", tagged, annotated, subsets, manifest_of(base), tmp_path)

    def measure():
        content = small_content(schedule__length=10)
        options = {"subset": "validation", "changes": SMALL}
        return bench_online(scenes, content, (0, 2), (0,), base, tmp_path / "out", **options)

    first = measure()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.safetensors")}

    assert repr(first) == repr(measure())
    assert written == {path: path.stat().st_mtime_ns for path in written}
    wanted = [(reader, freeze) for reader in (TEACHER, STUDENT, BOUNDED) for freeze in (0.0, 0.32)]
    assert wanted == [(row.reader, row.freeze_s) for row in first[:6]]
    assert {0} == {row.seed for row in first}
    assert all(0 <= row.live_map <= 1 and row.offline_map > 0 for row in first)
    lines = table(first).splitlines()
    assert 2 + 6 == len(lines)
    assert {15} == {line.count("|") for line in lines}


def test_whole_videos_are_cut_at_the_score_at_which_events_open():
    """The right interval comes second, and is gone where scores below .3 do not count."""
    span = Span(10 * HOP_US, 20 * HOP_US)
    record = a_record("a", np.zeros((60, 3)), tags=(0,), truth=(TruthSpan(0, span),))
    wrong = Proposal(0, Span(40 * HOP_US, 50 * HOP_US), 0.9)
    whole = Whole([record], {"a": [wrong, Proposal(0, span, 0.2)]}, 1)

    assert (0.5, 0.5, 0.0) == (whole.map_from(), whole.map_from(0.2), whole.map_from(0.3))
