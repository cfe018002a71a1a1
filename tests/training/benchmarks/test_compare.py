"""Networks compared: all on the same clips, nothing done twice, nothing but text in the page."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from engine.bundle.model_bundle import ModelBundle
from engine.files.strict_yaml import read_yaml
from engine.grid import Grid
from engine.judging.truth import TruthSpan
from engine.types import Span
from tests.support.real_parts import torch_imports
from tests.support.small_networks import CONFIGS, SMALL
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import a_record, small_content
from training.records import FeatureSet

with torch_imports():
    from training.benchmarks.compare import compare, f1_of
    from training.benchmarks.compare_costs import costs
    from training.benchmarks.compare_report import Comparison
    from training.benchmarks.compare_trials import Trial, resampled_of
    from training.benchmarks.draws import Scenes
    from training.benchmarks.supervision import clicked
    from training.feature_files import manifest_of
    from training.networks import NETWORKS

pytestmark = [pytest.mark.torch, pytest.mark.openvino]
HOP_US = 160_000


def videos(n_videos, seed, camera="cam-1"):
    """Videos of 60 hops: ten of "a", and ten of "b" in every second one."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n_videos):
        spans = {0: (10 + i, 20 + i), **({1: (40, 50)} if i % 2 else {})}
        rows = rng.normal(0, 0.1, (60, 3))
        for label, (start, end) in spans.items():
            rows[start:end, label] += 1
        truth = tuple(
            TruthSpan(label, Span(start * HOP_US, end * HOP_US))
            for label, (start, end) in spans.items()
        )
        name = f"{camera}-{seed}-{i}"
        records.append(a_record(name, rows, tags=tuple(spans), truth=truth, camera=camera))
    return tuple(records)


def small_sal():
    content, _ = read_yaml(CONFIGS / "sal-scenes.yaml")
    content["network"] |= SMALL["sal"]
    content["batches"]["sequences"] = 4
    content["schedule"]["length"] = 10
    return content


@pytest.fixture
def base(tmp_path):
    return ModelBundle.load(write_tiny_bundle(tmp_path / "base"))


@pytest.fixture
def scenes(base, tmp_path):
    annotated = FeatureSet(("a", "b"), videos(6, 0), Grid(25, 4, 4), 3)
    tagged = replace(
        annotated, records=tuple(replace(one, truth=None) for one in annotated.records)
    )
    silent = a_record("silent", np.zeros((30, 3)), tags=(), truth=())
    subsets = {"validation": videos(3, 1), "testing": videos(4, 2), "quiet": (silent,)}
    return Scenes("draw", tagged, annotated, subsets, manifest_of(base), tmp_path / "videos")


def test_all_are_trained_scored_run_live_and_not_done_again(scenes, base, tmp_path):
    contents = {"s2net": small_content(schedule__length=10), "sal": small_sal()}
    kinds, out = ("tags", "points", "intervals"), tmp_path / "out"
    told = []

    first = compare(scenes, contents, kinds, (0, 1), base, out, on_trial=told.append)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = compare(scenes, contents, kinds, (0, 1), base, out)

    assert repr(first) == repr(again)  # a delay of nothing is no number, equal to none
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    networks = ("s2net", "sal", "ensemble")
    assert 2 * 3 * len(networks) == len(told) == len(set(told))
    counts = {(t.network, t.supervision, t.seed, t.subset) for t in first}
    assert len(first) == len(counts) == len(networks) * len(kinds) * 2 * 2
    assert set(networks) == {trial.network for trial in first}
    assert {"testing"} == {trial.subset for trial in first if trial.live is not None}
    assert all(0 <= trial.average <= 1 for trial in first)
    for trial in first:
        drawn = np.nanmean(trial.resampled)
        # Resamples of the videos lie around what all of them give.
        assert min(trial.resampled) - 1e-6 <= trial.average <= max(trial.resampled) + 1e-6, drawn


