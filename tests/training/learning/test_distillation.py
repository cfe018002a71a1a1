"""A student learns from whole clips' scores, goes on where it was, and is exported."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from engine.bundle.model_bundle import ModelBundle
from engine.errors import DataError
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import MANIFEST, a_record, planted, small_config, small_content

with torch_imports():
    from training.config import Points, PseudoLabels, training_config, with_overrides
    from training.export.ensemble import ensemble_of
    from training.export.export import export
    from training.export.parity import parity
    from training.feature_files import manifest_of
    from training.learning.batches import Bag
    from training.learning.checkpoints import load_run
    from training.learning.distillation import look_ahead_of, student_content, taught
    from training.learning.pseudo_labels import pseudo_targets
    from training.learning.scoring import score_video
    from training.learning.train import train
    from training.live_defaults import live_defaults
    from training.networks.online import online_config

pytestmark = pytest.mark.torch

SMALL = {
    "network.whitening_dims": 3,
    "network.width": 8,
    "network.key_dims": 4,
    "network.input_dropout": 0.1,
    "network.dropout": 0.1,
    "network.live_window": 6,
    "network.live_newest": 3,
    "network.live_windows": 8,
    "schedule.unit": "iterations",
    "schedule.length": 12,
}


def student_config(look_ahead=1, **changes):
    content = student_content(small_content(), look_ahead)
    return training_config(with_overrides(content, SMALL | changes, "test"), "test")


def trained(out, config, teacher=None, **options):
    return train(
        config,
        planted(),
        out,
        teacher=teacher,
        manifest=options.pop("manifest", MANIFEST),
        device="cpu",
        threads=1,
        **options,
    )


@pytest.fixture
def teacher(tmp_path):
    return trained(tmp_path / "teacher", small_config())


def weights(run):
    return {name: tensor.numpy() for name, tensor in run.network.state_dict().items()}


def same(first, second):
    other = weights(second)
    return all(np.array_equal(array, other[name]) for name, array in weights(first).items())


def test_targets_are_the_scores_of_tagged_classes_and_segments_made_of_them():
    rng = np.random.default_rng(0)
    scores = rng.random((12, 2), np.float32)
    tags, labels = np.array([1, 0], np.float32), PseudoLabels(6, 0.25, 0.75)
    bag = Bag("a", np.zeros((12, 3), np.float32), np.zeros(3, np.float32), np.arange(12), tags)

    def targets(segments):
        config = replace(online_config(0), segments=segments)
        return taught([bag], [scores], config, labels, Points())[0].targets

    np.testing.assert_array_equal(targets(0.0), scores * tags)
    np.testing.assert_array_equal(targets(1.0), pseudo_targets(scores, tags, labels))
    middle = (targets(0.0).astype(np.float64) + targets(1.0)) / 2
    np.testing.assert_allclose(targets(0.5), middle, atol=1e-6)

    clicked = np.zeros((12, 2), bool)
    clicked[int(scores[:, 0].argmax()), 0] = True
    (grown,) = taught(
        [replace(bag, points=clicked)],
        [scores],
        replace(online_config(0), segments=1.0),
        labels,
        Points(),
    )
    assert {0.0, 1.0} == set(grown.targets[:, 0].tolist())


@pytest.mark.slow
@pytest.mark.numeric
def test_a_student_finds_what_its_teacher_finds(tmp_path):
    teacher = trained(tmp_path / "teacher", small_config(schedule__length=150, rounds=2))
    config = student_config(0, **{"schedule.length": 150, "network.bounded": True})

    student = trained(tmp_path / "student", config, teacher)

    (record,) = [a_record("new", rows_with_an_action(), tags=(0,))]
    known = teacher.camera_mean("cam-0")
    seen, wanted = (score_video(run.network, record, known)[0] for run in (student, teacher))
    inside = np.zeros(12, bool)
    inside[5:9] = True
    assert wanted[inside, 0].mean() > 2 * wanted[~inside, 0].mean()
    assert seen[inside, 0].mean() > 2 * seen[~inside, 0].mean()
    assert seen[inside, 0].mean() > 3 * seen[inside, 1].mean()


def rows_with_an_action():
    rows = np.zeros((12, 3), np.float32)
    rows[5:9, 0] = 1
    return rows


class PowerCut(Exception):  # noqa: N818 - it is none of ours
    pass


def test_an_interrupted_student_goes_on_as_if_it_had_not_been(tmp_path, teacher):
    def cut(progress):
        if progress.step == 8:
            raise PowerCut

    config = student_config()
    whole = trained(tmp_path / "whole", config, teacher)
    with pytest.raises(PowerCut):
        trained(tmp_path / "cut", config, teacher, on_progress=cut)

    assert same(whole, trained(tmp_path / "cut", config, teacher))
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "cut/log.csv").read_text()
    assert same(whole, load_run(tmp_path / "whole"))
    other = trained(tmp_path / "other", small_config(seed=1))
    with pytest.raises(DataError, match="of another configuration or other data"):
        trained(tmp_path / "whole", config, other)


def test_a_teacher_is_left_as_it_was_and_may_be_several(tmp_path, teacher):
    before = weights(teacher)
    second = trained(tmp_path / "second", small_config(seed=1))

    one = trained(tmp_path / "one", student_config(), teacher)
    both = trained(tmp_path / "both", student_config(), ensemble_of([teacher, second]))

    assert not same(one, both)
    assert all(np.array_equal(before[name], now) for name, now in weights(teacher).items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"class_names": ("a", "c")}, "the teacher's classes: a, c, these clips': a, b; take a"),
        ({"feature_dim": 4}, "the teacher's numbers a feature: 4, these clips': 3"),
        ({"manifest": {"feature_dim": 3}}, "the teacher's features: {'feature_dim': 3}"),
    ],
)
def test_a_teacher_of_something_else_is_refused(tmp_path, teacher, changes, told):
    with pytest.raises(DataError) as caught:
        trained(tmp_path / "student", student_config(), replace(teacher, **changes))

    assert told in str(caught.value)
    assert not (tmp_path / "student").exists()


def test_a_teacher_of_another_grid_or_background_is_refused(tmp_path, teacher):
    coarse = replace(teacher, grid=replace(teacher.grid, stride_frames=2))
    with pytest.raises(DataError, match="the teacher's time grid"):
        trained(tmp_path / "student", student_config(), coarse)
    with pytest.raises(DataError, match="the teacher's background: camera, these clips': none"):
        trained(tmp_path / "student", student_config(background="none"), teacher)


def test_a_teacher_may_know_the_classes_in_another_order(tmp_path, teacher):
    student = trained(tmp_path / "student", student_config(), teacher)
    network = copy.deepcopy(teacher.network)
    network.register_forward_hook(lambda _1, _2, out: replace(out, cas=out.cas.flip(-1)))
    turned = replace(teacher, network=network, class_names=teacher.class_names[::-1])

    assert same(student, trained(tmp_path / "other", student_config(), turned))


def test_only_an_online_student_has_a_teacher(tmp_path, teacher):
    with pytest.raises(DataError, match="only an online student learns from a teacher"):
        trained(tmp_path / "student", small_config(seed=3), teacher)


def test_a_configuration_becomes_a_students():
    content = student_content(small_content(), None)
    config = training_config(content, "test")

    assert ("online", 2) == (config.network.kind, config.network.config.look_ahead)
    assert (1, "fixed") == (config.rounds, config.stopping.rule)
    again = student_content({**content, "seed": 4}, 0)
    assert {**content, "seed": 4, "network": {**content["network"], "look_ahead": 0}} == again
    with pytest.raises(DataError, match="--look-ahead: look_ahead is 9 hops, wanted 0 to 6"):
        student_content(small_content(), 9)
    with pytest.raises(DataError, match="network is None, wanted a section"):
        training_config({**content, "network": None}, "test")


@pytest.mark.openvino
@pytest.mark.numeric
def test_a_student_is_exported_like_any_other_and_its_look_ahead_is_its_freeze(tmp_path):
    base = ModelBundle.load(write_tiny_bundle(tmp_path / "base"))
    manifest = manifest_of(base)
    teacher = trained(tmp_path / "teacher", small_config(), manifest=manifest)
    student = trained(tmp_path / "student", student_config(2), teacher, manifest=manifest)

    changes = live_defaults(student.grid, look_ahead_of([student]))
    made = export(student, base, tmp_path / "made", name="made", source="a test", changes=changes)

    bundle = ModelBundle.load(made)
    report = parity(student, bundle.localizer_path, planted().records, lengths=(1, 24, 48))
    assert report.holds, report.table()
    assert 2 * student.grid.stride_us == bundle.spec.tracker.freeze_us
    assert (2, None) == (look_ahead_of([student, student]), look_ahead_of([student, teacher]))
