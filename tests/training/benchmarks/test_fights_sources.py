"""Fights of sources that were not trained on, ranked by S2Net and by a regression."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.real_parts import torch_imports
from tests.support.tiny_training import planted, small_config
from training.benchmarks.fights import FightClip, parted_by_source
from training.feature_files import VideoFeatures, write_features

with torch_imports():
    from training.benchmarks.fights_sources import SourceReport, SourceSplit, source_report
    from training.learning.checkpoints import load_run

pytestmark = pytest.mark.torch
MANIFEST = {"fps": 25, "snippet_frames": 4, "stride_frames": 4, "feature_dim": 3}


def clips_with_features(folder):
    """Planted clips, four a source, whose fights are those of class "a"."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    clips = []
    for number, record in enumerate(planted(32).records):
        found = VideoFeatures(record.features, record.indices)
        write_features(found, folder / f"{record.name}.npz")
        source, is_fight = f"source {number // 4}", 0 in record.tags
        clips.append(FightClip(record.name, Path("x.mp4"), is_fight, source, 320, 240))
    return clips


def a_report():
    return SourceReport(
        (
            SourceSplit(40, 20, 5, 80.0, np.array([85.0, 87.0])),
            SourceSplit(42, 21, 6, 90.0, np.array([88.0, 90.0])),
        )
    )


def test_parts_share_no_source_and_hold_every_clip_once():
    clips = [
        FightClip(f"{source}-{n}", Path("x.mp4"), bool(n % 2), f"source {source}", 320, 240)
        for source in range(20)
        for n in range(2 + source % 4)
    ]

    parts = parted_by_source(clips, [0.2] * 5)

    sources = [{clip.source for clip in part} for part in parts]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 20
    assert sorted(c.name for part in parts for c in part) == sorted(c.name for c in clips)
    assert all(0.1 < len(part) / len(clips) < 0.3 for part in parts)
    assert all(0.3 < np.mean([clip.is_fight for clip in part]) < 0.7 for part in parts)


def test_every_clip_is_ranked_by_what_other_sources_taught(tmp_path):
    clips, done = clips_with_features(tmp_path / "features"), []
    config = small_config(schedule__length=40)

    report = source_report(
        clips,
        tmp_path / "features",
        config,
        tmp_path / "runs",
        n_splits=2,
        seeds=(0, 1),
        on_run=done.append,
    )

    assert [1, 2, 3, 4] == done
    assert [(16, 8, 4)] * 2 == [(s.n_clips, s.n_fights, s.n_sources) for s in report.splits]
    assert report.linear.min() > 80
    assert report.network.min() > 80
    runs = [load_run(tmp_path / f"runs/split-{n}-seed-{s}") for n in (1, 2) for s in (0, 1)]
    assert [0, 1, 0, 1] == [run.config.seed for run in runs]
    # Each is the mean of the footage it was trained on: halves, which differ.
    assert np.array_equal(runs[0].camera_means[""], runs[1].camera_means[""])
    assert not np.array_equal(runs[0].camera_means[""], runs[2].camera_means[""])


def test_the_report_by_hand():
    report = a_report()

    assert [6.0, -1.0] == report.gain.tolist()
    assert report.seed_sd == pytest.approx(2**0.5)  # seeds' means are 86.5 and 88.5
    assert "| 1 | 40 | 20 | 5 | 80.0 | 86.0 ± 1.4 | +6.0 |" in report.table()
    assert "| mean ± sd | | | | 85.0 ± 7.1 | 87.5 ± 2.1 | +2.5 ± 4.9 |" in report.table()
    assert report.table().endswith("differs by 1.4 between seeds")
    assert [
        "split,clips,fights,sources,seed,linear_auc,s2net_auc",
        "1,40,20,5,0,80.000,85.000",
        "1,40,20,5,1,80.000,87.000",
        "2,42,21,6,0,90.000,88.000",
        "2,42,21,6,1,90.000,90.000",
    ] == report.rows().splitlines()