def test_the_report_says_the_same_in_three_forms(scenes, base, tmp_path):
    contents = {"s2net": small_content(schedule__length=10)}
    trials = compare(scenes, contents, ("tags", "intervals"), (0, 1), base, tmp_path / "out")
    priced = costs(contents, 8, passes=1, threads=1)
    (cost,) = priced
    assert cost.gflop > 0
    names = ("a", "<b>")
    comparison = Comparison(tuple(trials), tuple(priced), names)
    notes = []

    comparison.write(tmp_path / "report", notes.append)

    text = (tmp_path / "report/comparison.md").read_text()
    page = (tmp_path / "report/comparison.html").read_text()
    rows = list(csv.DictReader((tmp_path / "report/comparison.csv").read_text().splitlines()))
    assert len(trials) == len(rows)
    (pair,) = comparison.pairs("testing")
    assert f"{pair.difference.mean:+.1f}" in text
    first = [trial for trial in trials if trial.subset == "testing"]
    assert {row["live_map_last"] for row in rows if row["subset"] == "testing"} == {
        str(trial.live.map_last) for trial in first
    }
    assert {row["live_map_last"] for row in rows if row["subset"] == "validation"} == {""}
    for title in re.findall(r"^## (.+)$", text, re.MULTILINE):
        assert title in page
    assert "<b>" not in page  # a class's name is text, whatever it is
    assert "&lt;b&gt;" in page
    assert Loads.of(page) <= {"data"}


class Loads(HTMLParser):
    """What a page would load: the schemes of all its addresses, and whether it runs anything."""

    @classmethod
    def of(cls, page):
        parser = cls()
        parser.found = set()
        parser.feed(page)
        return parser.found

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.found |= {value.partition(":")[0] for name, value in attrs if name in ("src", "href")}


def test_equal_trials_do_not_differ_and_sure_ones_do():
    one = [a_trial("s2net", 0.5), a_trial("s2net", 0.5, seed=1)]
    pairs = Comparison(
        (*one, *(replace(t, network="sal") for t in one), a_trial("tsc-net", 0.9)), (), ("a",)
    ).pairs("testing")

    real = {(pair.first, pair.second): pair.is_real for pair in pairs}
    assert real == {
        ("s2net, tags", "sal, tags"): False,
        ("s2net, tags", "tsc-net, tags"): True,
        ("sal, tags", "tsc-net, tags"): True,
    }


def a_trial(network, value, seed=0):
    return Trial(network, "tags", seed, "testing", (value,) * 7, (value,), (value,) * 100, None)


def test_clicks_lie_inside_their_actions_and_no_interval_is_left():
    annotated = FeatureSet(("a", "b"), videos(6, 0), Grid(25, 4, 4), 3)

    seen = clicked(annotated, seed=0)

    for record, before in zip(seen.records, annotated.records, strict=True):
        assert record.truth is None
        assert record.tags == before.tags
        assert len(record.points) == len(before.truth)
        for action in before.truth:
            inside = [p for p in record.points if p.class_id == action.class_id]
            assert any(action.span.start_us <= p.time_us < action.span.end_us for p in inside)
    others = clicked(annotated, seed=1).records
    assert seen.records[0].points != others[0].points
    assert seen.records[0].points == clicked(annotated, seed=0).records[0].points


ALL = sorted({"s2net", *SMALL})  # NETWORKS themselves need torch


@pytest.mark.parametrize("network", ALL)
def test_every_network_has_its_costs(network):
    """In small, where the table knows a small form."""
    assert sorted(NETWORKS) == ALL
    content, _ = read_yaml(CONFIGS / f"{network}-scenes.yaml")
    content["network"] |= SMALL.get(network, {})

    (cost,) = costs({network: content}, 128, passes=1, threads=1)

    assert cost.n_parameters > 0
    assert cost.gflop > 0
    assert cost.hop_ms > 0
    assert 3 == len(cost.torch_ms) == len(cost.openvino_ms)


def test_f1_of_nothing_is_nothing():
    class Nothing:
        precision, recall = float("nan"), 0.0

    assert 0.0 == f1_of(Nothing())
    assert (0,) == resampled_of([]).shape
