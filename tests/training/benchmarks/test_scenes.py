"""The scenes benchmark: what it trains on, how it scores, what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import DataError
from engine.grid import Grid
from engine.judging.truth import TruthSpan
from engine.spec import Rung
from engine.types import FrameBatch, Span
from tests.support.real_parts import torch_imports
from tests.support.tiny_training import MANIFEST, a_record, planted, small_content
from training.benchmarks.planted import plant, synthetic_timelines
from training.data import DataChoice
from training.records import FeatureSet

with torch_imports():
    from training.benchmarks import scenes_baselines as baselines
    from training.benchmarks.ablate import Variant
    from training.benchmarks.draws import Scenes, load_draw
    from training.benchmarks.scenes import (
        on_rung,
        other_videos_mean,
        run_benchmark,
        subset_rows,
    )
    from training.benchmarks.scenes_baselines import chance, frame_targets, motion_curve
    from training.benchmarks.scenes_results import (
        BenchmarkResults,
        ResultRow,
        plot_results,
    )
    from training.evaluation.whole_video import proposals_of
    from training.export.ensemble import ensemble_of
    from training.learning.checkpoints import load_run
    from training.live_defaults import PROPOSALS

pytestmark = pytest.mark.torch
HOP_US = 160_000
GRID = Grid(25, 4, 4)


def action(label, first_hop, end_hop):
    return TruthSpan(label, Span(first_hop * HOP_US, end_hop * HOP_US))


def annotated(n_clips, seed, camera="cam-1"):
    """Clips of 60 hops: ten of "a", and ten of "b" in every second one."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n_clips):
        truth = [action(0, 10 + i, 20 + i), *([action(1, 40, 50)] if i % 2 else [])]
        rows = rng.normal(0, 0.1, (60, 3))
        for label, start in zip((0, 1), (10 + i, 40), strict=True):
            rows[start : start + 10, label] += any(one.class_id == label for one in truth)
        tags = tuple(one.class_id for one in truth)
        name = f"{camera}-{seed}-{i}"
        records.append(a_record(name, rows, tags=tags, truth=tuple(truth), camera=camera))
    return tuple(records)


@pytest.fixture
def scenes(tmp_path):
    training = FeatureSet(("a", "b"), annotated(6, 0), GRID, 3)
    subsets = {"validation": annotated(3, 1), "unseen": annotated(2, 2, "cam-9")}
    motion = {record.name: np.ones(60, np.float32) for some in subsets.values() for record in some}
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "out/motion.npz", **motion)
    return Scenes("draw", planted(16), training, subsets, MANIFEST, tmp_path / "videos")


def test_all_variants_baselines_and_seeds_are_scored_on_every_subset(scenes, tmp_path):
    variants = [Variant("full", {}), Variant("no sta", {"network.interaction.sta": False})]
    supervised = [Variant("supervised", {"network.objective.bag": 0.0, "schedule.length": 40})]
    content = small_content(schedule__length=2)

    results = run_benchmark(
        scenes, content, variants, (0, 1), tmp_path / "out", supervised=supervised
    )

    counts = {}
    for row in results.rows:
        counts[row.variant, row.subset] = counts.get((row.variant, row.subset), 0) + 1
    names = ("full", "no sta", "supervised")
    subsets = ("validation", "unseen", "unseen, own background")
    expected = {(name, subset): 2 for name in names for subset in subsets}
    expected |= {("chance", subset): 20 for subset in subsets[:2]}
    expected |= {("motion energy", subset): 1 for subset in subsets[:2]}
    assert expected == counts
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert len(results.rows) == len(written["rows"])
    assert [results.rows[-1].average] == [np.mean(list(written["rows"][-1]["per_tiou"].values()))]


def test_a_second_call_trains_nothing_again(scenes, tmp_path):
    supervised = [Variant("supervised", {"schedule.length": 2})]

    def run():
        content, out = small_content(schedule__length=2), tmp_path / "out"
        found = run_benchmark(
            scenes, content, [Variant("v", {})], (0,), out, supervised=supervised
        )
        return found, [path.stat().st_mtime_ns for path in sorted(out.rglob("*.safetensors"))]

    assert run() == run()


