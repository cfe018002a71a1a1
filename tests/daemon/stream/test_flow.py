import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.flow import FlowControl, FlowLimits


def test_a_partition_is_paused_once_and_resumed_once():
    flow = FlowControl(FlowLimits(full_chunks=3, resume_chunks=1))

    assert [False, False, True, False] == [flow.queued("p", "cam", n) for n in (1, 2, 3, 4)]
    assert flow.is_paused("p")
    assert [False, False, True, False] == [flow.taken("p", "cam", n) for n in (3, 2, 1, 0)]
    assert not flow.is_paused("p")


def test_a_partition_waits_for_its_slowest_camera():
    flow = FlowControl(FlowLimits(full_chunks=2, resume_chunks=0))
    flow.queued("p", "a", 2)

    assert not flow.queued("p", "b", 2)
    assert not flow.taken("p", "a", 0)
    assert flow.taken("p", "b", 0)


def test_partitions_do_not_hold_up_each_other():
    flow = FlowControl(FlowLimits(full_chunks=2, resume_chunks=0))
    flow.queued("p", "a", 2)

    assert not flow.is_paused("q")
    assert not flow.queued("q", "b", 1)


def test_a_camera_that_moved_is_full_in_each_partition_by_itself():
    flow = FlowControl(FlowLimits(full_chunks=2, resume_chunks=0))
    flow.queued("old", "cam", 2)
    flow.queued("new", "cam", 3)

    assert flow.taken("old", "cam", 0)
    assert (False, True) == (flow.is_paused("old"), flow.is_paused("new"))
    assert flow.taken("new", "cam", 0)


def test_a_partition_that_was_given_up_is_forgotten():
    flow = FlowControl(FlowLimits(full_chunks=2, resume_chunks=0))
    flow.queued("p", "cam", 2)
    flow.forget("p")

    assert not flow.is_paused("p")
    assert not flow.taken("p", "cam", 0)


@pytest.mark.parametrize("limits", [(2, 2), (2, 3), (0, -1)])
def test_limits_without_distance_are_refused(limits):
    with pytest.raises(ValueError, match="resume_chunks"):
        FlowLimits(*limits)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=200))
def test_pausing_and_resuming_alternate_and_follow_the_queues(steps):
    limits = FlowLimits(full_chunks=4, resume_chunks=1)
    flow, depth, paused = FlowControl(limits), {"a": 0, "b": 0}, False
    for camera, is_put in steps:
        depth[camera] = max(depth[camera] + (1 if is_put else -1), 0)
        if is_put and flow.queued("p", camera, depth[camera]):
            assert not paused
            paused = True
        if not is_put and flow.taken("p", camera, depth[camera]):
            assert paused
            paused = False

        assert paused == flow.is_paused("p")
        if max(depth.values()) >= limits.full_chunks:
            assert paused
        if max(depth.values()) <= limits.resume_chunks:
            assert not paused
