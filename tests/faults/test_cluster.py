"""The harness waits for what is slow, and not for what is stuck."""

from tests.faults.cluster import gets_there


async def test_what_gets_on_is_waited_for_however_long_it_takes():
    looks = 0

    async def look() -> tuple[bool, int]:
        nonlocal looks
        looks += 1
        return looks > 20, looks

    # Twenty looks take far longer than the patience, which is for standing still.
    assert await gets_there(look, patience_s=0.01)
    assert 21 == looks


async def test_what_stands_still_is_given_up():
    async def look() -> tuple[bool, int]:
        return False, 7

    async def there() -> tuple[bool, int]:
        return True, 7

    assert not await gets_there(look, patience_s=0.01)
    assert await gets_there(there, patience_s=0.0)