def test_supervision_finds_what_it_was_shown(scenes, tmp_path):
    supervised = [Variant("supervised", {"network.objective.bag": 0.0})]
    content = small_content(schedule__length=60)

    results = run_benchmark(
        replace(scenes, subsets={"validation": annotated(3, 1)}),
        content,
        [Variant("tags", {"schedule.length": 1})],
        (0,),
        tmp_path / "out",
        supervised=supervised,
    )

    assert results.of("validation", "supervised")[0].average > 90


def test_a_gap_in_the_snippets_is_not_bridged():
    scores = np.zeros((40, 1), np.float32)
    scores[10:30] = 0.9
    whole = a_record("v", np.zeros((40, 3)))
    indices = np.arange(40) + 5 * (np.arange(40) >= 20)
    gapped = replace(whole, indices=indices)

    best = [proposals_of(record, scores, GRID, PROPOSALS)[0].span for record in (whole, gapped)]

    assert best[0].start_us < 20 * HOP_US < best[0].end_us
    assert not best[1].start_us < 22 * HOP_US < best[1].end_us


def test_targets_are_the_covered_share_of_the_middle_hop():
    record = a_record("v", np.zeros((4, 3)), truth=(TruthSpan(1, Span(240_000, 480_000)),))

    targets = frame_targets(record, 2, GRID)

    assert [[0, 0], [0, 0.5], [0, 1], [0, 0]] == targets.tolist()


def test_middle_hop_of_overlapping_snippets():
    record = a_record("v", np.zeros((3, 3)), truth=(TruthSpan(0, Span(80_000, 240_000)),))

    targets = frame_targets(record, 1, Grid(25, 8, 4))

    assert [1, 0, 0] == targets[:, 0].tolist()


def test_chance_guesses_only_tagged_classes_inside_the_video():
    training = FeatureSet(("a", "b"), annotated(6, 0), GRID, 3)
    record = a_record("v", np.zeros((12, 3)), tags=(1,))

    guesses = chance([record], training, np.random.default_rng(0))["v"]

    assert {(1, 10 * HOP_US)} == {(one.class_index, one.span.duration_us) for one in guesses}
    assert max(one.span.end_us for one in guesses) <= record.duration_us


