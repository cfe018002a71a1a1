import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.published.checkpoint import read_arrays
from tests.support.hostile_pickles import HOSTILE, Runs

TREE = {
    "params": {
        "layer": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
        "Branch_0/Conv": {"bias": np.array([1.5, -2], np.float32)},
    },
    "batch_stats": {"layer": {"mean": np.asfortranarray(np.eye(3, dtype=np.float32))}},
}


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_by_path_as_they_were_written(protocol: int) -> None:
    arrays = read_arrays(pickle.dumps(TREE, protocol))
    assert sorted(arrays) == [
        "batch_stats/layer/mean",
        "params/Branch_0/Conv/bias",
        "params/layer/kernel",
    ]
    np.testing.assert_array_equal(arrays["params/layer/kernel"], TREE["params"]["layer"]["kernel"])
    np.testing.assert_array_equal(arrays["batch_stats/layer/mean"], np.eye(3))


def test_a_pickle_that_runs_a_command_is_refused_before_it_runs(tmp_path: Path) -> None:
    import os  # noqa: PLC0415 - only what a hostile pickle would reach for

    proof = tmp_path / "ran"
    with pytest.raises(WeightsError, match=r"holds posix.system: it is not the published file"):
        read_arrays(pickle.dumps({"a": Runs(os.system, f"touch {proof}")}))
    assert not proof.exists()


@pytest.mark.parametrize(
    "hostile",
    [
        *({"a": entry} for entry in HOSTILE),
        {"a": np.array([1, 2], np.float64)},
        {"a": np.array([{}], object)},
        {"a": [np.zeros(2, np.float32)]},
        {"a": "text"},
        {"a": None},
        np.dtype("float32"),
        np.ndarray,
        3,
    ],
    ids=repr,
)
def test_anything_but_a_tree_of_float32_arrays_is_refused(hostile: object) -> None:
    with pytest.raises(WeightsError, match="the checkpoint"):
        read_arrays(pickle.dumps(hostile, 4))


def test_an_array_that_claims_more_than_it_holds_is_refused() -> None:
    blob = pickle.dumps({"a": np.zeros((3, 5), np.float32)}, 4)
    assert blob.count(b"K\x03K\x05") == 1
    with pytest.raises(WeightsError, match=r"shape \(3, 255\) in 60 bytes"):
        read_arrays(blob.replace(b"K\x03K\x05", b"K\x03K\xff"))


def test_a_dict_that_holds_itself_or_is_shared_ends() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop
    shared: dict[str, object] = {}
    for _ in range(60):  # would unfold into 2 ** 60 paths
        shared = {"l": shared, "r": shared}
    for tree in (loop, shared):
        with pytest.raises(WeightsError, match="wanted a dict of arrays"):
            read_arrays(pickle.dumps(tree, 4))


def test_a_persistent_reference_is_refused() -> None:
    with pytest.raises(WeightsError, match="reference to something outside it"):
        read_arrays(b"Psecret\n.")


@given(st.data())
def test_a_damaged_checkpoint_is_one_error_or_arrays_and_never_anything_else(
    data: st.DataObject,
) -> None:
    blob = bytearray(pickle.dumps(TREE, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(blob[: data.draw(st.integers(1, len(blob)))])
    try:
        arrays = read_arrays(damaged)
    except WeightsError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_the_test_trees_really_use_numpy_s_own_reduction() -> None:
    names = {
        arg for op, arg, _ in pickletools.genops(pickle.dumps(TREE, 3)) if op.name == "GLOBAL"
    }
    assert "numpy ndarray" in names
    assert "numpy dtype" in names
