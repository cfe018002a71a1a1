"""Hard scenes: what makes them hard is in the pictures, and the truth can still be seen."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.scenes.camera import N_CAMERAS, SCALE, backdrop, camera
from engine.scenes.dataset import SceneCounts, SceneVideo, render_video, scene_videos
from engine.scenes.difficulty import HARD, PLAIN, Difficulty, Sight
from engine.scenes.motions import LENGTHS_S
from engine.scenes.obstacles import Cutout, obstacles
from engine.scenes.planner import Wanted, plan
from engine.scenes.render import pictures
from engine.scenes.sensing import Sensor, conditions
from engine.scenes.visibility import is_visible

FEW = SceneCounts(
    tagged=6, untagged=1, validation=1, test=1, quiet=1, unseen=1, clip_s=(5, 6), long_s=(18, 20)
)
STILL = replace(HARD, shake_px=(0, 0), drift=(0, 0), nights=0.0, day=Sight(noise=(0, 0)))


@pytest.fixture(scope="module")
def hard() -> list[SceneVideo]:
    return list(scene_videos(FEW, 7, HARD))


def seen(difficulty: Difficulty, times_s: np.ndarray, seed: int = 1) -> np.ndarray:
    """An empty place at these times, float32 (T, 240, 320, 3)."""
    place = camera(2, difficulty)
    sensor = Sensor(place, conditions(difficulty, seed), np.random.default_rng(0))
    canvas = backdrop(place)
    return np.stack([sensor.sense(canvas, float(t)) for t in times_s]).astype(np.float32)


def test_hard_scenes_are_those_of_their_seed(hard: list[SceneVideo]):
    def first(video: SceneVideo) -> np.ndarray:
        return np.stack([one for one, _ in zip(pictures(video.script), range(3), strict=False)])

    assert hard == list(scene_videos(FEW, 7, HARD))
    assert hard != list(scene_videos(FEW, 8, HARD))
    assert np.array_equal(first(hard[1]), first(hard[1]))


def test_hard_scenes_have_the_splits_cameras_and_seeds_of_the_plain_ones(hard: list[SceneVideo]):
    plain = list(scene_videos(FEW, 7))

    assert [f"hard{video.name.removeprefix('draw')}" for video in plain] == [
        video.name for video in hard
    ]
    for ours, theirs in zip(hard, plain, strict=True):
        assert ours.subset == theirs.subset
        assert ours.script.camera.seed == theirs.script.camera.seed
        # Backgrounds are kept by name, and theirs are not ours.
        assert ours.script.camera.name == theirs.script.camera.name.replace("cam", "far")


@pytest.mark.parametrize("number", range(1, N_CAMERAS + 1))
def test_those_who_stand_are_30_to_80_pixels_tall(number: int):
    heights = []
    for seed in range(4):
        script = plan(camera(number, HARD), Wanted((), 10.0), seed, HARD)
        for actor in script.actors:
            for act in actor.acts:
                if act.motion != "stand" or act.end_s - act.start_s < 1:
                    continue
                joints, pixels, (_, depth) = actor.joints_at(act.end_s - 0.1, script.camera)
                unit = actor.size * script.camera.person_px(depth)
                crown = pixels[:, 1].min() - 0.068 * unit
                heights.append(script.camera.floor_y_px(depth) - crown)
                assert 0.03 == pytest.approx(joints[:, 1].min())

    assert 30 <= min(heights)
    assert max(heights) <= 80


def test_two_and_three_act_at_once_and_do_different_things(hard: list[SceneVideo]):
    most = 0
    for video in hard:
        truth = video.script.truth
        for row in truth:
            during = [one for one in truth if one.start_s <= row.start_s < one.end_s]
            assert len(during) == len({one.class_name for one in during})
            most = max(most, len(during))

    assert most >= 3


def test_every_action_lies_inside_its_video_and_is_seen_though_partly_hidden(
    hard: list[SceneVideo],
):
    partly = 0
    for video in hard:
        script = video.script
        for row in script.truth:
            assert 0 <= row.start_s < row.end_s <= script.duration_s
            assert is_visible(script, row)
            for actor in script.actors:
                here = [act for act in actor.acts if act.start_s == row.start_s]
                if not here or here[0].motion != row.class_name:
                    continue
                middle_s = (row.start_s + row.end_s) / 2
                _, pixels, (_, depth) = actor.joints_at(middle_s, script.camera)
                near = [thing for thing in script.obstacles if thing.depth > depth]
                hidden = np.any([thing.hides(pixels) for thing in near], axis=0).mean()
                assert hidden <= 0.9  # between the moments that are looked at, too
                partly += hidden > 0.1

    assert partly >= 2


def test_an_action_behind_a_wall_is_none():
    script = plan(camera(1, HARD), Wanted(("wave",), 6.0), 3, HARD)
    (row,) = script.truth
    wall = replace(
        script.obstacles[0], kind="pillar", depth=2.0, foot_px=240, wide_px=640, high_px=240
    )

    assert is_visible(script, row)
    assert not is_visible(replace(script, obstacles=(wall,)), row)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, N_CAMERAS))
def test_what_an_obstacle_hides_is_where_it_is_drawn(seed: int, number: int):
    place = camera(number, HARD)
    for thing in obstacles(place, replace(HARD, cars=(1, 1)), seed):
        canvas = np.zeros((240 * SCALE, 320 * SCALE, 3), np.uint8)
        Cutout(thing, np.ones(3)).paste(canvas)
        drawn = canvas.any(axis=-1)
        y, x = np.mgrid[: drawn.shape[0], : drawn.shape[1]] / SCALE
        told = thing.hides(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(drawn.shape)

        assert (drawn & told).sum() / (drawn | told).sum() > 0.75  # leaves are ragged


def test_fixtures_are_the_cameras_and_cars_are_the_videos():
    place = camera(3, HARD)
    one, other = (obstacles(place, replace(HARD, cars=(1, 1)), seed) for seed in (1, 2))

    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]
    assert () == obstacles(place, PLAIN, 1)


def test_most_of_those_who_do_not_act_gesture():
    def gestures(difficulty: Difficulty) -> float:
        videos = scene_videos(SceneCounts(5, 5, 0, 0, 1, 0), 1, difficulty)
        acts = [act for video in videos for who in video.script.actors for act in who.acts]
        idle_s = sum(act.end_s - act.start_s for act in acts if act.motion not in LENGTHS_S)
        told = [act for act in acts if act.motion in ("talk", "phone", "stretch")]
        return sum(act.end_s - act.start_s for act in told) / idle_s

    assert gestures(HARD) > 0.45 > gestures(PLAIN)


def test_light_drifts_slowly_by_as_much_as_is_told():
    times_s = np.arange(0, 40, 1.0)
    drifting = replace(STILL, drift=(0.2, 0.2), drift_s=(40, 40))
    still = seen(STILL, times_s).mean(axis=(1, 2, 3))
    light = seen(drifting, times_s).mean(axis=(1, 2, 3)) / still

    assert 0.4 == pytest.approx(light.max() - light.min(), abs=0.04)
    assert np.abs(np.diff(light)).max() < 0.04


def test_the_camera_shakes_by_as_much_as_is_told():
    times_s = np.arange(0, 20, 0.1)
    greys = seen(replace(STILL, shake_px=(0.8, 0.8)), times_s).mean(axis=-1)
    smooth = np.stack([cv2.GaussianBlur(grey, (0, 0), 3) / grey.mean() for grey in greys])
    # What moves by d differs by -d times its slope, and the best d for all pixels is its place.
    down, across = np.gradient(smooth.mean(axis=0))
    slopes = np.stack([across.ravel(), down.ravel()], axis=1)
    changes = (smooth - smooth.mean(axis=0)).reshape(len(times_s), -1)
    moved = np.linalg.lstsq(slopes, changes.T, rcond=None)[0].T

    assert (0.8, 0.8) == pytest.approx(moved.std(axis=0), rel=0.3)
    still = seen(STILL, times_s[:3])
    assert np.abs(np.diff(still, axis=0)).max() <= 1


def test_nights_are_dark_nearly_grey_and_noisy():
    day = seen(replace(HARD, nights=0.0, shake_px=(0, 0)), np.array([0, 0.04]))
    night = seen(replace(HARD, nights=1.0, shake_px=(0, 0)), np.array([0, 0.04]))

    def colour(frames: np.ndarray) -> float:
        smooth = cv2.blur(frames[0], (9, 9))
        return float((smooth.max(axis=-1) - smooth.min(axis=-1)).mean() / smooth.mean())

    assert 0.3 < night.mean() / day.mean() < 0.65
    assert colour(night) < 0.6 * colour(day)
    assert np.diff(night, axis=0).std() > 1.2 * np.diff(day, axis=0).std()


def test_some_videos_are_of_the_night_and_all_are_compressed():
    under = [conditions(HARD, seed) for seed in range(200)]
    dark = [one for one in under if one.is_night]

    assert 0.3 == pytest.approx(len(dark) / len(under), abs=0.1)
    assert all(90_000 <= (one.bits_per_second or 0) <= 160_000 for one in dark)
    assert all(90_000 <= (one.bits_per_second or 0) <= 300_000 for one in under)


def test_a_plain_video_has_the_conditions_of_old():
    plain = conditions(PLAIN, 5)

    assert (1, 1, 1) == (plain.gain, plain.noise, plain.colour)
    assert (0, 0) == (plain.drift, plain.shake_px)
    assert (plain.is_night, plain.bits_per_second) == (False, None)
    assert {1.0} == {plain.light_at(t) for t in (0.0, 1.3, 1e3)}
    assert Difficulty() == PLAIN


@pytest.mark.slow
def test_a_night_is_encoded_in_as_many_bits_as_are_told(tmp_path):
    dark = replace(HARD, nights=1.0)
    script = plan(camera(1, dark), Wanted(("wave",), 6.0), 1, dark)
    path = tmp_path / "night.mp4"
    render_video(SceneVideo("night", "testing", script), path)
    wanted = conditions(dark, 1).bits_per_second or 0

    assert 8 * path.stat().st_size / 6.0 < 1.3 * wanted


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"person_px": (80, 30)}, "person_px is 80 to 30, wanted 20 to 150, lowest first"),
        ({"person_px": (5, 30)}, "person_px is 5 to 30"),
        ({"person_px": (50, 60)}, "the tallest at least twice as tall"),
        ({"people": (1, 3)}, "people is 1 to 3, wanted 2 or more"),
        ({"together": 1.5}, "together is 1.5, wanted 0 to 1"),
        ({"max_hidden": -0.1}, "max_hidden is -0.1"),
        ({"pace": 0.0}, "pace is 0"),
        ({"drift": (0, 2)}, "drift is 0 to 2"),
        ({"shake_px": (-1, 1)}, "shake_px is -1 to 1"),
        ({"idle": ("talk", "dance")}, "idle is ('talk', 'dance'), wanted some of stand, talk"),
        ({"idle": ()}, "idle is ()"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Difficulty(**wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"colour": (0, 2)}, "colour is 0 to 2, wanted 0 to 1"),
        ({"noise": (2, 1)}, "noise is 2 to 1, wanted 0 or more"),
        ({"kbits_per_second": (0, 5)}, "kbits_per_second is 0 to 5, wanted 1 or more"),
    ],
)
def test_what_no_sensor_gives_is_refused(wrong, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Sight(**wrong)