def test_motion_is_high_where_pixels_change(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    rgb = np.zeros((40, 8, 8, 3), np.uint8)
    rgb[16:24] = rng.integers(0, 255, (8, 8, 8, 3))
    batch = FrameBatch(np.arange(40, dtype=np.int64) * 40_000, rgb, 40)
    monkeypatch.setattr(baselines, "read_video", lambda *_: iter([batch]))

    curve = motion_curve(tmp_path / "v.mp4", a_record("v", np.zeros((10, 3))), GRID)

    assert [0, 0, 0, 0] == curve[:4].tolist()
    assert 1 == curve.max() == curve[4:6].max()


def test_a_background_is_never_made_of_the_video_it_serves():
    records = [a_record(f"v{i}", np.full((2, 3), i)) for i in range(3)]

    assert [1.0, 1.0, 1.0] == other_videos_mean(records[1], records).tolist()
    assert [1.5, 1.5, 1.5] == other_videos_mean(records[0], records).tolist()


def a_row(variant, seed, value):
    return ResultRow("d", variant, seed, "testing", {0.3: value, 0.5: value, 0.7: value}, (value,))


def test_gains_are_paired_by_draw_and_seed():
    rows = [a_row("base", 0, 10), a_row("base", 1, 20), a_row("new", 0, 12), a_row("new", 1, 24)]
    results = BenchmarkResults(tuple(rows), ("a",))

    last = results.markdown("testing", "base").splitlines()[-1]

    assert "| new | 2 | 18.0 ± 8.5 | 18.0 ± 8.5 | 18.0 ± 8.5 | 18.0 ± 8.5 | 18 |" in last
    assert last.endswith("| +3.0 ± 1.4 | +3.0 ± 1.4 |")


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    results = BenchmarkResults((a_row("base", 0, 10), a_row("base", 1, 20)), ("a",))

    plot_results(results, tmp_path / "results.png")

    assert b"\x89PNG" == (tmp_path / "results.png").read_bytes()[:4]


def test_networks_are_scored_on_what_each_rung_looks_at(scenes, tmp_path):
    results = run_benchmark(
        replace(scenes, subsets={"validation": annotated(2, 1)}),
        small_content(schedule__length=20),
        [Variant("v", {})],
        (0,),
        tmp_path / "out",
        rungs=(Rung.FULL, Rung.HALF, Rung.QUARTER),
    )

    scores = [row.average for row in results.rows if row.variant == "v"]
    subsets = [row.subset for row in results.rows if row.variant == "v"]
    assert ["validation", "validation, half", "validation, quarter"] == subsets
    assert scores[0] != scores[2]
    record = scenes.subsets["validation"][0]
    (seen, *_) = on_rung(scenes, Rung.HALF).subsets["validation, half"]
    assert np.array_equal(seen.features[::2], record.features[::2])
    assert not np.array_equal(seen.features[1::2], record.features[1::2])


def test_networks_of_some_seeds_are_scored_as_one_too(scenes, tmp_path):
    results = run_benchmark(
        replace(scenes, subsets={"validation": annotated(3, 1)}),
        small_content(schedule__length=20),
        [Variant("v", {})],
        range(5),
        tmp_path / "out",
        together=2,
    )

    pairs = results.of("validation", "v, 2 as one")
    assert [0, 2] == [row.seed for row in pairs]  # the fifth has no other
    runs = [load_run(tmp_path / f"out/v/seed-{seed}") for seed in (2, 3)]
    videos = replace(scenes, subsets={"validation": annotated(3, 1)})
    (wanted,) = subset_rows(ensemble_of(runs), videos, "v, 2 as one", 2)
    assert wanted == pairs[1]
    assert wanted.per_tiou != results.of("validation", "v")[2].per_tiou


@pytest.mark.parametrize("kind", ["clips", "thumos14", "activitynet"])
def test_a_folder_with_gt_json_is_read_as_the_configuration_says(tmp_path, kind):
    plant(synthetic_timelines(0, 3, 2, 2), tmp_path, modality="rgb")
    subsets = {"activitynet": ("training", "validation")}.get(kind, ("train", "test"))
    if kind == "activitynet":  # the same features under its names of subsets
        text = (tmp_path / "gt.json").read_text()
        for planted_as, name in zip(("train", "test"), subsets, strict=True):
            text = text.replace(f'"subset": "{planted_as}"', f'"subset": "{name}"')
            (tmp_path / "features" / planted_as).rename(tmp_path / "features" / name)
        (tmp_path / "gt.json").write_text(text)

    data, notes = DataChoice(kind, "rgb", *subsets), []
    draw = load_draw(tmp_path, tmp_path, ("unseen", "testing"), data, notes.append)

    assert [f"{tmp_path}: {n} of {n} listed videos have features" for n in (3, 2)] == notes
    assert ["testing"] == list(draw.subsets)
    assert (3, 2) == (len(draw.tagged.records), len(draw.subsets["testing"]))
    assert all(one.tags and not one.truth for one in draw.tagged.records)
    assert all(one.truth for one in (*draw.annotated.records, *draw.subsets["testing"]))


def test_test_videos_are_never_scored_for_others(tmp_path):
    """Who chooses by validation videos, and has none, is not given what he may not choose by."""
    plant(synthetic_timelines(0, 3, 2, 2), tmp_path, modality="rgb")

    with pytest.raises(DataError, match=r"--subsets is validation, but .* has testing alone"):
        load_draw(tmp_path, tmp_path, ("validation",), DataChoice("clips", "rgb", "train", "test"))
