"""The harness waits for what is slow, and not for what is stuck."""

from itertools import count

from tests.faults.cluster import gets_there


async def test_what_gets_on_is_waited_for_however_long_it_takes():
    steps, far = count(), []

    def how_far() -> int:
        far.append(next(steps))
        return far[-1]

    # Twenty looks take far longer than the patience, which is for standing still.
    assert await gets_there(lambda: len(far) > 20, how_far, patience_s=0.01)


async def test_what_stands_still_is_given_up():
    assert not await gets_there(lambda: False, lambda: 7, patience_s=0.01)
    assert await gets_there(lambda: True, lambda: 7, patience_s=0.0)
