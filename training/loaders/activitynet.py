"""ActivityNet 1.2 and 1.3: the official JSON, or a list of videos without subsets, and features.

Many of its videos are gone from the web, so nobody has features of all. The report says how many
of the listed videos have features, and a result can be compared only together with that number.
"""

import re
from dataclasses import replace
from pathlib import Path

from engine.errors import DataError
from training.loaders.annotations import (
    AnnotatedVideo,
    Annotations,
    OnNote,
    PastEnd,
    cut_to_length,
    no_note,
    parse_annotations,
)
from training.loaders.files import read_json, suggestion
from training.loaders.published import Modality, Rows, assemble, find_features
from training.records import FeatureSet

_SUBSETS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
    "": "",
}
_FOLDERS: dict[str, tuple[str, ...]] = {
    "training": ("train", "training"),
    "validation": ("val", "validation", "test"),
    "testing": ("testing", "test"),
    "": ("train", "training", "val", "validation", "test", "testing"),
}
_PREFIX = re.compile(r"^v_(?=.{11}$)")  # YouTube's names have eleven characters


def load_activitynet(
    annotations: Path,
    features: Path,
    subset: str | None,
    modality: Modality = "rgb",
    *,
    past_end: PastEnd = "clip",
    on_note: OnNote = no_note,
) -> FeatureSet:
    """Read the videos of one subset that have features.

    Args:
        annotations: ``activity_net.v1-3.json``, or any file of its form.
        features: Folder of per-video files, see `training.loaders.published`; names with and
            without ``v_`` are the same video.
        subset: training, validation or testing; None for every video listed.
        modality: rgb and flow are 1024 wide, joint is both side by side, RGB first.
        past_end: What to do with intervals that reach past their video; 172 of version 1.2 do.
        on_note: Gets one line on what was cut, and one on which videos have no features.

    Raises:
        DataError: A file cannot be used, or no listed video has features.
    """
    read = read_activitynet(annotations, on_note)
    videos = _of(read, annotations, subset)
    readers = _readers(features, videos, subset, modality)
    cut = cut_to_length(videos, past_end, annotations, on_note)
    return assemble(cut, readers, read.class_names, modality, features, on_note)


def read_activitynet(path: Path, on_note: OnNote = no_note) -> Annotations:
    """Read the annotations; testing videos, whose labels were never published, have no truth.

    Raises:
        DataError: The file cannot be used.
    """
    content = read_json(path)
    if "database" not in content:
        content = {"database": {name: _entry(entry) for name, entry in content.items()}}
    read = parse_annotations(content, path, empty_intervals="drop", on_note=on_note)
    return replace(read, videos=tuple(_official(path, video) for video in read.videos))


def _entry(entry: object) -> object:
    """Rename ``duration_second``, as lists without subsets of older feature packages have it."""
    if isinstance(entry, dict) and "duration_second" in entry:
        return {**entry, "duration": entry["duration_second"]}
    return entry


def _official(path: Path, video: AnnotatedVideo) -> AnnotatedVideo:
    if video.subset not in _SUBSETS:
        raise DataError(
            f"{path}, {video.name}: subset is {video.subset!r}: "
            f"{suggestion(video.subset, _SUBSETS)}"
        )
    subset, name = _SUBSETS[video.subset], _PREFIX.sub("", video.name)
    if video.tags:
        return replace(video, subset=subset, name=name)
    return replace(video, subset=subset, name=name, tags=None, truth=None)


def _of(read: Annotations, path: Path, subset: str | None) -> tuple[AnnotatedVideo, ...]:
    return read.of(None if subset is None else _SUBSETS.get(subset, subset), path)


def _readers(
    features: Path, videos: tuple[AnnotatedVideo, ...], subset: str | None, modality: Modality
) -> dict[str, Rows]:
    folders = _FOLDERS[_SUBSETS[subset or ""]]
    names = [video.name for video in videos]
    prefixed = find_features(features, [f"v_{name}" for name in names], folders, modality)
    return {
        **{name.removeprefix("v_"): rows for name, rows in prefixed.items()},
        **find_features(features, names, folders, modality),
    }
