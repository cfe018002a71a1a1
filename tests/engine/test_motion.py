"""The motion gate: it spares what stands still, whatever the noise, and nothing that moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion import TURN, MotionGate, sight_of

L, SIDE = 16, 160


def noisy(picture: np.ndarray, seed: int, sigma: float) -> np.ndarray:
    """L frames of a picture (H, W, 3) under noise of ``sigma`` levels."""
    noise = np.random.default_rng(seed).normal(0, sigma, (L, *picture.shape))
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def a_room(seed: int = 0, side: int = SIDE) -> np.ndarray:
    """A picture with some structure, float (H, W, 3)."""
    coarse = np.random.default_rng(seed).uniform(40, 200, (8, 8, 3))
    tile = -(-side // 8)
    return np.kron(coarse, np.ones((tile, tile, 1)))[:side, :side]


def walked_in(rgb: np.ndarray, width_px: int, height_px: int, levels: int) -> np.ndarray:
    """The same frames, with somebody who walks through the middle of them."""
    seen = rgb.astype(np.int16)
    top = SIDE // 2
    for frame in range(len(seen)):
        left = 40 + 2 * frame
        seen[frame, top : top + height_px, left : left + width_px] += levels
    return np.clip(seen, 0, 255).astype(np.uint8)


def still_shares(gate: MotionGate, snippets: list[np.ndarray]) -> list[bool]:
    """Which snippets are spared, in order."""
    spared = []
    for index, rgb in enumerate(snippets):
        sight = gate.see(rgb, index)
        is_still = gate.is_still(sight, index)
        if not is_still:
            gate.looked(sight, index)
        spared.append(is_still)
    return spared


@pytest.mark.parametrize("sigma", [0.0, 2.0, 8.0, 20.0])
def test_what_stands_still_is_looked_at_once_under_any_noise(sigma):
    room = a_room()

    spared = still_shares(MotionGate(None), [noisy(room, n, sigma) for n in range(12)])

    assert [False] + [True] * 11 == spared


@pytest.mark.parametrize(("sigma", "levels"), [(0.0, 12), (2.0, 25), (8.0, 60)])
def test_a_small_person_is_seen(sigma, levels):
    room, gate = a_room(), MotionGate(None)
    still_shares(gate, [noisy(room, n, sigma) for n in range(12)])

    sight = gate.see(walked_in(noisy(room, 99, sigma), 9, 22, levels), 12)

    assert not gate.is_still(sight, 12)


def test_whoever_moved_between_two_snippets_is_seen():
    room, gate = a_room(), MotionGate(None)
    still_shares(gate, [noisy(room, n, 2) for n in range(5)])
    room[60:80, 60:70] += 30  # a bag that was put down while nobody looked

    sight = gate.see(noisy(room, 99, 2), 5)

    assert not gate.is_still(sight, 5)


@pytest.mark.parametrize(("levels", "is_still"), [(6, True), (20, False)])
def test_slow_light_is_no_motion_and_a_lamp_is(levels, is_still):
    room, gate = a_room(), MotionGate(None)
    still_shares(gate, [noisy(room, n, 2) for n in range(5)])

    assert is_still is gate.is_still(gate.see(noisy(room + levels, 99, 2), 5), 5)


@settings(max_examples=20)
@given(st.floats(0.95, 1.05), st.integers(0, 2**32 - 1))
def test_slow_light_multiplies_and_is_no_motion_beside_white_and_black(gain, seed):
    """A white wall grows by more levels than the picture, a black one by fewer."""
    room, gate = a_room(seed), MotionGate(None)
    room[:40], room[-40:] = 235, 12
    still_shares(gate, [noisy(room, n, 2) for n in range(3)])

    assert gate.is_still(gate.see(noisy(room * gain, 99, 2), 3), 3)


@settings(max_examples=20)
@given(st.sampled_from([0.93, 0.97, 1.03, 1.07]), st.integers(0, SIDE - 30))
def test_a_bag_is_seen_in_another_light(gain, left):
    room, gate = a_room(), MotionGate(None)
    still_shares(gate, [noisy(room, n, 2) for n in range(3)])
    room[60:90, left : left + 30] -= 30

    assert not gate.is_still(gate.see(noisy(room * gain, 99, 2), 3), 3)


@settings(max_examples=20)
@given(st.floats(0, 30))
def test_the_dark_does_not_tell_how_bright_a_lamp_must_be(level):
    room, gate = np.full((SIDE, SIDE, 3), level), MotionGate(None)
    room[:20, :20] = 200
    still_shares(gate, [noisy(room, n, 1) for n in range(3)])

    assert gate.is_still(gate.see(noisy(room, 99, 1), 3), 3)


@pytest.mark.parametrize(("dimmed", "is_still"), [(0.97, True), (0.5, False)])
def test_a_lit_third_of_a_dark_place_may_not_dim_by_much(dimmed, is_still):
    """The dark, which has no levels to lose, does not tell."""
    room, gate = np.full((SIDE, SIDE, 3), 3.0), MotionGate(None)
    room[: SIDE // 3] = 200
    still_shares(gate, [noisy(room, n, 1) for n in range(3)])

    assert is_still is gate.is_still(gate.see(noisy(room * dimmed, 99, 1), 3), 3)


def test_after_so_many_snippets_one_is_looked_at_whatever_it_shows():
    spared = still_shares(MotionGate(4), [noisy(a_room(), n, 2) for n in range(9)])

    assert [False, True, True, True, False, True, True, True, False] == spared


def test_a_snippet_after_a_break_is_looked_at():
    gate = MotionGate(None)
    still_shares(gate, [noisy(a_room(), n, 2) for n in range(3)])
    gate.broke()

    assert not gate.is_still(gate.see(noisy(a_room(), 9, 2), 3), 3)


def test_what_moved_is_not_compared_with():
    gate, room = MotionGate(None), a_room()
    moving = walked_in(noisy(room, 0, 0), 20, 40, 60)

    assert [False, False, False] == still_shares(gate, [moving, moving, moving])


def leaves(picture: np.ndarray, seed: int) -> np.ndarray:
    """L frames in which a plant sways in a corner, by 40 levels."""
    rgb = noisy(picture, seed, 2).astype(np.int16)
    rgb[::2, 8:24, 8:24] += 40
    return np.clip(rgb, 0, 255).astype(np.uint8)


def taught(distance: float, n_looks: int = 3 * TURN) -> tuple[MotionGate, np.ndarray]:
    """A gate that has looked at leaves; each look gave a feature so far from the one before."""
    room, gate = a_room(), MotionGate(None)
    for index in range(n_looks):
        sight = gate.see(leaves(room, index), index)
        if not gate.is_still(sight, index):
            gate.looked(sight, index)
            gate.learn(sight, distance)
    return gate, room


def test_leaves_that_change_no_feature_are_spared_once_they_are_known():
    gate, room = taught(distance=0.1)

    spared = still_shares(gate, [leaves(room, n) for n in range(200, 220)])

    assert sum(spared) >= 19


def test_motion_that_changes_features_never_becomes_usual():
    gate, room = taught(distance=0.3)

    assert not any(still_shares(gate, [leaves(room, n) for n in range(200, 220)]))


def test_a_person_is_seen_beside_leaves_and_in_front_of_them():
    gate, room = taught(distance=0.1)
    beside = walked_in(leaves(room, 99), 9, 22, 25)
    before = leaves(room, 98)
    before[8:, 6:26, 6:26] = 230

    for rgb in (beside, before):
        assert not gate.is_still(gate.see(rgb, 500), 500)


def test_what_was_learned_counts_from_the_next_turn_on():
    """However many snippets are looked at in one call."""
    at_once, one_by_one = MotionGate(None), MotionGate(None)
    for n in range(TURN):
        one_by_one.learn(one_by_one.see(leaves(a_room(), n), n), 0.1)
    for sight in [at_once.see(leaves(a_room(), n), n) for n in range(TURN)]:
        at_once.learn(sight, 0.1)

    for gate in (at_once, one_by_one):
        assert not gate.state.planes[1].any()
        gate.see(leaves(a_room(), TURN), TURN)
    assert one_by_one.state.planes[1].any()
    assert np.array_equal(at_once.state.planes, one_by_one.state.planes)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_any_size_of_picture_is_taken(height, width, n_frames, seed):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (n_frames, height, width, 3), np.uint8)

    sight = sight_of(rgb)

    assert sight.mean.shape == sight.change.shape
    assert min(sight.mean.shape) >= 1
    assert 0 <= sight.mean.min() <= sight.mean.max() <= 255
    assert 0 <= sight.change.min() <= sight.change.max() <= 255


@pytest.mark.parametrize(("side_px", "block_px", "step"), [(160, 8, 2), (60, 3, 1), (700, 35, 1)])
def test_a_block_is_as_bright_as_the_mean_of_its_green_pixels(side_px, block_px, step):
    rgb = np.random.default_rng(1).integers(0, 256, (2, side_px, side_px + 7, 3), np.uint8)

    sight = sight_of(rgb)

    n_rows, n_columns = side_px // block_px, (side_px + 7) // block_px
    assert (n_rows, n_columns) == sight.mean.shape
    for row, column in ((0, 0), (n_rows - 1, n_columns - 1), (7, 3)):
        top, left = row * block_px, column * block_px
        block = rgb[:, top : top + block_px : step, left : left + block_px : step, 1]
        first, second = block.mean(axis=(1, 2))
        assert pytest.approx((first + second) / 2) == sight.mean[row, column]
        assert pytest.approx(abs(first - second), abs=1e-4) == sight.change[row, column]


def test_a_gate_that_goes_on_from_its_state_is_the_same():
    snippets = [noisy(a_room(n // 4), n, 3) for n in range(16)]
    whole = still_shares(MotionGate(6), snippets)
    gate, spared = MotionGate(6), []
    for index, rgb in enumerate(snippets):
        gate = MotionGate(6, gate.state)
        sight = gate.see(rgb, index)
        spared.append(gate.is_still(sight, index))
        if not spared[-1]:
            gate.looked(sight, index)

    assert whole == spared
