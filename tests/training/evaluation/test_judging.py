"""How a training judges itself on what it has not seen."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import DataError
from tests.support.real_parts import torch_imports
from tests.support.tiny_training import a_record, planted, small_config

with torch_imports():
    from training.benchmarks.fights_baselines import area_under_roc
    from training.evaluation import judging
    from training.evaluation.judging import ClassJudgement, Judgement, judge
    from training.evaluation.linear import linear_scores

pytestmark = pytest.mark.torch


def with_cameras(videos, n_cameras):
    records = tuple(
        replace(record, camera=f"cam-{n % n_cameras}" if n_cameras else "")
        for n, record in enumerate(videos.records)
    )
    return replace(videos, records=records)


@pytest.mark.parametrize("n_cameras", [0, 2, 3, 4, 5])
def test_what_is_judged_was_not_trained_on(tmp_path, monkeypatch, n_cameras):
    videos = with_cameras(planted(40), n_cameras)
    trained_on = []
    train = judging.train

    def seen(config, feature_set, *arguments, **options):
        trained_on.extend(feature_set.records)
        return train(config, feature_set, *arguments, **options)

    monkeypatch.setattr(judging, "train", seen)
    judgement = judge(small_config(), videos, tmp_path)

    learned = {record.name for record in trained_on}
    apart = [record for record in videos.records if record.name not in learned]
    assert (len(learned), len(apart)) == (judgement.n_learned, judgement.n_held_out)
    assert 0.15 <= len(apart) / 40 <= 0.5
    by_camera = n_cameras in {3, 5}  # four would each show classes of their own
    assert by_camera == bool(judgement.cameras)
    if by_camera:
        assert set(judgement.cameras) == {record.camera for record in apart}
        assert not set(judgement.cameras) & {record.camera for record in trained_on}
    assert ["a", "b"] == [row.name for row in judgement.classes]
    for index, row in enumerate(judgement.classes):
        n_out = sum(index in record.tags for record in apart)
        assert (row.n_held_out, row.n_learned) == (n_out, 20 - n_out)
        assert row.chance == pytest.approx(100 * n_out / len(apart))


def test_the_quiet_hours_of_a_held_out_camera_are_held_out_too(tmp_path, monkeypatch):
    videos = with_cameras(planted(40), 5)
    quiet = with_cameras(planted(10), 5)
    given = []
    train = judging.train

    def seen(config, feature_set, out, *, quiet, **options):
        given.append(quiet)
        return train(config, feature_set, out, quiet=quiet, **options)

    monkeypatch.setattr(judging, "train", seen)
    judgement = judge(small_config(), videos, tmp_path / "all", quiet=quiet)

    held_out = set(judgement.cameras)
    assert held_out
    wanted = [record.name for record in quiet.records if record.camera not in held_out]
    assert wanted == [record.name for record in given[0].records]

    of_held_out = tuple(record for record in quiet.records if record.camera in held_out)
    judge(small_config(), videos, tmp_path / "none", quiet=replace(quiet, records=of_held_out))
    assert given[1] is None


def test_a_judgement_is_kept_and_made_once(tmp_path):
    videos = with_cameras(planted(40), 4)
    first = judge(small_config(), videos, tmp_path)
    written = (tmp_path / "held-out" / "checkpoint.safetensors").stat().st_mtime_ns

    assert first == judge(small_config(), videos, tmp_path)
    assert written == (tmp_path / "held-out" / "checkpoint.safetensors").stat().st_mtime_ns
    kept = json.loads((tmp_path / "held_out.json").read_text())
    assert [row.linear for row in first.classes] == [row["linear"] for row in kept["classes"]]


def test_what_a_mean_tells_the_regression_finds(tmp_path):
    judgement = judge(small_config(), with_cameras(planted(60), 5), tmp_path)

    assert judgement.linear > 90 > judgement.chance


@pytest.mark.parametrize(
    ("n_clips", "tags", "said"),
    [
        (7, [(0,), ()], "7 tagged clips, and to judge takes 8"),
        (9, [(0,)], "no class is on both sides"),
        (9, [(0,), *[()] * 8], "no class is on both sides"),
    ],
)
def test_too_little_to_judge_is_said(tmp_path, n_clips, tags, said):
    rows = [[0.0, 0.0, 0.0]] * 4
    records = tuple(a_record(f"clip-{n}", rows, tags=tags[n % len(tags)]) for n in range(n_clips))
    videos = replace(planted(4), records=records)

    with pytest.raises(DataError, match=said):
        judge(small_config(), videos, tmp_path)


def a_judgement(linear, network):
    rows = (ClassJudgement("fall", 9, 3, 20.0, linear, network),)
    return Judgement(("gate", "yard"), 30, 10, rows)


def test_a_network_that_a_regression_beats_is_warned_of_and_no_other():
    assert a_judgement(60.0, 60.0).warning() is None
    said = a_judgement(60.0, 59.9).warning()
    assert said is not None
    assert "(60.0 against 59.9)" in said


def test_the_table_names_cameras_counts_and_figures():
    lines = "\n".join(a_judgement(60.0, 75.25).lines())

    for told in ("cameras gate, yard", "10 clips", "30 others", "fall", "12", "20.0", "75.2"):
        assert told in lines


def test_the_regression_weighs_each_class_by_itself():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(60, 5)).astype(np.float32) * 7 + 3
    tags = (known[:, :2] > 3).astype(np.float32)
    asked = rng.normal(size=(40, 5)).astype(np.float32) * 7 + 3

    odds = linear_scores(known, tags, asked)

    assert (40, 2) == odds.shape
    assert ((odds > 0) == (asked[:, :2] > 3)).mean() > 0.9
    # Neither the columns' scale nor their order makes a difference.
    np.testing.assert_allclose(
        odds, linear_scores(known[:, ::-1] * 100, tags, asked[:, ::-1] * 100), atol=1e-3
    )


def test_the_regression_finds_a_line_and_no_more():
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(400, 2))
    wanted = rows[:, 0] + 0.5 * draws.normal(size=400) > 0

    def area(known, tags, asked, truth):
        return area_under_roc(linear_scores(known, tags[:, None], asked, ridge=0.2)[:, 0], truth)

    assert area(rows[:200], wanted[:200], rows[200:], wanted[200:]) > 0.9
    assert 0.4 < area(rows, wanted, draws.normal(size=(400, 2)), wanted) < 0.6
