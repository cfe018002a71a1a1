"""Whose chunk is decoded next: cheap cameras never wait for long behind costly ones."""

import heapq
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.decoding.turns import COSTLY_S, Turns


def played(costs_s: Mapping[int, float], n_decoders: int, seconds: float) -> dict[int, int]:
    """How many chunks each camera has decoded, if each asks again at once."""
    turns, now_s = Turns(n_decoders), 0.0
    running: list[tuple[float, int]] = []
    done = dict.fromkeys(costs_s, 0)
    for camera in costs_s:
        turns.ask(camera)
    while now_s < seconds:
        while (camera := turns.next()) is not None:
            heapq.heappush(running, (now_s + costs_s[camera], camera))
        now_s, camera = heapq.heappop(running)
        turns.done(camera, costs_s[camera])
        done[camera] += 1
        turns.ask(camera)
    return done


@pytest.mark.parametrize("n_decoders", [1, 2, 4])
def test_all_cameras_get_the_same_time(n_decoders: int) -> None:
    costs_s = {1: 0.01, 2: 0.02, 3: 0.04, 4: 0.01, 5: 0.02}

    done = played(costs_s, n_decoders, 100)

    used_s = [done[camera] * cost_s for camera, cost_s in costs_s.items()]
    assert max(used_s) == pytest.approx(min(used_s), rel=0.02)


@pytest.mark.parametrize("n_costly", [1, 2, 5])
@pytest.mark.parametrize("n_decoders", [2, 3])
def test_costly_cameras_leave_a_decoder_to_the_cheap_ones(n_costly: int, n_decoders: int) -> None:
    cheap = dict.fromkeys(range(8), 0.01)
    costly = {100 + camera: 6.5 for camera in range(n_costly)}

    alone, beside = (played(costs_s, n_decoders, 130) for costs_s in (cheap, {**cheap, **costly}))

    share = 1 / n_decoders  # at least one decoder is theirs
    assert min(beside[camera] / alone[camera] for camera in cheap) > 0.9 * share
    assert all(beside[camera] for camera in costly)


def test_who_was_idle_has_saved_nothing_up() -> None:
    turns = Turns(1)
    for _ in range(100):
        turns.ask(1)
        assert 1 == turns.next()
        turns.done(1, 1.0)
    turns.ask(2)
    assert 2 == turns.next()
    turns.done(2, 0.5)
    turns.ask(1)
    turns.ask(2)
    order = []
    for _ in range(4):
        camera = turns.next()
        assert camera is not None
        order.append(camera)
        turns.done(camera, 0.5)
        turns.ask(camera)

    assert {1, 2} == set(order)


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "next", "done", "forget", "withdraw"]),
        st.integers(0, 4),
        st.floats(0, 3 * COSTLY_S),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 4))
def test_whoever_waits_gets_a_turn_and_nothing_is_remembered_of_who_is_gone(  # noqa: C901
    steps: list[tuple[str, int, float]], n_decoders: int
) -> None:
    turns, waiting, busy, gone = Turns(n_decoders), set(), set(), set()
    for what, camera, seconds in steps:
        if what == "ask" and camera not in waiting | busy | gone:
            turns.ask(camera)
            waiting.add(camera)
        elif what == "next" and (found := turns.next()) is not None:
            waiting.remove(found)
            busy.add(found)
            assert len(busy) <= n_decoders
        elif what == "done" and camera in busy:
            turns.done(camera, seconds)
            busy.remove(camera)
        elif what == "withdraw":
            turns.withdraw(camera)
            waiting.discard(camera)
        elif what == "forget":
            turns.forget(camera)
            waiting.discard(camera)
            gone.add(camera)
    while busy or waiting:
        if (found := turns.next()) is not None:
            waiting.remove(found)
            busy.add(found)
        else:
            assert busy, "nobody is served, and nobody is busy"
            turns.done(busy.pop(), 0)
    for camera in range(5):
        turns.forget(camera)
    assert Turns(n_decoders, _floor_s=turns._floor_s) == turns
