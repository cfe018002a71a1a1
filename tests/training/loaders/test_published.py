"""THUMOS14 and ActivityNet in the forms they are published in, with their defects."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DataError
from engine.types import FloatArray, Span
from tests.support.checkout import CHECKOUT
from tests.support.hostile_pickles import HOSTILE, Runs
from training.loaders.activitynet import load_activitynet, read_activitynet
from training.loaders.annotations import cut_to_length
from training.loaders.objects import read_objects
from training.loaders.thumos import (
    ThumosOptions,
    load_thumos,
    read_ambiguous,
    read_thumos,
    without_cliff_diving_as_diving,
)

HOP_S = 0.64
CLASSES = ("Billiards", "CliffDiving", "Diving")


def objects(entries: list[object]) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    array = np.empty(len(entries), object)
    array[:] = entries
    return array


def write_arrays(folder: Path) -> Path:
    """Two videos of 20 snippets: one trained on, one tested on, which dives from a cliff."""
    folder.mkdir(exist_ok=True)
    arrays = {
        "videoname": np.array([b"train_1", b"test_1"]),
        "subset": np.array([b"validation", b"test"]),
        "classlist": np.array([name.encode() for name in CLASSES]),
        "duration": np.array([[20 * HOP_S], [20 * HOP_S]]),
        "segments": objects([[[1.0, 2.0]], [[3.0, 4.0], [3.0, 4.0], [5.0, 99.0]]]),
        "labels": objects([[b"Billiards"], [b"CliffDiving", b"Diving", b"CliffDiving"]]),
        "labels_all": objects([[b"Billiards"], [b"CliffDiving", b"Diving"]]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def rows_of(first: float, n_rows: int = 20, width: int = 1024) -> FloatArray:
    return np.full((n_rows, width), first, np.float32)


def write_streams(root: Path, name: str, subset: str, rgb: FloatArray, flow: FloatArray) -> None:
    for stream, rows in (("rgb", rgb), ("flow", flow)):
        folder = root / "features" / subset / stream
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", rows)


def the_line(act: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_streams_in_folders(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    write_streams(tmp_path, "test_1", "test", rows_of(1), rows_of(2, n_rows=19))
    notes: list[str] = []

    rgb = load_thumos(arrays, tmp_path, "test", on_note=notes.append)
    joint = load_thumos(arrays, tmp_path, "test", "joint")

    assert (1024, (20, 1024)) == (rgb.feature_dim, rgb.records[0].features.shape)
    assert (2048, (19, 2048)) == (joint.feature_dim, joint.records[0].features.shape)
    assert [1, 2] == [joint.records[0].features[0, column] for column in (1023, 1024)]
    assert 640_000 == rgb.grid.stride_us
    assert (CLASSES, (1, 2)) == (rgb.class_names, rgb.records[0].tags)
    assert "1 of 1 listed videos have features" in notes[-1]


def test_streams_side_by_side_in_one_file(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    (tmp_path / "train").mkdir()
    both = np.concatenate([rows_of(1), rows_of(2)], axis=1).astype(np.float64)
    np.save(tmp_path / "train" / "train_1.npy", both)

    for modality, values in (("rgb", {1.0}), ("flow", {2.0}), ("joint", {1.0, 2.0})):
        (record,) = load_thumos(arrays, tmp_path, "train", modality).records  # type: ignore[arg-type]
        assert values == set(record.features.ravel().tolist())
        assert np.float32 == record.features.dtype


@pytest.mark.parametrize("protocol", [2, 4])
def test_one_package_of_all_features(tmp_path: Path, protocol: int) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    package = tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy"
    entries = [np.concatenate([rows_of(n), rows_of(n + 1)], axis=1) for n in (1, 3)]
    write_object_array(package, entries, protocol)

    (record,) = load_thumos(arrays, package, "test", "flow").records

    assert {4.0} == set(record.features.ravel().tolist())
    assert record.features.flags.writeable
    line = the_line(lambda: load_thumos(tmp_path / "gt.json", package, "test"))
    assert "gt.json" in line


def write_object_array(path: Path, entries: list[object], protocol: int) -> None:
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": (len(entries),)}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(objects(entries), file, protocol=protocol)


def test_a_package_of_another_version(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    package = tmp_path / "package.npy"
    write_object_array(package, [rows_of(1)], 4)

    line = the_line(lambda: load_thumos(arrays, package, "test"))

    assert "holds 1 videos" in line


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    write_object_array(path, [Runs(os.mkdir, str(tmp_path / "boom"))], 4)

    line = the_line(lambda: read_objects(path))

    assert "posix.mkdir" in line
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_an_entry_that_no_published_file_has_is_refused(tmp_path: Path, hostile: object) -> None:
    path = tmp_path / "labels.npy"
    write_object_array(path, [hostile], 4)

    assert "which no published file does: refused" in the_line(lambda: read_objects(path))


def test_damaged_object_arrays(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    write_object_array(path, [["a", 1.5], [b"b"]], 4)
    blob = path.read_bytes()

    assert [["a", 1.5], ["b"]] == read_objects(path)
    for cut in range(0, len(blob), 7):
        path.write_bytes(blob[:cut])
        the_line(lambda: read_objects(path))
    shared = ["x"] * 10_000  # unfolded, this would be 10 GB
    write_object_array(path, [[shared] * 10_000] * 100, 4)
    assert 100 == len(read_objects(path))
    endless: list[object] = []
    endless.append(endless)
    for deep in ([endless], [[[["x"]]]]):
        write_object_array(path, deep, 4)
        assert "where text or a number should be" in the_line(lambda: read_objects(path))
    write_object_array(path, [{"a": 1}], 4)
    assert "holds a dict" in the_line(lambda: read_objects(path))
    np.save(path, np.zeros(3))
    assert "wanted objects" in the_line(lambda: read_objects(path))


def test_the_defects_are_switches(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    write_streams(tmp_path, "test_1", "test", rows_of(1), rows_of(2))

    def truth(options: ThumosOptions) -> list[tuple[str, float]]:
        (record,) = load_thumos(arrays, tmp_path, "test", options=options).records
        spans = record.truth or ()
        return [(CLASSES[found.class_id], found.span.end_us / 1e6) for found in spans]

    both = [("CliffDiving", 4.0), ("Diving", 4.0)]
    assert [*both, ("CliffDiving", 12.8)] == truth(ThumosOptions())
    assert both == truth(ThumosOptions(past_end="drop"))
    assert [*both, ("CliffDiving", 99.0)] == truth(ThumosOptions(past_end="keep"))
    alone = ThumosOptions(cliff_diving_is_diving=False)
    assert [("CliffDiving", 4.0), ("CliffDiving", 12.8)] == truth(alone)
    (record,) = load_thumos(arrays, tmp_path, "test", options=alone).records
    assert (1,) == record.tags


def test_rows_of_ambiguous_intervals(tmp_path: Path) -> None:
    path = tmp_path / "Ambiguous_test.txt"
    path.write_text("a  1.0 2.5\n\na  0.5 0.6\nb\t3 4\n")

    expected = (
        ("a", Span(1_000_000, 2_500_000)),
        ("a", Span(500_000, 600_000)),
        ("b", Span(3_000_000, 4_000_000)),
    )
    assert expected == read_ambiguous(path)
    for row in ("a 1", "a 2 1", "a x y", "a 1 2 3", "a 0 nan"):
        path.write_text(row)
        assert "line 1" in the_line(lambda: read_ambiguous(path))


def test_features_of_another_stride_are_noticed(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    write_streams(tmp_path, "test_1", "test", rows_of(1, 80), rows_of(2, 80))

    line = the_line(lambda: load_thumos(arrays, tmp_path, "test"))

    assert "4.00 times the rows that a hop of 0.64 s gives" in line


def test_no_features_at_all(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")

    line = the_line(lambda: load_thumos(arrays, tmp_path, "train"))

    assert "0 of 1 listed videos have features; missing: train_1" in line


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (rows_of(1, width=512), "shape (20, 512), wanted (T, 1024)"),
        (rows_of(float("nan")), "NaN"),
        (rows_of(1, n_rows=0), "has no snippets"),
        (rows_of(1).astype(np.int32), "holds int32"),
        (objects([1, 2]), "could run code: refused"),
    ],
)
def test_published_features_that_cannot_be_used(
    tmp_path: Path, rows: FloatArray, said: str
) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    write_streams(tmp_path, "test_1", "test", rows, rows)

    line = the_line(lambda: load_thumos(arrays, tmp_path, "test"))

    assert said in line
    assert "test_1.npy" in line


def test_streams_that_do_not_belong_together(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    write_streams(tmp_path, "test_1", "test", rows_of(1), rows_of(2, n_rows=10))
    path = tmp_path / "features" / "test" / "rgb" / "test_1.npy"

    line = the_line(lambda: load_thumos(arrays, tmp_path, "test", "joint"))
    assert "different videos" in line
    path.write_bytes(path.read_bytes()[:500])
    assert "is damaged" in the_line(lambda: load_thumos(arrays, tmp_path, "test"))


def test_arrays_that_do_not_belong_together(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")

    np.save(arrays / "duration.npy", np.array([1.0]))
    assert "different versions" in the_line(lambda: read_thumos(arrays))
    write_arrays(arrays)
    np.save(arrays / "labels.npy", objects([[b"Bilards"], []]))
    assert "entry of train_1" in the_line(lambda: read_thumos(arrays))
    (arrays / "subset.npy").unlink()
    assert "cannot be read" in the_line(lambda: read_thumos(arrays))


def test_gt_json_gives_the_same_truth_but_no_length(tmp_path: Path) -> None:
    entry = {"subset": "test", "annotations": [{"segment": ["3.0", "4.0"], "label": "Diving"}]}
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"database": {"test_1": entry}}))
    write_streams(tmp_path, "test_1", "test", rows_of(1), rows_of(2))

    (record,) = load_thumos(path, tmp_path, "test").records

    assert [Span(3_000_000, 4_000_000)] == [truth.span for truth in record.truth or ()]
    assert 21 * 640_000 == record.duration_us  # a part of a snippet may follow the last row
    path.write_text(json.dumps({"database": {"test_1": {**entry, "subset": "tset"}}}))
    assert "did you mean 'test'?" in the_line(lambda: read_thumos(path))


def write_activitynet(path: Path) -> Path:
    dive = {"label": "Dive", "segment": [1, 2]}
    empty = {"label": "Dive", "segment": [0, 0]}
    database = {
        "abcdefghijk": {"subset": "training", "duration": 12.8, "annotations": [dive, empty]},
        "v_456789012": {"subset": "training", "duration": 12.8, "annotations": [dive]},
        "lmnopqrstuv": {"subset": "validation", "duration": 12.8, "annotations": [dive]},
        "testing_123": {"subset": "testing", "duration": 12.8, "annotations": []},
    }
    content = {"version": "VERSION 1.3", "taxonomy": [], "database": database}
    path.write_text(json.dumps(content))
    return path


def test_activitynet_reports_what_is_missing(tmp_path: Path) -> None:
    path = write_activitynet(tmp_path / "activity_net.json")
    np.save(tmp_path / "v_abcdefghijk.npy", rows_of(1, width=2048))
    notes: list[str] = []

    found = load_activitynet(path, tmp_path, "train", "joint", on_note=notes.append)

    assert ["abcdefghijk"] == [record.name for record in found.records]
    assert 1 == len(found.records[0].truth or ())
    assert "left out 1 intervals of no length" in notes[0]
    assert "1 of 2 listed videos have features; missing: v_456789012" in notes[1]
    load_activitynet(path, tmp_path, None, on_note=notes.append)
    assert "1 of 4 listed videos have features" in notes[-1]
    assert "0 of 1" in the_line(lambda: load_activitynet(path, tmp_path, "validation"))
    assert "did you mean" in the_line(lambda: load_activitynet(path, tmp_path, "trainig"))


def test_labels_of_testing_videos_are_unknown_not_absent(tmp_path: Path) -> None:
    path = write_activitynet(tmp_path / "activity_net.json")

    video = {video.name: video for video in read_activitynet(path).videos}["testing_123"]

    assert (None, None) == (video.tags, video.truth)


def test_a_list_without_subsets(tmp_path: Path) -> None:
    entry = {"duration_second": 12.8, "annotations": [{"segment": [1, 2], "label": "Dive"}]}
    path = tmp_path / "anet_anno_action.json"
    path.write_text(json.dumps({"v_abcdefghijk": entry}))
    np.save(tmp_path / "abcdefghijk.npy", rows_of(1))

    (record,) = load_activitynet(path, tmp_path, None).records

    assert ("abcdefghijk", 12_800_000, (0,)) == (record.name, record.duration_us, record.tags)


@pytest.fixture(scope="module")
def shared() -> Path:
    data = Path(os.environ.get("S2NETD_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not (data / "thumos14").is_dir():
        pytest.skip("no real annotations: set S2NETD_TEST_DATA to a folder that holds thumos14/")
    return data


@pytest.mark.shared_data
def test_the_real_thumos_annotation(shared: Path) -> None:
    arrays = shared / "thumos14" / "reduced"
    read = read_thumos(arrays)
    notes: list[str] = []

    cut_to_length(read.videos, "clip", arrays, notes.append)

    counts = {
        subset: (len(videos), sum(len(video.truth or ()) for video in videos))
        for subset in ("train", "test")
        if (videos := read.of(subset, arrays))
    }
    assert {"train": (200, 3007), "test": (212, 3358)} == counts
    assert "30 intervals of 5 videos reach past" in notes[0]
    assert 99 == len(read_ambiguous(arrays / "Ambiguous_test.txt"))
    alone = without_cliff_diving_as_diving(read)
    n_left = sum(len(video.truth or ()) for video in alone.videos)
    assert 143 + 217 == 3007 + 3358 - n_left


@pytest.mark.shared_data
def test_the_real_gt_json_agrees_with_the_arrays(shared: Path) -> None:
    arrays = {video.name: video for video in read_thumos(shared / "thumos14/reduced").videos}
    read = read_thumos(shared / "thumos14" / "gt.json")

    assert 410 == len(read.videos)
    for video in read.videos:
        assert arrays[video.name].truth == video.truth


@pytest.mark.shared_data
def test_the_real_activitynet_annotations(shared: Path) -> None:
    folder = shared / "activitynet"

    official = read_activitynet(folder / "activity_net.v1-2.min-missing-removed.json")
    unsplit = read_activitynet(folder / "anet_anno_action.json")

    assert (100, 8907) == (len(official.class_names), len(official.videos))
    assert (200, 19228) == (len(unsplit.class_names), len(unsplit.videos))
    assert 2268 == sum(video.tags is None for video in official.videos)


def test_reading_from_bytes_needs_an_array(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "arrays")
    blob = io.BytesIO()
    np.savez(blob, rows_of(1))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_1.npy").write_bytes(blob.getvalue())

    assert "holds an archive" in the_line(lambda: load_thumos(arrays, tmp_path, "test"))
