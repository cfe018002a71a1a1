import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.flow import FlowControl, FlowLimits


def test_a_partition_is_paused_once_and_resumed_once():
    flow = FlowControl(FlowLimits(full_chunks=3, resume_chunks=1))

    assert [False, False, True, False] == [flow.queued("p", "cam", n) for n in (1, 2, 3, 4)]
    assert flow.is_paused("p")
    assert [[], [], ["p"], []] == [flow.taken("p", "cam", n) for n in (3, 2, 1, 0)]
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


def test_all_queues_together_hold_so_many_bytes_and_everybody_goes_on():
    flow = FlowControl(FlowLimits(full_bytes=100))

    assert not flow.queued("p", "a", 1, 60)
    assert flow.queued("q", "b", 1, 60)
    assert flow.queued("p", "a", 2, 10)
    assert not flow.queued("q", "c", 1, 1)  # it is paused already
    assert [] == flow.taken("p", "a", 1, 60)
    assert sorted("pq") == sorted(flow.taken("q", "b", 0, 60))
    assert 11 == flow.n_bytes


def test_a_partition_that_is_given_up_makes_room_for_the_others():
    flow = FlowControl(FlowLimits(full_bytes=100))
    flow.queued("p", "a", 1, 90)
    flow.queued("q", "b", 1, 20)

    assert ["q"] == flow.forget("p")
    assert 20 == flow.n_bytes


chunks = st.tuples(st.sampled_from("pq"), st.sampled_from("ab"), st.integers(0, 300))


@given(st.lists(st.one_of(chunks, st.none(), st.sampled_from("pq")), max_size=100))
def test_the_paused_partitions_are_told_and_none_is_paused_for_ever(steps):  # noqa: C901
    flow, queues, paused = FlowControl(FlowLimits(full_bytes=500)), {}, set()

    def finish(key):
        n_bytes = queues[key].pop(0)
        paused.difference_update(flow.taken(*key, len(queues[key]), n_bytes))

    for step in steps:
        if step is None:
            for key in [key for key, queue in queues.items() if queue][:1]:
                finish(key)
        elif isinstance(step, str):
            for key in [key for key in queues if key[0] == step]:
                del queues[key]
            paused.difference_update({step}, flow.forget(step))
        elif step[0] not in paused:
            partition, camera, n_bytes = step
            queue = queues.setdefault((partition, camera), [])
            queue.append(n_bytes)
            if flow.queued(partition, camera, len(queue), n_bytes):
                paused.add(partition)
        assert sum(map(sum, queues.values())) == flow.n_bytes <= 500 + 2 * 300
        assert paused == {partition for partition in "pq" if flow.is_paused(partition)}
    for key, queue in queues.items():
        for _ in range(len(queue)):
            finish(key)
    assert set() == paused
