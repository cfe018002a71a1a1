"""Training: repeatable, resumable, judged by tags alone, and refused in one line."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from engine.errors import BundleError, DataError
from tests.support.error_bounds import Bounded, assert_within, gamma
from tests.support.real_parts import torch_imports
from tests.support.tiny_training import (
    CONFIGS,
    MANIFEST,
    a_record,
    planted,
    small_config,
    small_content,
)
from training.records import Point

with torch_imports():
    import torch

    from training.config import (
        PseudoLabels,
        Schedule,
        parse_override,
        read_training_config,
        training_config,
    )
    from training.learning.checkpoints import load_run, read_tensors, write_tensors
    from training.learning.pseudo_labels import pseudo_targets
    from training.learning.scoring import score_video
    from training.learning.stopping import (
        Check,
        average_precision,
        chosen_iterations,
        held_out,
        tag_map,
    )
    from training.learning.train import train

pytestmark = pytest.mark.torch


def trained(out, feature_set=None, **changes):
    notes = []
    return train(
        small_config(**changes),
        feature_set or planted(),
        out,
        manifest=MANIFEST,
        device="cpu",
        threads=1,
        note=notes.append,
    )


def weights(run):
    return {name: tensor.numpy() for name, tensor in run.network.state_dict().items()}


def same(first, second):
    return all(
        np.array_equal(array, weights(second)[name]) for name, array in weights(first).items()
    )


@pytest.mark.numeric
@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path):
    first, again = trained(tmp_path / "a"), trained(tmp_path / "b")
    other = trained(tmp_path / "c", seed=1)

    assert same(first, again)
    assert not same(first, other)
    assert (tmp_path / "a/checkpoint.safetensors").read_bytes() == (
        tmp_path / "b/checkpoint.safetensors"
    ).read_bytes()
    assert (tmp_path / "a/log.csv").read_text() == (tmp_path / "b/log.csv").read_text()


class PowerCut(Exception):  # noqa: N818 - it is none of ours
    pass


def cut_at(phase, step):
    def on_progress(progress):
        if (progress.phase, progress.step) == (phase, step):
            raise PowerCut

    return on_progress


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "phase", "step"),
    [
        ({}, "round_1", 3),  # before anything was saved
        ({}, "round_1", 8),
        ({"rounds": 2}, "round_2", 7),
        (  # prototypes are state too
            {
                "network__prototypes__source": "ema",
                "network__prototypes__fuse": True,
                "network__prototypes__warm_up_steps": 2,
            },
            "round_1",
            11,
        ),
        ({"stopping__rule": "label_free", "stopping__check_every": 3}, "search", 10),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, changes, phase, step):
    whole = trained(tmp_path / "whole", **changes)
    config = small_config(**changes)
    out = tmp_path / "cut"
    with pytest.raises(PowerCut):
        train(config, planted(), out, device="cpu", threads=1, on_progress=cut_at(phase, step))
    assert not (out / "checkpoint.safetensors").exists()

    assert same(whole, trained(out, **changes))
    assert (tmp_path / "whole/log.csv").read_text() == (out / "log.csv").read_text()


def test_a_finished_run_is_given_back_and_another_configuration_refused(tmp_path):
    first = trained(tmp_path)
    before = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns

    assert same(first, trained(tmp_path))
    assert before == (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    with pytest.raises(DataError, match=r"of another configuration or other data: choose another"):
        trained(tmp_path, seed=5)
    with pytest.raises(DataError, match=r"of another configuration or other data"):
        trained(tmp_path, planted(seed=3))


def test_global_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    trained(tmp_path)

    assert before.equal(torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert n_threads == torch.get_num_threads()


@pytest.mark.numeric
@pytest.mark.slow
def test_it_learns_where_from_tags_alone(tmp_path):
    feature_set = planted(48)
    run = trained(tmp_path, feature_set, rounds=2, schedule__length=80)
    inside, outside = [], []
    for record in planted(12, seed=9).records:
        cas, attention = score_video(run.network, record, run.camera_mean(record.camera))
        assert ((len(record.features), 2), (len(record.features),)) == (cas.shape, attention.shape)
        happens = record.features[:, :2] > 0.5
        inside += cas[happens].tolist()
        outside += cas[~happens].tolist()

    assert np.mean(inside) > np.mean(outside) + 0.4


@pytest.mark.numeric
def test_the_average_follows_its_formula(tmp_path):
    """One and two steps of plain weights, from runs without an average, mix as documented."""
    plain = [
        weights(trained(tmp_path / f"p{n}", optimiser__average_decay=0, schedule__length=n))
        for n in (1, 2)
    ]
    kept = [min(0.15, 1 / 10), min(0.15, 2 / 11)]
    average = weights(trained(tmp_path / "a", optimiser__average_decay=0.15, schedule__length=2))
    first = weights(trained(tmp_path / "f", optimiser__average_decay=0.15, schedule__length=1))
    for name in average:
        old, new = (one[name].astype(np.float64) for one in (first, plain[1]))
        wanted = kept[1] * old + (1 - kept[1]) * new
        # One step of old + (new - old) w, w a float32 too: four roundings of numbers no larger.
        assert_within(average[name], Bounded(wanted, gamma(4) * (np.abs(old) + np.abs(new))))
    assert any(not np.array_equal(first[name], plain[0][name]) for name in first)


def test_a_finished_folder_holds_everything_and_loads(tmp_path):
    run = trained(tmp_path)
    loaded = load_run(tmp_path)

    assert same(run, loaded)
    assert (("a", "b"), 3, MANIFEST) == (loaded.class_names, loaded.feature_dim, loaded.manifest)
    assert planted().grid == loaded.grid
    assert {"", "cam-0", "cam-1"} == set(loaded.camera_means)
    assert np.array_equal(run.camera_mean("cam-1"), loaded.camera_mean("cam-1"))
    assert np.array_equal(run.camera_means[""], loaded.camera_mean("elsewhere"))
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "state").exists()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert ["2", "4", "6", "8", "10", "12"] == [row["step"] for row in rows]
    for row in rows:
        terms = [float(v) for k, v in row.items() if v and k not in {"phase", "step", "total"}]
        # All are written with six digits.
        digits = 0.5e-5 * (abs(float(row["total"])) + sum(map(abs, terms)))
        assert float(row["total"]) == pytest.approx(sum(terms), rel=0, abs=digits * 1.01)


def damage(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def test_without_matplotlib_a_note_says_why_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    notes = []
    config = small_config(schedule__length=1)
    train(config, planted(), tmp_path, device="cpu", threads=1, note=notes.append)

    assert ["no picture of the losses: pip install matplotlib"] == notes
    assert not (tmp_path / "log.png").exists()


def test_the_log_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    for rule in ("label_free", "fixed"):
        trained(tmp_path / rule, stopping__rule=rule)

    # Where nothing was held out, there is no panel for it.
    assert ((1000, 600), (500, 300)) == (
        size_of(tmp_path / "label_free"),
        size_of(tmp_path / "fixed"),
    )


def size_of(out):
    header = (out / "log.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return tuple(int.from_bytes(header[at : at + 4]) for at in (16, 20))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "backgrounds.npz").unlink(), "backgrounds.npz cannot be read"),
        (lambda out: damage(out / "backgrounds.npz", 0), "backgrounds.npz is damaged"),
        (
            lambda out: damage(out / "checkpoint.safetensors", -4),
            "safetensors is damaged .*not fully covered",
        ),
        (
            lambda out: damage(out / "checkpoint.safetensors", 5),
            "safetensors is damaged .*header too small",
        ),
        (lambda out: (out / "classes.json").write_text("{}"), "classes.json is damaged"),
        (lambda out: (out / "classes.json").write_text("["), "classes.json is damaged .Expecting"),
        (lambda out: (out / "features.json").unlink(), "features.json cannot be read"),
        (
            lambda out: (out / "classes.json").write_text(
                (out / "classes.json").read_text().replace('"b"', '"b", "c"')
            ),
            "the configured network has",
        ),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(tmp_path, spoil, message):
    trained(tmp_path, schedule__length=1)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_run(tmp_path)

    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_names_the_step_and_the_cure(tmp_path):
    wild = {"optimiser__learning_rate": 1e30, "optimiser__clip_norm": 0, "schedule__length": 9}
    with pytest.raises(DataError, match=r"is (nan|inf) at iteration \d+: lower optimiser"):
        trained(tmp_path, **wild)


def test_bad_features_are_refused_before_anything_is_written(tmp_path):
    bad = a_record("bad", [[0, np.nan, 0]], tags=(0,))
    feature_set = replace(planted(), records=(bad,))
    with pytest.raises(DataError, match="bad: row 0"):
        trained(tmp_path / "run", feature_set)
    with pytest.raises(DataError, match="none of 0 videos has a tag"):
        trained(tmp_path / "run", replace(feature_set, records=()))
    assert not (tmp_path / "run").exists()


def test_label_free_stopping_trains_again_on_everything(tmp_path):
    changes = {
        "stopping__rule": "label_free",
        "stopping__check_every": 4,
        "stopping__holdout": 0.25,
    }
    trained(tmp_path, **changes)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    checks = [
        Check(int(row["step"]), float(row["held_out_tag_map"]))
        for row in rows
        if row["held_out_tag_map"]
    ]
    chosen = chosen_iterations(checks, 1.0)

    assert [4, 8, 12] == [check.iterations for check in checks]
    last = [int(row["step"]) for row in rows if row["phase"] == "round_1"][-1]
    assert round(chosen * 24 / 18) == last


def test_held_out_videos_that_tell_nothing_are_refused(tmp_path):
    alike = replace(
        planted(), records=tuple(replace(record, tags=(0,)) for record in planted().records)
    )
    with pytest.raises(DataError, match="set it to fixed"):
        trained(tmp_path, alike, stopping__rule="label_free")


def test_whole_videos_train_too(tmp_path):
    videos = {
        "batches": {"kind": "videos", "videos": 4, "length": 10, "pairs": 1},
        "background": "none",
    }
    run = trained(tmp_path, **videos)

    assert {""} == set(run.camera_means)
    assert not run.camera_mean("cam-1").any()


# By hand ------------------------------------------------------------------------------------


def test_the_first_check_within_a_point_of_the_best_is_taken():
    checks = [Check(10, 70.0), Check(20, 88.9), Check(30, 89.5), Check(40, 90.0), Check(50, 89)]

    assert [30, 20, 40] == [chosen_iterations(checks, within) for within in (1.0, 1.1, 0.0)]


def test_average_precision_of_a_small_case():
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)

    assert (1 / 1 + 2 / 3) / 2 == pytest.approx(
        average_precision(scores, np.array([True, False, True, False]))
    )
    assert 0.25 == average_precision(np.ones(4, np.float32), np.array([True, False, False, False]))


def test_tag_map_leaves_out_classes_that_say_nothing():
    tags = np.array([[1, 1], [0, 1]], np.float32)

    assert 100 == tag_map(np.array([[1, 0], [0, 0]], np.float32), tags)
    assert 50 == tag_map(np.array([[0, 0], [1, 0]], np.float32), tags)


def test_every_set_of_tags_gives_its_share_to_the_holdout():
    tags = np.repeat(np.eye(3, dtype=np.float32), [50, 30, 20], axis=0)
    apart = held_out(tags, 0.2, seed=1)

    assert [10, 6, 4] == tags[apart].sum(axis=0).tolist()
    assert np.array_equal(apart, held_out(tags, 0.2, seed=1))
    assert not np.array_equal(apart, held_out(tags, 0.2, seed=2))


def test_pseudo_labels_of_a_small_case():
    config = PseudoLabels(share=6, low=0.25, high=0.75)
    scores = np.array([[0, 0.5], [0, 0.5], [0.4, 0.5], [0.8, 0.5], [0.8, 0.5], [0.8, 0.5]])
    targets = pseudo_targets(scores.astype(np.float32), np.array([1, 0], np.float32), config)

    # Smoothed: 0, .1, .4, .7, .8, .8; lo 0, hi .8; x = 0, .125, .5, .875, 1, 1.
    # Numbers below 1 are rounded at most 8 times, then stretched by 1 / (.8 * .5).
    wanted = np.array([0, 0, 0.5, 1, 1, 1])
    assert_within(targets[:, 0], Bounded(wanted, np.full(6, gamma(8) / (0.8 * 0.5))))
    assert not targets[:, 1].any()


@pytest.mark.parametrize("length", [1, 4])
def test_a_flat_teacher_says_nothing_of_where(length):
    config = PseudoLabels(share=6, low=0.25, high=0.75)
    scores = np.full((length, 1), 0.9, np.float32)

    assert [[0.5]] * length == pseudo_targets(scores, np.ones(1, np.float32), config).tolist()


def test_an_epoch_is_as_many_steps_as_it_takes():
    assert (35, 7, 1) == (
        Schedule("epochs", 5).iterations(280, 40),
        Schedule("iterations", 7).iterations(280, 40),
        Schedule("epochs", 1).iterations(3, 40),
    )


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(7, np.int64),
        "c": np.zeros((0, 4), np.float32),
        "d": np.array([True, False]),
    }
    write_tensors(tmp_path / "x", tensors, {"step": "3"})
    seen, metadata = read_tensors(tmp_path / "x")

    assert {"step": "3"} == metadata
    assert set(tensors) == set(seen)
    for name, array in tensors.items():
        assert np.array_equal(array, seen[name])
        assert (array.dtype, array.shape) == (seen[name].dtype, seen[name].shape)
    header = (tmp_path / "x").read_bytes()[:8]
    assert 0 == int.from_bytes(header, "little") % 8


# Configurations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("ablation-")),
    ids=lambda path: path.stem,
)
def test_the_shipped_configurations_read_and_write_back(path):
    config = read_training_config(path)

    assert dict(config.content) == dict(training_config(config.content, "again").content)


def test_a_file_from_before_there_were_clicks_is_read(tmp_path):
    content = small_content()
    del content["points"], content["hard_negatives"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))

    config = read_training_config(tmp_path / "old.yaml", {"points.weight": 0.5})

    assert 0.5 == config.points.weight
    assert dict(small_config().content) == {**config.content, "points": small_content()["points"]}


def test_clicks_from_before_scores_leant_to_them_do_not_lean_and_are_the_same(tmp_path):
    content = small_content()
    del content["points"]["lean"], content["points"]["reach"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))

    config = read_training_config(tmp_path / "old.yaml")

    assert 0.0 == config.points.lean
    # A run of before has the digest of a configuration without the keys, and is given back.
    records = [
        replace(r, points=tuple(Point(tag, 0) for tag in r.tags)) for r in planted().records
    ]
    videos, out = replace(planted(), records=tuple(records)), tmp_path / "run"
    before = replace(config, content=config.content | {"points": content["points"]})
    first = train(before, videos, out, device="cpu", threads=1)
    again = train(config, videos, out, device="cpu", threads=1)
    assert first.identity == again.identity
    leaning = read_training_config(tmp_path / "old.yaml", {"points.lean": 0.3})
    with pytest.raises(DataError, match="is of another configuration"):
        train(leaning, videos, out, device="cpu", threads=1)


@pytest.mark.parametrize("lean", [0.3, 0.0])
def test_a_second_round_tells_of_clicks_that_all_lie_in_one_place(tmp_path, lean):
    records = [
        replace(r, points=tuple(Point(tag, 0) for tag in r.tags)) for r in planted().records
    ]
    videos, lines = replace(planted(), records=tuple(records)), []
    config = small_config(rounds=2, points__lean=lean)
    train(config, videos, tmp_path / "run", device="cpu", threads=1, note=lines.append)

    assert (lean > 0) == any("clicks keep to one part" in line for line in lines)


def test_a_trunk_from_before_weak_directions_were_held_down_is_plain_and_the_same(tmp_path):
    content = small_content(network__trunk__whitening_shrink=0.0)
    del content["network"]["trunk"]["whitening_shrink"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))

    config = read_training_config(tmp_path / "old.yaml")
    changed = read_training_config(tmp_path / "old.yaml", {"network.trunk.whitening_shrink": 1.0})

    assert 0.0 == config.network.config.trunk.whitening_shrink
    assert 1.0 == changed.teacher.config.trunk.whitening_shrink
    # A run of before has the digest of a configuration without the key, and is given back.
    before = replace(config, content=content | {"points": config.content["points"]})
    videos, out = planted(), tmp_path / "run"
    first = train(before, videos, out, device="cpu", threads=1)
    again = train(config, videos, out, device="cpu", threads=1)
    assert first.identity == again.identity
    with pytest.raises(DataError, match="is of another configuration"):
        train(changed, videos, out, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1, wanted >= 0"),
        ({"optimiser__learning_rate": 0.0}, "learning_rate is 0.0, wanted > 0"),
        ({"optimiser__learning_rate": "fast"}, "learning_rate is 'fast', wanted"),
        ({"rounds": 3}, "rounds is 3"),
        ({"batches__clips": 0}, "clips is 0, wanted >= 1"),
        ({"stopping__holdout": 1.0}, "holdout is 1.0"),
        ({"network__kind": "odd"}, r"network.kind is 'odd', wanted one of \['s2net', "),
        ({"batches": {"kind": "clips", "sequences": 2}}, "batches.clips is missing"),
        ({"batches": {"kind": "odd"}}, "batches.kind is 'odd'"),
        ({"network__trunk": 3}, "network.trunk is a int"),
        ({"teacher": {"network.interaction.sat": False}}, "no key network.interaction.sat"),
        ({"teacher": None}, "teacher is None, wanted a section"),
        ({"sead": 3}, "there is no key sead"),
        ({"seed__a": 3}, "there is no key seed.a"),
    ],
)
def test_a_mistake_in_a_configuration_is_one_line(changes, message):
    with pytest.raises((DataError, BundleError), match=message) as caught:
        small_config(**changes)

    assert "\n" not in str(caught.value)


def test_the_teacher_may_differ_from_the_network():
    config = small_config(rounds=2, teacher={"network.interaction.sta": False})

    assert (True, False) == (
        config.network.config.interaction.sta,
        config.teacher.config.interaction.sta,
    )
    assert {"network.interaction.sta": False} == config.content["teacher"]


def test_overrides_are_yaml_values():
    assert ("network.sta", False) == parse_override("network.sta=off")
    assert ("a", [3, 5]) == parse_override("a=[3, 5]")
    for wrong in ("a", "=3", "a=[3"):
        with pytest.raises(DataError, match="is no"):
            parse_override(wrong)


def test_the_log_section_does_not_make_another_run(tmp_path):
    first = trained(tmp_path)

    assert same(first, trained(tmp_path, log__save_every=3))
    assert small_content()["log"]["save_every"] == 5
