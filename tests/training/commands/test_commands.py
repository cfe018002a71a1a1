"""The commands one after the other, as a user runs them: clips with tags → a live bundle."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import daemon.cli
from engine.bundle.model_bundle import ModelBundle
from tests.support.checkout import CHECKOUT
from tests.support.footage import colour_clip
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from training.benchmarks.planted import plant, synthetic_timelines
from training.cli import main
from training.evaluation import recalibrate

with torch_imports():
    import torch  # noqa: F401 - what most of these commands need

pytestmark = [pytest.mark.torch, pytest.mark.openvino, pytest.mark.slow]

Run = Callable[..., str]

CONFIGS = CHECKOUT / "configs/training"
SMALL = {
    "network.trunk.whitening_dims": 2,
    "network.trunk.width": 16,
    "network.trunk.input_dropout": 0.1,
    "network.trunk.dropout": 0.1,
    "batches.sequences": 3,
    "batches.clips": 4,
    "schedule.length": 60,
    "optimiser.learning_rate": 0.02,
    "optimiser.average_decay": 0.8,
}

SMALL_SCHEDULE = {
    "schedule.length": 60,
    "optimiser.learning_rate": 0.01,
    "optimiser.average_decay": 0.8,
}
TRAININGS = [
    ("s2net-clips.yaml", SMALL),
    (
        "two-stream-scenes.yaml",
        {**SMALL_SCHEDULE, "network.hidden_width": 16, "network.causal": True},
    ),
    (
        "sal-scenes.yaml",
        {**SMALL_SCHEDULE, "network.width": 16, "network.rank": 8, "schedule.length": 300},
    ),
    ("tsc-net-scenes.yaml", {**SMALL_SCHEDULE, "network.width": 16}),
    ("sdanet-scenes.yaml", {**SMALL_SCHEDULE, "network.width": 16, "network.fused_width": 16}),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object, program: Callable[[], object] = main) -> str:
        monkeypatch.setattr(sys, "argv", ["s2net", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            program()
        printed = capsys.readouterr()
        assert caught.value.code in (0, None), printed.err
        return printed.out

    return call


def changes(values: dict[str, object]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def tagged_clips(folder: Path) -> Path:
    """Clips in which it gets red or green for a while, or neither, and a table of tags."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(18):
        tag = ("red", "green", "")[number % 3]
        colours = {"red": (220, 0), "green": (0, 220), "": (0, 0)}[tag]
        before, during = (float(value) for value in rng.uniform(0.8, 1.8, 2))
        blocks = [(before, 0, 0), (during + 0.8, *colours), (1.2, 0, 0)]
        colour_clip(folder / f"clip{number:02d}.mp4", blocks)
        rows.append({"video": f"clip{number:02d}.mp4", "tags": tag, "camera": "yard"})
    with (folder / "tags.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["video", "tags", "camera"])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.mark.parametrize(("config_name", "small"), TRAININGS)
def test_tagged_clips_become_a_bundle_that_finds_them_in_a_new_video(
    tmp_path, run, config_name, small
):
    base = write_tiny_bundle(tmp_path / "tiny")
    clips = tagged_clips(tmp_path / "clips")
    features, trained, bundle = tmp_path / "features", tmp_path / "run", tmp_path / "mine"

    said = run("extract", clips, "--out", features, "--bundle", base, "--processes", 2)
    assert f"18 feature file(s) in {features}" in said
    assert (features / "tags.csv").read_text() == (clips / "tags.csv").read_text()
    config = ("--config", CONFIGS / config_name, *changes(small))
    said = run("train", "--features", features, "--out", trained, *config)
    assert "trained" in said
    assert re.search(r"judged on \d+ clips of held-out clips; \d+ others were trained on", said)
    assert {"log.csv", "log.png", "held_out.json"} <= {path.name for path in trained.iterdir()}
    # A finished run is given back as it is.
    written = (trained / "checkpoint.safetensors").stat().st_mtime_ns
    run("train", "--features", features, "--out", trained, *config)
    assert written == (trained / "checkpoint.safetensors").stat().st_mtime_ns
    assert "green, red" in run("export", trained, "--base", base, "--out", bundle)
    assert "max abs error" in run("parity", trained, bundle, "--features", features)

    new = colour_clip(tmp_path / "new.mp4", [(2, 0, 0), (2.4, 220, 0), (2, 0, 0), (2, 0, 220)])
    out = tmp_path / "out"
    run("localize", new, "--bundle", bundle, "--out", out, program=daemon.cli.main)
    records = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    final = {row["event_id"]: row for row in records if row["final"]}
    labels = [
        row["label"] for row in sorted(final.values(), key=lambda row: row["start"]["stream_us"])
    ]
    assert ["red", "green"] == labels


def test_a_bundle_is_evaluated_live_and_calibrated(tmp_path, run, monkeypatch, capsys):
    base = write_tiny_bundle(tmp_path / "tiny")
    videos, features = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    database = {}
    for number in range(3):
        blocks = [(1.6, 0, 0), (2.4, 220, 0), (2.0, 0, 0), (1.6, 0, 220), (1.6, 0, 0)]
        colour_clip(videos / f"v{number}.mp4", blocks)
        segments = [("red", 1.6, 4.0), ("green", 6.0, 7.6)]
        database[f"v{number}"] = {
            "subset": "validation" if number else "quiet",
            "duration": 9.2,
            "camera": "yard",
            "annotations": [
                {"label": label, "segment": [start, end]} for label, start, end in segments
            ],
        }
    content = {"version": 1, "classes": ["red", "green"], "database": database}
    (videos / "annotations.json").write_text(json.dumps(content))
    run("extract", videos, "--out", features, "--bundle", base)

    told = ("--features", features, "--subset", "validation")
    assert "100.00" in run("evaluate", base, *told)
    report = run("evaluate", base, *told, "--streaming", "--out", tmp_path / "report")
    assert "live keeps" in report
    assert {"curve.json", "curve.png", "streaming.txt"} == {
        path.name for path in (tmp_path / "report").iterdir()
    }
    silent = tmp_path / "silent"
    silent.mkdir()
    colour_clip(silent / "night.mp4", [(9, 0, 0)])
    run("extract", silent, "--out", tmp_path / "night", "--bundle", base)
    report = run("evaluate", base, *told, "--streaming", "--quiet", tmp_path / "night")
    assert re.search(r"false alarms an hour +0\.00 .* in 0\.00 quiet hours", report)
    quieter = tmp_path / "quieter"
    said = run("calibrate", base, "--features", features, "--out", quieter)
    assert "red" in said
    assert "of 4 actions 4 are found (were 4); precision 1.00 (was 1.00)" in said
    assert "class_open_scores" in (quieter / "bundle.yaml").read_text()
    # Somebody walks by in a brighter red, and may not be told of: what that costs is said.
    colour_clip(silent / "night.mp4", [(2, 0, 0), (2.4, 250, 0), (2, 0, 0)])
    run("extract", silent, "--out", tmp_path / "passer-by", "--bundle", base)
    told = ("--quiet", tmp_path / "passer-by", "--max-false-per-day", 0, "--features", features)
    said = run("calibrate", base, *told, "--out", tmp_path / "deaf")
    assert "of 4 actions 2 are found (were 4)" in said
    database["v0"]["annotations"] = []
    (features / "annotations.json").write_text(json.dumps(content))
    words = ["s2net", "calibrate", base, *told, "--subset", "quiet", "--out", tmp_path / "deaf"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr()
    assert "hold no action: what the scores cost is not known" in " ".join(printed.err.split())
    assert "are found" not in printed.out


def test_quiet_footage_alone_raises_the_scores_of_what_it_gives_wrongly(tmp_path, run):
    base = write_tiny_bundle(tmp_path / "tiny")
    videos, features = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    # Something reddish passes by; to this operator that is nothing.
    colour_clip(videos / "quiet.mp4", [(2, 0, 0), (2.4, 220, 0), (2, 0, 0)])
    run("extract", videos, "--out", features, "--bundle", base)
    told = ("--quiet", features, "--max-false-per-day", 2)

    said = run("calibrate", base, *told, "--out", tmp_path / "quieter")

    spec = ModelBundle.load(tmp_path / "quieter").spec
    was = ModelBundle.load(base).spec.tracker
    assert spec.tracker.open_score_of(0) > was.open_score_of(0)
    assert spec.tracker.open_score_of(1) == was.open_score_of(1)
    assert "0.0 false alarms an hour" in said
    run(
        "localize",
        videos / "quiet.mp4",
        "--bundle",
        tmp_path / "quieter",
        "--out",
        tmp_path / "out",
        program=daemon.cli.main,
    )
    assert not (tmp_path / "out" / "events.jsonl").read_text()


def test_a_rate_that_no_score_reaches_is_said(tmp_path, run, capsys, monkeypatch):
    base = write_tiny_bundle(tmp_path / "tiny")
    videos, features = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    colour_clip(videos / "loud.mp4", [(2, 0, 0), (2.4, 255, 0), (2, 0, 0)])
    run("extract", videos, "--out", features, "--bundle", base)
    monkeypatch.setattr(recalibrate, "BOUNDS", (0.2, 0.45))
    words = ["s2net", "calibrate", base, "--quiet", features, "--max-false-per-day", 0]
    monkeypatch.setattr(sys, "argv", list(map(str, [*words, "--out", tmp_path / "out"])))

    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code in (0, None)
    said = " ".join(capsys.readouterr().err.split())
    assert "not reached: " in said
    assert "score 0.45 or more" in said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["--max-false-per-day", 2], "--quiet is not given"),
        (["--max-false-per-day", 2, "--quiet", "nowhere"], "--quiet is nowhere"),
        ([], "--features FOLDER, or --quiet FOLDER"),
    ],
)
def test_calibrating_on_nothing_is_refused(tmp_path, monkeypatch, capsys, told, said):
    base = write_tiny_bundle(tmp_path / "tiny")
    words = ["s2net", "calibrate", base, *told, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def planted_world(tmp_path):
    plant(synthetic_timelines(0, 6, 4, 3), tmp_path / "planted", modality="rgb", seed=0)
    return tmp_path / "planted"


def test_networks_are_compared_on_published_features(planted_world, tmp_path, run):
    out = tmp_path / "compared"
    folders = ("--scenes", planted_world, "--features", planted_world)
    small = ("--set", "schedule.length=2", "--set", "optimiser.learning_rate=1e-2")

    run(
        "compare",
        *folders,
        "--out",
        out,
        "--networks",
        "s2net",
        "--seeds",
        1,
        "--passes",
        0,
        *small,
    )

    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    # There is no subset to choose on, so nothing is run live.
    assert [("testing", kind, "") for kind in ("tags", "points", "intervals")] == [
        (row["subset"], row["supervision"], row["live_map_last"]) for row in rows
    ]


def test_variants_are_trained_on_published_features(planted_world, tmp_path, run):
    variants = tmp_path / "variants.yaml"
    variants.write_text("base-topk: {schedule.length: 2, data.modality: rgb}\n")
    folders = ("--scenes", planted_world, "--features", planted_world, "--out", tmp_path / "out")

    asked = ("--variants", variants, "--only", "base-topk", "--seeds", 2, "--ensemble", 2)

    run("benchmark", *folders, *asked, "--subsets", "testing")

    written = json.loads((tmp_path / "out/results.json").read_text())
    found = {(row["variant"], row["subset"]) for row in written["rows"]}
    assert found == {
        ("chance", "testing"),
        ("base-topk", "testing"),
        ("base-topk, 2 as one", "testing"),
    }  # there are no videos to move


def test_an_ensemble_of_more_networks_than_there_are_is_refused(
    planted_world, monkeypatch, capsys
):
    words = ["s2net", "benchmark", "--scenes", planted_world, "--features", planted_world]
    asked = [*words, "--variants", "ablation-planted", "--seeds", 2, "--ensemble", 3]
    monkeypatch.setattr(sys, "argv", list(map(str, asked)))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code
    said = " ".join(capsys.readouterr().err.split())
    assert "--ensemble is 3, and there are only 2 --seeds" in said


def test_planted_features_go_through_loader_training_and_evaluation(tmp_path, run):
    planted, trained = tmp_path / "planted", tmp_path / "run"
    plant(synthetic_timelines(0, 10, 4, 3), planted, modality="rgb", seed=0)
    small = {
        "network.trunk.width": 32,
        "network.trunk.dropout": 0.3,
        "network.objective.sparsity": 0.0,
        "network.objective.guide": 0.0,
        "network.prototypes.warm_up_steps": 20,
        "network.objective.ramp_steps": 10,
        "batches.videos": 4,
        "batches.pairs": 2,
        "batches.length": 64,
        "schedule.length": 40,
        "optimiser.learning_rate": 0.001,
        "optimiser.average_decay": 0.9,
    }
    config = ("--config", CONFIGS / "s2net-thumos14-rgb.yaml", *changes(small))
    run("train", "--features", planted, "--out", trained, *config)
    table = run("evaluate", trained, "--features", planted, "--protocol", "snippet-rounded")

    assert "snippet-rounded" in table
    (average,) = re.findall(r"^mAP +[\d. ]* ([\d.]+)$", table, re.MULTILINE)
    assert 2 < float(average) <= 100  # untrained, it stays below 1
    assert "gt.json" in run("plant", "--out", tmp_path / "again", "--videos", 3)
