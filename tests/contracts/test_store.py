"""What every StateStore promises, held against each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.state.base import StateStore
from daemon.state.memory import MemoryStateStore
from daemon.state.sqlite import SqliteStateSettings, SqliteStateStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    store: StateStore = MemoryStateStore()
    if request.param == "sqlite":
        store = SqliteStateStore(SqliteStateSettings(tmp_path / "state" / "state.db"))
    yield store
    store.close()


def test_an_unknown_camera_has_no_state(store: StateStore) -> None:
    assert store.load("door") is None


@pytest.mark.parametrize("blob", [b"", b"\0\xff" * 1000, b"text", bytes(2**20)])
def test_a_blob_comes_back_byte_for_byte(store: StateStore, blob: bytes) -> None:
    store.save("door", "chunks/0", 7, blob)

    assert blob == store.load("door")


def test_the_newest_state_replaces_the_one_before(store: StateStore) -> None:
    store.save("door", "chunks/0", 7, b"old")
    store.save("door", "chunks/1", 3, b"new")

    assert b"new" == store.load("door")
    assert (None, 3) == (store.low_offset("chunks/0"), store.low_offset("chunks/1"))


def test_cameras_do_not_touch_each_other(store: StateStore) -> None:
    store.save("door", "chunks/0", 7, b"door")
    store.save("yard", "chunks/0", 9, b"yard")

    assert (b"door", b"yard") == (store.load("door"), store.load("yard"))


def test_a_partition_starts_at_the_lowest_need_of_its_cameras(store: StateStore) -> None:
    store.save("door", "chunks/0", 70, b"")
    store.save("yard", "chunks/0", 40, b"")
    store.save("gate", "chunks/1", 5, b"")

    assert (40, 5) == (store.low_offset("chunks/0"), store.low_offset("chunks/1"))
    assert store.low_offset("chunks/2") is None


def test_a_camera_that_needs_nothing_holds_no_partition_back(store: StateStore) -> None:
    store.save("door", "chunks/0", 4, b"")
    store.save("yard", "chunks/0", 70, b"")
    store.save("gate", "chunks/1", 5, b"")

    store.save("door", "chunks/0", None, b"ended")
    store.save("gate", "chunks/1", None, b"ended")

    assert (70, None) == (store.low_offset("chunks/0"), store.low_offset("chunks/1"))
    assert b"ended" == store.load("door")


def test_a_partition_s_start_moves_with_every_save(store: StateStore) -> None:
    answers = [store.low_offset("chunks/0")]
    for low in (3, 40, None):
        store.save("door", "chunks/0", low, b"")
        answers.append(store.low_offset("chunks/0"))

    assert [None, 3, 40, None] == answers


def test_close_may_be_repeated(store: StateStore) -> None:
    store.close()
    store.close()
